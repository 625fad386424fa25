package ui

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"example.com/iad/fleet/auth"
	"example.com/iad/fleet/openid"
)

// OpenIDPath is where an OpenID Connect provider sends browsers back to.
const OpenIDPath = "/login/openid/callback"

// flowLife is how long the provider may take to sign a user in.
const flowLife = 10 * time.Minute

// flowCookie returns the name of the cookie for a sign-in that has begun. Any node may see
// the end of it, so that none stores it.
func (p *pages) flowCookie() string { return p.cookieName() + "-openid" }

func (p *pages) setFlow(w http.ResponseWriter, value string, maxAge int) {
	http.SetCookie(w, &http.Cookie{
		Name: p.flowCookie(), Value: value, Path: "/", MaxAge: maxAge, HttpOnly: true, Secure: p.Secure, SameSite: http.SameSiteLaxMode,
	})
}

// beginOpenID sends the browser to the provider.
func (p *pages) beginOpenID(w http.ResponseWriter, r *http.Request) {
	request := &page{pages: p, w: w, r: r}
	next := r.URL.Query().Get("next")
	address, flow, err := p.OpenID.Begin(r.Context(), next)
	if err != nil {
		p.Log.Error("nobody can sign in through OpenID Connect", "err", err)
		request.showLogin(http.StatusBadGateway, next, p.OpenID.Name()+" does not answer. Try again later, or sign in with a password.")
		return
	}
	text, err := json.Marshal(flow)
	if err != nil {
		request.fail(err)
		return
	}
	p.setFlow(w, base64.RawURLEncoding.EncodeToString(text), int(flowLife/time.Second))
	http.Redirect(w, r, address, http.StatusSeeOther)
}

// finishOpenID begins the session of a user whom the provider has signed in.
func (p *pages) finishOpenID(w http.ResponseWriter, r *http.Request) {
	request := &page{pages: p, w: w, r: r}
	var flow openid.Flow
	if cookie, err := r.Cookie(p.flowCookie()); err == nil {
		if text, err := base64.RawURLEncoding.DecodeString(cookie.Value); err == nil {
			_ = json.Unmarshal(text, &flow) // what is no flow is refused
		}
	}
	if !flow.Asked(r.URL.Query()) {
		request.showLogin(http.StatusForbidden, "", "This is not the answer to what this browser asked. Sign in again.")
		return
	}
	p.setFlow(w, "", -1)
	id, _, err := p.Access.LoginExternal(r.Context(), auth.Host(r.RemoteAddr), openid.ErrRefused, func(ctx context.Context) (auth.External, error) {
		u, err := p.OpenID.Finish(ctx, flow, r.URL.Query())
		return auth.External(u), err
	})
	switch {
	case errors.Is(err, openid.ErrRefused):
		p.Log.Warn("a sign-in through OpenID Connect was refused", "from", auth.Host(r.RemoteAddr), "err", err)
		request.showLogin(http.StatusForbidden, flow.Next, "You are "+err.Error()+".")
	case err != nil:
		p.Log.Error("a sign-in through OpenID Connect failed", "err", err)
		request.showLogin(http.StatusBadGateway, flow.Next, "The sign-in failed: "+p.OpenID.Name()+" does not answer. Try again later.")
	default:
		p.signIn(w, r, id, flow.Next)
	}
}
