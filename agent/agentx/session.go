package agentx

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"example.com/iad/mib"
	"github.com/cenkalti/backoff/v5"
	"github.com/posteo/go-agentx/pdu"
)

// ErrAway means that no master agent can take a notification now: there is no
// session, or it was lost before the master answered. The notification may or
// may not have left; send it again after the next [Session.Ready].
var ErrAway = errors.New("agentx: the master agent is away")

// RefusedError is the answer of a master that did not do what it was asked.
type RefusedError struct {
	// Request is what was asked.
	Request pdu.Type
	// Code is the master's res.error (RFC 2741 section 6.2.16), above 0.
	Code pdu.Error
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("agentx: the master agent refused %v: %v", e.Request, e.Code)
}

// Session makes a tree available through a master agent for as long as Run
// runs. Its methods may be called at the same time.
type Session struct {
	cfg              Config
	network, address string
	tree             *mib.Tree
	ready            chan struct{}

	mu   sync.Mutex
	link *link // nil while the master is away
}

// Run keeps the session up until ctx is done, then unregisters the tree, closes
// the session in good order and returns nil. It returns no other value.
func (s *Session) Run(ctx context.Context) error {
	pause := &backoff.ExponentialBackOff{
		InitialInterval:     500 * time.Millisecond,
		RandomizationFactor: 0.5,
		Multiplier:          1.6,
		MaxInterval:         10 * time.Second,
	}
	for ctx.Err() == nil {
		opened, err := s.serveOnce(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if opened {
			pause.Reset()
		}
		wait := pause.NextBackOff()
		s.cfg.Log.Warn("no session with the master agent", "err", err, "retry_in", wait)
		timer := s.cfg.Clock.NewTimer(wait)
		select {
		case <-timer.C():
		case <-ctx.Done():
		}
		timer.Stop()
	}
	return nil
}

// serveOnce dials the master and serves it until the connection ends. opened
// reports whether the tree was registered in between.
func (s *Session) serveOnce(ctx context.Context) (opened bool, err error) {
	dialer := net.Dialer{Timeout: s.cfg.Timeout}
	conn, err := dialer.DialContext(ctx, s.network, s.address)
	if err != nil {
		return false, err
	}
	l := newLink(s, conn)
	defer l.wait()
	defer conn.Close()
	if err := l.open(ctx); err != nil {
		return false, err
	}
	s.setLink(l)
	s.cfg.Log.Info("registered with the master agent", "session", l.id.Load())
	select {
	case s.ready <- struct{}{}:
	default:
	}
	err = l.keepAlive(ctx)
	s.setLink(nil)
	if ctx.Err() != nil {
		l.close()
	}
	return true, err
}

func (s *Session) setLink(l *link) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.link = l
}

// Ready gets a value each time the tree was registered again: the moment to
// send what Notify refused with ErrAway. Several such moments may be one value.
func (s *Session) Ready() <-chan struct{} { return s.ready }

var snmpTrapOID = mib.MustParseOID("1.3.6.1.6.3.1.1.4.1.0")

// Notify hands a notification to the master agent, which sends it to its own
// sinks (RFC 2741 section 7.1.11). Nil means that the master accepted it, not
// that anybody received it. It returns an error wrapping ErrAway, at once while
// there is no session; a *RefusedError; or the error of ctx.
func (s *Session) Notify(ctx context.Context, n mib.Notice) error {
	s.mu.Lock()
	l := s.link
	s.mu.Unlock()
	if l == nil {
		return ErrAway
	}
	vbs := make([]mib.Varbind, 0, 1+len(n.Varbinds))
	vbs = append(vbs, mib.Varbind{OID: snmpTrapOID, Value: mib.ID(s.tree.Module().NotificationOID(n.Notification))})
	vbs = append(vbs, n.Varbinds...)
	return l.notify(ctx, vbs)
}
