package api_test

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"example.com/iad/fleet/api"
	"example.com/iad/fleet/operations"
)

func (b *bench) login(user, password string) (int, problem) {
	b.t.Helper()
	return b.call("", "POST", "/login", map[string]any{"user": user, "password": password, "name": "cli"}, nil)
}

func TestPasswordsCannotBeGuessed(t *testing.T) {
	b := newBench(t)
	answers := make(map[string]bool)
	for range 10 {
		for _, user := range []string{"admin-user", "nobody"} {
			status, p := b.login(user, "wrong password")
			if status == http.StatusUnauthorized {
				answers[p.Detail] = true
			}
		}
	}
	if len(answers) != 1 {
		t.Errorf("the answers say whether the user exists: %v", answers)
	}
	if status, p := b.login("admin-user", password); status != http.StatusTooManyRequests {
		t.Errorf("the right password after ten wrong ones: status %d, %+v", status, p)
	}
	b.now = b.now.Add(time.Minute)
	if status, p := b.login("admin-user", password); status != http.StatusOK {
		t.Errorf("a minute later: status %d, %+v", status, p)
	}
	denied := 0
	for _, e := range b.service.Entries() {
		if e.Denied && e.Action == "session.begin" && e.From == "127.0.0.1" {
			denied++
		}
	}
	if denied != 10 {
		t.Errorf("%d failed logins are in the audit, want the 10 that were checked", denied)
	}
}

func TestTokensCannotBeGuessed(t *testing.T) {
	b := newBench(t)
	right := b.tokens[operations.Viewer]
	for _, wrong := range []string{
		right[:len(right)-1], right + "x", strings.Replace(right, "_", "-", 1), "iadms_", "iadms__", "x", strings.Repeat("a", 5000),
		right[:23] + "_" + strings.Repeat("A", 43), "iadms_" + strings.Repeat("0", 16) + "_" + right[24:], "y",
	} {
		b.tokens[operations.Viewer] = wrong
		b.want(401, operations.Viewer, "GET", "/me", nil, nil)
	}
	b.tokens[operations.Viewer] = right
	b.want(429, operations.Viewer, "GET", "/me", nil, nil)
	b.now = b.now.Add(time.Minute)
	b.want(200, operations.Viewer, "GET", "/me", nil, nil)
	b.now = b.now.Add(time.Hour)
	b.want(401, operations.Viewer, "GET", "/me", nil, nil) // it has expired
}

// TestTokensDoNotGetIntoLogs: neither the service's log nor its audit has a token or a
// password, whatever goes wrong.
func TestTokensDoNotGetIntoLogs(t *testing.T) {
	b := newBench(t)
	var made api.NewToken
	b.want(200, "", "POST", "/login", map[string]any{"user": "admin-user", "password": password, "name": "cli"}, &made)
	b.tokens[operations.Admin] = made.Text
	b.want(204, operations.Admin, "PUT", "/secrets/default", map[string]any{"read_community": "rosebud", "write_community": "sledge"}, nil)
	b.want(204, operations.Admin, "PUT", "/users/carol", map[string]any{"role": "viewer", "password": "another good one"}, nil)
	p := b.want(422, operations.Admin, "PUT", "/users/carol", map[string]any{"role": "viewer", "password": "short one"}, nil)
	b.want(404, operations.Admin, "GET", "/devices/unknown", nil, nil)
	b.want(204, operations.Admin, "DELETE", "/tokens/"+made.Token.ID, nil, nil)
	b.want(401, operations.Admin, "GET", "/me", nil, nil)
	seen := b.log.String() + p.Detail
	for _, e := range b.service.Entries() {
		seen += e.Object + string(e.Before) + string(e.After)
	}
	_, secret, _ := strings.Cut(strings.TrimPrefix(made.Text, "iadms_"), "_")
	for _, hidden := range []string{secret, password, "another good one", "short one", "rosebud", "sledge", "argon2id"} {
		if strings.Contains(seen, hidden) {
			t.Errorf("log, audit or answer contain %q:\n%s", hidden, seen)
		}
	}
}

func TestTokensDoNotOutliveTheirUsers(t *testing.T) {
	b := newBench(t)
	b.want(204, operations.Admin, "PUT", "/users/operator-user", map[string]any{"role": "viewer"}, nil)
	b.want(403, operations.Operator, "DELETE", "/devices/d1", nil, nil)
	b.want(204, operations.Admin, "DELETE", "/users/operator-user", nil, nil)
	b.want(204, operations.Admin, "PUT", "/users/operator-user", map[string]any{"role": "operator", "password": password}, nil)
	b.want(401, operations.Operator, "GET", "/me", nil, nil)
}

// TestCookiesAreIgnored: a page elsewhere cannot use the API in the name of its visitors.
// watch opens a stream of events; the answer is closed after the test.
func (b *bench) watch(token string) *http.Response {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	b.t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, b.server.URL+api.Prefix+"/events", nil)
	if err != nil {
		b.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { response.Body.Close() })
	return response
}

func TestStreamsEndWithTheToken(t *testing.T) {
	b := newBench(t)
	viewer := operations.Caller{Name: "viewer-user", Role: operations.Viewer}
	text, token, err := b.access.CreateToken(t.Context(), viewer, "watch", operations.Viewer, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	stream := bufio.NewReader(b.watch(text).Body)
	for range 9 { // the stream outlasts pings, of 3 lines each
		if _, err := stream.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.access.RevokeToken(t.Context(), viewer, token.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, stream); err != nil {
		t.Errorf("the stream lasts after its token was revoked: %v", err)
	}
}

func TestStreamsAreLimited(t *testing.T) {
	b := newBench(t)
	b.serve(1000)
	token := b.tokens[operations.Viewer]
	first := b.watch(token)
	for range 31 {
		if r := b.watch(token); r.StatusCode != http.StatusOK {
			t.Fatal(r.Status)
		}
	}
	if r := b.watch(token); r.StatusCode != http.StatusTooManyRequests {
		t.Errorf("one more stream: %s", r.Status)
	}
	if r := b.watch(b.tokens[operations.Operator]); r.StatusCode != http.StatusOK {
		t.Errorf("another user's stream: %s", r.Status)
	}
	first.Body.Close()
	for end := time.Now().Add(time.Minute); b.watch(token).StatusCode != http.StatusOK; { // once the service has noticed
		if time.Now().After(end) {
			t.Fatal("the stream that was closed counts")
		}
	}
}

func TestCookiesAreIgnored(t *testing.T) {
	b := newBench(t)
	id, _, err := b.access.Login(t.Context(), "admin-user", password, "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	r, _ := http.NewRequestWithContext(t.Context(), "GET", b.server.URL+api.Prefix+"/me", nil)
	r.AddCookie(&http.Cookie{Name: "iadms_session", Value: id})
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusUnauthorized {
		t.Errorf("status %d", response.StatusCode)
	}
	if response.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Error("pages elsewhere may read answers")
	}
}

func TestRateLimit(t *testing.T) {
	b := newBench(t)
	b.server.Close()
	b.serve(1) // 4 at once
	for range 4 {
		b.want(200, operations.Viewer, "GET", "/me", nil, nil)
	}
	if p := b.want(429, operations.Viewer, "GET", "/me", nil, nil); !strings.Contains(p.Detail, "wait a second") {
		t.Errorf("%+v", p)
	}
	b.want(200, operations.Operator, "GET", "/me", nil, nil) // others are not limited by it
}

func TestBadRequestsDoNoHarm(t *testing.T) {
	b := newBench(t)
	for _, body := range []string{"", "{", "[]", "null", `{"spec":null}`, `{"spec":{"title":1}}`, strings.Repeat("[", 100_000), "\xff\xfe"} {
		if status, p := b.call(operations.Operator, "POST", "/campaigns", body, nil); status < 400 || status >= 500 {
			t.Errorf("%.20q: status %d, %+v", body, status, p)
		}
	}
	if status, p := b.call(operations.Operator, "POST", "/campaigns", `{"spec":{"title":"`+strings.Repeat("x", 2<<20)+`"}}`, nil); status != http.StatusRequestEntityTooLarge {
		t.Errorf("2 MiB: status %d, %+v", status, p)
	}
	if strings.Contains(b.log.String(), "panic") {
		t.Error(b.log.String())
	}
}
