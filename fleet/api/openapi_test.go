package api_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"

	"example.com/iad/fleet"
	"example.com/iad/fleet/api"
	"example.com/iad/fleet/operations"
)

// stranger is a client that knows nothing but the OpenAPI document.
type stranger struct {
	*bench
	doc    *openapi3.T
	router routers.Router
	token  string
}

func newStranger(t *testing.T) *stranger {
	b := newBench(t)
	var text string
	b.want(200, "", "GET", "/openapi.json", nil, &text)
	doc, err := openapi3.NewLoader().LoadFromData([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if err := doc.Validate(t.Context()); err != nil {
		t.Fatalf("the document is not valid: %v", err)
	}
	doc.Servers = openapi3.Servers{{URL: b.server.URL}}
	router, err := gorillamux.NewRouter(doc)
	if err != nil {
		t.Fatal(err)
	}
	return &stranger{bench: b, doc: doc, router: router}
}

// call makes the request of the operation with this ID. The document describes the request
// and the answer, or the test fails.
func (s *stranger) do(id string, parameters map[string]string, body, out any) int {
	s.t.Helper()
	for path, item := range s.doc.Paths.Map() {
		for method, op := range item.Operations() {
			if op.OperationID != id {
				continue
			}
			query := url.Values{}
			for _, p := range op.Parameters {
				value, ok := parameters[p.Value.Name]
				switch {
				case ok && p.Value.In == openapi3.ParameterInPath:
					path = strings.ReplaceAll(path, "{"+p.Value.Name+"}", url.PathEscape(value))
				case ok:
					query.Set(p.Value.Name, value)
				}
			}
			return s.exchange(id, method, s.server.URL+path+"?"+query.Encode(), op, body, out)
		}
	}
	s.t.Fatalf("the document has no operation %s", id)
	return 0
}

func (s *stranger) exchange(id, method, address string, op *openapi3.Operation, body, out any) int {
	s.t.Helper()
	var content []byte
	kind := "application/json"
	if op.RequestBody != nil {
		if op.RequestBody.Value.Content.Get(kind) == nil {
			kind = "application/octet-stream"
			content = body.([]byte)
		} else if content, _ = json.Marshal(body); content == nil {
			s.t.Fatal("a body that is not JSON")
		}
	}
	request := func() *http.Request {
		r, err := http.NewRequestWithContext(s.t.Context(), method, address, bytes.NewReader(content))
		if err != nil {
			s.t.Fatal(err)
		}
		if op.RequestBody != nil {
			r.Header.Set("Content-Type", kind)
		}
		if op.Security == nil || len(*op.Security) > 0 {
			r.Header.Set("Authorization", "Bearer "+s.token)
		}
		return r
	}
	checked := request()
	route, path, err := s.router.FindRoute(checked)
	if err != nil {
		s.t.Fatalf("%s: %v", id, err)
	}
	input := &openapi3filter.RequestValidationInput{
		Request: checked, PathParams: path, Route: route,
		Options: &openapi3filter.Options{AuthenticationFunc: openapi3filter.NoopAuthenticationFunc, IncludeResponseStatus: true},
	}
	if err := openapi3filter.ValidateRequest(s.t.Context(), input); err != nil {
		s.t.Fatalf("%s: the document does not permit the request: %v", id, err)
	}
	response, err := http.DefaultClient.Do(request())
	if err != nil {
		s.t.Fatal(err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	if err := openapi3filter.ValidateResponse(s.t.Context(), &openapi3filter.ResponseValidationInput{
		RequestValidationInput: input, Status: response.StatusCode, Header: response.Header, Body: io.NopCloser(bytes.NewReader(answer)), Options: input.Options,
	}); err != nil {
		s.t.Fatalf("%s: the answer is not what the document describes: %v\n%s", id, err, answer)
	}
	if out != nil && response.StatusCode < 300 {
		if err := json.Unmarshal(answer, out); err != nil {
			s.t.Fatalf("%s: %v", id, err)
		}
	}
	return response.StatusCode
}

// TestStrangerRunsCampaign: the OpenAPI document is valid, and enough to run a campaign.
func TestStrangerRunsCampaign(t *testing.T) {
	openapi3filter.RegisterBodyDecoder("application/octet-stream", openapi3filter.FileBodyDecoder)
	s := newStranger(t)
	s.addDevices("d1", "d2")
	var login struct{ Text string }
	s.do("login", nil, map[string]any{"user": "admin-user", "password": password, "name": "stranger", "life": "1h"}, &login)
	s.token = login.Text
	var me struct{ Role string }
	if status := s.do("get-me", nil, nil, &me); status != 200 || me.Role != "admin" {
		t.Fatalf("status %d, %+v", status, me)
	}
	var image struct{ Digest string }
	s.do("add-image", map[string]string{"name": "fw.iad"}, []byte("image 2.0.0"), &image)
	var match struct{ Count int }
	s.do("match-devices", map[string]string{"filter": `site == "berlin"`}, nil, &match)
	if match.Count != 2 {
		t.Errorf("%d devices match", match.Count)
	}
	var c struct{ ID, State string }
	s.do("create-campaign", nil, map[string]any{"id": "spring", "spec": map[string]any{
		"title": "Spring", "operation": "upgrade", "image": image.Digest, "filter": `site == "berlin"`,
		"waves": []any{map[string]any{"count": 1, "soak": "10m"}, map[string]any{}},
	}}, &c)
	s.do("submit-campaign", map[string]string{"id": c.ID}, nil, &c)
	if c.State != "scheduled" {
		t.Fatalf("state %s", c.State)
	}
	s.service.Start(c.ID)
	s.service.Ask(c.ID, "d1", "selfTestFailed", "the self-test failed", fleet.ChoiceRetry, fleet.ChoiceGiveUp)
	var groups []struct {
		Group     string
		Questions []struct{ ID, Device string }
	}
	s.do("list-questions", nil, nil, &groups)
	q := groups[0].Questions[0]
	if status := s.do("answer-question", map[string]string{"campaign": c.ID, "device": q.Device}, map[string]any{"question": q.ID, "choice": "retry"}, nil); status != 204 {
		t.Errorf("answer: status %d", status)
	}
	s.service.SetRun(c.ID, "d1", func(r *fleet.Run) {
		r.State, r.Started, r.Failure = fleet.RunFailed, time.Now(), &fleet.RunFailure{Cause: "selfTestFailed", Text: "the self-test failed", Time: time.Now()}
	})
	var detail struct {
		Total    fleet.Counts
		Failures []operations.Count
	}
	s.do("get-campaign", map[string]string{"id": c.ID}, nil, &detail)
	if detail.Total.Failed != 1 || detail.Total.Pending != 1 || detail.Failures[0].Value != "selfTestFailed" {
		t.Errorf("campaign: %+v", detail)
	}
	var runs operations.RunPage
	s.do("list-runs", map[string]string{"id": c.ID, "state": "failed"}, nil, &runs)
	if runs.Total != 1 {
		t.Errorf("runs: %+v", runs)
	}
	if status := s.do("stop-campaign", map[string]string{"id": c.ID}, nil, &c); status != 200 || c.State != "stopped" {
		t.Errorf("stopped: status %d, %+v", status, c)
	}
	// Everything that can be listed is as the document says, also when it is empty.
	for _, id := range []string{
		"get-overview", "list-devices", "list-sites", "list-groups", "list-secrets", "list-schedules", "list-campaigns", "list-questions",
		"list-images", "list-workers", "list-audit", "list-users", "list-tokens",
	} {
		if status := s.do(id, nil, nil, nil); status != 200 {
			t.Errorf("%s: status %d", id, status)
		}
	}
	if status := s.do("get-device", map[string]string{"name": "d1"}, nil, nil); status != 200 {
		t.Errorf("get-device: status %d", status)
	}
	if status := s.do("get-device", map[string]string{"name": "unknown"}, nil, nil); status != 404 {
		t.Errorf("get-device: status %d", status)
	}
}

// TestReferenceNeedsNothing: the page for people shows every operation and loads nothing
// from elsewhere.
func TestReferenceNeedsNothing(t *testing.T) {
	s := newStranger(t)
	response, err := http.Get(s.server.URL + api.Prefix + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	page := string(text)
	for _, item := range s.doc.Paths.Map() {
		for _, op := range item.Operations() {
			if !strings.Contains(page, `id="`+op.OperationID+`"`) {
				t.Errorf("the page does not have %s", op.OperationID)
			}
		}
	}
	if strings.Contains(page, "<script") || strings.Contains(page, "://") {
		t.Error("the page has a script or refers to another server")
	}
	if policy := response.Header.Get("Content-Security-Policy"); !strings.Contains(policy, "default-src 'none'") {
		t.Errorf("policy %q", policy)
	}
}
