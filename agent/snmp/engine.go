package snmp

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"example.com/iad/internal/snmp"
	"example.com/iad/mib"
)

// Engine answers requests and sends notifications. Make one with New.
type Engine struct {
	cfg     Config
	tree    *mib.Tree
	log     *slog.Logger
	now     func() time.Time
	started time.Time

	conn    socket // nil if it answers no requests
	users   map[string]*user
	stats   stats
	sinks   []*sink
	stopped chan struct{} // closed when Run has returned

	salt  atomic.Uint64 // of the next encrypted message
	ids   atomic.Uint32 // of the next message or request of our own
	guard guard
	seen  replays
	zone  string // of the sender of the request being answered
	// flush sends the answers that wait; nil: none do.
	flush func()

	userLock, targetLock int32     // usmUserSpinLock and snmpTargetSpinLock
	findings             []string  // what managers had changed and is lost
	unsettled            bool      // see settle
	settled              time.Time // when settle was tried last

	mu      sync.Mutex
	remotes []*account // at the engines of receivers of informs
}

// user is a User with the keys that its passphrases stand for, and those for
// this engine.
type user struct {
	*User
	auth, priv snmp.MasterKey
	own        *account
}

func newUser(u *User, engineID []byte) *user {
	known := &user{User: u, auth: snmp.NewMasterKey(u.Auth, u.AuthPassphrase)}
	if u.Priv != NoPriv {
		known.priv = snmp.NewMasterKey(u.Auth, u.PrivPassphrase)
	}
	known.own = newAccount(known, engineID)
	return known
}

// localize derives the keys that the user shares with an engine.
func (u *user) localize(engineID []byte) *snmp.Keys {
	k := snmp.NewKeys(u.auth, engineID)
	k.AddPrivacy(u.Priv, u.priv, engineID)
	return k
}

// New checks the configuration and derives the users' keys; Run answers.
func New(cfg Config, tree *mib.Tree) (*Engine, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	e := &Engine{
		cfg: cfg, tree: tree, log: cfg.Log, now: cfg.Now,
		users:   make(map[string]*user),
		stopped: make(chan struct{}),
	}
	if e.log == nil {
		e.log = slog.New(slog.DiscardHandler)
	}
	if e.now == nil {
		e.now = time.Now
	}
	e.started = e.now()
	if e.cfg.System.Started.IsZero() {
		e.cfg.System.Started = e.started
	}
	e.guard.init()
	e.seen.init()

	var seed [20]byte
	if _, err := rand.Read(seed[:]); err != nil {
		return nil, fmt.Errorf("snmp: no random numbers: %w", err)
	}
	e.salt.Store(binary.BigEndian.Uint64(seed[:]))
	e.ids.Store(binary.BigEndian.Uint32(seed[8:]))
	// No lock that was read before a restart is valid after it.
	e.userLock = int32(binary.BigEndian.Uint32(seed[12:]) & math.MaxInt32)
	e.targetLock = int32(binary.BigEndian.Uint32(seed[16:]) & math.MaxInt32)

	for i := range e.cfg.Users {
		u := &e.cfg.Users[i]
		e.users[u.Name] = newUser(u, e.cfg.EngineID)
	}
	for _, s := range e.cfg.Sinks {
		e.sinks = append(e.sinks, newSink(e, s))
	}
	e.applyChanges()
	if cfg.Conn != nil {
		// One byte more shows that a message was too long.
		conn, err := newSocket(e.cfg.Conn, e.cfg.MaxSize+1)
		if err != nil {
			return nil, fmt.Errorf("snmp: %w", err)
		}
		e.conn = conn
	}
	return e, nil
}

// NewEngineID returns an engine ID that no other device has: bytes of the
// administrator's choice (RFC 3411 section 5, format 5), random here, under
// net-snmp's enterprise number, below which the module has its root.
func NewEngineID() ([]byte, error) {
	id := []byte{0x80, 0, 0x1f, 0x88, 5, 16: 0}
	if _, err := rand.Read(id[5:]); err != nil {
		return nil, fmt.Errorf("snmp: no random numbers: %w", err)
	}
	return id, nil
}

// Addr returns the address that requests are answered on; it is not valid if
// there is none.
func (e *Engine) Addr() netip.AddrPort {
	if e.cfg.Conn == nil {
		return netip.AddrPort{}
	}
	return addrPort(e.cfg.Conn.LocalAddr())
}

// Run answers requests and sends notifications until ctx is canceled, and
// returns nil then. It is called once.
func (e *Engine) Run(ctx context.Context) error {
	defer close(e.stopped)
	group, ctx := errgroup.WithContext(ctx)
	for _, s := range e.sinks {
		group.Go(func() error { s.run(ctx); return nil })
	}
	if conn := e.cfg.Conn; conn != nil {
		// The engine before this one left a deadline on the socket.
		if err := conn.SetReadDeadline(time.Time{}); err != nil {
			return fmt.Errorf("snmp: %w", err)
		}
		interrupted := make(chan struct{})
		context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)); close(interrupted) })
		// A deadline set any later would end the next engine on this socket.
		defer func() { <-interrupted }()
		group.Go(func() error { return e.serve(ctx) })
	}
	return group.Wait()
}

func (e *Engine) serve(ctx context.Context) error {
	e.flush = func() {
		if err := e.conn.flush(); err != nil {
			e.log.Warn("sending answers", "err", err)
		}
	}
	// What was read is answered, also when the engine stops.
	for ctx.Err() == nil || e.conn.waiting() {
		err := e.conn.next()
		switch {
		case err != nil && ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("snmp: %w", err)
		case err != nil:
			e.log.Warn("receiving requests", "err", err)
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
			continue
		}
		msg, src := e.conn.request()
		reply, done := e.Answer(src, msg)
		if reply != nil {
			if err := e.conn.answer(reply); err != nil {
				e.log.Warn("sending an answer", "to", src, "err", err)
			}
		}
		// What a SET starts begins after its answer has left.
		if done != nil || !e.conn.waiting() {
			e.flush()
		}
		if done != nil {
			done()
		}
	}
	return nil
}

// Answer answers one message, for callers that receive messages by other means than
// Config.Conn. reply is nil if there is nothing to say. done, if any, is to be called
// after the reply was sent. Answer must not be called by two goroutines at the same time.
func (e *Engine) Answer(src netip.AddrPort, msg []byte) (reply []byte, done func()) {
	e.zone = src.Addr().Zone()
	src = netip.AddrPortFrom(src.Addr().Unmap().WithZone(""), src.Port())
	e.stats.inPkts.Add(1)
	if len(msg) > e.cfg.MaxSize {
		e.stats.inASNParseErrs.Add(1)
		return nil, nil
	}
	version, err := snmp.ReadVersion(msg)
	switch {
	case err != nil:
		e.stats.inASNParseErrs.Add(1)
		return nil, nil
	case version == snmp.Version3 && len(e.users) > 0:
		return e.handleV3(src, msg)
	case (version == snmp.Version1 || version == snmp.Version2c) && len(e.cfg.Communities) > 0:
		return e.handleCommunity(src, version, msg)
	}
	e.stats.inBadVersions.Add(1)
	return nil, nil
}

// bulkSize is what fits an Ethernet frame (RFC 3417 section 3.2.1 recommends
// it for UDP).
const bulkSize = 1472

// handleCommunity answers SNMPv1 and v2c (RFC 3584 section 5).
func (e *Engine) handleCommunity(src netip.AddrPort, version int32, msg []byte) ([]byte, func()) {
	name, p, err := snmp.ReadCommunityMessage(msg)
	if err != nil || version == snmp.Version1 && p.Kind == snmp.PDUGetBulk {
		e.stats.inASNParseErrs.Add(1)
		return nil, nil
	}
	now := e.now()
	if !e.mayTry(src, now) {
		return nil, nil
	}
	community := e.community(name, src.Addr())
	if community == nil {
		e.stats.inBadCommunityNames.Add(1)
		e.failed(src, now, "community unknown, or not permitted from this address")
		return nil, nil
	}
	e.guard.succeeded(src, now)
	access := &Access{Read: community.View}
	if access.Read == nil {
		access.Read = Everything()
	}
	switch p.Kind {
	case snmp.PDUGet, snmp.PDUGetNext, snmp.PDUGetBulk:
	case snmp.PDUSet:
		if community.Write {
			access.Write = access.Read
		} else {
			e.stats.inBadCommunityUses.Add(1)
		}
	default:
		e.stats.unknownPDUHandlers.Add(1)
		return nil, nil
	}
	overhead := snmp.CommunityOverhead(community.Name)
	resp, ok := e.respond(&request{
		pdu: p, v1: version == snmp.Version1, access: access,
		// A community is a secret of sorts: the log shows the address instead.
		caller: mib.Caller{Name: "community from " + src.Addr().String(), Zone: e.zone},
		room:   e.cfg.MaxSize - overhead, bulkRoom: bulkSize - overhead,
	})
	if !ok {
		return nil, nil
	}
	return snmp.AppendCommunityMessage(nil, version, community.Name, resp.pdu, resp.vars), resp.done
}

// community finds the community that the name and address belong to.
func (e *Engine) community(name []byte, src netip.Addr) *Community {
	var found *Community
	for i := range e.cfg.Communities {
		c := &e.cfg.Communities[i]
		if subtle.ConstantTimeCompare([]byte(c.Name), name) == 1 && fromAny(c.Sources, src) && found == nil {
			found = c
		}
	}
	return found
}

// mayTry reports whether a message from src is judged.
func (e *Engine) mayTry(src netip.AddrPort, now time.Time) bool {
	if e.guard.mayTry(src, now) {
		return true
	}
	if e.guard.warnings.AllowN(now, 1) {
		e.log.Warn("message ignored after too many failed authentications", "from", src)
	}
	return false
}

// failed notes a failed authentication.
func (e *Engine) failed(src netip.AddrPort, now time.Time, why string) {
	if e.guard.failed(src, now) {
		e.log.Warn("authentication failed", "from", src, "why", why)
	}
}

// upTime is sysUpTime, in hundredths of a second.
func (e *Engine) upTime() uint32 {
	return uint32(e.now().Sub(e.cfg.System.Started) / (10 * time.Millisecond))
}

// engineTime is snmpEngineTime, in seconds.
func (e *Engine) engineTime() int32 {
	return clampInt32(int64(e.now().Sub(e.started) / time.Second))
}

// nextID returns an identifier for a message or a request, 1 to 2^31-1.
func (e *Engine) nextID() int32 {
	for {
		if id := int32(e.ids.Add(1) & math.MaxInt32); id != 0 {
			return id
		}
	}
}

// clampInt32 keeps counters and sizes within an INTEGER.
func clampInt32(n int64) int32 { return int32(max(0, min(n, math.MaxInt32))) }
