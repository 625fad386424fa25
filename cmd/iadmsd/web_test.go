package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.com/iad/fleet"
	"example.com/iad/fleet/auth"
	"example.com/iad/fleet/client"
	"example.com/iad/fleet/engine"
	"example.com/iad/fleet/operations"
	"example.com/iad/internal/fleetsim"
)

// TestWebAndAPI runs iadmsd as its documentation begins, and a campaign through its API.
func TestWebAndAPI(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	l := newLab(t, ctx, 6)
	trust := filepath.Join(l.dir, "maker.pub")
	if err := os.WriteFile(trust, l.devices.PublicKey(), 0o600); err != nil {
		t.Fatal(err)
	}
	web := freeAddress(t)
	p := l.start("one", "--web", web, "--trust", trust, "--notifications", "127.0.0.1:0")
	certificate := l.file("one/tls/cert.pem")
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(certificate)
	trusted := &tls.Config{RootCAs: roots}
	password := strings.TrimSpace(string(l.file("one/initial-password")))

	login, err := client.New("https://"+web, "", trusted)
	if err != nil {
		t.Fatal(err)
	}
	token, err := login.Login(ctx, "admin", password, "test", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New("https://"+web, token, trusted)
	if err != nil {
		t.Fatal(err)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(c.PutSecret(ctx, *fleetsim.Secret()))
	var inventory bytes.Buffer
	fmt.Fprintln(&inventory, "name,address,tags")
	for i, name := range l.devices.Names {
		fmt.Fprintf(&inventory, "%s,%s,%s\n", name, l.devices.Device(name).Address, []string{"north", "south"}[i%2])
	}
	if r, err := c.Import(ctx, operations.CSV, &inventory, false); err != nil || r.Added != len(l.devices.Names) {
		t.Fatalf("%+v, %v", r, err)
	}
	image, err := c.AddImage(ctx, "fw-2.0.0.iad", bytes.NewReader(l.devices.Image("2.0.0", 2)))
	must(err)
	if image.Version != "2.0.0" {
		t.Errorf("image %+v", image)
	}
	l.devices.FailSelfTest(l.devices.Names[0], "2.0.0", true)
	// What was imported is selected once the view has it.
	for {
		m, err := c.Match(ctx, "true")
		must(err)
		if m.Count == len(l.devices.Names) {
			break
		}
		if !pause(ctx) {
			t.Fatalf("%d devices match", m.Count)
		}
	}
	_, err = c.CreateCampaign(ctx, "spring", fleet.CampaignSpec{
		Title: "Spring", Operation: fleet.OperationUpgrade, Image: image.Digest, Filter: "true", Options: fleet.RunOptions{OnFailure: []string{"ask"}},
		Waves: []fleet.Wave{{Name: "canary", Count: 2}, {}},
	})
	must(err)
	_, err = c.SubmitCampaign(ctx, "spring")
	must(err)
	var d operations.CampaignDetail
	answered := false
	for {
		d, err = c.Campaign(ctx, "spring")
		must(err)
		if d.Campaign.State.Final() {
			break
		}
		groups, err := c.Questions(ctx)
		must(err)
		for _, g := range groups {
			if g.Questions[0].Device != l.devices.Names[0] {
				t.Errorf("question %+v", g.Questions[0])
			}
			if n, err := c.AnswerGroup(ctx, g.Group, fleet.Answer{Choice: fleet.ChoiceGiveUp}); err != nil || n != 1 {
				t.Errorf("%d answers, %v", n, err)
			}
			answered = true
		}
		if !pause(ctx) {
			t.Fatalf("the campaign has not ended: %+v", d)
		}
	}
	if d.Campaign.State != fleet.CampaignDone || !answered || d.Total.Succeeded != len(l.devices.Names)-1 || d.Total.Failed != 1 {
		t.Errorf("answered %v, %+v", answered, d)
	}
	backups, err := c.Backups(ctx, l.devices.Names[1])
	if err != nil || len(backups) == 0 || !backups[0].Good {
		t.Errorf("backups: %+v, %v", backups, err)
	} else if content, err := c.BackupFile(ctx, l.devices.Names[1], backups[0].ID, "userData"); err != nil || !strings.HasPrefix(string(content), "iad-config userData") {
		t.Errorf("%q, %v", content, err)
	}

	browser := &http.Client{Transport: &http.Transport{TLSClientConfig: trusted}}
	get := func(path, token string) (int, string) {
		t.Helper()
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+web+path, nil)
		must(err)
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		response, err := browser.Do(r)
		must(err)
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		must(err)
		return response.StatusCode, string(text)
	}
	for _, want := range []struct {
		path, token, text string
		status            int
	}{
		{"/healthz", "", "ok", 200}, {"/readyz", "", "ok", 200}, {"/login", "", "Sign in", 200}, {"/api/v1/", "", "create-campaign", 200},
		{"/metrics", "", "Authorization", 401}, {"/metrics", token, "iad_fleet_", 200}, {"/devices", "", "Sign in", 200},
	} {
		if status, text := get(want.path, want.token); status != want.status || !strings.Contains(text, want.text) {
			t.Errorf("%s: status %d\n%.300s", want.path, status, text)
		}
	}
	p.interrupt()
	log := string(l.file("one.log"))
	if strings.Contains(log, token) || strings.Contains(log, password) {
		t.Errorf("the log has the token or the password:\n%s", log)
	}
}

// newAccess returns access without users, and its bucket.
func newAccess(t *testing.T) (*auth.Access, *engine.Bucket) {
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
	return auth.New(bucket, func(context.Context, fleet.AuditEntry) error { return nil }, time.Now), bucket
}

// A first start that ended after it had written the password is continued with it.
func TestFirstStartIsContinued(t *testing.T) {
	ctx, log := t.Context(), slog.New(slog.DiscardHandler)
	access, _ := newAccess(t)
	o := options{data: t.TempDir()}
	name := filepath.Join(o.data, "initial-password")
	if err := os.WriteFile(name, []byte("left by the first start\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := o.bootstrap(ctx, access, log); err != nil {
		t.Fatal(err)
	}
	if _, _, err := access.Login(ctx, "admin", "left by the first start", "192.0.2.1"); err != nil {
		t.Error(err)
	}
	// Without a place for the password there is no user.
	access, bucket := newAccess(t)
	o.data = filepath.Join(t.TempDir(), "missing")
	if err := o.bootstrap(ctx, access, log); err == nil {
		t.Error("no error")
	}
	if keys, err := bucket.Keys(ctx, ">"); len(keys) > 0 || err != nil {
		t.Errorf("%q, %v", keys, err)
	}
}

// Requests for metrics without a token are not guesses.
func TestMetricsWithoutToken(t *testing.T) {
	ctx := t.Context()
	access, _ := newAccess(t)
	if _, err := access.Bootstrap(ctx, func() (string, error) { return "correct horse battery", nil }); err != nil {
		t.Fatal(err)
	}
	text, _, err := access.CreateToken(ctx, operations.Caller{Name: "admin", Role: operations.Admin}, "ci", operations.Viewer, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	h := withToken(access, http.NotFoundHandler())
	get := func(header string) int {
		r := httptest.NewRequestWithContext(ctx, http.MethodGet, "/metrics", nil)
		r.Header.Set("Authorization", header)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Code
	}
	for range 100 {
		if code := get(""); code != http.StatusUnauthorized {
			t.Fatal(code)
		}
	}
	if code := get("Bearer " + text); code != http.StatusNotFound {
		t.Errorf("with a token: %d", code)
	}
}

// pause waits a moment; it reports false once ctx has ended.
func pause(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(100 * time.Millisecond):
		return true
	}
}

// file returns a file below the directory of the lab, once it is there.
func (l *lab) file(name string) []byte {
	l.t.Helper()
	for {
		text, err := os.ReadFile(filepath.Join(l.dir, name))
		if err == nil && len(text) > 0 {
			return text
		}
		if !pause(l.ctx) {
			l.t.Fatal(err)
		}
	}
}
