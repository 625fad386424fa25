package snmp

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"example.com/iad/internal/snmp"
	"example.com/iad/mib"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// receiver takes notifications on a socket of its own. answer returns what to
// send back to the n-th message, counted from 0; nil for nothing.
type receiver struct {
	conn net.PacketConn
	got  chan []byte
}

func newReceiver(t testing.TB, answer func(n int, msg []byte) []byte) *receiver {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &receiver{conn: conn, got: make(chan []byte, 256)}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		buf := make([]byte, 65536)
		for n := 0; ; n++ {
			size, src, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			msg := append([]byte(nil), buf[:size]...)
			if answer != nil {
				if reply := answer(n, append([]byte(nil), msg...)); reply != nil {
					conn.WriteTo(reply, src)
				}
			}
			r.got <- msg
		}
	}()
	t.Cleanup(func() {
		conn.Close()
		<-ended
	})
	return r
}

func (r *receiver) addr() string { return r.conn.LocalAddr().String() }

// next returns the next message received.
func (r *receiver) next(t testing.TB) []byte {
	t.Helper()
	select {
	case msg := <-r.got:
		return msg
	case <-time.After(10 * time.Second):
		t.Fatal("nothing received")
		return nil
	}
}

// acknowledge answers an inform of v2c.
func acknowledge(msg []byte) []byte {
	community, p, err := snmp.ReadCommunityMessage(msg)
	if err != nil || p.Kind != snmp.PDUInform {
		return nil
	}
	p.Kind = snmp.PDUResponse
	return snmp.AppendCommunityMessage(nil, snmp.Version2c, string(community), p, snmp.EncodeVars(p.Vars))
}

func requestID(t testing.TB, msg []byte) int32 {
	t.Helper()
	_, p, err := snmp.ReadCommunityMessage(msg)
	if err != nil {
		t.Fatal(err)
	}
	return p.RequestID
}

const short = 20 * time.Millisecond

// A receiver that is dead does not keep the others waiting.
func TestDeadSink(t *testing.T) {
	dead := newReceiver(t, nil)
	live := newReceiver(t, func(_ int, msg []byte) []byte { return acknowledge(msg) })
	refusing, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refusing.Close()
	e, _ := newEngine(t, Config{Sinks: []Sink{
		{Address: dead.addr(), Community: "traps", Inform: true, Timeout: time.Hour},
		{Address: refusing.LocalAddr().String(), Community: "traps", Inform: true, Timeout: time.Hour},
		{Address: refusing.LocalAddr().String(), Community: "traps"},
		{Address: live.addr(), Community: "traps", Inform: true},
		{Address: live.addr(), Community: "traps"},
	}})
	run(t, e)
	for range 3 {
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- e.Notify(ctx, notice) }()
		live.next(t)
		live.next(t)
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Notify returned %v", err)
		}
	}
}

func TestNotifyNamesTheDead(t *testing.T) {
	dead := newReceiver(t, nil)
	live := newReceiver(t, func(_ int, msg []byte) []byte { return acknowledge(msg) })
	e, _ := newEngine(t, Config{Sinks: []Sink{
		{Address: dead.addr(), Community: "traps", Inform: true, Timeout: short, Retries: 2},
		{Address: live.addr(), Community: "traps", Inform: true},
	}})
	run(t, e)
	err := e.Notify(t.Context(), notice)
	if !errors.Is(err, ErrNoAnswer) || !strings.Contains(err.Error(), dead.addr()) || strings.Contains(err.Error(), live.addr()) {
		t.Errorf("Notify returned %v", err)
	}
	first := requestID(t, dead.next(t))
	for range 2 {
		if id := requestID(t, dead.next(t)); id != first {
			t.Errorf("repeated with request-id %d instead of %d", id, first)
		}
	}
	// Given up once, it gets the next one once.
	if err := e.Notify(t.Context(), notice); !errors.Is(err, ErrNoAnswer) {
		t.Errorf("Notify returned %v", err)
	}
	dead.next(t)
	if n := len(dead.got); n != 0 {
		t.Errorf("%d more repetitions", n)
	}
}

// A notification can be sent to each receiver separately.
func TestReceivers(t *testing.T) {
	first, second := newReceiver(t, nil), newReceiver(t, nil)
	e, _ := newEngine(t, Config{Sinks: []Sink{{Address: first.addr(), Community: "traps"}, {Address: second.addr(), Community: "traps"}}})
	run(t, e)
	list := e.Receivers()
	if len(list) != 2 || list[0].Address() != first.addr() || list[1].Address() != second.addr() {
		t.Fatalf("receivers %v", list)
	}
	if err := list[1].Notify(t.Context(), notice); err != nil {
		t.Fatal(err)
	}
	second.next(t)
	if n := len(first.got); n != 0 {
		t.Errorf("the other one got %d notifications", n)
	}
}

// A socket is not used for long: the addresses may have changed.
func TestRedial(t *testing.T) {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	var minutes atomic.Int64
	e, _ := newEngine(t, Config{
		Now:   func() time.Time { return time.Unix(60*minutes.Load(), 0) },
		Sinks: []Sink{{Address: conn.LocalAddr().String(), Community: "traps"}},
	})
	run(t, e)
	from := func() string {
		if err := e.Notify(t.Context(), notice); err != nil {
			t.Fatal(err)
		}
		_, src, err := conn.ReadFrom(make([]byte, 1500))
		if err != nil {
			t.Fatal(err)
		}
		return src.String()
	}
	first := from()
	if again := from(); again != first {
		t.Errorf("sent from %s, then at once from %s", first, again)
	}
	minutes.Add(1)
	if later := from(); later == first {
		t.Errorf("sent from %s a minute later as well", later)
	}
}

func TestInformRepeated(t *testing.T) {
	r := newReceiver(t, func(n int, msg []byte) []byte {
		switch n {
		case 0:
			return nil
		case 1:
			return []byte("garbage")
		case 2: // an answer to another request, or from another community
			other := acknowledge(msg)
			other[len(other)/4] ^= 1
			return other
		}
		return acknowledge(msg)
	})
	e, _ := newEngine(t, Config{Sinks: []Sink{{Address: r.addr(), Community: "traps", Inform: true, Timeout: short, Retries: 100}}})
	run(t, e)
	if err := e.Notify(t.Context(), notice); err != nil {
		t.Error(err)
	}
}

func TestQueueFull(t *testing.T) {
	e, _ := newEngine(t, Config{Sinks: []Sink{{Address: "127.0.0.1:9", Community: "traps"}}})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range maxQueue {
		if err := e.Notify(ctx, notice); errors.Is(err, ErrQueueFull) || !errors.Is(err, context.Canceled) {
			t.Fatalf("Notify returned %v", err)
		}
	}
	if err := e.Notify(ctx, notice); !errors.Is(err, ErrQueueFull) {
		t.Errorf("Notify returned %v", err)
	}
}

func TestStopWhileWaiting(t *testing.T) {
	dead := newReceiver(t, nil)
	e, _ := newEngine(t, Config{Sinks: []Sink{{Address: dead.addr(), Community: "traps", Inform: true, Timeout: time.Hour}}})
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- e.Run(ctx) }()
	ended := make(chan error, 1)
	go func() { ended <- e.Notify(t.Context(), notice) }()
	dead.next(t)
	cancel()
	if err := <-ended; err == nil {
		t.Error("Notify succeeded")
	}
	if err := <-ran; err != nil {
		t.Error(err)
	}
	if err := e.Notify(t.Context(), notice); !errors.Is(err, ErrStopped) {
		t.Errorf("Notify after the end returned %v", err)
	}
}

// authority is the receiver of v3 informs: an authoritative engine.
type authority struct {
	t        *testing.T
	user     *User
	engineID []byte
	boots    int32
	time     int32
}

func (a *authority) keys() *snmp.Keys { return keysOf(a.user, a.engineID) }

// seal builds an answer to h.
func (a *authority) seal(h snmp.Header, level Level, p snmp.PDU) []byte {
	answer := snmp.Header{MsgID: h.MsgID, MaxSize: 65507, Flags: level.Flags(), EngineID: a.engineID, Boots: a.boots, Time: a.time, User: h.User}
	msg, err := snmp.SealV3(answer, a.keys(), 1, snmp.AppendScoped(nil, a.engineID, nil, p, snmp.EncodeVars(p.Vars)))
	if err != nil {
		a.t.Error(err)
	}
	return msg
}

func (a *authority) report(h snmp.Header, level Level, oid mib.OID) []byte {
	return a.seal(h, level, snmp.PDU{Kind: snmp.PDUReport, Vars: []mib.Varbind{{OID: oid, Value: mib.Value{Type: mib.Counter32, Int: 1}}}})
}

// answer does what RFC 3414 section 3.2 asks for; ok is true if it
// acknowledged.
func (a *authority) answer(msg []byte) (reply []byte, ok bool) {
	m, err := snmp.ReadV3(msg)
	if err != nil {
		a.t.Errorf("%v: %x", err, msg)
		return nil, false
	}
	h := m.Header
	if string(h.EngineID) != string(a.engineID) {
		return a.report(h, NoAuthNoPriv, snmp.UnknownEngineIDs), false
	}
	k := a.keys()
	if !m.Authentic(k) {
		return a.report(h, NoAuthNoPriv, snmp.WrongDigests), false
	}
	if h.Boots != a.boots || h.Time < a.time-snmp.TimeWindow || h.Time > a.time+snmp.TimeWindow {
		return a.report(h, AuthNoPriv, snmp.NotInTimeWindows), false
	}
	s, err := m.Open(k)
	if err != nil || s.PDU.Kind != snmp.PDUInform {
		a.t.Errorf("%+v, %v", s, err)
	}
	s.PDU.Kind = snmp.PDUResponse
	return a.seal(h, AuthPriv, s.PDU), true
}

// informTo sends an inform up to 10 times.
func informTo(t *testing.T, answer func(n int, msg []byte) []byte) error {
	t.Helper()
	return informWithin(t, 100*time.Millisecond, answer)
}

// informWithin is informTo with another timeout of each attempt.
func informWithin(t *testing.T, timeout time.Duration, answer func(n int, msg []byte) []byte) error {
	t.Helper()
	r := newReceiver(t, answer)
	e, _ := newEngine(t, Config{
		Users: []User{privateUser}, EngineID: testEngineID, Boots: 1,
		Sinks: []Sink{{Address: r.addr(), User: "manager", Inform: true, Timeout: timeout, Retries: 9}},
	})
	run(t, e)
	return e.Notify(t.Context(), notice)
}

func TestInformV3(t *testing.T) {
	a := &authority{t: t, user: &privateUser, engineID: []byte("the receiver"), boots: 3, time: 5000}
	var messages atomic.Int32
	// One that is not repeated just because the machine is slow.
	if err := informWithin(t, 20*time.Second, func(_ int, msg []byte) []byte {
		messages.Add(1)
		reply, _ := a.answer(msg)
		return reply
	}); err != nil {
		t.Error(err)
	}
	if n := messages.Load(); n != 3 {
		t.Errorf("%d messages; discovery, time and inform are 3", n)
	}
}

// A receiver that was installed anew, or restarted, is found again.
func TestInformV3Restarted(t *testing.T) {
	a := &authority{t: t, user: &privateUser, engineID: []byte("the receiver"), boots: 3, time: 5000}
	r := newReceiver(t, func(_ int, msg []byte) []byte {
		reply, ok := a.answer(msg)
		if ok {
			// The receiver is another one after each inform.
			a.boots, a.time = a.boots+1, 1
			if a.boots == 6 {
				a.engineID = []byte("another receiver")
			}
		}
		return reply
	})
	e, _ := newEngine(t, Config{
		Users: []User{privateUser}, EngineID: testEngineID, Boots: 1,
		Sinks: []Sink{{Address: r.addr(), User: "manager", Inform: true, Timeout: 10 * time.Second}},
	})
	run(t, e)
	for n := range 6 {
		if err := e.Notify(t.Context(), notice); err != nil {
			t.Fatalf("inform %d: %v", n, err)
		}
	}
}

// Nobody but the receiver can acknowledge, or make the engine give up.
func TestInformV3Forged(t *testing.T) {
	a := &authority{t: t, user: &privateUser, engineID: []byte("the receiver"), boots: 3, time: 5000}
	intruder := privateUser
	intruder.AuthPassphrase = "guessed passphrase"
	forger := &authority{t: t, user: &intruder, engineID: a.engineID, boots: 3, time: 5000}
	response := func(msg []byte) snmp.PDU {
		m, err := snmp.ReadV3(msg)
		if err != nil {
			t.Error(err)
			return snmp.PDU{}
		}
		s, _ := m.Open(a.keys())
		s.PDU.Kind = snmp.PDUResponse
		return s.PDU
	}
	var informs atomic.Int32
	err := informTo(t, func(_ int, msg []byte) []byte {
		m, err := snmp.ReadV3(msg)
		if err != nil {
			t.Error(err)
			return nil
		}
		h := m.Header
		reply, ok := a.answer(msg)
		if !ok {
			return reply
		}
		switch informs.Add(1) {
		case 1: // not authenticated
			return a.seal(h, NoAuthNoPriv, response(msg))
		case 2: // authenticated with another key
			return forger.seal(h, AuthPriv, response(msg))
		case 3: // a Report that anybody can send
			return a.report(h, NoAuthNoPriv, snmp.WrongDigests)
		case 4: // a message of long ago
			old := *a
			old.time -= 2 * snmp.TimeWindow
			return old.seal(h, AuthPriv, response(msg))
		}
		return reply
	})
	if n := informs.Load(); err != nil || n < 5 {
		t.Errorf("%d informs, %v", n, err)
	}
}

// What the receiver complains about is reported.
func TestInformV3Complaint(t *testing.T) {
	other := privateUser
	other.AuthPassphrase = "another passphrase"
	a := &authority{t: t, user: &other, engineID: []byte("the receiver"), boots: 3, time: 5000}
	err := informTo(t, func(_ int, msg []byte) []byte {
		reply, _ := a.answer(msg)
		return reply
	})
	if !errors.Is(err, ErrNoAnswer) || !strings.Contains(err.Error(), "wrongDigests") {
		t.Errorf("Notify returned %v", err)
	}
}

// What is not in the user's view for notifications is not sent.
func TestNotifyView(t *testing.T) {
	r := newReceiver(t, nil)
	u := privateUser
	u.Access = []Access{{Level: AuthPriv, Notify: View{
		{OID: mib.OID{1}}, {OID: module.OID(mib.OpPercent), Excluded: true},
	}}}
	e, _ := newEngine(t, Config{Users: []User{u}, EngineID: testEngineID, Boots: 1, Sinks: []Sink{{Address: r.addr(), User: "manager"}}})
	run(t, e)
	if err := e.Notify(t.Context(), notice); err != nil {
		t.Fatal(err)
	}
	allowed := mib.Notice{Notification: mib.NotifyOpAccepted}
	if err := e.Notify(t.Context(), allowed); err != nil {
		t.Fatal(err)
	}
	msg := r.next(t)
	m, err := snmp.ReadV3(msg)
	k := keysOf(&u, testEngineID)
	if err != nil || !m.Authentic(k) {
		t.Fatalf("trap is not authentic: %v", err)
	}
	scoped, err := m.Open(k)
	if err != nil || scoped.PDU.Vars[1].Value.OID.Compare(module.NotificationOID(mib.NotifyOpAccepted)) != 0 {
		t.Errorf("received %+v, %v", scoped, err)
	}
}
