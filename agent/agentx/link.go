package agentx

import (
	"bufio"
	"context"
	"encoding"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"example.com/iad/mib"
	"github.com/posteo/go-agentx/pdu"
	"github.com/posteo/go-agentx/value"
)

var (
	errSilent = errors.New("agentx: the master agent did not answer in time")
	errClosed = errors.New("agentx: the master agent closed the session")
)

// link is one connection and the one AgentX session on it. One goroutine reads
// what arrives and answers the master's requests in their order: to hand them to
// another one costs more than most answers do. The requests of our own are made by
// whoever wants something.
type link struct {
	s    *Session
	conn net.Conn
	id   atomic.Uint32 // session identifier, 0 before Open is answered

	worker *worker
	// busy is true while a request is carried out, and worked counts those that were: what
	// the master sends meanwhile, such as an answer to us, is read after that.
	busy   atomic.Bool
	worked atomic.Uint32

	writing sync.Mutex // held for one PDU

	mu      sync.Mutex
	calls   map[uint32]chan answer // by packet identifier
	lastID  uint32
	err     error         // why the link failed
	done    chan struct{} // closed when it failed
	running sync.WaitGroup
}

// answer is a Response to a request of ours.
type answer struct {
	sessionID uint32
	code      pdu.Error
}

func newLink(s *Session, conn net.Conn) *link {
	l := &link{
		s: s, conn: conn,
		calls: make(map[uint32]chan answer),
		done:  make(chan struct{}),
	}
	l.worker = newWorker(l)
	l.running.Go(l.read)
	return l
}

// wait returns when nothing of the link runs any more. The connection must
// have been closed.
func (l *link) wait() { l.running.Wait() }

// fail ends the link; the first reason counts.
func (l *link) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		l.err = err
		close(l.done)
		l.conn.Close()
	}
}

func (l *link) failure() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// read answers what the master sends until the connection ends, then takes back what is not
// finished. What arrived before the connection broke is still worked off: a CleanupSet
// among it counts.
func (l *link) read() {
	defer l.worker.end()
	r := bufio.NewReaderSize(l.conn, 16<<10)
	p := new(packet)
	for {
		err := p.read(r)
		if err != nil && !errors.Is(err, errMalformed) {
			l.fail(fmt.Errorf("reading from the master agent: %w", err))
			return
		}
		if p.malformed {
			l.s.cfg.Log.Warn("the master agent sent a PDU that is not understood", "err", err)
		}
		switch p.Type {
		case pdu.TypeGet, pdu.TypeGetNext, pdu.TypeGetBulk, pdu.TypeTestSet, pdu.TypeCommitSet,
			pdu.TypeUndoSet, pdu.TypeCleanupSet, pdu.TypePing:
			l.worker.serve(p)
			if p.Type == pdu.TypeTestSet {
				p = new(packet) // its values live on in the transaction
			}
		case pdu.TypeResponse:
			if !p.malformed {
				l.deliver(p.PacketID, answer{p.SessionID, p.Error})
			}
		case pdu.TypeClose:
			l.fail(fmt.Errorf("%w: %v", errClosed, p.Reason))
			return
		default:
			l.s.cfg.Log.Warn("the master agent sent a PDU that a subagent does not take", "type", p.Type)
		}
	}
}

func (l *link) write(b []byte) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	_, err := l.conn.Write(b)
	return err
}

// deliver hands a Response to the call that waits for it, if any does.
func (l *link) deliver(packetID uint32, a answer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if ch, ok := l.calls[packetID]; ok {
		delete(l.calls, packetID)
		ch <- a // has room for it
	}
}

// expect makes ch the receiver of the answer to a new packet identifier, and
// counts the goroutine that is to send the request. It fails if the link has:
// as long as it has not, the reader is counted too, so that wait cannot be over.
func (l *link) expect(ch chan answer) (packetID uint32, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return 0, l.err
	}
	l.lastID++
	l.calls[l.lastID] = ch
	l.running.Add(1)
	return l.lastID, nil
}

func (l *link) forget(packetID uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.calls, packetID)
}

// call sends a request of ours, encoded by encode under the given header, and
// waits for the answer. A master that does not answer within limit fails the
// link; the time in which its own requests kept us from reading does not count.
func (l *link) call(ctx context.Context, limit time.Duration, t pdu.Type, encode func(pdu.Header) ([]byte, error)) (answer, error) {
	ch := make(chan answer, 1)
	id, err := l.expect(ch)
	if err != nil {
		return answer{}, err
	}
	defer l.forget(id)
	b, err := encode(pdu.Header{Type: t, SessionID: l.id.Load(), PacketID: id})
	if err != nil {
		l.running.Done()
		return answer{}, err
	}
	worked, extended := l.worked.Load(), false
	timer := l.s.cfg.Clock.NewTimer(limit)
	defer timer.Stop()
	// In a goroutine of its own, because the time limit covers a master that
	// does not read as well. It ends when the link does.
	go func() {
		defer l.running.Done()
		if err := l.write(b); err != nil {
			l.fail(fmt.Errorf("writing to the master agent: %w", err))
		}
	}()
	for {
		select {
		case a := <-ch:
			if a.code == pdu.ErrorNone {
				return a, nil
			}
			if a.code == pdu.ErrorNotOpen && t != pdu.TypeOpen {
				l.fail(errClosed)
			}
			return a, &RefusedError{t, a.code}
		case <-timer.C():
			busy := l.busy.Load()
			if busy || !extended && l.worked.Load() != worked { // the answer may wait to be read
				extended = extended || !busy
				timer.Reset(limit)
				continue
			}
			l.fail(fmt.Errorf("%w: %v", errSilent, t))
			return answer{}, l.failure()
		case <-l.done:
			return answer{}, l.failure()
		case <-ctx.Done():
			return answer{}, ctx.Err()
		}
	}
}

// control calls with a PDU that go-agentx encodes.
func (l *link) control(ctx context.Context, limit time.Duration, t pdu.Type, body encoding.BinaryMarshaler) (answer, error) {
	return l.call(ctx, limit, t, func(h pdu.Header) ([]byte, error) { return encodeControl(nil, h, body) })
}

// open opens the session and registers the tree.
func (l *link) open(ctx context.Context) error {
	a, err := l.control(ctx, l.s.cfg.Timeout, pdu.TypeOpen, &pdu.Open{
		Timeout:     pdu.Timeout{Duration: requestTimeout},
		Description: pdu.OctetString{Text: l.s.cfg.Description},
	})
	if err != nil {
		return err
	}
	l.id.Store(a.sessionID)
	_, err = l.control(ctx, l.s.cfg.Timeout, pdu.TypeRegister, &pdu.Register{
		Timeout: pdu.Timeout{Priority: registerPriority},
		Subtree: l.subtree(),
	})
	return err
}

// registerPriority is the default of RFC 2741 section 6.2.3.
const registerPriority = 127

func (l *link) subtree() (oid pdu.ObjectIdentifier) {
	oid.SetIdentifier(value.OID(l.s.tree.Root()))
	return oid
}

// keepAlive pings the master until the link fails, which it says why, or ctx is
// done.
func (l *link) keepAlive(ctx context.Context) error {
	timer := l.s.cfg.Clock.NewTimer(l.s.cfg.PingInterval)
	defer timer.Stop()
	for {
		select {
		case <-timer.C():
		case <-l.done:
			return l.failure()
		case <-ctx.Done():
			return ctx.Err()
		}
		if _, err := l.control(ctx, l.s.cfg.Timeout, pdu.TypePing, nil); err != nil {
			l.fail(err)
			return err
		}
		l.worker.expire()
		timer.Reset(l.s.cfg.PingInterval)
	}
}

// notify sends varbinds as a notification.
func (l *link) notify(ctx context.Context, vbs []mib.Varbind) error {
	_, err := l.call(ctx, l.s.cfg.Timeout, pdu.TypeNotify, func(h pdu.Header) ([]byte, error) { return encodeNotify(nil, h, vbs) })
	if l.failure() != nil {
		return fmt.Errorf("%w: %w", ErrAway, l.failure())
	}
	return err
}

// close unregisters the tree and closes the session, as far as the master takes
// part in it in time.
func (l *link) close() {
	ctx := context.Background()
	if _, err := l.control(ctx, leaveTimeout, pdu.TypeUnregister, &pdu.Unregister{
		Timeout: pdu.Timeout{Priority: registerPriority},
		Subtree: l.subtree(),
	}); err != nil {
		l.s.cfg.Log.Warn("leaving the master agent", "err", err)
		return
	}
	_, err := l.control(ctx, leaveTimeout, pdu.TypeClose, &pdu.Close{Reason: pdu.ReasonShutdown})
	if err != nil && l.failure() == nil {
		l.s.cfg.Log.Warn("leaving the master agent", "err", err)
	}
}
