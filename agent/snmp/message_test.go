package snmp

import (
	"encoding/binary"
	"math"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

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
	keys *keys
	salt uint64
}

func newPeer(t testing.TB, e *Engine, u *User) *peer {
	t.Helper()
	k, err := localize(u, testEngineID)
	if err != nil {
		t.Fatal(err)
	}
	return &peer{t: t, e: e, user: u, keys: k}
}

// message builds a message at the user's level; change may spoil its header.
func (p *peer) message(request pdu, change func(*header)) []byte {
	p.t.Helper()
	p.salt++
	h := header{
		msgID: int32(p.salt), maxSize: 65507, flags: p.user.level().flags() | flagReportable,
		engineID: testEngineID, boots: int32(p.e.cfg.Boots), time: p.e.engineTime(), user: p.user.Name,
	}
	if change != nil {
		change(&h)
	}
	msg, err := appendV3(h, p.keys, p.salt, appendScoped(nil, testEngineID, request, encodeVars(request.vars)))
	if err != nil {
		p.t.Fatal(err)
	}
	return msg
}

// open reads an answer and checks that it is authentic if it says so.
func (p *peer) open(reply []byte) (header, pdu) {
	p.t.Helper()
	h, data, ok := openHeader(reply)
	if !ok {
		p.t.Fatalf("answer is not a message of v3: %x", reply)
	}
	if h.flags&flagAuth != 0 && !p.keys.authentic(reply, &h) {
		p.t.Fatal("answer is not authentic")
	}
	if h.flags&flagPriv != 0 {
		content, err := data.expect(tagOctets, "data")
		if err != nil {
			p.t.Fatal(err)
		}
		plain, err := p.keys.decrypt(h.boots, h.time, h.salt, content.bytes())
		if err != nil {
			p.t.Fatal(err)
		}
		data = newReader(plain)
	}
	s, err := readScoped(&data)
	if err != nil {
		p.t.Fatal(err)
	}
	return h, s.pdu
}

func setOwner(name string) pdu {
	return pdu{kind: pduSet, requestID: 77, vars: []mib.Varbind{{OID: module.OID(mib.ReqOwner, 0), Value: mib.Str(name)}}}
}

func getID() pdu {
	return pdu{kind: pduGet, requestID: 78, vars: []mib.Varbind{{OID: module.OID(mib.DeviceId, 0), Value: mib.Value{Type: mib.Null}}}}
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
	plain := func(h *header) { h.flags &^= flagPriv | flagAuth }
	for _, c := range []struct {
		name    string
		request pdu
		change  func(*header)
		spoil   func([]byte) []byte
		report  string
		counter string // the object that counts it
		level   byte   // flags of the Report
	}{
		{name: "discovery", change: func(h *header) { plain(h); h.engineID, h.user = nil, "" },
			report: "1.3.6.1.6.3.15.1.1.4.0"},
		{name: "wrong engine", change: func(h *header) { h.engineID = []byte("another engine") },
			report: "1.3.6.1.6.3.15.1.1.4.0"},
		{name: "unknown user", change: func(h *header) { h.user = "intruder" },
			report: "1.3.6.1.6.3.15.1.1.3.0"},
		{name: "empty user", change: func(h *header) { h.user = "" },
			report: "1.3.6.1.6.3.15.1.1.3.0"},
		{name: "time too old", change: func(h *header) { h.time -= 151 },
			report: "1.3.6.1.6.3.15.1.1.2.0", level: flagAuth},
		{name: "time in the future", change: func(h *header) { h.time += 151 },
			report: "1.3.6.1.6.3.15.1.1.2.0", level: flagAuth},
		{name: "boots of before", change: func(h *header) { h.boots-- },
			report: "1.3.6.1.6.3.15.1.1.2.0", level: flagAuth},
		{name: "boots to come", change: func(h *header) { h.boots++ },
			report: "1.3.6.1.6.3.15.1.1.2.0", level: flagAuth},
		{name: "last octet flipped", spoil: func(m []byte) []byte { m[len(m)-1] ^= 1; return m },
			report: "1.3.6.1.6.3.15.1.1.5.0"},
		{name: "no digest though authenticated", change: plain, spoil: func(m []byte) []byte { return setFlags(m, flagAuth|flagReportable) },
			report: "1.3.6.1.6.3.15.1.1.5.0"},
		{name: "not reportable", change: func(h *header) { h.user = "intruder"; h.flags &^= flagReportable },
			report: silence, counter: "1.3.6.1.6.3.15.1.1.3.0"},
		{name: "privacy without authentication", spoil: func(m []byte) []byte { return setFlags(m, flagPriv|flagReportable) },
			report: silence, counter: "1.3.6.1.6.3.11.2.1.2.0"},
		{name: "authentication taken away", spoil: func(m []byte) []byte { return setFlags(m, flagReportable) },
			report: silence, counter: "1.3.6.1.2.1.11.6.0"},
		{name: "another security model", spoil: func(m []byte) []byte { m[modelPos(m)] = 9; return m },
			report: silence, counter: "1.3.6.1.6.3.11.2.1.1.0"},
		{name: "message size too small", change: func(h *header) { h.maxSize = 483 },
			report: silence, counter: "1.3.6.1.2.1.11.6.0"},
		{name: "negative msgID", change: func(h *header) { h.msgID = -1 },
			report: silence, counter: "1.3.6.1.2.1.11.6.0"},
		{name: "user name too long", change: func(h *header) { h.user = strings.Repeat("x", 33) },
			report: silence, counter: "1.3.6.1.2.1.11.6.0"},
		{name: "engine ID too long", change: func(h *header) { h.engineID = make([]byte, 33) },
			report: silence, counter: "1.3.6.1.2.1.11.6.0"},
		{name: "truncated", spoil: func(m []byte) []byte { return m[:len(m)-1] },
			report: silence, counter: "1.3.6.1.2.1.11.6.0"},
		{name: "octet after the message", spoil: func(m []byte) []byte { return append(m, 0) },
			report: silence, counter: "1.3.6.1.2.1.11.6.0"},
		{name: "oversized", spoil: func(m []byte) []byte { return append(m, make([]byte, defaultMaxSize)...) },
			report: silence, counter: "1.3.6.1.2.1.11.6.0"},
		{name: "a response", request: pdu{kind: pduResponse}, report: silence, counter: "1.3.6.1.6.3.11.2.1.3.0"},
		{name: "a report", request: pdu{kind: pduReport}, report: silence, counter: "1.3.6.1.6.3.11.2.1.3.0"},
		{name: "a trap", request: pdu{kind: pduTrap}, report: silence, counter: "1.3.6.1.6.3.11.2.1.3.0"},
		{name: "a trap of nobody", request: pdu{kind: pduTrap}, change: func(h *header) { plain(h); h.user = "intruder" },
			report: silence, counter: "1.3.6.1.6.3.15.1.1.3.0"},
		{name: "version 2 of v3", spoil: func(m []byte) []byte { m[versionPos(m)] = 2; return m },
			report: silence, counter: "1.3.6.1.2.1.11.3.0"},
		{name: "version 1", spoil: func(m []byte) []byte { m[versionPos(m)] = 1; return m },
			report: silence, counter: "1.3.6.1.2.1.11.3.0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			e, d, _ := newV3(t, privateUser)
			p := newPeer(t, e, &privateUser)
			if c.request.kind == 0 {
				c.request = setOwner("intruder")
			}
			msg := p.message(c.request, c.change)
			if c.spoil != nil {
				msg = c.spoil(msg)
			}
			reply, done := e.handle(source, msg)
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
			if answer.kind != pduReport || len(answer.vars) != 1 || answer.vars[0].OID.String() != c.report || answer.vars[0].Value.Int != 1 {
				t.Errorf("answer %+v, want a Report of %s", answer, c.report)
			}
			if h.flags != c.level || string(h.engineID) != string(testEngineID) || h.boots != 7 || h.time != 1000 {
				t.Errorf("header of the Report: %+v", h)
			}
		})
	}
}

// own reads one of the engine's own objects.
func (e *Engine) own(t testing.TB, oid string) mib.Value {
	t.Helper()
	for _, s := range e.scalars {
		if s.oid.String() == oid {
			return s.value()
		}
	}
	t.Fatalf("the engine has no object %s", oid)
	return mib.Value{}
}

func versionPos(msg []byte) int {
	r := newReader(msg)
	body, _ := r.expect(tagSequence, "")
	_, v, _ := body.next()
	return v.pos
}

// globalPos finds an element of msgGlobalData.
func globalPos(msg []byte, n int) int {
	_, body, _ := readVersion(msg)
	g, _ := body.expect(tagSequence, "")
	var element reader
	for range n + 1 {
		_, element, _ = g.next()
	}
	return element.pos
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
	h, _, _ := openHeader(whole)
	start, end := h.macPos, h.macPos+len(h.mac)
	for n := range len(h.mac) {
		// Rebuild the message around the place of a shorter digest, and put there the
		// first octets of the right one: a guess at them must not do.
		body := append([]byte(nil), whole[:start-2]...)
		body = appendOctets(body, tagOctets, make([]byte, n))
		body = append(body, whole[end:]...)
		msg := fixLengths(t, body, len(h.mac)-n)
		short, _, ok := openHeader(msg)
		if !ok || len(short.mac) != n {
			t.Fatalf("digest of %d octets: %d are in the message", n, len(short.mac))
		}
		copy(short.mac, p.keys.digest(msg))
		reply, done := e.handle(source, msg)
		if done != nil || reply == nil {
			t.Fatalf("digest of %d octets: reply %x", n, reply)
		}
		if _, answer := p.open(reply); answer.kind != pduReport || answer.vars[0].OID.Compare(oidWrongDigests) != 0 {
			t.Fatalf("digest of %d octets: %+v", n, answer)
		}
	}
	if d.tested() != 0 {
		t.Error("the SET was carried out")
	}
}

// fixLengths corrects the lengths around msgAuthenticationParameters of a
// message from which cut octets were taken there.
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
	if _, _, ok := openHeader(msg); !ok {
		t.Fatalf("the spoiled message is malformed: %x", msg)
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
			reply, done := e.handle(source, set)
			if _, answer := p.open(reply); answer.kind != pduResponse || answer.status != 0 {
				t.Fatalf("answer %+v", answer)
			}
			done()

			for _, wait := range []time.Duration{0, time.Second, 148 * time.Second} {
				c.advance(wait)
				reply, done := e.handle(source, slices.Clone(captured))
				if reply != nil || done != nil {
					t.Errorf("sent again after %v: answer %x", wait, reply)
				}
			}
			c.advance(3 * time.Second)
			reply, done = e.handle(source, slices.Clone(captured))
			if done != nil {
				t.Error("executed after the time window")
			}
			if _, answer := p.open(reply); answer.vars[0].OID.Compare(oidNotInTimeWindows) != 0 {
				t.Errorf("answer %+v, want notInTimeWindows", answer)
			}
			// The same SET in a new message is another one.
			if _, done := e.handle(source, p.message(setOwner("once"), nil)); done == nil {
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
		return at >= now-timeWindow && !r.tooOld(at) && r.add(mac(n), at, now)
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
	reply, _ := e.handle(source, p.message(getID(), func(h *header) { h.flags, h.user = flagReportable, "intruder" }))
	if _, answer := p.open(reply); answer.requestID != 78 {
		t.Errorf("the Report has request-id %d, want that of the request", answer.requestID)
	}
}

func TestContextEngine(t *testing.T) {
	e, d, _ := newV3(t, privateUser)
	p := newPeer(t, e, &privateUser)
	request := setOwner("x")
	h := header{msgID: 1, maxSize: 65507, flags: flagAuth | flagPriv | flagReportable,
		engineID: testEngineID, boots: 7, time: e.engineTime(), user: "manager"}
	msg, err := appendV3(h, p.keys, 1, appendScoped(nil, []byte("another engine"), request, encodeVars(request.vars)))
	if err != nil {
		t.Fatal(err)
	}
	reply, done := e.handle(source, msg)
	answer, report := p.open(reply)
	if done != nil || d.tested() != 0 || report.vars[0].OID.Compare(oidUnknownPDUHandlers) != 0 || report.requestID != 77 {
		t.Errorf("answer %+v", report)
	}
	if answer.flags != flagAuth|flagPriv {
		t.Errorf("flags of the Report %b", answer.flags)
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
			reply, _ := e.handle(source, p.message(getID(), nil))
			h, _, _ := openHeader(reply)
			if len(h.salt) != 8 || seen[string(h.salt)] {
				t.Fatalf("salt %x", h.salt)
			}
			seen[string(h.salt)] = true
		}
	}
}

// The last possible boots value means that keys have to be changed.
func TestBootsLatched(t *testing.T) {
	e, _ := newEngine(t, Config{Users: []User{privateUser}, EngineID: testEngineID, Boots: math.MaxInt32})
	p := newPeer(t, e, &privateUser)
	reply, _ := e.handle(source, p.message(getID(), nil))
	if _, answer := p.open(reply); answer.vars[0].OID.Compare(oidNotInTimeWindows) != 0 {
		t.Errorf("answer %+v", answer)
	}
}

func TestMsgMaxSize(t *testing.T) {
	e, d, _ := newV3(t, privateUser)
	p := newPeer(t, e, &privateUser)
	small := func(h *header) { h.maxSize = minMaxSize }

	var many []mib.Varbind
	for range 40 {
		many = append(many, mib.Varbind{OID: module.OID(mib.DeviceId, 0), Value: mib.Value{Type: mib.Null}})
	}
	reply, _ := e.handle(source, p.message(pdu{kind: pduGet, vars: many}, small))
	if _, answer := p.open(reply); answer.status != int32(mib.TooBig) || answer.index != 0 || len(answer.vars) != 0 {
		t.Errorf("GET: %+v, want tooBig", answer)
	}
	for i := range many {
		many[i] = setOwner("a name of some length, not too long").vars[0]
	}
	reply, done := e.handle(source, p.message(pdu{kind: pduSet, vars: many}, small))
	if _, answer := p.open(reply); answer.status != int32(mib.TooBig) || done != nil || d.tested() != 0 {
		t.Errorf("SET: %+v, want tooBig and nothing done", answer)
	}
	reply, _ = e.handle(source, p.message(pdu{kind: pduGetBulk, index: math.MaxInt32, vars: many[:1]}, small))
	if len(reply) > minMaxSize {
		t.Errorf("answer to GETBULK has %d octets", len(reply))
	}
	reply, _ = e.handle(source, p.message(pdu{kind: pduGetBulk, index: math.MaxInt32, vars: []mib.Varbind{{OID: mib.OID{1, 3}, Value: mib.Value{Type: mib.Null}}}}, small))
	_, answer := p.open(reply)
	if len(reply) > minMaxSize || len(reply) < minMaxSize-64 || answer.status != 0 || len(answer.vars) < 3 {
		t.Errorf("answer to GETBULK has %d octets, %d variables", len(reply), len(answer.vars))
	}
}

func TestPDURoundTrip(t *testing.T) {
	oid := mib.MustParseOID("2.999.0.4294967295.1")
	for _, v := range []mib.Value{
		mib.Int32(0), mib.Int32(-1), mib.Int32(127), mib.Int32(128), mib.Int32(math.MinInt32), mib.Int32(math.MaxInt32),
		mib.Uint32(0), mib.Uint32(127), mib.Uint32(128), mib.Uint32(math.MaxUint32), mib.Ticks(math.MaxUint32),
		{Type: mib.Counter32, Int: 1 << 31}, {Type: mib.Counter64, Int: -1}, {Type: mib.Counter64, Int: math.MaxInt64},
		mib.Str("text"), mib.Octets(make([]byte, 200)), mib.Octets(make([]byte, 70000)),
		mib.ID(mib.OID{0, 0}), mib.ID(oid), {Type: mib.IPAddress, Bytes: []byte{192, 0, 2, 1}},
		{Type: mib.Opaque, Bytes: []byte{1}}, {Type: mib.Null}, {Type: mib.NoSuchObject}, {Type: mib.EndOfMibView},
	} {
		want := pdu{kind: pduResponse, requestID: math.MinInt32, status: 5, index: 300, vars: []mib.Varbind{{OID: oid, Value: v}}}
		r := newReader(appendPDU(nil, want, encodeVars(want.vars)))
		got, err := readPDU(&r)
		if err != nil {
			t.Errorf("%v: %v", v, err)
			continue
		}
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(pdu{})); diff != "" {
			t.Errorf("%v: %s", v, diff)
		}
	}
}
