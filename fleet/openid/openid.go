// Package openid signs users in through an OpenID Connect provider: the authorization code
// flow of OpenID Connect Core 1.0 section 3.1, with PKCE (RFC 7636).
package openid

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
	"golang.org/x/sync/singleflight"

	"example.com/iad/fleet/operations"
)

// ErrRefused: the provider, or what it says of the user, does not let the user in. The error
// that wraps it says why.
var ErrRefused = errors.New("not signed in")

// requestTime is how long a request to the provider may take.
const requestTime = 15 * time.Second

// Config is what Provider needs.
type Config struct {
	// Issuer is the provider, an HTTPS URL; HTTP is accepted for a loopback address only.
	Issuer string
	// ClientID and Secret are what the provider knows this service by; Secret may be empty.
	ClientID, Secret string
	// Redirect is the URL to which the provider sends browsers back.
	Redirect string
	// NameClaim is the claim with the name of the user; "" is preferred_username.
	NameClaim string
	// RoleClaim is the claim with a word, or a list of words, that Roles gives a role; "" is
	// roles. A dot leads into an object: realm_access.roles.
	RoleClaim string
	// Roles are the roles of these words. Users with several get the one that permits most,
	// users with none are refused.
	Roles map[string]operations.Role
}

// Provider is an OpenID Connect provider. It is asked when somebody signs in first, so that a
// start does not depend on it.
type Provider struct {
	config Config
	client *http.Client

	group singleflight.Group
	found atomic.Pointer[oidc.Provider]
}

// New returns a provider. The error says which field of the configuration is wrong.
func New(c Config) (*Provider, error) {
	c.NameClaim, c.RoleClaim = cmp.Or(c.NameClaim, "preferred_username"), cmp.Or(c.RoleClaim, "roles")
	u, err := url.Parse(c.Issuer)
	switch {
	case err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return nil, fmt.Errorf("issuer %q must be a URL such as https://sso.example", c.Issuer)
	case u.Scheme != "https" && (u.Scheme != "http" || !loopback(u.Hostname())):
		return nil, fmt.Errorf("issuer %q must be an https URL", c.Issuer)
	case c.ClientID == "":
		return nil, errors.New("the ID of this service at the provider is missing")
	case len(c.Roles) == 0:
		return nil, errors.New("no role is given to anybody")
	}
	for word, role := range c.Roles {
		if err := operations.CheckRole(role); err != nil {
			return nil, fmt.Errorf("role of %q: %w", word, err)
		}
	}
	return &Provider{config: c, client: &http.Client{Timeout: requestTime}}, nil
}

func loopback(host string) bool {
	return host == "localhost" || host == "::1" || strings.HasPrefix(host, "127.")
}

// Name is what people know the provider by: its host.
func (p *Provider) Name() string {
	u, err := url.Parse(p.config.Issuer)
	if err != nil {
		return ""
	}
	return u.Hostname()
}

// Flow is what the browser keeps while the provider asks the user.
type Flow struct {
	State    string `json:"state"`
	Nonce    string `json:"nonce"`
	Verifier string `json:"verifier"`
	Next     string `json:"next"` // the page to show afterwards
}

// Asked reports whether an answer is to what the browser asked. Any web page can send a browser
// with another one.
func (f Flow) Asked(answer url.Values) bool {
	return f.State != "" && answer.Get("state") == f.State
}

// User is whom the provider has signed in.
type User struct {
	// Subject identifies the user for ever: the issuer and its name for the user.
	Subject string
	// Name is what the provider calls the user; users may be able to change it.
	Name string
	Role operations.Role
}

// discover returns what the provider says of itself. It is asked once for all users who wait.
func (p *Provider) discover(ctx context.Context) (*oidc.Provider, error) {
	if found := p.found.Load(); found != nil {
		return found, nil
	}
	asked := p.group.DoChan("", func() (any, error) {
		// Its keys are fetched with this context later. The client limits the time.
		found, err := oidc.NewProvider(oidc.ClientContext(context.WithoutCancel(ctx), p.client), p.config.Issuer)
		if err == nil {
			p.found.Store(found)
		}
		return found, err
	})
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case r := <-asked:
		if r.Err != nil {
			return nil, fmt.Errorf("OpenID Connect provider %s: %w", p.config.Issuer, r.Err)
		}
		return r.Val.(*oidc.Provider), nil
	}
}

func (p *Provider) oauth(found *oidc.Provider) *oauth2.Config {
	return &oauth2.Config{
		ClientID: p.config.ClientID, ClientSecret: p.config.Secret, Endpoint: found.Endpoint(), RedirectURL: p.config.Redirect,
		Scopes: []string{oidc.ScopeOpenID, "profile", "email"},
	}
}

// Begin returns where the browser has to go, and what it has to keep.
func (p *Provider) Begin(ctx context.Context, next string) (address string, _ Flow, _ error) {
	found, err := p.discover(ctx)
	if err != nil {
		return "", Flow{}, err
	}
	f := Flow{State: oauth2.GenerateVerifier(), Nonce: oauth2.GenerateVerifier(), Verifier: oauth2.GenerateVerifier(), Next: next}
	return p.oauth(found).AuthCodeURL(f.State, oidc.Nonce(f.Nonce), oauth2.S256ChallengeOption(f.Verifier)), f, nil
}

// Finish returns who has been signed in, from what the provider has sent back with the browser. With
// an error that wraps ErrRefused it returns whom the provider gives no role.
func (p *Provider) Finish(ctx context.Context, f Flow, answer url.Values) (User, error) {
	refused := func(format string, args ...any) (User, error) {
		return User{}, fmt.Errorf("%w: "+format, append([]any{ErrRefused}, args...)...)
	}
	if !f.Asked(answer) {
		return refused("this is not the answer to what this browser asked; sign in again")
	}
	if code := answer.Get("error"); code != "" {
		return refused("%s said %.100q: %.200q", p.Name(), code, answer.Get("error_description"))
	}
	found, err := p.discover(ctx)
	if err != nil {
		return User{}, err
	}
	ctx = oidc.ClientContext(ctx, p.client)
	token, err := p.oauth(found).Exchange(ctx, answer.Get("code"), oauth2.VerifierOption(f.Verifier))
	if rejected := new(oauth2.RetrieveError); errors.As(err, &rejected) && rejected.ErrorCode == "invalid_grant" {
		return refused("%s does not accept the code: %.200q", p.Name(), rejected.ErrorCode)
	} else if err != nil {
		return User{}, err
	}
	raw, _ := token.Extra("id_token").(string)
	id, err := found.Verifier(&oidc.Config{ClientID: p.config.ClientID}).Verify(ctx, raw)
	if err != nil && strings.Contains(err.Error(), "fetching keys") { // the library has no error for it
		return User{}, fmt.Errorf("OpenID Connect provider %s: %w", p.config.Issuer, err)
	} else if err != nil {
		return refused("the ID token of %s is not valid: %v", p.Name(), err)
	}
	if id.Nonce != f.Nonce {
		return refused("the ID token of %s was made for another sign-in", p.Name())
	}
	var claims map[string]any
	if err := id.Claims(&claims); err != nil {
		return refused("the claims of %s cannot be read: %v", p.Name(), err)
	}
	name, _ := find(claims, p.config.NameClaim).(string)
	if name == "" {
		return refused("%s says no name of the user: the claim %s is missing", p.Name(), p.config.NameClaim)
	}
	role, ok := p.role(find(claims, p.config.RoleClaim))
	if !ok {
		return User{Subject: id.Issuer + " " + id.Subject, Name: name}, fmt.Errorf("%w: %s gives %s no role here: the claim %s has none of the words that stand for one", ErrRefused, p.Name(), name, p.config.RoleClaim)
	}
	return User{Subject: id.Issuer + " " + id.Subject, Name: name, Role: role}, nil
}

// find returns a claim.
func find(claims map[string]any, name string) any {
	if v, ok := claims[name]; ok {
		return v
	}
	first, rest, _ := strings.Cut(name, ".")
	if inner, ok := claims[first].(map[string]any); ok {
		return find(inner, rest)
	}
	return nil
}

// role returns the role that permits most of those that a claim gives.
func (p *Provider) role(claim any) (best operations.Role, ok bool) {
	words, list := claim.([]any)
	if !list {
		words = []any{claim}
	}
	order := operations.Roles()
	for _, w := range words {
		word, _ := w.(string)
		if role, found := p.config.Roles[word]; found && (!ok || slices.Index(order, role) > slices.Index(order, best)) {
			best, ok = role, true
		}
	}
	return best, ok
}
