package client_test

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"example.com/iad/fleet"
	"example.com/iad/fleet/api"
	"example.com/iad/fleet/auth"
	"example.com/iad/fleet/client"
	"example.com/iad/fleet/engine"
	"example.com/iad/fleet/operations"
	"example.com/iad/internal/fleettest"
)

const password = "correct horse battery"

// serve serves the API of a played service, behind a proxy that may fail.
func serve(t *testing.T, proxy func(http.Handler) http.Handler) (*fleettest.Service, *client.Client) {
	t.Helper()
	e, err := engine.Start(t.Context(), engine.Config{Data: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	bucket, err := e.Bucket(t.Context(), engine.Access)
	if err != nil {
		t.Fatal(err)
	}
	service := fleettest.New()
	access := auth.New(bucket, service.Record, time.Now)
	if err := access.PutUser(t.Context(), operations.Caller{Name: "boss", Role: operations.Admin}, "anna", operations.Admin, password); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(proxy(api.New(api.Config{Service: service, Access: access, Version: "test"})))
	t.Cleanup(server.Close)
	c, err := client.New(server.URL, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	token, err := c.Login(t.Context(), "anna", password, "test", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if c, err = client.New(server.URL, token, nil); err != nil {
		t.Fatal(err)
	}
	return service, c
}

func direct(h http.Handler) http.Handler { return h }

func TestCampaign(t *testing.T) {
	service, c := serve(t, direct)
	ctx := t.Context()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	result, err := c.Import(ctx, operations.CSV, strings.NewReader("name,address\nd1,192.0.2.1\nd2,192.0.2.2\n"), false)
	if err != nil || result.Added != 2 {
		t.Fatalf("%+v, %v", result, err)
	}
	d, err := c.PutDevice(ctx, fleet.Device{Name: "d3", Address: "192.0.2.3", Tags: []string{"sip"}})
	if err != nil || d.Tags[0] != "sip" {
		t.Fatalf("%+v, %v", d, err)
	}
	page, err := c.Devices(ctx, operations.DeviceQuery{Text: "d"})
	if err != nil || page.Total != 3 {
		t.Fatalf("%+v, %v", page, err)
	}
	var out bytes.Buffer
	must(c.Export(ctx, operations.CSV, `name == "d3"`, &out))
	if out.String() != "name,address\nd3,192.0.2.3\n" {
		t.Errorf("export: %q", out.String())
	}
	for _, name := range []string{"d1", "d2", "d3"} {
		service.Add(fleet.Device{Name: name, Address: "192.0.2.1", Facts: &fleet.Facts{Version: "1.0.0"}})
	}
	image, err := c.AddImage(ctx, "fw.iad", strings.NewReader("image 2.0.0"))
	must(err)
	made, err := c.CreateCampaign(ctx, "spring", fleet.CampaignSpec{
		Title: "Spring", Operation: fleet.OperationUpgrade, Image: image.Digest, Filter: "true", Waves: []fleet.Wave{{Count: 1, Soak: fleet.Duration(time.Hour)}, {}},
	})
	must(err)
	if made.ID != "spring" || time.Duration(made.Spec.Waves[0].Soak) != time.Hour {
		t.Errorf("made: %+v", made)
	}
	_, err = c.SubmitCampaign(ctx, "spring")
	must(err)
	service.Start("spring")
	service.Ask("spring", "d1", "selfTestFailed", "failed", fleet.ChoiceRetry, fleet.ChoiceGiveUp)
	service.Ask("spring", "d2", "selfTestFailed", "failed", fleet.ChoiceRetry, fleet.ChoiceGiveUp)
	groups, err := c.Questions(ctx)
	if err != nil || len(groups) != 1 {
		t.Fatalf("%+v, %v", groups, err)
	}
	must(c.Answer(ctx, "spring", "d1", fleet.Answer{Question: groups[0].Questions[0].ID, Choice: fleet.ChoiceRetry}))
	if n, err := c.AnswerGroup(ctx, groups[0].Group, fleet.Answer{Choice: fleet.ChoiceGiveUp}); n != 1 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	runs, err := c.Runs(ctx, operations.RunQuery{Campaign: "spring", State: fleet.RunQueued, Wave: -1})
	if err != nil || runs.Total != 2 {
		t.Errorf("%+v, %v", runs, err)
	}
	detail, err := c.Campaign(ctx, "spring")
	if err != nil || detail.Total.Queued != 2 || detail.Digest == "" {
		t.Errorf("%+v, %v", detail, err)
	}
	for _, do := range []func(context.Context, string) (fleet.Campaign, error){c.PauseCampaign, c.ResumeCampaign, c.StopCampaign} {
		if made, err = do(ctx, "spring"); err != nil {
			t.Error(err)
		}
	}
	if made.State != fleet.CampaignStopped {
		t.Errorf("state %s", made.State)
	}
	id := service.AddBackup(fleet.Backup{Device: "d1", Time: time.Now()}, map[string][]byte{"userData": []byte("a\n\xff")})
	content, err := c.BackupFile(ctx, "d1", id, "userData")
	if err != nil || string(content) != "a\n\xff" {
		t.Errorf("%q, %v", content, err)
	}
	if entries, err := c.Audit(ctx, operations.AuditQuery{Action: "campaign.", Limit: 2}); err != nil || len(entries) != 2 || entries[0].Action != "campaign.stop" {
		t.Errorf("%+v, %v", entries, err)
	}
}

func TestErrors(t *testing.T) {
	_, c := serve(t, direct)
	_, err := c.Device(t.Context(), "unknown")
	if !errors.Is(err, operations.ErrNotFound) {
		t.Errorf("unknown device: %v", err)
	}
	_, err = c.PutDevice(t.Context(), fleet.Device{Name: "d1", Address: "bad host!"})
	var failure *client.Error
	if !errors.As(err, &failure) || failure.Status != 422 || len(failure.Fields) != 1 || failure.Fields[0].Field != "address" {
		t.Errorf("bad address: %#v", err)
	}
	for _, name := range []string{"..", "../..", "a/b", "a?b", "%2e%2e"} { // no name leads to another object
		if _, err := c.Device(t.Context(), name); !errors.Is(err, operations.ErrNotFound) {
			t.Errorf("%q: %v", name, err)
		}
	}
	if _, err := client.New("noc.example", "", nil); err == nil || !strings.Contains(err.Error(), "https://") {
		t.Errorf("no URL: %v", err)
	}
}

// TestBusyService: a request is repeated while the service is busy, and takes effect once
// even if its answer was lost.
func TestBusyService(t *testing.T) {
	var calls atomic.Int32
	service, c := serve(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !strings.HasSuffix(r.URL.Path, "/campaigns") {
				next.ServeHTTP(w, r)
				return
			}
			switch calls.Add(1) {
			case 1:
				w.WriteHeader(http.StatusServiceUnavailable)
			case 2: // done, but the answer is lost
				next.ServeHTTP(httptest.NewRecorder(), r)
				panic(http.ErrAbortHandler)
			default:
				next.ServeHTTP(w, r)
			}
		})
	})
	made, err := c.CreateCampaign(t.Context(), "spring", fleet.CampaignSpec{Title: "Spring", Operation: fleet.OperationBackup, Filter: "true"})
	if err != nil || made.ID != "spring" {
		t.Fatalf("%+v, %v", made, err)
	}
	if calls.Load() != 3 {
		t.Errorf("%d requests", calls.Load())
	}
	if rows, err := service.Campaigns(t.Context(), operations.Caller{Role: operations.Viewer}); err != nil || len(rows) != 1 {
		t.Errorf("%+v, %v", rows, err)
	}
}

func TestEvents(t *testing.T) {
	service, c := serve(t, direct)
	service.Add(fleet.Device{Name: "d1", Facts: &fleet.Facts{}})
	if _, err := c.CreateCampaign(t.Context(), "spring", fleet.CampaignSpec{Title: "Spring", Operation: fleet.OperationBackup, Filter: "true"}); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	enough := errors.New("enough")
	go func() {
		<-service.Watching
		service.Start("spring")
	}()
	connected := false
	err := c.Events(ctx, "spring", func() { connected = true }, func(e fleet.Event) error {
		if e.Campaign != "spring" || e.State != "running" {
			t.Errorf("event %+v", e)
		}
		return enough
	})
	if !errors.Is(err, enough) || !connected {
		t.Errorf("%v, connected %v", err, connected)
	}
}
