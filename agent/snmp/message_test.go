package snmp

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/iad/internal/snmp"
	"example.com/iad/mib"
)

var source = netip.MustParseAddrPort("127.0.0.1:40000")

// clock is a clock that a test sets.
type clock struct{ t time.Time }

func (c *clock) now() time.Time          { return c.t }
func (c *clock) advance(d time.Duration) { c.t = c.t.Add(d) }

// peer is a manager that builds messages by hand.
type peer struct {
	t    testing.TB
	e    *Engine
	user *User
	keys *snmp.Keys
	salt uint64
}

func newPeer(t testing.TB, e *Engine, u *User) *peer {
	t.Helper()
	return &peer{t: t, e: e, user: u, keys: keysOf(u, testEngineID)}
}

var knownKeys sync.Map // *snmp.Keys, by what they are made from

// keysOf derives a user's keys for an engine, once: a receiver must not take long.
func keysOf(u *User, engineID []byte) *snmp.Keys {
	name := fmt.Sprint(u.Auth, u.AuthPassphrase, u.Priv, u.PrivPassphrase, engineID)
	k, known := knownKeys.Load(name)
	if !known {
		k, _ = knownKeys.LoadOrStore(name, newUser(u, engineID).own.settings)
	}
	return k.(*snmp.Keys)
}

// message builds a message at the user's level; change may spoil its header.
func (p *peer) message(request snmp.PDU, change func(*snmp.Header)) []byte {
	p.t.Helper()
	p.salt++
	h := snmp.Header{
		MsgID: int32(p.salt), MaxSize: 65507, Flags: p.user.level().Flags() | snmp.FlagReportable,
		EngineID: testEngineID, Boots: int32(p.e.cfg.Boots), Time: p.e.engineTime(), User: p.user.Name,
	}
	if change != nil {
		change(&h)
	}
	msg, err := snmp.SealV3(h, p.keys, p.salt, snmp.AppendScoped(nil, testEngineID, nil, request, snmp.EncodeVars(request.Vars)))
	if err != nil {
		p.t.Fatal(err)
	}
	return msg
}

// open reads an answer and checks that it is authentic if it says so.
func (p *peer) open(reply []byte) (snmp.Header, snmp.PDU) {
	p.t.Helper()
	m, err := snmp.ReadV3(reply)
	if err != nil {
		p.t.Fatalf("answer is not a message of v3: %v: %x", err, reply)
	}
	if m.Flags&snmp.FlagAuth != 0 && !m.Authentic(p.keys) {
		p.t.Fatal("answer is not authentic")
	}
	s, err := m.Open(p.keys)
	if err != nil {
		p.t.Fatal(err)
	}
	return m.Header, s.PDU
}

func setOwner(name string) snmp.PDU {
	return snmp.PDU{Kind: snmp.PDUSet, RequestID: 77, Vars: []mib.Varbind{{OID: module.OID(mib.ReqOwner, 0), Value: mib.Str(name)}}}
}

func getID() snmp.PDU {
	return snmp.PDU{Kind: snmp.PDUGet, RequestID: 78, Vars: []mib.Varbind{{OID: module.OID(mib.DeviceId, 0), Value: mib.Value{Type: mib.Null}}}}
}

var privateUser = User{Name: "manager", Auth: SHA256, AuthPassphrase: authPass, Priv: AES128, PrivPassphrase: privPass, Access: full(AuthPriv)}

func newV3(t testing.TB, users ...User) (*Engine, *device, *clock) {
	t.Helper()
	c := &clock{time.Unix(1e9, 0)}
	e, d := newEngine(t, Config{Users: users, EngineID: testEngineID, Boots: 7, Now: c.now})
	c.advance(1000 * time.Second)
	return e, d, c
}

// Every message that is not what it should be is answered with the right
// Report, or not at all, is counted, and does nothing.
func TestReports(t *testing.T) {
	const silence = ""
	plain := func(h *snmp.Header) { h.Flags &^= snmp.FlagPriv | snmp.FlagAuth }
	for _, c := range []struct {
		name    string
		request snmp.PDU
		change  func(*snmp.Header)
		spoil   func([]byte) []byte
		report  string
		counter string // the object that counts it
		level   byte   // flags of the Report
	}{
		{name: "discovery", change: func(h *snmp.Header) { plain(h); h.EngineID, h.User = nil, "" },
			report: "1.3.6.1.6.3.15.1.1.4.0"},
		{name: "wrong engine", change: func(h *snmp.Header) { h.EngineID = []byte("another engine") },
			report: "1.3.6.1.6.3.15.1.1.4.0"},
		{name: "unknown user", change: func(h *snmp.Header) { h.User = "intruder" },
			report: "1.3.6.1.6.3.15.1.1.3.0"},
		{name: "empty user", change: func(h *snmp.Header) { h.User = "" },
			report: "1.3.6.1.6.3.15.1.1.3.0"},
		{name: "time too old", change: func(h *snmp.Header) { h.Time -= 151 },
			report: "1.3.6.1.6.3.15.1.1.2.0", level: snmp.FlagAuth},
		{name: "time in the future", change: func(h *snmp.Header) { h.Time += 151 },
			report: "1.3.6.1.6.3.15.1.1.2.0", level: snmp.FlagAuth},
		{name: "boots of before", change: func(h *snmp.Header) { h.Boots-- },
			report: "1.3.6.1.6.3.15.1.1.2.0", level: snmp.FlagAuth},
		{name: "boots to come", change: func(h *snmp.Header) { h.Boots++ },
			report: "1.3.6.1.6.3.15.1.1.2.0", level: snmp.FlagAuth},
		{name: "last octet flipped", spoil: func(m []byte) []byte { m[len(m)-1] ^= 1; return m },
			report: "1.3.6.1.6.3.15.1.1.5.0"},
		{name: "no digest though authenticated", change: plain, spoil: func(m []byte) []byte { return setFlags(m, snmp.FlagAuth|snmp.FlagReportable) },
			report: "1.3.6.1.6.3.15.1.1.5.0"},
		{name: "not reportable", change: func(h *snmp.Header) { h.User = "intruder"; h.Flags &^= snmp.FlagReportable },
			report: silence, counter: "1.3.6.1.6.3.15.1.1.3.0"},
		{name: "privacy without authentication", spoil: func(m []byte) []byte { return setFlags(m, snmp.FlagPriv|snmp.FlagReportable) },
			report: silence, counter: "1.3.6.1.6.3.11.2.1.2.0"},
		{name: "authentication taken away", spoil: func(m []byte) []byte { return setFlags(m, snmp.FlagReportable) },
			report: silence, counter: "1.3.6.1.2.1.11.6.0"},
		{name: "another security model", spoil: func(m []byte) []byte { m[modelPos(m)] = 9; return m },
			report: silence, counter: "1.3.6.1.6.3.11.2.1.1.0"},
		{name: "message size too small", change: func(h *snmp.Header) { h.MaxSize = 483 },
			report: silence, counter: "1.3.6.1.2.1.11.6.0"},
		{name: "negative msgID", change: func(h *snmp.Header) { h.MsgID = -1 },
			report: silence, counter: "1.3.6.1.2.1.11.6.0"},
		{name: "user name too long", change: func(h *snmp.Header) { h.User = strings.Repeat("x", 33) },
			report: silence, counter: "1.3.6.1.2.1.11.6.0"},
		{name: "engine ID too long", change: func(h *snmp.Header) { h.EngineID = make([]byte, 33) },
			report: silence, counter: "1.3.6.1.2.1.11.6.0"},
		{name: "truncated", spoil: func(m []byte) []byte { return m[:len(m)-1] },
			report: silence, counter: "1.3.6.1.2.1.11.6.0"},
		{name: "octet after the message", spoil: func(m []byte) []byte { return append(m, 0) },
			report: silence, counter: "1.3.6.1.2.1.11.6.0"},
		{name: "oversized", spoil: func(m []byte) []byte { return append(m, make([]byte, defaultMaxSize)...) },
			report: silence, counter: "1.3.6.1.2.1.11.6.0"},
		{name: "a response", request: snmp.PDU{Kind: snmp.PDUResponse}, report: silence, counter: "1.3.6.1.6.3.11.2.1.3.0"},
		{name: "a report", request: snmp.PDU{Kind: snmp.PDUReport}, report: silence, counter: "1.3.6.1.6.3.11.2.1.3.0"},
		{name: "a trap", request: snmp.PDU{Kind: snmp.PDUTrap}, report: silence, counter: "1.3.6.1.6.3.11.2.1.3.0"},
		{name: "a trap of nobody", request: snmp.PDU{Kind: snmp.PDUTrap}, change: func(h *snmp.Header) { plain(h); h.User = "intruder" },
			report: silence, counter: "1.3.6.1.6.3.15.1.1.3.0"},
		{name: "version 2 of v3", spoil: func(m []byte) []byte { m[versionPos(m)] = 2; return m },
			report: silence, counter: "1.3.6.1.2.1.11.3.0"},
		{name: "version 1", spoil: func(m []byte) []byte { m[versionPos(m)] = 1; return m },
			report: silence, counter: "1.3.6.1.2.1.11.3.0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			e, d, _ := newV3(t, privateUser)
			p := newPeer(t, e, &privateUser)
			if c.request.Kind == 0 {
				c.request = setOwner("intruder")
			}
			msg := p.message(c.request, c.change)
			if c.spoil != nil {
				msg = c.spoil(msg)
			}
			reply, done := e.Answer(source, msg)
			if done != nil || d.tested() != 0 {
				t.Error("the SET was carried out")
			}
			if c.counter == "" {
				c.counter = c.report
			}
			if got := e.own(t, c.counter); got.Int != 1 {
				t.Errorf("%s counted %d times", c.counter, got.Int)
			}
			if c.report == silence {
				if reply != nil {
					t.Errorf("answered with %x", reply)
				}
				return
			}
			if reply == nil {
				t.Fatal("no answer")
			}
			h, answer := p.open(reply)
			if answer.Kind != snmp.PDUReport || len(answer.Vars) != 1 || answer.Vars[0].OID.String() != c.report || answer.Vars[0].Value.Int != 1 {
				t.Errorf("answer %+v, want a Report of %s", answer, c.report)
			}
			if h.Flags != c.level || string(h.EngineID) != string(testEngineID) || h.Boots != 7 || h.Time != 1000 {
				t.Errorf("header of the Report: %+v", h)
			}
		})
	}
}

// own reads one of the engine's own objects.
func (e *Engine) own(t testing.TB, oid string) mib.Value {
	t.Helper()
	for _, s := range e.scalars() {
		if s.oid.String() == oid {
			return s.value(e)
		}
	}
	t.Fatalf("the engine has no object %s", oid)
	return mib.Value{}
}

// contents is where the contents of the element at pos begin.
func contents(msg []byte, pos int) int {
	if n := msg[pos+1]; n&0x80 != 0 {
		return pos + 2 + int(n&0x7f)
	}
	return pos + 2
}

func versionPos(msg []byte) int { return contents(msg, contents(msg, 0)) }

// globalPos finds an element of msgGlobalData.
func globalPos(msg []byte, n int) int {
	pos := contents(msg, versionPos(msg)+1)
	for range n {
		pos = contents(msg, pos) + int(msg[pos+1])
	}
	return contents(msg, pos)
}

func modelPos(msg []byte) int { return globalPos(msg, 3) }

func setFlags(msg []byte, flags byte) []byte {
	msg[globalPos(msg, 2)] = flags
	return msg
}

// Every truncation of the digest, down to nothing, is a wrong digest.
func TestTruncatedDigest(t *testing.T) {
	e, d, _ := newV3(t, privateUser)
	p := newPeer(t, e, &privateUser)
	whole := p.message(setOwner("intruder"), nil)
	h, err := snmp.ReadV3(whole)
	if err != nil {
		t.Fatal(err)
	}
	start := bytes.Index(whole, h.MAC)
	end := start + len(h.MAC)
	for n := range len(h.MAC) {
		// Rebuild the message around the place of a shorter digest, and put there the
		// first bytes of the right one: a guess at them must not do.
		body := append([]byte(nil), whole[:start-2]...)
		body = append(append(body, 4, byte(n)), make([]byte, n)...)
		body = append(body, whole[end:]...)
		msg := fixLengths(t, body, len(h.MAC)-n)
		short, err := snmp.ReadV3(msg)
		if err != nil || len(short.MAC) != n {
			t.Fatalf("digest of %d octets: %+v, %v", n, short, err)
		}
		copy(short.MAC, p.keys.Digest(msg))
		reply, done := e.Answer(source, msg)
		if done != nil || reply == nil {
			t.Fatalf("digest of %d octets: reply %x", n, reply)
		}
		if _, answer := p.open(reply); answer.Kind != snmp.PDUReport || answer.Vars[0].OID.Compare(snmp.WrongDigests) != 0 {
			t.Fatalf("digest of %d octets: %+v", n, answer)
		}
	}
	if d.tested() != 0 {
		t.Error("the SET was carried out")
	}
}

// fixLengths corrects the lengths around msgAuthenticationParameters of a
// message from which cut bytes were taken there.
func fixLengths(t *testing.T, msg []byte, cut int) []byte {
	t.Helper()
	fix := func(pos int) int {
		switch msg[pos+1] {
		case 0x82:
			n := int(msg[pos+2])<<8 | int(msg[pos+3])
			n -= cut
			msg[pos+2], msg[pos+3] = byte(n>>8), byte(n)
			return pos + 4
		case 0x81:
			msg[pos+2] -= byte(cut)
			return pos + 3
		default:
			msg[pos+1] -= byte(cut)
			return pos + 2
		}
	}
	pos := fix(0)
	pos += 3                   // version
	pos += 2 + int(msg[pos+1]) // msgGlobalData
	fix(fix(pos))              // msgSecurityParameters and the sequence in it
	if _, err := snmp.ReadV3(msg); err != nil {
		t.Fatalf("the spoiled message: %v: %x", err, msg)
	}
	return msg
}

func TestReplay(t *testing.T) {
	for _, u := range []User{
		privateUser,
		{Name: "old", Auth: SHA1, AuthPassphrase: authPass, Access: full(AuthNoPriv)},
	} {
		t.Run(u.Name, func(t *testing.T) {
			e, d, c := newV3(t, u)
			p := newPeer(t, e, &u)
			set := p.message(setOwner("once"), nil)
			captured := slices.Clone(set)
			reply, done := e.Answer(source, set)
			if _, answer := p.open(reply); answer.Kind != snmp.PDUResponse || answer.Status != 0 {
				t.Fatalf("answer %+v", answer)
			}
			done()

			for _, wait := range []time.Duration{0, time.Second, 148 * time.Second} {
				c.advance(wait)
				reply, done := e.Answer(source, slices.Clone(captured))
				if reply != nil || done != nil {
					t.Errorf("sent again after %v: answer %x", wait, reply)
				}
			}
			c.advance(3 * time.Second)
			reply, done = e.Answer(source, slices.Clone(captured))
			if done != nil {
				t.Error("executed after the time window")
			}
			if _, answer := p.open(reply); answer.Vars[0].OID.Compare(snmp.NotInTimeWindows) != 0 {
				t.Errorf("answer %+v, want notInTimeWindows", answer)
			}
			// The same SET in a new message is another one.
			if _, done := e.Answer(source, p.message(setOwner("once"), nil)); done == nil {
				t.Error("the manager's own repetition was refused")
			}
			if d.tested() != 2 {
				t.Errorf("the device saw %d SETs, want 2", d.tested())
			}
		})
	}
}

// However many SETs there are, none is executed twice and memory is bounded.
func TestReplaysForgotten(t *testing.T) {
	var r replays
	r.init()
	mac := func(n int) []byte { return binary.BigEndian.AppendUint64(nil, uint64(n)) }
	const perSecond = 1000
	accepted := func(n int) bool {
		at, now := int32(n/perSecond), int32(3*maxReplays/perSecond)
		return at >= now-snmp.TimeWindow && !r.tooOld(at) && r.add(mac(n), at, now)
	}
	for n := range 3 * maxReplays {
		at := int32(n / perSecond)
		if r.tooOld(at) || !r.add(mac(n), at, at) {
			t.Fatalf("SET %d refused", n)
		}
		if len(r.known) > maxReplays || cap(r.queue) > 4*maxReplays {
			t.Fatalf("%d known, room for %d", len(r.known), cap(r.queue))
		}
	}
	for n := range 3 * maxReplays {
		if accepted(n) {
			t.Fatalf("SET %d accepted again", n)
		}
	}
}

func TestUnencryptedRequestID(t *testing.T) {
	e, _, _ := newV3(t, privateUser)
	p := newPeer(t, e, &privateUser)
	reply, _ := e.Answer(source, p.message(getID(), func(h *snmp.Header) { h.Flags, h.User = snmp.FlagReportable, "intruder" }))
	if _, answer := p.open(reply); answer.RequestID != 78 {
		t.Errorf("the Report has request-id %d, want that of the request", answer.RequestID)
	}
}

func TestContextEngine(t *testing.T) {
	e, d, _ := newV3(t, privateUser)
	p := newPeer(t, e, &privateUser)
	request := setOwner("x")
	h := snmp.Header{MsgID: 1, MaxSize: 65507, Flags: snmp.FlagAuth | snmp.FlagPriv | snmp.FlagReportable,
		EngineID: testEngineID, Boots: 7, Time: e.engineTime(), User: "manager"}
	msg, err := snmp.SealV3(h, p.keys, 1, snmp.AppendScoped(nil, []byte("another engine"), nil, request, snmp.EncodeVars(request.Vars)))
	if err != nil {
		t.Fatal(err)
	}
	reply, done := e.Answer(source, msg)
	answer, report := p.open(reply)
	if done != nil || d.tested() != 0 || report.Vars[0].OID.Compare(oidUnknownPDUHandlers) != 0 || report.RequestID != 77 {
		t.Errorf("answer %+v", report)
	}
	if answer.Flags != snmp.FlagAuth|snmp.FlagPriv {
		t.Errorf("flags of the Report %b", answer.Flags)
	}
}

// No two encrypted messages have the same salt, nor does one start where the
// last run's engine did.
func TestSalts(t *testing.T) {
	seen := make(map[string]bool)
	for range 2 {
		e, _, _ := newV3(t, privateUser)
		p := newPeer(t, e, &privateUser)
		for range 100 {
			reply, _ := e.Answer(source, p.message(getID(), nil))
			h, _ := p.open(reply)
			if len(h.Salt) != 8 || seen[string(h.Salt)] {
				t.Fatalf("salt %x", h.Salt)
			}
			seen[string(h.Salt)] = true
		}
	}
}

// The last possible boots value means that keys have to be changed.
func TestBootsLatched(t *testing.T) {
	e, _ := newEngine(t, Config{Users: []User{privateUser}, EngineID: testEngineID, Boots: math.MaxInt32})
	p := newPeer(t, e, &privateUser)
	reply, _ := e.Answer(source, p.message(getID(), nil))
	if _, answer := p.open(reply); answer.Vars[0].OID.Compare(snmp.NotInTimeWindows) != 0 {
		t.Errorf("answer %+v", answer)
	}
}

func TestMsgMaxSize(t *testing.T) {
	e, d, _ := newV3(t, privateUser)
	p := newPeer(t, e, &privateUser)
	small := func(h *snmp.Header) { h.MaxSize = snmp.MinMaxSize }

	var many []mib.Varbind
	for range 40 {
		many = append(many, mib.Varbind{OID: module.OID(mib.DeviceId, 0), Value: mib.Value{Type: mib.Null}})
	}
	reply, _ := e.Answer(source, p.message(snmp.PDU{Kind: snmp.PDUGet, Vars: many}, small))
	if _, answer := p.open(reply); answer.Status != int32(mib.TooBig) || answer.Index != 0 || len(answer.Vars) != 0 {
		t.Errorf("GET: %+v, want tooBig", answer)
	}
	for i := range many {
		many[i] = setOwner("a name of some length, not too long").Vars[0]
	}
	reply, done := e.Answer(source, p.message(snmp.PDU{Kind: snmp.PDUSet, Vars: many}, small))
	if _, answer := p.open(reply); answer.Status != int32(mib.TooBig) || done != nil || d.tested() != 0 {
		t.Errorf("SET: %+v, want tooBig and nothing done", answer)
	}
	reply, _ = e.Answer(source, p.message(snmp.PDU{Kind: snmp.PDUGetBulk, Index: math.MaxInt32, Vars: many[:1]}, small))
	if len(reply) > snmp.MinMaxSize {
		t.Errorf("answer to GETBULK has %d octets", len(reply))
	}
	reply, _ = e.Answer(source, p.message(snmp.PDU{Kind: snmp.PDUGetBulk, Index: math.MaxInt32, Vars: []mib.Varbind{{OID: mib.OID{1, 3}, Value: mib.Value{Type: mib.Null}}}}, small))
	_, answer := p.open(reply)
	if len(reply) > snmp.MinMaxSize || len(reply) < snmp.MinMaxSize-64 || answer.Status != 0 || len(answer.Vars) < 3 {
		t.Errorf("answer to GETBULK has %d octets, %d variables", len(reply), len(answer.Vars))
	}
}
