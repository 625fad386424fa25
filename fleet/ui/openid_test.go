package ui_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc/oidctest"

	"example.com/iad/fleet/openid"
	"example.com/iad/fleet/operations"
	"example.com/iad/fleet/ui"
)

// provider is an OpenID Connect provider that lets one person in without asking.
type provider struct {
	t      *testing.T
	server *httptest.Server
	key    *ecdsa.PrivateKey

	mu     sync.Mutex
	claims map[string]any // those of the next ID token; "" takes a standard one away
	denies string         // the error that the browser is sent back with
	signer *ecdsa.PrivateKey
	asked  url.Values // what the last browser came with
}

const clientID, clientSecret = "iadmsd", "a secret of 32 characters or more"

func newProvider(t *testing.T) *provider {
	p := &provider{t: t, claims: map[string]any{"sub": "7", "preferred_username": "ada", "roles": []string{"staff", "noc"}}}
	var err error
	if p.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	p.signer = p.key
	documents := &oidctest.Server{PublicKeys: []oidctest.PublicKey{{PublicKey: p.key.Public(), KeyID: "k", Algorithm: "ES256"}}, Algorithms: []string{"ES256"}}
	mux := http.NewServeMux()
	mux.Handle("/", documents)
	mux.HandleFunc("GET /auth", p.authorize)
	mux.HandleFunc("POST /token", p.token)
	p.server = httptest.NewServer(mux)
	t.Cleanup(p.server.Close)
	documents.SetIssuer(p.server.URL)
	return p
}

// set changes what the provider does next.
func (p *provider) set(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
}

func (p *provider) authorize(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked = r.URL.Query()
	answer := url.Values{"state": {p.asked.Get("state")}, "code": {"the-code"}}
	if p.denies != "" {
		answer = url.Values{"state": {p.asked.Get("state")}, "error": {p.denies}, "error_description": {"not today"}}
	}
	if p.asked.Get("client_id") != clientID || p.asked.Get("response_type") != "code" || p.asked.Get("code_challenge_method") != "S256" || !strings.Contains(p.asked.Get("scope"), "openid") {
		p.t.Errorf("the browser came with %v", p.asked)
	}
	http.Redirect(w, r, p.asked.Get("redirect_uri")+"?"+answer.Encode(), http.StatusFound)
}

func (p *provider) token(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	user, secret, _ := r.BasicAuth()
	sum := sha256.Sum256([]byte(r.PostFormValue("code_verifier")))
	w.Header().Set("Content-Type", "application/json")
	if user != clientID || secret != url.QueryEscape(clientSecret) || r.PostFormValue("code") != "the-code" || r.PostFormValue("redirect_uri") != p.asked.Get("redirect_uri") ||
		base64.RawURLEncoding.EncodeToString(sum[:]) != p.asked.Get("code_challenge") {
		w.WriteHeader(http.StatusBadRequest)
		_, _ = w.Write([]byte(`{"error": "invalid_grant"}`))
		return
	}
	claims := map[string]any{"iss": p.server.URL, "aud": clientID, "nonce": p.asked.Get("nonce"), "iat": time.Now().Unix(), "exp": time.Now().Add(time.Minute).Unix()}
	for name, value := range p.claims {
		if claims[name] = value; value == "" {
			delete(claims, name)
		}
	}
	text, err := json.Marshal(claims)
	if err != nil {
		p.t.Error(err)
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"access_token": "x", "token_type": "Bearer", "id_token": oidctest.SignIDToken(p.signer, "k", "ES256", string(text))})
}

// throughProvider makes the pages of a service that trusts a provider.
func throughProvider(t *testing.T) (*bench, *provider) {
	t.Helper()
	p := newProvider(t)
	b := newBench(t)
	pages, err := openid.New(openid.Config{
		Issuer: p.server.URL, ClientID: clientID, Secret: clientSecret, Redirect: b.server.URL + ui.OpenIDPath,
		Roles: map[string]operations.Role{"noc": operations.Operator, "staff": operations.Viewer, "boss": operations.Admin},
	})
	if err != nil {
		t.Fatal(err)
	}
	b.pages.OpenID = pages
	b.serve()
	t.Cleanup(func() {
		// The tests of this package share a store.
		_ = b.access.RemoveUser(context.WithoutCancel(t.Context()), operations.Caller{Name: "boss", Role: operations.Admin}, "ada")
	})
	return b, p
}

func TestOpenID(t *testing.T) {
	b, p := throughProvider(t)
	c := b.browser()
	if _, page := c.get("/login?next=%2Fdevices"); !strings.Contains(page, `href="/login/openid?next=%2fdevices"`) {
		t.Fatalf("no way to the provider:\n%s", page)
	}
	status, page := c.get("/login/openid?next=%2Fdevices")
	if status != 200 || !strings.Contains(page, "ada") || !strings.Contains(page, "<h1>Devices") {
		t.Fatalf("not signed in: status %d\n%s", status, page)
	}
	// The role is that which permits most: operators run campaigns, and do not manage users.
	if status, page := c.get("/campaigns/new"); status != 200 {
		t.Errorf("a new campaign: status %d\n%.300s", status, page)
	}
	if _, page := c.get("/access"); strings.Contains(page, "Add or change a user") || strings.Contains(page, "Your password") || !strings.Contains(page, "Make the token") {
		t.Errorf("an operator manages users, or has a password here:\n%s", page)
	}
	// Neither role nor password are set here.
	by := operations.Caller{Name: "boss", Role: operations.Admin}
	if err := b.access.PutUser(t.Context(), by, "ada", operations.Admin, password); err == nil || !strings.Contains(err.Error(), "signed in by another service") {
		t.Errorf("a password was given to a user of the provider: %v", err)
	}
	// Programs use a token, as for any user.
	text, _, err := b.access.CreateToken(t.Context(), operations.Caller{Name: "ada", Role: operations.Operator}, "script", operations.Operator, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	// Another role at the next sign-in ends the sessions with the old one, and limits the token.
	p.set(func() { p.claims["roles"] = "staff" })
	if status, _ := b.browser().get("/login/openid"); status != 200 {
		t.Errorf("the second sign-in: status %d", status)
	}
	if _, page := c.get("/devices"); !strings.Contains(page, `name="password"`) {
		t.Error("the session with the old role continues")
	}
	if by, err := b.access.Token(t.Context(), text, "192.0.2.1"); err != nil || by.Role != operations.Viewer {
		t.Errorf("the token acts as %+v, %v", by, err)
	}
	// The provider's name of the user may change: it is the same user here.
	p.set(func() { p.claims["preferred_username"], p.claims["roles"] = "grace", "noc" })
	if status, page := c.get("/login/openid"); status != 200 || !strings.Contains(page, "ada") || strings.Contains(page, "grace") {
		t.Errorf("under another name: status %d\n%s", status, page)
	}
	// Without a role at the provider, sessions and tokens end.
	p.set(func() { p.claims["roles"] = "sales" })
	if status, _ := b.browser().get("/login/openid"); status != http.StatusForbidden {
		t.Errorf("without a role: status %d", status)
	}
	if _, page := c.get("/devices"); !strings.Contains(page, `name="password"`) {
		t.Error("the session continues without a role")
	}
	if _, err := b.access.Token(t.Context(), text, "192.0.2.1"); err == nil {
		t.Error("the token is good without a role")
	}
	p.set(func() { p.claims["roles"] = "noc" })
	// A page elsewhere is not shown afterwards.
	response, err := c.client.Get(b.server.URL + "/login/openid?next=" + url.QueryEscape("//evil.example/"))
	if err != nil {
		t.Fatal(err)
	}
	if _, page := c.read(response); response.Request.URL.Host != strings.TrimPrefix(b.server.URL, "http://") {
		t.Errorf("the browser was sent to %s\n%.300s", response.Request.URL, page)
	}
}

// TestOpenIDRefuses: a user without a valid ID token or a role is not signed in, and the page gives the reason.
func TestOpenIDRefuses(t *testing.T) {
	stranger, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(*provider)
		want   string
	}{
		"denied":            {func(p *provider) { p.denies = "access_denied" }, "access_denied"},
		"no role":           {func(p *provider) { p.claims["roles"] = []string{"sales"} }, "gives ada no role here"},
		"roles are no list": {func(p *provider) { p.claims["roles"] = map[string]any{"noc": true} }, "gives ada no role here"},
		"no name":           {func(p *provider) { p.claims["preferred_username"] = "" }, "preferred_username is missing"},
		"impossible name":   {func(p *provider) { p.claims["preferred_username"] = "…" }, "cannot be the name of a user"},
		"local user":        {func(p *provider) { p.claims["preferred_username"] = "admin-user" }, "another user named admin-user"},
		"another service":   {func(p *provider) { p.claims["aud"] = "wiki" }, "not valid"},
		"another issuer":    {func(p *provider) { p.claims["iss"] = "https://other.example" }, "not valid"},
		"expired":           {func(p *provider) { p.claims["exp"] = time.Now().Add(-time.Hour).Unix() }, "not valid"},
		"another sign-in":   {func(p *provider) { p.claims["nonce"] = "x" }, "made for another sign-in"},
		"no nonce":          {func(p *provider) { p.claims["nonce"] = "" }, "made for another sign-in"},
		"another key":       {func(p *provider) { p.signer = stranger }, "not valid"},
	} {
		t.Run(name, func(t *testing.T) {
			b, p := throughProvider(t)
			p.set(func() { c.change(p) })
			browser := b.browser()
			status, page := browser.get("/login/openid")
			if status != http.StatusForbidden || !strings.Contains(page, c.want) || !strings.Contains(page, `name="password"`) {
				t.Errorf("status %d, want 403 and %q\n%s", status, c.want, page)
			}
			if _, page := browser.get("/devices"); !strings.Contains(page, `name="password"`) {
				t.Error("there is a session")
			}
			denied := 0
			for _, e := range b.service.Entries() {
				if e.Action == "session.begin" && e.Denied {
					denied++
				}
			}
			if denied != 1 {
				t.Errorf("%d refused logins in the audit", denied)
			}
		})
	}
}

// TestOpenIDOtherBrowser: an attacker signs in with an account of his own, and makes another
// browser end that. Without the cookie, or with that of another sign-in, nothing happens.
func TestOpenIDOtherBrowser(t *testing.T) {
	b, p := throughProvider(t)
	c := b.browser()
	c.client.CheckRedirect = func(r *http.Request, _ []*http.Request) error {
		if r.URL.Path == ui.OpenIDPath {
			return http.ErrUseLastResponse
		}
		return nil
	}
	response, err := c.client.Get(b.server.URL + "/login/openid")
	if err != nil {
		t.Fatal(err)
	}
	end := strings.TrimPrefix(response.Header.Get("Location"), b.server.URL)
	c.read(response)
	if status, page := b.browser().get(end); status != http.StatusForbidden || !strings.Contains(page, "not the answer to what this browser asked") {
		t.Errorf("without a cookie: status %d\n%s", status, page)
	}
	victim := b.browser()
	victim.client.CheckRedirect = c.client.CheckRedirect
	if response, err = victim.client.Get(b.server.URL + "/login/openid"); err != nil {
		t.Fatal(err)
	}
	victim.read(response)
	if status, page := victim.get(end); status != http.StatusForbidden || !strings.Contains(page, "not the answer to what this browser asked") {
		t.Errorf("with the cookie of another sign-in: status %d\n%s", status, page)
	}
	// The state of the victim with the code of the attacker: the provider knows whose code it is.
	p.set(func() { p.asked.Set("code_challenge", "that of the attacker") })
	if response, err = victim.client.Get(b.server.URL + "/login/openid"); err != nil {
		t.Fatal(err)
	}
	own := strings.TrimPrefix(response.Header.Get("Location"), b.server.URL)
	victim.read(response)
	p.set(func() { p.asked.Set("code_challenge", "that of the attacker") })
	if status, page := victim.get(own); status != http.StatusForbidden || !strings.Contains(page, "invalid_grant") {
		t.Errorf("with the code of another sign-in: status %d\n%s", status, page)
	}
	if _, page := victim.get("/devices"); !strings.Contains(page, `name="password"`) {
		t.Error("there is a session")
	}
}

// TestOpenIDWithoutProvider: passwords work while the provider does not, and it is asked
// again when it is back.
func TestOpenIDWithoutProvider(t *testing.T) {
	b, p := throughProvider(t)
	handler := p.server.Config.Handler
	p.server.Config.Handler = http.NotFoundHandler()
	c := b.browser()
	if status, page := c.get("/login/openid"); status != http.StatusBadGateway || !strings.Contains(page, "127.0.0.1 does not answer") {
		t.Errorf("status %d\n%s", status, page)
	}
	if _, page := b.as(operations.Viewer).get("/access"); !strings.Contains(page, "Your password") {
		t.Errorf("a user with a password cannot change it:\n%s", page)
	}
	// An outage later in the sign-in is no refusal either.
	p.server.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/keys") {
			http.Error(w, "in maintenance", http.StatusServiceUnavailable)
			return
		}
		handler.ServeHTTP(w, r)
	})
	if status, page := c.get("/login/openid"); status != http.StatusBadGateway || !strings.Contains(page, "does not answer") {
		t.Errorf("no keys: status %d\n%s", status, page)
	}
	p.server.Config.Handler = handler
	if status, _ := c.get("/login/openid"); status != 200 {
		t.Errorf("the provider is back: status %d", status)
	}
}

// TestOpenIDProviderHangs: a user who gives up does not wait for a provider that does not answer, and
// users do not wait for each other.
func TestOpenIDProviderHangs(t *testing.T) {
	asked, answer := make(chan struct{}, 10), make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		asked <- struct{}{}
		<-answer
	}))
	t.Cleanup(server.Close)
	p, err := openid.New(openid.Config{Issuer: server.URL, ClientID: clientID, Redirect: server.URL, Roles: map[string]operations.Role{"noc": operations.Operator}})
	if err != nil {
		t.Fatal(err)
	}
	results := make(chan error)
	begin := func(ctx context.Context) {
		_, _, err := p.Begin(ctx, "")
		results <- err
	}
	go begin(t.Context())
	<-asked
	impatient, giveUp := context.WithCancel(t.Context())
	go begin(impatient)
	giveUp()
	if err := <-results; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	close(answer)
	if err := <-results; err == nil {
		t.Error("an empty answer was accepted")
	}
}
