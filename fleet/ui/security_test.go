package ui_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"example.com/iad/fleet/operations"
)

// commands are requests that change something, each with a form that would be accepted.
var commands = [][]string{
	{"/campaigns/spring/pause"}, {"/campaigns/spring/stop"}, {"/campaigns/draft/submit"}, {"/campaigns/draft/edit", "title", "x"},
	{"/campaigns", "title", "x", "operation", "backup", "filter", "true"}, {"/devices/gw-001/remove"}, {"/devices/gw-001", "address", "192.0.2.99"},
	{"/devices", "name", "new", "address", "192.0.2.99"}, {"/questions/spring/gw-001", "question", "gw-001-0", "choice", "give-up"},
	{"/devices/gw-001/backups/" + newBackup + "/pin", "pinned", "yes"}, {"/devices/gw-001/backups/" + newBackup + "/edit", "text", "x"},
	{"/devices/gw-001/backups/" + newBackup + "/upload?kind=userData"},
	{"/sites", "site.name", "x"}, {"/sites/berlin/remove"}, {"/groups", "group.name", "x", "group.filter", "true"}, {"/groups/paris/remove"},
	{"/secrets", "secret.name", "x", "secret.read_community", "public"}, {"/schedules/nightly/remove"}, {"/workers/w-1/drain", "drain", "yes"},
	{"/access/users", "user.name", "eve", "user.role", "admin", "user.password", password}, {"/access/users/admin-user"},
}

// unchanged reports whether the audit has nothing but logins and what was denied since it
// had this many entries.
func (b *bench) unchanged(since int) bool {
	for _, e := range b.service.Entries()[since:] {
		if !e.Denied && e.Action != "session.begin" {
			b.t.Errorf("done: %s %s by %s", e.Action, e.Object, e.Actor)
			return false
		}
	}
	return true
}

func TestViewerCommandsNothing(t *testing.T) {
	b := newBench(t)
	b.fill()
	c := b.as(operations.Viewer)
	since := len(b.service.Entries())
	for _, command := range commands {
		if status, page := c.post(command[0], command[1:]...); status != http.StatusForbidden && status != http.StatusUnprocessableEntity {
			t.Errorf("%v: status %d\n%.600s", command, status, page)
		}
	}
	if !b.unchanged(since) {
		t.Error("a viewer changed something")
	}
	// The pages do not offer it either.
	for _, path := range allPages {
		if _, page := c.get(path); strings.Contains(page, `class="danger"`) {
			t.Errorf("%s offers a viewer to destroy something", path)
		}
	}
}

// TestOtherSitesCommandNothing: a page elsewhere sends forms with the cookies of its
// visitor.
func TestOtherSitesCommandNothing(t *testing.T) {
	b := newBench(t)
	b.fill()
	c := b.as(operations.Admin)
	since := len(b.service.Entries())
	for _, header := range []http.Header{
		{"Origin": {"https://evil.example"}, "Sec-Fetch-Site": {"cross-site"}},
		{"Origin": {"https://evil.example"}}, // an old browser
		{"Origin": {"null"}},                 // a sandboxed frame
		{"Sec-Fetch-Site": {"same-site"}},    // another program on the same host name
	} {
		for _, command := range append(commands, []string{"/logout"}, []string{"/login", "user", "viewer-user", "password", password}) {
			r, _ := http.NewRequestWithContext(t.Context(), "POST", b.server.URL+command[0], strings.NewReader("x=1"))
			r.Header = header.Clone()
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			response, err := c.client.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			if status, _ := c.read(response); status != http.StatusForbidden {
				t.Errorf("%v with %v: status %d", command, header, status)
			}
		}
	}
	if !b.unchanged(since) {
		t.Error("another site changed something")
	}
	if _, page := c.get("/"); !strings.Contains(page, "admin-user") {
		t.Error("another site ended the session")
	}
}

// TestSessionsCannotBePrepared: who puts a cookie into a browser does not get the session
// that begins there.
func TestSessionsCannotBePrepared(t *testing.T) {
	b := newBench(t)
	c := b.browser()
	r, _ := http.NewRequestWithContext(t.Context(), "POST", b.server.URL+"/login", strings.NewReader("user=admin-user&password="+strings.ReplaceAll(password, " ", "+")))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.AddCookie(&http.Cookie{Name: "iadms_session", Value: "prepared"})
	c.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	response, err := c.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var cookie *http.Cookie
	for _, found := range response.Cookies() {
		cookie = found
	}
	if cookie == nil || cookie.Value == "prepared" || len(cookie.Value) < 43 {
		t.Fatalf("cookie %v", cookie)
	}
	if !cookie.HttpOnly || cookie.SameSite != http.SameSiteLaxMode || cookie.Path != "/" {
		t.Errorf("cookie %+v", cookie)
	}
	if _, err := b.access.Session(t.Context(), "prepared", "192.0.2.1"); err == nil {
		t.Error("the prepared session is valid")
	}
	// A second login in the same browser ends the session before.
	other := b.as(operations.Viewer)
	first := cookieOf(other)
	if status, _ := other.post("/login", "user", "admin-user", "password", password); status != 200 {
		t.Fatal(status)
	}
	if cookieOf(other) == first {
		t.Error("the session has the same ID after a login")
	}
	if _, err := b.access.Session(t.Context(), first, "192.0.2.1"); err == nil {
		t.Error("the session before the login is valid")
	}
}

func cookieOf(c *browser) string {
	r, _ := http.NewRequest("GET", c.server.URL, nil)
	for _, cookie := range c.client.Jar.Cookies(r.URL) {
		return cookie.Value
	}
	return ""
}

func TestLoginLeadsNowhereElse(t *testing.T) {
	b := newBench(t)
	for next, want := range map[string]string{
		"/devices?text=a": "/devices?text=a", "": "/", "https://evil.example/": "/", "//evil.example/": "/", `/\evil.example`: "/", "javascript:alert(1)": "/",
		"/\tevil": "/", "evil": "/", "https:evil.example": "/",
	} {
		c := b.browser()
		c.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
		r, _ := http.NewRequestWithContext(t.Context(), "POST", b.server.URL+"/login", strings.NewReader(url.Values{"user": {"admin-user"}, "password": {password}, "next": {next}}.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		response, err := c.client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if got := response.Header.Get("Location"); got != want {
			t.Errorf("next %q leads to %q, want %q", next, got, want)
		}
	}
}

func TestPasswordsCannotBeGuessed(t *testing.T) {
	b := newBench(t)
	c := b.browser()
	blocked := false
	for range 12 {
		status, _ := c.post("/login", "user", "admin-user", "password", "wrong")
		blocked = blocked || status == http.StatusTooManyRequests
	}
	if status, page := c.post("/login", "user", "admin-user", "password", password); !blocked || status != http.StatusTooManyRequests || !strings.Contains(page, "Try again in a minute") {
		t.Errorf("blocked %v, status %d\n%s", blocked, status, page)
	}
}

// TestPathsStayInside: no path of a backup, file or static file leads outside.
func TestPathsStayInside(t *testing.T) {
	b := newBench(t)
	b.fill()
	c := b.as(operations.Admin)
	for _, path := range []string{
		"/static/..%2fui.go", "/static/..%2f..%2f..%2fgo.mod", "/static/%2e%2e/ui.go", "/devices/..%2f..%2fetc/backups",
		"/devices/gw-001/backups/..%2f..%2f..%2fetc%2fpasswd", "/devices/gw-001/backups/" + newBackup + "/file/..%2f..%2fpasswd",
		"/devices/gw-002/backups/" + newBackup, "/devices/gw-001/backups/" + newBackup + "/diff?with=../../x",
	} {
		if status, page := c.get(path); status != http.StatusNotFound {
			t.Errorf("%s: status %d\n%.300s", path, status, page)
		}
	}
}

func TestStrangersSeeNothing(t *testing.T) {
	b := newBench(t)
	b.fill()
	c := b.browser()
	for _, path := range append(allPages, "/events", "/match?filter=true", "/inventory/export", "/devices/gw-001/backups/"+newBackup+"/file/userData") {
		_, page := c.get(path)
		if !strings.Contains(page, "Sign in") || strings.Contains(page, "IAD-") || strings.Contains(page, "volume") || strings.Contains(page, `class="top"`) {
			t.Errorf("%s is shown to strangers:\n%.600s", path, page)
		}
	}
	response, err := http.Get(b.server.URL + "/login")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	policy := response.Header.Get("Content-Security-Policy")
	for _, want := range []string{"default-src 'none'", "script-src 'self'", "style-src 'self'", "form-action 'self'", "frame-ancestors 'none'", "base-uri 'none'"} {
		if !strings.Contains(policy, want) {
			t.Errorf("the policy %q does not have %q", policy, want)
		}
	}
	if strings.Contains(policy, "unsafe") || response.Header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("headers: %v", response.Header)
	}
}

// TestTypedSecretsAreNotSentBack: a form that is shown again does not have what must not be
// seen.
func TestTypedSecretsAreNotSentBack(t *testing.T) {
	b := newBench(t)
	c := b.as(operations.Admin)
	_, page := c.post("/secrets", "secret.name", "bad name!", "secret.read_community", "rosebud", "secret.user", "op", "secret.auth_passphrase", "sledge-sledge")
	if !strings.Contains(page, "bad name!") || strings.Contains(page, "rosebud") || strings.Contains(page, "sledge") {
		t.Errorf("page:\n%s", page)
	}
	if strings.Contains(b.log.String(), "rosebud") {
		t.Error(b.log)
	}
}
