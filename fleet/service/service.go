package service

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"golang.org/x/sync/errgroup"

	"example.com/iad/bank/image"
	"example.com/iad/fleet"
	"example.com/iad/fleet/audit"
	"example.com/iad/fleet/campaign"
	"example.com/iad/fleet/engine"
	"example.com/iad/fleet/operations"
	"example.com/iad/fleet/store"
	"example.com/iad/fleet/view"
)

// Config is what a Service works with.
type Config struct {
	Store *store.Store
	View  *view.View
	Audit *audit.Audit
	// Trust says who may sign images; nil: no image can be added.
	Trust *image.Trust
	// RequireApproval: every campaign that a person creates needs the approval of another
	// one, and schedules can only back up and check.
	RequireApproval bool
	// Networks may be searched for devices; none: Discover is refused.
	Networks []netip.Prefix
	// Dir is for temporary files; empty: the system's directory.
	Dir string
	Log *slog.Logger // nil: nothing is logged
}

// Service implements operations.Service. It is safe for concurrent use.
type Service struct {
	cfg   Config
	store *store.Store
	view  *view.View
	log   *slog.Logger
	now   func() time.Time
}

var _ operations.Service = (*Service)(nil)

// New returns the service. Run feeds its view.
func New(cfg Config) *Service {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Service{cfg: cfg, store: cfg.Store, view: cfg.View, log: cfg.Log, now: func() time.Time { return time.Now().UTC() }}
}

// feedPause is the pause before a watch that has ended is begun again.
const feedPause = time.Second

// Run feeds the view, and notices what is damaged, until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		return s.follow(ctx, "devices", func() error { return s.view.FeedDevices(ctx, s.store.Devices) })
	})
	group.Go(func() error {
		return s.follow(ctx, "runs", func() error { return s.view.FeedRuns(ctx, s.store.Runs) })
	})
	group.Go(func() error { return s.inspect(ctx) })
	return group.Wait()
}

// follow calls watch again whenever it ends, until ctx or the view ends.
func (s *Service) follow(ctx context.Context, what string, watch func() error) error {
	for {
		err := watch()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, view.ErrClosed):
			return err
		}
		s.log.Warn("what is stored is read again", "what", what, "err", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(feedPause):
		}
	}
}

// failure is an error with the kind of failure of package operations that it is.
type failure struct {
	kind error
	text string
}

func (f *failure) Error() string { return f.text }

// Unwrap returns the kind.
func (f *failure) Unwrap() error { return f.kind }

func conflict(format string, args ...any) error {
	return &failure{operations.ErrConflict, fmt.Sprintf(format, args...)}
}

func notFound(what, name string) error {
	return &failure{operations.ErrNotFound, fmt.Sprintf("%s %.80q does not exist", what, name)}
}

func field(name, format string, args ...any) error {
	return &fleet.FieldError{Field: name, Problem: fmt.Sprintf(format, args...)}
}

// failed converts an error about an object.
func failed(err error, what, name string) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, engine.ErrNotFound), errors.Is(err, view.ErrNotFound):
		return notFound(what, name)
	case errors.Is(err, engine.ErrDamaged):
		return conflict("what is stored of %s %s is damaged; the page Damaged objects shows it", what, name)
	case errors.Is(err, engine.ErrConflict):
		return conflict("%s %s was changed by somebody else at the same time; look at it again", what, name)
	}
	return err
}

// refusal converts an error of package campaign.
func refusal(err error) error {
	var state *campaign.StateError
	var approval *campaign.ApprovalError
	if errors.As(err, &state) || errors.As(err, &approval) {
		return &failure{operations.ErrConflict, err.Error()}
	}
	return err
}

// maxRequest is the maximum length of the ID of a request, in bytes.
const maxRequest = 128

// effect is what a change did, for the audit.
type effect struct{ before, after any }

// change carries out a change and writes it to the audit. It does nothing if the request
// was carried out before, and refuses another request with the same ID.
func (s *Service) change(ctx context.Context, by operations.Caller, action operations.Action, object string, do func() (effect, error)) error {
	if err := s.permit(ctx, by, action, object); err != nil {
		return err
	}
	if done, err := s.Repeated(ctx, by, object, []string{string(action)}); err != nil || done {
		return err
	}
	e, err := do()
	if err != nil {
		return err
	}
	entry := fleet.AuditEntry{Actor: by.Actor(), From: by.From, Action: string(action), Object: object, Request: by.Request, Content: s.digest(by.Content)}
	if entry.Before, err = raw(e.before); err != nil {
		return err
	}
	if entry.After, err = raw(e.after); err != nil {
		return err
	}
	if _, err := s.cfg.Audit.Append(ctx, entry); err != nil {
		return fmt.Errorf("%s of %s was carried out, but not written to the audit: %w", action, object, err)
	}
	return nil
}

// Repeated implements operations.Service.
func (s *Service) Repeated(ctx context.Context, by operations.Caller, object string, actions []string) (bool, error) {
	if by.Request == "" {
		return false, nil
	}
	if len(by.Request) > maxRequest {
		return false, field("request", "must have at most %d bytes", maxRequest)
	}
	for _, action := range actions {
		earlier, done, err := s.cfg.Audit.Find(ctx, action, by.Actor(), by.Request)
		switch {
		case err != nil:
			return false, err
		case !done:
			continue
		case object != "" && earlier.Object != object:
			return true, field("request", "the ID %.40q was used before, for %s; a request for %s needs another one", by.Request, earlier.Object, object)
		case by.Content != "" && earlier.Content != "" && s.digest(by.Content) != earlier.Content:
			return true, field("request", "the ID %.40q was used before, for another request for %s; a request with other content needs another one", by.Request, earlier.Object)
		}
		return true, nil
	}
	return false, nil
}

// digest is the digest of the content of a request, with the service's key; empty: not known.
func (s *Service) digest(content string) string {
	if content == "" {
		return ""
	}
	return s.store.Secrets.Digest(content)
}

// raw is the JSON of a value; nil stays nil.
func raw(v any) (json.RawMessage, error) {
	if v == nil {
		return nil, nil
	}
	return json.Marshal(v)
}

// permit checks the caller's role; what is denied is in the audit.
func (s *Service) permit(ctx context.Context, by operations.Caller, action operations.Action, object string) error {
	err := by.Check(action)
	if err == nil {
		return nil
	}
	_, auditErr := s.cfg.Audit.Append(ctx, fleet.AuditEntry{Actor: by.Actor(), From: by.From, Action: string(action), Object: object, Denied: true, Request: by.Request})
	return errors.Join(err, auditErr)
}

// Audit implements operations.Service.
func (s *Service) Audit(ctx context.Context, by operations.Caller, q operations.AuditQuery) ([]fleet.AuditEntry, error) {
	if err := s.permit(ctx, by, operations.ReadAudit, "audit"); err != nil {
		return nil, err
	}
	limit, err := pageSize(q.Limit)
	if err != nil {
		return nil, err
	}
	return s.cfg.Audit.Read(ctx, audit.Query{Before: q.Before, Actor: q.Actor, Action: q.Action, Object: q.Object, Limit: limit})
}

// Record implements operations.Service.
func (s *Service) Record(ctx context.Context, e fleet.AuditEntry) error {
	e.Content = s.digest(e.Content)
	_, err := s.cfg.Audit.Append(ctx, e)
	return err
}

// Events implements operations.Service.
func (s *Service) Events(ctx context.Context, by operations.Caller, campaign string, handle func(fleet.Event) error) error {
	if err := s.permit(ctx, by, operations.Read, "events"); err != nil {
		return err
	}
	return s.store.Events(ctx, 0, func(_ uint64, e *fleet.Event) error {
		if campaign != "" && e.Campaign != campaign {
			return nil
		}
		return handle(*e)
	})
}

// pageSize checks the number of rows of a page.
func pageSize(limit int) (int, error) {
	switch {
	case limit == 0:
		return 50, nil
	case limit < 0 || limit > operations.MaxPage:
		return 0, field("limit", "must be from 1 to %d", operations.MaxPage)
	}
	return limit, nil
}

func offset(n int) error {
	if n < 0 {
		return field("offset", "must be 0 or more")
	}
	return nil
}

func counts(numbers []view.Number) []operations.Count {
	list := make([]operations.Count, len(numbers))
	for i, n := range numbers {
		list[i] = operations.Count{Value: n.Value, Count: n.Count}
	}
	return list
}
