package ui

import (
	"context"
	"embed"
	"errors"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"example.com/iad/fleet"
	"example.com/iad/fleet/auth"
	"example.com/iad/fleet/openid"
	"example.com/iad/fleet/operations"
)

//go:embed static
var static embed.FS

// Config has what the pages require.
type Config struct {
	Service operations.Service
	Access  *auth.Access
	// Version of the program.
	Version string
	// Secure: browsers reach the pages by HTTPS, so that cookies can be kept from HTTP.
	Secure bool
	// OpenID signs users in who have no password here; nil: nobody does.
	OpenID *openid.Provider
	// Log gets errors of the service itself; nil: nothing is logged.
	Log *slog.Logger
}

// Limits of what browsers send, in bytes.
const (
	maxForm      = 1 << 20
	maxEdit      = 64 << 20
	maxInventory = 512 << 20
)

// pages answers requests.
type pages struct {
	Config
	streams streams
}

// page is one request of a user.
type page struct {
	*pages
	w  http.ResponseWriter
	r  *http.Request
	by operations.Caller
}

// New returns the handler of all pages.
func New(c Config) http.Handler {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	p := &pages{Config: c, streams: streams{byUser: make(map[string]int)}}
	mux := http.NewServeMux()
	files, err := fs.Sub(static, "static")
	if err != nil {
		panic(err) // the directory is embedded
	}
	mux.Handle("GET /static/", cached(http.StripPrefix("/static/", http.FileServerFS(files))))
	mux.HandleFunc("GET /login", p.loginForm)
	mux.HandleFunc("POST /login", p.login)
	if c.OpenID != nil {
		mux.HandleFunc("GET /login/openid", p.beginOpenID)
		mux.HandleFunc("GET "+OpenIDPath, p.finishOpenID)
	}
	for pattern, handle := range map[string]func(*page) error{
		"POST /logout": (*page).logout,
		"GET /{$}":     (*page).overview,
		"GET /events":  (*page).events,

		"GET /devices":                (*page).devices,
		"GET /devices/new":            (*page).newDevice,
		"POST /devices":               (*page).addDevice,
		"GET /devices/{name}":         (*page).device,
		"POST /devices/{name}":        (*page).changeDevice,
		"POST /devices/{name}/remove": (*page).removeDevice,
		"GET /discover":               (*page).discoverForm,
		"POST /discover":              (*page).discover,
		"GET /inventory":              (*page).inventory,
		"POST /inventory":             (*page).importDevices,
		"GET /inventory/export":       (*page).exportDevices,
		"POST /sites":                 (*page).putSite,
		"POST /sites/{name}/remove":   (*page).removeSite,
		"POST /groups":                (*page).putGroup,
		"POST /groups/{name}/remove":  (*page).removeGroup,
		"POST /secrets":               (*page).putSecret,
		"POST /secrets/{name}/remove": (*page).removeSecret,

		"GET /campaigns":                 (*page).campaigns,
		"GET /campaigns/new":             (*page).newCampaign,
		"POST /campaigns":                (*page).createCampaign,
		"GET /campaigns/{id}":            (*page).campaign,
		"GET /campaigns/{id}/edit":       (*page).editForm,
		"POST /campaigns/{id}/edit":      (*page).editCampaign,
		"POST /campaigns/{id}/{command}": (*page).commandCampaign,
		"GET /match":                     (*page).match,
		"POST /schedules":                (*page).putSchedule,
		"POST /schedules/{name}/remove":  (*page).removeSchedule,
		"GET /questions":                 (*page).questions,
		"POST /questions/group/{group}":  (*page).answerGroup,
		"GET /questions/{id}/{device}":   (*page).question,
		"POST /questions/{id}/{device}":  (*page).answer,

		"GET /backups":                                 (*page).backups,
		"GET /devices/{name}/backups":                  (*page).deviceBackups,
		"GET /devices/{name}/backups/{id}":             (*page).backup,
		"GET /devices/{name}/backups/{id}/diff":        (*page).diff,
		"GET /devices/{name}/backups/{id}/edit":        (*page).editBackupForm,
		"POST /devices/{name}/backups/{id}/edit":       (*page).editBackup,
		"POST /devices/{name}/backups/{id}/upload":     (*page).uploadEdit,
		"POST /devices/{name}/backups/{id}/pin":        (*page).pinBackup,
		"GET /devices/{name}/backups/{id}/file/{kind}": (*page).backupFile,

		"GET /images":                  (*page).images,
		"POST /images":                 (*page).addImage,
		"POST /images/{digest}/remove": (*page).removeImage,
		"GET /workers":                 (*page).workers,
		"POST /workers/{id}/drain":     (*page).drainWorker,
		"GET /damage":                  (*page).damage,
		"POST /damage/remove":          (*page).removeDamage,
		"GET /audit":                   (*page).audit,
		"GET /access":                  (*page).access,
		"POST /access/password":        (*page).changePassword,
		"POST /access/tokens":          (*page).createToken,
		"POST /access/tokens/{id}":     (*page).revokeToken,
		"POST /access/users":           (*page).putUser,
		"POST /access/users/{name}":    (*page).removeUser,
	} {
		mux.Handle(pattern, p.signedIn(handle))
	}
	mux.Handle("/", p.signedIn(func(p *page) error {
		return errors.Join(operations.ErrNotFound, errors.New("there is no page "+p.r.URL.Path))
	}))
	crossOrigin := http.NewCrossOriginProtection()
	crossOrigin.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.Log.Warn("a request of another web site was refused", "path", r.URL.Path, "from", auth.Host(r.RemoteAddr), "origin", r.Header.Get("Origin"))
		(&page{pages: p, w: w, r: r}).show(http.StatusForbidden, "failed", "Refused", failure{
			Text: "The request came from another web site. Use the pages themselves.",
		})
	}))
	return headers(crossOrigin.Handler(mux))
}

// headers sets what all answers have.
func headers(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "+
			"form-action 'self'; frame-ancestors 'none'; base-uri 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}

// cached lets browsers keep files for a while.
func cached(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "private, max-age=300")
		next.ServeHTTP(w, r)
	})
}

// cookieName returns the name of the session's cookie. Browsers accept a name with
// __Host- only over HTTPS and from the very same host.
func (p *pages) cookieName() string {
	if p.Secure {
		return "__Host-iadms"
	}
	return "iadms_session"
}

func (p *pages) setCookie(w http.ResponseWriter, value string, maxAge int) {
	http.SetCookie(w, &http.Cookie{
		Name: p.cookieName(), Value: value, Path: "/", MaxAge: maxAge, HttpOnly: true, Secure: p.Secure, SameSite: http.SameSiteLaxMode,
	})
}

// signedIn calls handle for users who have a session, and shows the others where to log
// in.
func (p *pages) signedIn(handle func(*page) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		request := &page{pages: p, w: w, r: r}
		cookie, err := r.Cookie(p.cookieName())
		if err == nil {
			request.by, err = p.Access.Session(r.Context(), cookie.Value, auth.Host(r.RemoteAddr))
		} else {
			err = auth.ErrCredentials
		}
		if errors.Is(err, auth.ErrCredentials) {
			target := "/login"
			if r.Method == http.MethodGet && r.URL.Path != "/" {
				target += "?next=" + url.QueryEscape(r.URL.RequestURI())
			}
			http.Redirect(w, r, target, http.StatusSeeOther)
			return
		}
		if err == nil {
			err = handle(request)
		}
		if err != nil {
			request.fail(err)
		}
	})
}

// fail shows an error.
func (p *page) fail(err error) {
	status, title, text := http.StatusInternalServerError, "The service failed", "The log of the service says why."
	switch {
	case len(fleet.FieldErrors(err)) > 0:
		status, title, text = http.StatusUnprocessableEntity, "Not accepted", err.Error()
	case errors.Is(err, operations.ErrNotFound):
		status, title, text = http.StatusNotFound, "Not found", "It does not exist, or not any more."
	case errors.Is(err, operations.ErrConflict):
		status, title, text = http.StatusConflict, "Not possible now", err.Error()
	case errors.Is(err, operations.ErrForbidden):
		status, title, text = http.StatusForbidden, "Not permitted", err.Error()
	case errors.As(err, new(*http.MaxBytesError)):
		status, title, text = http.StatusRequestEntityTooLarge, "Too large", "The file or form is larger than the service accepts."
	case errors.Is(err, context.Canceled):
		return
	default:
		p.Log.Error("page failed", "path", p.r.URL.Path, "err", err)
	}
	p.show(status, "failed", title, failure{Text: text})
}

type failure struct{ Text string }

// form parses a form of limited size. Values in the address do not count.
func (p *page) form(limit int64) error {
	p.r.Body = http.MaxBytesReader(p.w, p.r.Body, limit)
	if err := p.r.ParseForm(); err != nil {
		if errors.As(err, new(*http.MaxBytesError)) {
			return err
		}
		return &fleet.FieldError{Field: "form", Problem: "cannot be read; load the page again"}
	}
	return nil
}

// value is a value of a form, without white space around it.
func (p *page) value(name string) string { return strings.TrimSpace(p.r.PostForm.Get(name)) }

// done shows another page, which says what was done. what is a key of doneTexts.
func (p *page) done(target, what string) error {
	if what != "" {
		target += map[bool]string{true: "&", false: "?"}[strings.Contains(target, "?")] + "done=" + what
	}
	http.Redirect(p.w, p.r, target, http.StatusSeeOther)
	return nil
}

// number is a number in the address; what is not one is fallback.
func (p *page) number(name string, fallback int) int {
	n, err := strconv.Atoi(p.r.URL.Query().Get(name))
	if err != nil || n < -1 {
		return fallback
	}
	return n
}

type loginData struct {
	Next, Problem string
	OpenID        string // the name of the provider, "" without one
}

func (p *pages) loginForm(w http.ResponseWriter, r *http.Request) {
	request := &page{pages: p, w: w, r: r}
	request.showLogin(http.StatusOK, r.URL.Query().Get("next"), "")
}

func (p *page) showLogin(status int, next, problem string) {
	data := loginData{Next: localPath(next), Problem: problem}
	if p.OpenID != nil {
		data.OpenID = p.OpenID.Name()
	}
	p.show(status, "login", "Sign in", data)
}

// localPath returns a path of these pages; what is not one becomes "/".
func localPath(s string) string {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "" || u.Host != "" || u.User != nil || !strings.HasPrefix(s, "/") || strings.HasPrefix(s, "//") || strings.ContainsAny(s, "\\\r\n\t") {
		return "/"
	}
	return s
}

// login begins a session with an ID that is always new, so that nobody can prepare one.
func (p *pages) login(w http.ResponseWriter, r *http.Request) {
	request := &page{pages: p, w: w, r: r}
	if err := request.form(maxForm); err != nil {
		request.fail(err)
		return
	}
	id, _, err := p.Access.Login(r.Context(), request.value("user"), r.PostForm.Get("password"), auth.Host(r.RemoteAddr))
	switch {
	case errors.Is(err, auth.ErrCredentials):
		request.showLogin(http.StatusUnauthorized, r.PostForm.Get("next"), "The user name or the password is wrong.")
		return
	case errors.Is(err, auth.ErrTooMany):
		w.Header().Set("Retry-After", "60")
		request.showLogin(http.StatusTooManyRequests, r.PostForm.Get("next"), "Too many attempts failed. Try again in a minute.")
		return
	case err != nil:
		request.fail(err)
		return
	}
	p.signIn(w, r, id, r.PostForm.Get("next"))
}

// signIn gives the browser its new session in place of an older one, and shows a page.
func (p *pages) signIn(w http.ResponseWriter, r *http.Request, id, next string) {
	if old, err := r.Cookie(p.cookieName()); err == nil {
		if err := p.Access.Logout(r.Context(), old.Value); err != nil {
			p.Log.Error("a session was not ended", "err", err)
		}
	}
	p.setCookie(w, id, int(auth.SessionLife/time.Second))
	http.Redirect(w, r, localPath(next), http.StatusSeeOther)
}

func (p *page) logout() error {
	if cookie, err := p.r.Cookie(p.cookieName()); err == nil {
		if err := p.Access.Logout(p.r.Context(), cookie.Value); err != nil {
			return err
		}
	}
	p.setCookie(p.w, "", -1)
	http.Redirect(p.w, p.r, "/login", http.StatusSeeOther)
	return nil
}

// streams counts the pages that each user has open.
type streams struct {
	mu     sync.Mutex
	byUser map[string]int
}

// maxStreams is how many pages of one user are live at the same time.
const maxStreams = 32

func (s *streams) open(user string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byUser[user] >= maxStreams {
		return false
	}
	s.byUser[user]++
	return true
}

func (s *streams) close(user string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byUser[user]--; s.byUser[user] <= 0 {
		delete(s.byUser, user)
	}
}

// How often a stream reports changes at most, and that it is alive.
const (
	changePause = time.Second
	alivePause  = 15 * time.Second
)

// events tells a page that something changed; the page then loads itself again. The stream
// ends when the session does.
func (p *page) events() error {
	if !p.streams.open(p.by.Name) {
		p.w.WriteHeader(http.StatusTooManyRequests)
		return nil
	}
	defer p.streams.close(p.by.Name)
	ctx, stop := context.WithCancel(p.r.Context())
	defer stop()
	changed := make(chan struct{}, 1)
	go func() {
		defer stop()
		err := p.Service.Events(ctx, p.by, p.r.URL.Query().Get("campaign"), func(fleet.Event) error {
			select {
			case changed <- struct{}{}:
			default:
			}
			return nil
		})
		if err != nil && ctx.Err() == nil {
			p.Log.Error("events failed", "err", err)
		}
	}()
	p.w.Header().Set("Content-Type", "text/event-stream")
	p.w.Header().Set("X-Accel-Buffering", "no")
	control := http.NewResponseController(p.w)
	send := func(text string) bool {
		_ = control.SetWriteDeadline(time.Now().Add(alivePause)) // not supported: none
		_, err := p.w.Write([]byte(text))
		return err == nil && control.Flush() == nil
	}
	if !send(": connected\n\n") {
		return nil
	}
	alive := time.NewTicker(alivePause)
	defer alive.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
			if !send("event: change\ndata: {}\n\n") {
				return nil
			}
			select { // whatever else changes meanwhile is one change
			case <-time.After(changePause):
			case <-ctx.Done():
				return nil
			}
		case <-alive.C:
			cookie, err := p.r.Cookie(p.cookieName())
			if err != nil {
				return nil
			}
			if _, err := p.Access.Session(ctx, cookie.Value, p.by.From); err != nil || !send(": alive\n\n") {
				return nil
			}
		}
	}
}
