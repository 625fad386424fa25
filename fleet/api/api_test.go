package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/iad/fleet"
	"example.com/iad/fleet/api"
	"example.com/iad/fleet/auth"
	"example.com/iad/fleet/engine"
	"example.com/iad/fleet/operations"
	"example.com/iad/internal/fleettest"
)

const password = "correct horse battery"

// bench is an API with a played service, and users of each role.
type bench struct {
	t       *testing.T
	service *fleettest.Service
	access  *auth.Access
	server  *httptest.Server
	tokens  map[operations.Role]string
	log     *lines
	now     time.Time
}

// lines collects a log.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

var store *engine.Engine

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "api")
	if err != nil {
		panic(err)
	}
	store, err = engine.Start(context.Background(), engine.Config{Data: dir})
	if err != nil {
		panic(err)
	}
	code := m.Run()
	store.Close()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

var admin = operations.Caller{Name: "boss", Role: operations.Admin}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{t: t, service: fleettest.New(), tokens: make(map[operations.Role]string), log: new(lines), now: time.Now()}
	bucket, err := store.Bucket(t.Context(), engine.Access)
	if err != nil {
		t.Fatal(err)
	}
	b.access = auth.New(bucket, b.service.Record, func() time.Time { return b.now })
	for _, role := range operations.Roles() {
		name := string(role) + "-user"
		if err := b.access.PutUser(t.Context(), admin, name, role, password); err != nil {
			t.Fatal(err)
		}
		text, _, err := b.access.CreateToken(t.Context(), operations.Caller{Name: name, Role: role}, "test", role, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		b.tokens[role] = text
	}
	b.serve(0)
	return b
}

func (b *bench) serve(perSecond float64) {
	b.server = httptest.NewServer(api.New(api.Config{
		Service: b.service, Access: b.access, Version: "test", PerSecond: perSecond, PingPause: 50 * time.Millisecond,
		Log: slog.New(slog.NewTextHandler(b.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}))
	b.t.Cleanup(b.server.Close)
}

type problem struct {
	Status int
	Detail string
	Errors []struct{ Location, Message string }
}

// call makes a request and decodes the answer into out, if it is not nil.
func (b *bench) call(role operations.Role, method, path string, in, out any) (int, problem) {
	b.t.Helper()
	var body io.Reader
	switch v := in.(type) {
	case nil:
	case string:
		body = strings.NewReader(v)
	default:
		text, err := json.Marshal(v)
		if err != nil {
			b.t.Fatal(err)
		}
		body = bytes.NewReader(text)
	}
	r, err := http.NewRequestWithContext(b.t.Context(), method, b.server.URL+api.Prefix+path, body)
	if err != nil {
		b.t.Fatal(err)
	}
	if token := b.tokens[role]; token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		b.t.Fatal(err)
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	var p problem
	if response.StatusCode >= 400 {
		if kind := response.Header.Get("Content-Type"); kind != "application/problem+json" {
			b.t.Errorf("%s %s: an error of type %s: %s", method, path, kind, content)
		}
		if err := json.Unmarshal(content, &p); err != nil {
			b.t.Fatalf("%s %s: %v: %s", method, path, err, content)
		}
	} else if out != nil {
		if text, ok := out.(*string); ok {
			*text = string(content)
		} else if err := json.Unmarshal(content, out); err != nil {
			b.t.Fatalf("%s %s: %v: %s", method, path, err, content)
		}
	}
	return response.StatusCode, p
}

// want makes a request that must have this status.
func (b *bench) want(status int, role operations.Role, method, path string, in, out any) problem {
	b.t.Helper()
	got, p := b.call(role, method, path, in, out)
	if got != status {
		b.t.Fatalf("%s %s: status %d, want %d: %+v", method, path, got, status, p)
	}
	return p
}

func (b *bench) addDevices(names ...string) {
	for _, name := range names {
		b.service.Add(fleet.Device{Name: name, Address: "127.0.0.1", Site: "berlin", Facts: &fleet.Facts{Version: "1.0.0", Model: "IAD-4FXS"}})
	}
}

func TestInventory(t *testing.T) {
	b := newBench(t)
	var d fleet.Device
	b.want(200, operations.Operator, "PUT", "/devices/attic", map[string]any{"address": "192.0.2.1:1161", "tags": []string{"b", "a"}}, &d)
	if d.Name != "attic" || d.Address != "192.0.2.1:1161" || len(d.Tags) != 2 || d.Tags[0] != "a" {
		t.Errorf("put: %+v", d)
	}
	var p operations.DevicePage
	b.want(200, operations.Viewer, "GET", "/devices?text=att", nil, &p)
	if p.Total != 1 || p.Devices[0].Name != "attic" {
		t.Errorf("list: %+v", p)
	}
	var result operations.ImportResult
	b.want(200, operations.Operator, "POST", "/inventory?format=csv&dry_run=true", "name,address\ncellar,192.0.2.2\n", &result)
	if result.Added != 1 {
		t.Errorf("dry run: %+v", result)
	}
	b.want(404, operations.Viewer, "GET", "/devices/cellar", nil, nil)
	b.want(200, operations.Operator, "POST", "/inventory?format=csv", "name,address\ncellar,192.0.2.2\n", &result)
	var detail operations.DeviceDetail
	b.want(200, operations.Viewer, "GET", "/devices/cellar", nil, &detail)
	if detail.Device.Address != "192.0.2.2" || detail.Runs == nil {
		t.Errorf("device: %+v", detail)
	}
	var text string
	b.want(200, operations.Viewer, "GET", "/inventory?format=csv", nil, &text)
	if text != "name,address\nattic,192.0.2.1:1161\ncellar,192.0.2.2\n" {
		t.Errorf("export: %q", text)
	}
	b.want(204, operations.Operator, "DELETE", "/devices/cellar", nil, nil)
	b.want(404, operations.Operator, "DELETE", "/devices/cellar", nil, nil)

	b.want(204, operations.Admin, "PUT", "/secrets/default", map[string]any{"read_community": "rosebud", "write_community": "sled"}, nil)
	b.want(200, operations.Admin, "GET", "/secrets", nil, &text)
	if strings.TrimSpace(text) != `["default"]` {
		t.Errorf("secrets: %s", text)
	}
}

// TestErrorsNameFields: whoever reads the answer learns which field is wrong and what is right.
func TestErrorsNameFields(t *testing.T) {
	b := newBench(t)
	p := b.want(422, operations.Operator, "PUT", "/devices/attic", map[string]any{"address": "not a host!"}, nil)
	if len(p.Errors) != 1 || p.Errors[0].Location != "address" || !strings.Contains(p.Errors[0].Message, "HOST or HOST:PORT") {
		t.Errorf("address: %+v", p)
	}
	p = b.want(422, operations.Operator, "POST", "/campaigns", map[string]any{"spec": map[string]any{
		"title": "x", "operation": "backup", "filter": "true", "waves": []any{map[string]any{}, map[string]any{}},
	}}, nil)
	if len(p.Errors) != 1 || p.Errors[0].Location != "waves[0].count" {
		t.Errorf("waves: %+v", p)
	}
	p = b.want(422, operations.Operator, "POST", "/campaigns", map[string]any{"spec": map[string]any{"title": "x", "operation": "backup", "filter": "true", "soak": "1h"}}, nil)
	if len(p.Errors) == 0 || !strings.Contains(p.Errors[0].Location, "soak") {
		t.Errorf("an unknown field: %+v", p)
	}
	p = b.want(401, "", "GET", "/devices", nil, nil)
	if !strings.Contains(p.Detail, "Authorization: Bearer") {
		t.Errorf("without a token: %+v", p)
	}
	p = b.want(404, operations.Viewer, "GET", "/nothing", nil, nil)
	if !strings.Contains(p.Detail, api.Prefix+"/ lists") {
		t.Errorf("no such path: %+v", p)
	}
}

// TestViewerCommandsNothing makes every request that is not a GET as a viewer.
func TestViewerCommandsNothing(t *testing.T) {
	b := newBench(t)
	var doc struct {
		Paths map[string]map[string]struct {
			OperationID string `json:"operationId"`
			Description string
		}
	}
	b.want(200, "", "GET", "/openapi.json", nil, &doc)
	own := map[string]bool{"login": true, "revoke-token": true} // a viewer's own tokens
	refused := 0
	for path, methods := range doc.Paths {
		for method, op := range methods {
			needsMore := !strings.Contains(op.Description, "role viewer")
			if own[op.OperationID] {
				continue
			}
			if method != "get" && !needsMore {
				t.Errorf("%s %s changes something and is for viewers", method, path)
			}
			if needsMore {
				path = strings.TrimPrefix(strings.NewReplacer("{", "", "}", "").Replace(path), api.Prefix)
				if p := b.want(403, operations.Viewer, strings.ToUpper(method), path, nil, nil); !strings.Contains(p.Detail, "requires the role") {
					t.Errorf("%s %s: %+v", method, path, p)
				}
				refused++
			}
		}
	}
	denied := 0
	for _, e := range b.service.Entries() {
		if e.Denied && e.Actor == "viewer-user/test" && e.From == "127.0.0.1" {
			denied++
		}
	}
	if refused < 25 || denied != refused {
		t.Errorf("%d requests were refused, and %d are in the audit", refused, denied)
	}
}

func TestCampaign(t *testing.T) {
	b := newBench(t)
	b.addDevices("d1", "d2", "d3")
	var image fleet.Image
	b.want(200, operations.Operator, "POST", "/images?name=fw.iad", "image 2.0.0", &image)
	p := b.want(422, operations.Operator, "POST", "/images?name=fw.iad", "something else", nil)
	if len(p.Errors) != 1 || p.Errors[0].Location != "file" {
		t.Errorf("not an image: %+v", p)
	}
	spec := map[string]any{
		"title": "Spring", "operation": "upgrade", "image": image.Digest, "filter": "true", "approval_required": true,
		"waves": []any{map[string]any{"count": 1, "soak": "1h30m"}, map[string]any{}},
	}
	var c fleet.Campaign
	b.want(200, operations.Operator, "POST", "/campaigns", map[string]any{"spec": spec}, &c)
	if c.ID != "spring" || c.State != fleet.CampaignDraft || c.CreatedBy != "operator-user" || time.Duration(c.Spec.Waves[0].Soak) != 90*time.Minute {
		t.Errorf("created: %+v", c)
	}
	b.want(409, operations.Operator, "POST", "/campaigns", map[string]any{"spec": spec}, nil)
	b.want(200, operations.Operator, "POST", "/campaigns/spring/submit", nil, &c)
	var detail operations.CampaignDetail
	b.want(200, operations.Viewer, "GET", "/campaigns/spring", nil, &detail)
	p = b.want(409, operations.Operator, "POST", "/campaigns/spring/approve", map[string]any{"digest": detail.Digest}, nil)
	if !strings.Contains(p.Detail, "another person has to approve it") {
		t.Errorf("approved by who made it: %+v", p)
	}
	b.want(200, operations.Admin, "POST", "/campaigns/spring/approve", map[string]any{"digest": detail.Digest, "comment": "good"}, &c)
	if c.State != fleet.CampaignScheduled || c.Approval == nil || c.Approval.By != "admin-user" {
		t.Errorf("approved: %+v", c)
	}
	b.service.Start("spring")
	for _, d := range []string{"d1", "d2"} {
		b.service.Ask("spring", d, "selfTestFailed", "the self-test failed", fleet.ChoiceRetry, fleet.ChoiceGiveUp)
	}
	var groups []operations.QuestionGroup
	b.want(200, operations.Viewer, "GET", "/questions", nil, &groups)
	if len(groups) != 1 || groups[0].Count != 2 {
		t.Fatalf("questions: %+v", groups)
	}
	b.want(422, operations.Operator, "POST", "/questions/spring/d1/answer", map[string]any{"question": "d1-7", "choice": "retry"}, nil)
	b.want(204, operations.Operator, "POST", "/questions/spring/d1/answer", map[string]any{"question": "d1-0", "choice": "retry"}, nil)
	if r := b.service.Run("spring", "d1"); r.Answer == nil || r.Answer.Choice != fleet.ChoiceRetry || r.Answer.By != "operator-user" {
		t.Errorf("answered: %+v", r.Answer)
	}
	var answered api.Answered
	b.want(200, operations.Operator, "POST", "/question-groups/"+groups[0].Group+"/answer", map[string]any{"choice": "give-up"}, &answered)
	if answered.Count != 1 {
		t.Errorf("answered: %+v", answered)
	}
	var runs operations.RunPage
	b.want(200, operations.Viewer, "GET", "/campaigns/spring/runs?state=queued", nil, &runs)
	if runs.Total != 2 {
		t.Errorf("runs: %+v", runs)
	}
	b.want(200, operations.Operator, "POST", "/campaigns/spring/pause", nil, &c)
	b.want(200, operations.Operator, "POST", "/campaigns/spring/resume", nil, &c)
	b.want(200, operations.Operator, "POST", "/campaigns/spring/stop", nil, &c)
	if p := b.want(409, operations.Operator, "POST", "/campaigns/spring/resume", nil, nil); !strings.Contains(p.Detail, "stopped") {
		t.Errorf("resumed after the end: %+v", p)
	}
}

func TestBackups(t *testing.T) {
	b := newBench(t)
	b.addDevices("d1")
	content := []byte("iad-config userData 1\nline.1 = <script>\n\xff")
	id := b.service.AddBackup(fleet.Backup{Device: "d1", Good: true, Time: b.now}, map[string][]byte{"userData": content, "portData": []byte("p")})
	var text string
	b.want(200, operations.Operator, "GET", "/devices/d1/backups/"+id+"/files/userData", nil, &text)
	if text != string(content) {
		t.Errorf("file: %q", text)
	}
	var edited fleet.Backup
	b.want(200, operations.Operator, "POST", "/devices/d1/backups/"+id+"/edit", map[string]any{"files": map[string][]byte{"userData": []byte("new")}}, &edited)
	if edited.EditOf != id || edited.By != "operator-user" {
		t.Errorf("edited: %+v", edited)
	}
	b.want(200, operations.Operator, "PUT", "/devices/d1/backups/"+id+"/pinned", true, &edited)
	if !edited.Pinned {
		t.Error("not pinned")
	}
	for _, path := range []string{
		"/devices/..%2f..%2fetc/backups/" + id + "/files/passwd", "/devices/d1/backups/..%2f..%2f/files/userData",
		"/devices/d1/backups/" + id + "/files/..%2f..%2fetc%2fpasswd", "/images/..%2f..%2fetc%2fpasswd",
	} {
		method := "GET"
		if strings.HasPrefix(path, "/images") {
			method = "DELETE"
		}
		b.want(404, operations.Operator, method, path, nil, nil)
	}
}

// TestEvents: whoever listens learns what happens to the campaign, and nothing else.
func TestEvents(t *testing.T) {
	b := newBench(t)
	b.addDevices("d1")
	for _, title := range []string{"one", "two"} {
		b.want(200, operations.Operator, "POST", "/campaigns", map[string]any{"spec": map[string]any{"title": title, "operation": "backup", "filter": "true"}}, nil)
	}
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	r, _ := http.NewRequestWithContext(ctx, "GET", b.server.URL+api.Prefix+"/events?campaign=two", nil)
	r.Header.Set("Authorization", "Bearer "+b.tokens[operations.Viewer])
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if kind := response.Header.Get("Content-Type"); kind != "text/event-stream" {
		t.Fatalf("type %q", kind)
	}
	<-b.service.Watching
	b.service.Start("one")
	b.service.Start("two")
	var seen strings.Builder
	buffer := make([]byte, 4096)
	for !strings.Contains(seen.String(), `"two"`) {
		n, err := response.Body.Read(buffer)
		if err != nil {
			t.Fatalf("%v after %s", err, seen.String())
		}
		seen.Write(buffer[:n])
	}
	if strings.Contains(seen.String(), `"one"`) {
		t.Errorf("events of another campaign: %s", seen.String())
	}
}

// TestRepeatedRequests: two requests with one Idempotency-Key are the same only if all of their content is; the service gets
// that content complete.
func TestRepeatedRequests(t *testing.T) {
	b := newBench(t)
	send := func(method, path, body string) string {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, b.server.URL+api.Prefix+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+b.tokens[operations.Operator])
		r.Header.Set("Idempotency-Key", "k1")
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(response.Body)
		response.Body.Close()
		if response.StatusCode >= 300 {
			t.Fatalf("%s %s: %s %s", method, path, response.Status, text)
		}
		entries := b.service.Entries()
		last := entries[len(entries)-1]
		if last.Request != "k1" || len(last.Content) != 64 {
			t.Fatalf("%+v", last)
		}
		return last.Content
	}
	one := send("PUT", "/devices/attic", `{"address": "192.0.2.1", "note": "a"}`)
	if two := send("PUT", "/devices/attic", `{"address": "192.0.2.1", "note": "a"}`); two != one {
		t.Error("a repetition is another request")
	}
	if two := send("PUT", "/devices/attic", `{"address": "192.0.2.1", "note": "b"}`); two == one {
		t.Error("another body is taken for a repetition")
	}
	var detail operations.DeviceDetail
	if b.want(200, operations.Viewer, "GET", "/devices/attic", nil, &detail); detail.Device.Note != "b" {
		t.Errorf("%+v", detail.Device)
	}
	send("DELETE", "/devices/attic", "") // without a body
	b.repeatedAccess()
	r, err := http.NewRequestWithContext(t.Context(), "PUT", b.server.URL+api.Prefix+"/devices/attic", strings.NewReader(`{"note": "`+strings.Repeat("x", 2<<20)+`"}`))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+b.tokens[operations.Operator])
	r.Header.Set("Idempotency-Key", "k2")
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	if response.Body.Close(); response.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("a body that is too large: %s", response.Status)
	}
}

// repeatedAccess repeats requests about users and tokens, as a client does whose connection broke.
func (b *bench) repeatedAccess() {
	b.t.Helper()
	send := func(key, method, path, body string, want int) {
		b.t.Helper()
		r, err := http.NewRequestWithContext(b.t.Context(), method, b.server.URL+api.Prefix+path, strings.NewReader(body))
		if err != nil {
			b.t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+b.tokens[operations.Admin])
		r.Header.Set("Idempotency-Key", key)
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			b.t.Fatal(err)
		}
		text, _ := io.ReadAll(response.Body)
		if response.Body.Close(); response.StatusCode != want {
			b.t.Errorf("%s %s: %s, want %d: %s", method, path, response.Status, want, text)
		}
	}
	user := b.t.Name() + "-dora"
	send("k-put", "PUT", "/users/"+user, `{"role": "viewer"}`, 204)
	if err := b.access.PutUser(b.t.Context(), admin, user, operations.Operator, ""); err != nil {
		b.t.Fatal(err)
	}
	send("k-put", "PUT", "/users/"+user, `{"role": "viewer"}`, 204) // takes no effect again
	if u, err := b.access.User(b.t.Context(), user); err != nil || u.Role != operations.Operator {
		b.t.Errorf("%+v, %v", u, err)
	}
	send("k-put", "PUT", "/users/"+user, `{"role": "admin"}`, 422)
	_, token, err := b.access.CreateToken(b.t.Context(), operations.Caller{Name: user, Role: operations.Operator}, "ci", operations.Viewer, time.Hour)
	if err != nil {
		b.t.Fatal(err)
	}
	send("k-revoke", "DELETE", "/tokens/"+token.ID, "", 204)
	send("k-revoke", "DELETE", "/tokens/"+token.ID, "", 204)
	send("k-remove", "DELETE", "/users/"+user, "", 204)
	send("k-remove", "DELETE", "/users/"+user, "", 204)
}
