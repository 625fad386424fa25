package ui_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"mime/multipart"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"example.com/iad/fleet"
	"example.com/iad/fleet/api"
	"example.com/iad/fleet/auth"
	"example.com/iad/fleet/engine"
	"example.com/iad/fleet/operations"
	"example.com/iad/fleet/ui"
	"example.com/iad/internal/fleettest"
	"example.com/iad/manager/device"
)

const password = "correct horse battery"

var store *engine.Engine

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "ui")
	if err != nil {
		panic(err)
	}
	store, err = engine.Start(context.Background(), engine.Config{Data: dir})
	if err != nil {
		panic(err)
	}
	code := m.Run()
	stopChromium()
	store.Close()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// bench is the web pages with a played service, and users of each role.
type bench struct {
	t       *testing.T
	service *fleettest.Service
	access  *auth.Access
	server  *httptest.Server
	pages   ui.Config
	log     *strings.Builder
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{t: t, service: fleettest.New(), log: new(strings.Builder)}
	bucket, err := store.Bucket(t.Context(), engine.Access)
	if err != nil {
		t.Fatal(err)
	}
	b.access = auth.New(bucket, b.service.Record, time.Now)
	for _, role := range operations.Roles() {
		if err := b.access.PutUser(t.Context(), operations.Caller{Name: "boss", Role: operations.Admin}, name(role), role, password); err != nil {
			t.Fatal(err)
		}
	}
	b.pages = ui.Config{Service: b.service, Access: b.access, Version: "test", Log: slog.New(slog.NewTextHandler(b.log, nil))}
	b.server = httptest.NewServer(nil)
	t.Cleanup(b.server.Close)
	b.serve()
	return b
}

// serve serves the pages as configured.
func (b *bench) serve() {
	mux := http.NewServeMux()
	mux.Handle("/api/v1/", api.New(api.Config{Service: b.service, Access: b.access, Version: "test"}))
	mux.Handle("/", ui.New(b.pages))
	b.server.Config.Handler = mux
}

func name(role operations.Role) string { return string(role) + "-user" }

// script is what a hostile device reports.
const script = `<script>document.title="owned"</script><img src=x onerror="document.title='owned'">` + "\u202e\x1b[31m"

// fill makes a fleet with 60 devices, three campaigns, questions, backups and workers.
func (b *bench) fill() {
	b.t.Helper()
	now := time.Date(2026, 3, 1, 1, 30, 0, 0, time.UTC)
	b.service.Clock = func() time.Time { return now }
	for i := range 60 {
		d := fleet.Device{
			Name: fmt.Sprintf("gw-%03d", i), Address: fmt.Sprintf("192.0.2.%d", i+1), Site: []string{"berlin", "paris", ""}[i%3], Tags: []string{"sip"}, Created: now,
			Facts:    &fleet.Facts{Model: "IAD-4FXS", Hardware: "B", Version: "1.0.0", ConfigFormat: 1, Generation: 7, ConfigDigest: strings.Repeat("ab", 32), Time: now},
			Identity: &device.Identity{Device: fmt.Sprintf("IAD-%04d", i), EngineID: "80004fb805636c6f75644dab22cc"},
			Contact:  fleet.Contact{Time: now},
		}
		switch i {
		case 1:
			d.Facts.Model, d.Note = script, "in the cellar"
		case 2:
			d.Contact = fleet.Contact{Time: now, Problem: "no answer within 5 s", Since: now.Add(-26 * time.Hour)}
		case 3:
			d.Facts.TrustSerial, d.Facts.BackupRecipient = 5, "age1device"
		}
		b.service.Add(d)
	}
	old := []byte("iad-config userData 1\nline.1 = +4930123\nline.2 = " + script + "\nvolume = 3\n")
	b.service.AddBackup(fleet.Backup{Device: "gw-001", Good: true, Version: "1.0.0", Format: 1, Time: now.Add(-24 * time.Hour)}, map[string][]byte{"userData": old, "portData": []byte("ports\n")})
	b.service.AddBackup(fleet.Backup{Device: "gw-001", Good: true, Version: "1.0.0", Format: 1, Time: now, Campaign: "spring"},
		map[string][]byte{"userData": []byte(strings.Replace(string(old), "volume = 3", "volume = 4\nring = 2", 1)), "portData": []byte("ports\n")})
	b.service.AddWorker(fleet.Worker{ID: "w-1", Host: "noc-1", Pool: "default", Version: "test", Slots: 200, Running: 3, Started: now, Seen: now, Programs: []string{"check-calls"}})
	b.service.AddWorker(fleet.Worker{ID: "w-2", Host: "noc-2", Pool: "default", Version: "test", Slots: 200, Started: now, Seen: now, Drain: true})
	b.service.AddDamage(operations.Damage{Place: "run", Key: "spring.gw-059", Parts: []string{"spring", script}, Revision: 7, Problem: script, Noticed: now, Removable: true})
	b.service.AddDamage(operations.Damage{Place: "AUDIT", Key: "12", Parts: []string{"12"}, Revision: 12, Problem: "not an entry", Noticed: now})
	ctx, by := b.t.Context(), operations.Caller{Name: name(operations.Operator), Role: operations.Operator, From: "192.0.2.200"}
	must := func(err error) {
		b.t.Helper()
		if err != nil {
			b.t.Fatal(err)
		}
	}
	image, err := b.service.AddImage(ctx, by, "fw-2.0.0.iad", strings.NewReader("image 2.0.0"))
	must(err)
	must(b.service.PutSite(ctx, by, fleet.Site{Name: "berlin", Title: "Berlin <east>", TimeZone: "Europe/Berlin", Parallel: 20}))
	must(b.service.PutGroup(ctx, by, fleet.Group{Name: "paris", Filter: `site == "paris"`}))
	must(b.service.PutSchedule(ctx, by, fleet.Schedule{Name: "nightly", At: "02:30", TimeZone: "Europe/Berlin",
		Spec: fleet.CampaignSpec{Title: "Nightly", Operation: fleet.OperationBackup, Filter: "true"}}))
	spec := fleet.CampaignSpec{
		Title: "Spring upgrade", Operation: fleet.OperationUpgrade, Image: image.Digest, Filter: "true",
		Waves:      []fleet.Wave{{Name: "canary", Count: 5, Soak: fleet.Duration(time.Hour)}, {Percent: 20}, {}},
		Thresholds: []fleet.Threshold{{FailedPercent: 10, MinSample: 5}},
		Windows:    []fleet.Window{{Days: []string{"sat", "sun"}, From: "22:00", To: "04:00"}},
	}
	for _, id := range []string{"spring", "draft"} {
		_, err = b.service.CreateCampaign(ctx, by, id, spec)
		must(err)
	}
	spec.ApprovalRequired = true
	_, err = b.service.CreateCampaign(ctx, by, "awaiting", spec)
	must(err)
	for _, id := range []string{"spring", "awaiting"} {
		_, err = b.service.SubmitCampaign(ctx, by, id)
		must(err)
	}
	b.service.Start("spring")
	for i := range 20 {
		b.service.SetRun("spring", fmt.Sprintf("gw-%03d", i), func(r *fleet.Run) {
			r.Attempt, r.Started, r.NewVersion, r.State = 1, now, "2.0.0", fleet.RunSucceeded
			switch {
			case i < 3:
				r.State, r.NewVersion, r.Claim = fleet.RunRunning, "", &fleet.Claim{Worker: "w-1", Epoch: 1}
				r.Progress = fleet.Progress{Step: 140, Phase: "transferring", Percent: 40, Text: script, Time: now}
			case i < 5:
				r.State, r.NewVersion, r.Ended = fleet.RunFailed, "", now
				r.Failure = &fleet.RunFailure{Step: 150, Cause: "selfTestFailed", Text: script, Time: now}
			default:
				r.Ended = now
			}
		})
	}
	for _, d := range []string{"gw-020", "gw-021", "gw-022"} {
		b.service.Ask("spring", d, "selfTestFailed", "the self-test of the new software failed: "+script, fleet.ChoiceRetry, fleet.ChoiceOtherImage, fleet.ChoiceRestore, fleet.ChoiceGiveUp)
	}
	b.service.Ask("spring", "gw-001", "conversionFailed", "the configuration data cannot be converted", fleet.ChoiceModify, fleet.ChoiceRestore, fleet.ChoiceGiveUp)
}

// browser is an HTTP client with cookies, as a browser without JavaScript is.
type browser struct {
	*bench
	client *http.Client
}

func (b *bench) browser() *browser {
	jar, err := cookiejar.New(nil)
	if err != nil {
		b.t.Fatal(err)
	}
	return &browser{b, &http.Client{Jar: jar}}
}

// as returns a browser whose user has logged in.
func (b *bench) as(role operations.Role) *browser {
	b.t.Helper()
	c := b.browser()
	if status, page := c.post("/login", "user", name(role), "password", password); status != 200 || !strings.Contains(page, name(role)) {
		b.t.Fatalf("login: status %d\n%s", status, page)
	}
	return c
}

func (c *browser) get(path string) (int, string) {
	c.t.Helper()
	response, err := c.client.Get(c.server.URL + path)
	if err != nil {
		c.t.Fatal(err)
	}
	return c.read(response)
}

func (c *browser) read(response *http.Response) (int, string) {
	c.t.Helper()
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return response.StatusCode, string(text)
}

// post sends a form, given as names and values.
// upload sends a form with a file; file is its name, empty: none.
func (c *browser) upload(path, file, content string, fields ...string) (int, string) {
	c.t.Helper()
	var body bytes.Buffer
	w := multipart.NewWriter(&body)
	for i := 0; i < len(fields); i += 2 {
		_ = w.WriteField(fields[i], fields[i+1])
	}
	if file != "" {
		part, _ := w.CreateFormFile("file", file)
		_, _ = part.Write([]byte(content))
	}
	_ = w.Close()
	response, err := c.client.Post(c.server.URL+path, w.FormDataContentType(), &body)
	if err != nil {
		c.t.Fatal(err)
	}
	return c.read(response)
}

func (c *browser) post(path string, fields ...string) (int, string) {
	c.t.Helper()
	form := url.Values{}
	for i := 0; i < len(fields); i += 2 {
		form.Add(fields[i], fields[i+1])
	}
	r, err := http.NewRequestWithContext(c.t.Context(), "POST", c.server.URL+path, strings.NewReader(form.Encode()))
	if err != nil {
		c.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Origin", c.server.URL)
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	response, err := c.client.Do(r)
	if err != nil {
		c.t.Fatal(err)
	}
	return c.read(response)
}

// allPages are the addresses of all pages.
var allPages = []string{
	"/", "/devices", "/devices/new", "/devices/gw-001", "/inventory", "/discover", "/campaigns", "/campaigns/new", "/campaigns/spring", "/campaigns/draft", "/campaigns/awaiting",
	"/campaigns/draft/edit", "/questions", "/questions/spring/gw-001", "/backups", "/devices/gw-001/backups", "/devices/gw-001/backups/" + newBackup,
	"/devices/gw-001/backups/" + newBackup + "/diff?kind=userData", "/devices/gw-001/backups/" + newBackup + "/diff?view=side&kind=userData", "/devices/gw-001/backups/" + newBackup + "/edit",
	"/images", "/workers", "/damage", "/audit", "/access",
}

const (
	oldBackup = "20260228T013000Z-1"
	newBackup = "20260301T013000Z-2"
)
