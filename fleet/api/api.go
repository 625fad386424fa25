package api

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"golang.org/x/time/rate"

	"example.com/iad/fleet"
	"example.com/iad/fleet/auth"
	"example.com/iad/fleet/operations"
)

// Prefix is the path below which the API is.
const Prefix = "/api/v1"

// Config has what the API requires.
type Config struct {
	Service operations.Service
	Access  *auth.Access
	// Version of the program.
	Version string
	// Log gets errors of the service itself; nil: nothing is logged.
	Log *slog.Logger
	// PerSecond is how many requests each user may make, on average, with bursts of four
	// times as many; 0: 50.
	PerSecond float64
	// PingPause is how often a stream of events shows that it is alive, if its token still is
	// valid; 0: 15 seconds.
	PingPause time.Duration
}

// server answers requests.
type server struct {
	Config
	api    huma.API
	limits limits

	mu      sync.Mutex
	streams map[string]int // of events, by user
}

// New returns the handler of everything below Prefix.
func New(c Config) http.Handler {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.PerSecond <= 0 {
		c.PerSecond = 50
	}
	if c.PingPause <= 0 {
		c.PingPause = 15 * time.Second
	}
	s := &server{Config: c, streams: make(map[string]int), limits: limits{perSecond: rate.Limit(c.PerSecond), byUser: make(map[string]*rate.Limiter)}}

	config := huma.DefaultConfig("iadmsd", c.Version)
	config.Info.Description = description
	config.OpenAPIPath = Prefix + "/openapi"
	config.DocsPath = ""     // the library's page loads scripts from elsewhere
	config.SchemasPath = ""  // the schemas are in the document
	config.CreateHooks = nil // no $schema in answers
	config.RejectUnknownQueryParameters = true
	config.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		"token": {Type: "http", Scheme: "bearer", Description: "A token made on the page Access, or with POST " + Prefix + "/login."},
	}
	config.Security = []map[string][]string{{"token": {}}}
	mux := http.NewServeMux()
	s.api = humago.New(mux, config)
	s.api.UseMiddleware(s.authenticate)
	s.registerAccess()
	s.registerInventory()
	s.registerCampaigns()
	s.registerQuestions()
	s.registerFiles()
	s.registerService()
	reference := s.reference()
	mux.Handle("GET "+Prefix+"/{$}", reference)
	mux.Handle("GET "+Prefix+"/reference.css", reference)
	mux.HandleFunc(Prefix+"/", func(w http.ResponseWriter, r *http.Request) {
		writeProblem(w, http.StatusNotFound, "there is no "+r.URL.Path+"; GET "+Prefix+"/ lists what there is")
	})
	return secure(mux)
}

const description = `Everything that the web pages do. Send a token with every request:

    Authorization: Bearer iadms_...

Requests that change something may carry a header Idempotency-Key with a value of your choice: a request that is repeated
with the same key takes effect once. Errors are problem details (RFC 9457) whose list errors names the fields.`

// secure sets the headers that answers for programs have in common.
func secure(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Cache-Control", "no-store")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'")
		next.ServeHTTP(w, r)
	})
}

// maxStreams is how many streams of events each user has at the same time.
const maxStreams = 32

// openStream reports whether the user may have another stream; closeStream ends it.
func (s *server) openStream(user string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.streams[user] >= maxStreams {
		return false
	}
	s.streams[user]++
	return true
}

func (s *server) closeStream(user string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.streams[user]--; s.streams[user] <= 0 {
		delete(s.streams, user)
	}
}

type (
	callerKey struct{}
	tokenKey  struct{} // the text of the token
)

// caller returns who makes the request.
func caller(ctx context.Context) operations.Caller {
	c, _ := ctx.Value(callerKey{}).(operations.Caller)
	return c
}

// Keys of an operation's metadata.
const (
	metaAction = "action" // operations.Action
	metaOpen   = "open"   // true: no token is required
	metaStream = "stream" // true: the answer lasts
	metaFile   = "file"   // true: the request is a file of any size
)

// authenticate lets those pass who have a token whose role permits the operation, and not
// too often.
func (s *server) authenticate(ctx huma.Context, next func(huma.Context)) {
	if ctx.Operation().Metadata[metaOpen] == true {
		next(ctx)
		return
	}
	token, ok := strings.CutPrefix(ctx.Header("Authorization"), "Bearer ")
	if !ok {
		ctx.SetHeader("WWW-Authenticate", "Bearer")
		s.refuse(ctx, http.StatusUnauthorized, "there is no token; send the header Authorization: Bearer TOKEN, with a token from the page Access")
		return
	}
	by, err := s.Access.Token(ctx.Context(), token, auth.Host(ctx.RemoteAddr()))
	switch {
	case errors.Is(err, auth.ErrTooMany):
		ctx.SetHeader("Retry-After", "60")
		s.refuse(ctx, http.StatusTooManyRequests, "too many requests from this address had a wrong token; wait a minute")
		return
	case errors.Is(err, auth.ErrCredentials):
		ctx.SetHeader("WWW-Authenticate", `Bearer error="invalid_token"`)
		s.refuse(ctx, http.StatusUnauthorized, "the token is wrong, was revoked or has expired; make another one on the page Access")
		return
	case err != nil:
		_ = huma.WriteErr(s.api, ctx, http.StatusServiceUnavailable, s.internal(ctx.Operation().OperationID, err))
		return
	}
	by.Request = ctx.Header("Idempotency-Key")
	if len(by.Request) > 100 {
		s.refuse(ctx, http.StatusBadRequest, "the header Idempotency-Key must have at most 100 characters")
		return
	}
	if !s.limits.allow(by.Name) {
		ctx.SetHeader("Retry-After", "1")
		s.refuse(ctx, http.StatusTooManyRequests, fmt.Sprintf("user %s makes more than %g requests per second; wait a second", by.Name, s.PerSecond))
		return
	}
	action, _ := ctx.Operation().Metadata[metaAction].(operations.Action)
	if err := by.Check(action); err != nil {
		if err := s.Service.Record(ctx.Context(), fleet.AuditEntry{
			Actor: by.Actor(), From: by.From, Action: string(action), Object: ctx.URL().Path, Denied: true, Request: by.Request,
		}); err != nil {
			s.Log.Error("a denied request is not in the audit", "operation", ctx.Operation().OperationID, "err", err)
		}
		s.refuse(ctx, http.StatusForbidden, err.Error())
		return
	}
	if ctx.Operation().Metadata[metaStream] == true {
		if !s.openStream(by.Name) {
			ctx.SetHeader("Retry-After", "60")
			s.refuse(ctx, http.StatusTooManyRequests, fmt.Sprintf("user %s has %d streams of events; close one", by.Name, maxStreams))
			return
		}
		defer s.closeStream(by.Name)
	}
	if by.Request != "" && ctx.Operation().Metadata[metaFile] != true {
		if ctx, err = readContent(ctx, &by); err != nil {
			s.refuse(ctx, http.StatusBadRequest, "the request could not be read completely")
			return
		}
	}
	next(huma.WithValue(huma.WithValue(ctx, callerKey{}, by), tokenKey{}, token))
}

// readContent sets the digest of what is requested, and returns a context from which it can
// be read again.
func readContent(ctx huma.Context, by *operations.Caller) (huma.Context, error) {
	op, u := ctx.Operation(), ctx.URL()
	var text []byte
	body := ctx.BodyReader()
	if op.RequestBody != nil {
		if err := ctx.SetReadDeadline(time.Now().Add(op.BodyReadTimeout)); err != nil && !errors.Is(err, http.ErrNotSupported) {
			return ctx, err
		}
		var err error
		if text, err = io.ReadAll(io.LimitReader(body, op.MaxBodyBytes+1)); err != nil { // who decodes it refuses what is longer
			return ctx, err
		}
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %s?%s\n%s", ctx.Method(), u.EscapedPath(), u.RawQuery, text))
	by.Content = hex.EncodeToString(sum[:])
	return again{ctx, io.MultiReader(bytes.NewReader(text), body)}, nil
}

type humaContext = huma.Context // the name of the field must not be that of a method

// again is a request whose body was read.
type again struct {
	humaContext
	body io.Reader
}

// BodyReader implements huma.Context.
func (a again) BodyReader() io.Reader { return a.body }

func (s *server) refuse(ctx huma.Context, status int, detail string) {
	_ = huma.WriteErr(s.api, ctx, status, detail) // the client is gone
}

// limits counts the requests of each user.
type limits struct {
	perSecond rate.Limit
	mu        sync.Mutex
	byUser    map[string]*rate.Limiter
}

func (l *limits) allow(user string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	limiter := l.byUser[user]
	if limiter == nil {
		limiter = rate.NewLimiter(l.perSecond, max(1, int(4*l.perSecond)))
		l.byUser[user] = limiter
	}
	return limiter.Allow()
}

// internal logs an error of the service itself and returns what the client learns of it.
func (s *server) internal(operation string, err error) string {
	s.Log.Error("request failed", "operation", operation, "err", err)
	return "the service failed; its log says why"
}

// problem translates an error of the service.
func (s *server) problem(operation string, err error) error {
	fields := fleet.FieldErrors(err)
	switch {
	case err == nil:
		return nil
	case len(fields) > 0:
		details := make([]error, len(fields))
		for i, f := range fields {
			details[i] = &huma.ErrorDetail{Location: f.Field, Message: f.Problem}
		}
		return huma.NewError(http.StatusUnprocessableEntity, fields[0].Error(), details...)
	case errors.Is(err, operations.ErrNotFound):
		return huma.NewError(http.StatusNotFound, err.Error())
	case errors.Is(err, operations.ErrConflict):
		return huma.NewError(http.StatusConflict, err.Error())
	case errors.Is(err, operations.ErrForbidden):
		return huma.NewError(http.StatusForbidden, err.Error())
	case errors.Is(err, auth.ErrCredentials):
		return huma.NewError(http.StatusUnauthorized, err.Error())
	case errors.Is(err, auth.ErrTooMany):
		return huma.NewError(http.StatusTooManyRequests, err.Error())
	case errors.Is(err, context.Canceled):
		return huma.NewError(499, "the client has closed the connection")
	}
	return huma.NewError(http.StatusInternalServerError, s.internal(operation, err))
}

// operation describes an operation of the API.
func operation(action operations.Action, method, path, id, summary string, change ...func(*huma.Operation)) huma.Operation {
	op := huma.Operation{
		OperationID: id, Method: method, Path: Prefix + path, Summary: summary,
		Description: "Requires the role " + string(action.Least()) + ".",
		Tags:        []string{strings.Split(strings.Trim(path, "/"), "/")[0]},
		Metadata:    map[string]any{metaAction: action},
		Errors:      []int{http.StatusUnauthorized, http.StatusForbidden, http.StatusTooManyRequests, http.StatusInternalServerError},
	}
	if strings.Contains(path, "{") {
		op.Errors = append(op.Errors, http.StatusNotFound)
	}
	if method != http.MethodGet {
		op.Errors = append(op.Errors, http.StatusConflict)
	}
	for _, f := range change {
		f(&op)
	}
	return op
}

// register registers an operation whose answer is a JSON value.
func register[I, O any](s *server, op huma.Operation, handle func(context.Context, operations.Caller, *I) (O, error)) {
	huma.Register(s.api, op, func(ctx context.Context, in *I) (*answer[O], error) {
		out, err := handle(ctx, caller(ctx), in)
		if err != nil {
			return nil, s.problem(op.OperationID, err)
		}
		return &answer[O]{Body: out}, nil
	})
}

// registerEmpty registers an operation without an answer.
func registerEmpty[I any](s *server, op huma.Operation, handle func(context.Context, operations.Caller, *I) error) {
	op.DefaultStatus = http.StatusNoContent
	huma.Register(s.api, op, func(ctx context.Context, in *I) (*struct{}, error) {
		return nil, s.problem(op.OperationID, handle(ctx, caller(ctx), in))
	})
}

type answer[O any] struct{ Body O }

// list is an array that is not null in JSON.
func list[T any](items []T) []T {
	if items == nil {
		return []T{}
	}
	return items
}

// uploadTimeout is how long a client may take to send a file.
const uploadTimeout = time.Hour
