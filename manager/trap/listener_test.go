package trap_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/gosnmp/gosnmp"

	"example.com/iad/manager/device"
	"example.com/iad/manager/trap"
	"example.com/iad/mib"
)

var module = mib.NewModule(nil)

// makeTrap makes a notification of a device; of its objects it has the ones that
// the tests look at.
func makeTrap(kind *mib.Notification, deviceID string, seq uint32, inform bool) gosnmp.SnmpTrap {
	return gosnmp.SnmpTrap{IsInform: inform, Variables: []gosnmp.SnmpPDU{
		{Name: "1.3.6.1.2.1.1.3.0", Type: gosnmp.TimeTicks, Value: uint32(100)},
		{Name: "1.3.6.1.6.3.1.1.4.1.0", Type: gosnmp.ObjectIdentifier, Value: module.NotificationOID(kind).String()},
		{Name: module.OID(mib.DeviceId, 0).String(), Type: gosnmp.OctetString, Value: deviceID},
		{Name: module.OID(mib.EventSeq, 0).String(), Type: gosnmp.Gauge32, Value: seq},
		{Name: module.OID(mib.OpId, 0).String(), Type: gosnmp.Gauge32, Value: uint32(7)},
		{Name: module.OID(mib.OpFailCause, 0).String(), Type: gosnmp.Integer, Value: int(mib.FailCauseFileNotFound)},
	}}
}

var testUsers = []device.User{
	{Name: "plain"},
	{Name: "signed", Auth: "sha256", AuthPassphrase: "authentication"},
	{Name: "secret", Auth: "sha", AuthPassphrase: "authentication", Priv: "aes", PrivPassphrase: "privacy-privacy"},
	{Name: "old", Auth: "md5", AuthPassphrase: "authentication", Priv: "des", PrivPassphrase: "privacy-privacy"},
}

// sender makes a gosnmp client that sends to the listener as a device would.
func sender(t *testing.T, l *trap.Listener, user *device.User) *gosnmp.GoSNMP {
	t.Helper()
	g := &gosnmp.GoSNMP{
		Target: "127.0.0.1", Port: l.Addr().Port(), Version: gosnmp.Version2c, Community: "public",
		Timeout: 2 * time.Second, Retries: 1,
	}
	if user != nil {
		sp := &gosnmp.UsmSecurityParameters{
			UserName: user.Name, AuthenticationPassphrase: user.AuthPassphrase, PrivacyPassphrase: user.PrivPassphrase,
			AuthenticationProtocol: map[string]gosnmp.SnmpV3AuthProtocol{"": gosnmp.NoAuth, "md5": gosnmp.MD5, "sha": gosnmp.SHA, "sha256": gosnmp.SHA256}[user.Auth],
			PrivacyProtocol:        map[string]gosnmp.SnmpV3PrivProtocol{"": gosnmp.NoPriv, "des": gosnmp.DES, "aes": gosnmp.AES, "aes192c": gosnmp.AES192C, "aes256c": gosnmp.AES256C}[user.Priv],
		}
		g.Version, g.SecurityModel, g.SecurityParameters = gosnmp.Version3, gosnmp.UserSecurityModel, sp
		switch {
		case user.Priv != "":
			g.MsgFlags = gosnmp.AuthPriv
		case user.Auth != "":
			g.MsgFlags = gosnmp.AuthNoPriv
		}
	}
	if err := g.Connect(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.Close() })
	return g
}

// asEngine makes the sender of traps an authoritative engine.
func asEngine(g *gosnmp.GoSNMP, id string, boots, engineTime uint32) {
	sp := g.SecurityParameters.(*gosnmp.UsmSecurityParameters)
	sp.AuthoritativeEngineID, sp.AuthoritativeEngineBoots, sp.AuthoritativeEngineTime = id, boots, engineTime
}

const testEngine = "\x80\x00\x1f\x88\x05engine-1"

func startListener(t *testing.T, cfg trap.ListenerConfig) (*trap.Listener, *trap.Subscription) {
	t.Helper()
	cfg.Listen = "127.0.0.1:0"
	if cfg.Communities == nil {
		cfg.Communities = []string{"public"}
	}
	l, err := trap.Listen(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l, l.Subscribe(trap.Filter{}, 64)
}

func next(t *testing.T, s *trap.Subscription) *trap.Notification {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	n, err := s.Next(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func send(t *testing.T, g *gosnmp.GoSNMP, n gosnmp.SnmpTrap) {
	t.Helper()
	if _, err := g.SendTrap(n); err != nil {
		t.Fatal(err)
	}
}

func TestListenerV2(t *testing.T) {
	l, s := startListener(t, trap.ListenerConfig{})
	g := sender(t, l, nil)
	send(t, g, makeTrap(mib.NotifyOpFailed, "A", 3, false))
	n := next(t, s)
	if n.DeviceID != "A" || !n.Is(mib.NotifyOpFailed) || n.Seq != 3 || n.Op.ID != 7 || n.Op.Cause != mib.FailCauseFileNotFound {
		t.Errorf("got %+v", n)
	}
	if n.From.Addr() != netip.MustParseAddr("127.0.0.1") || n.User != "public" || n.Inform {
		t.Errorf("sender %v, %q, inform %v", n.From, n.User, n.Inform)
	}
	send(t, g, makeTrap(mib.NotifyOpFailed, "A", 4, true)) // returns when it is acknowledged
	if n := next(t, s); !n.Inform || n.Seq != 4 || n.Missed != 0 {
		t.Errorf("inform: %+v", n)
	}
}

func TestListenerV3(t *testing.T) {
	for _, user := range testUsers {
		t.Run(user.Name, func(t *testing.T) {
			l, s := startListener(t, trap.ListenerConfig{Users: testUsers})
			g := sender(t, l, &user)
			asEngine(g, testEngine, 3, 1000)
			send(t, g, makeTrap(mib.NotifyOpCompleted, "A", 1, false))
			if n := next(t, s); n.User != user.Name || !n.Is(mib.NotifyOpCompleted) {
				t.Errorf("trap: %+v", n)
			}
			g = sender(t, l, &user)
			for seq := uint32(2); seq < 4; seq++ { // the second one without discovery
				send(t, g, makeTrap(mib.NotifyOpCompleted, "A", seq, true))
				if n := next(t, s); n.User != user.Name || !n.Inform || n.Seq != seq {
					t.Errorf("inform: %+v", n)
				}
			}
		})
	}
}

// What must not be believed is followed by what must, so that no test waits
// for nothing to happen.
func TestListenerRefuses(t *testing.T) {
	wrong := testUsers[2]
	wrong.AuthPassphrase = "something else"
	downgraded := testUsers[2]
	downgraded.Auth, downgraded.Priv = "", ""
	unknown := device.User{Name: "unknown"}
	for _, c := range []struct {
		name string
		user device.User
	}{{"wrong password", wrong}, {"lower level", downgraded}, {"unknown user", unknown}} {
		t.Run(c.name, func(t *testing.T) {
			l, s := startListener(t, trap.ListenerConfig{Users: testUsers})
			bad := sender(t, l, &c.user)
			asEngine(bad, testEngine, 1, 1)
			send(t, bad, makeTrap(mib.NotifyOpCompleted, "bad", 1, false))
			send(t, sender(t, l, nil), makeTrap(mib.NotifyOpCompleted, "good", 1, false))
			if n := next(t, s); n.DeviceID != "good" {
				t.Errorf("believed %+v", n)
			}
			inform := sender(t, l, &c.user)
			inform.Retries, inform.Timeout = 0, 300*time.Millisecond
			if _, err := inform.SendTrap(makeTrap(mib.NotifyOpCompleted, "bad", 2, true)); err == nil {
				t.Error("the inform was acknowledged")
			}
		})
	}
	t.Run("community", func(t *testing.T) {
		l, s := startListener(t, trap.ListenerConfig{Communities: []string{"traps"}})
		g := sender(t, l, nil)
		send(t, g, makeTrap(mib.NotifyOpCompleted, "bad", 1, false))
		g.Community = "traps"
		send(t, g, makeTrap(mib.NotifyOpCompleted, "good", 1, false))
		if n := next(t, s); n.DeviceID != "good" {
			t.Errorf("believed %+v", n)
		}
	})
}

func TestListenerReplay(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	l, s := startListener(t, trap.ListenerConfig{Users: testUsers, Now: func() time.Time { return now }})
	g := sender(t, l, &testUsers[1])
	for i, c := range []struct {
		boots, time uint32
		accepted    bool
	}{
		{5, 1000, true},
		{5, 900, true},  // late, in the window of 150 s
		{5, 849, false}, // too late
		{4, 5000, false},
		{6, 10, true}, // restarted
		{5, 2000, false},
	} {
		asEngine(g, testEngine, c.boots, c.time)
		send(t, g, makeTrap(mib.NotifyOpCompleted, "A", uint32(10+i), false))
		send(t, sender(t, l, nil), makeTrap(mib.NotifyOpCompleted, fmt.Sprint("end ", i), 1, false))
		n := next(t, s)
		if got := n.DeviceID == "A"; got != c.accepted {
			t.Errorf("boots %d, time %d: accepted %v", c.boots, c.time, got)
		}
		if n.DeviceID == "A" {
			next(t, s)
		}
	}
}

func TestListenerSequence(t *testing.T) {
	l, s := startListener(t, trap.ListenerConfig{})
	g := sender(t, l, nil)
	for _, c := range []struct {
		kind    *mib.Notification
		seq     uint32
		arrives bool
		missed  uint32
	}{
		{mib.NotifyOpAccepted, 0xfffffffd, true, 0},
		{mib.NotifyOpAccepted, 0xfffffffd, false, 0}, // twice
		{mib.NotifyOpProgress, 0xfffffffd, true, 0},
		{mib.NotifyOpProgress, 0xfffffffd, true, 0}, // progress has no number of its own
		{mib.NotifyOpCompleted, 0xffffffff, true, 1},
		{mib.NotifyBankSwitched, 0xfffffffe, true, 0},  // the missing one, late
		{mib.NotifyBankSwitched, 0xfffffffe, false, 0}, // and twice
		{mib.NotifyRestarting, 1, true, 0},             // wrapped: 0 is no number
		{mib.NotifyOpProgress, 3, true, 2},
		{mib.NotifyRestarted, 4, true, 0},
	} {
		send(t, g, makeTrap(c.kind, "A", c.seq, false))
		send(t, g, makeTrap(mib.NotifyOpProgress, "end", 1, false))
		n := next(t, s)
		if got := n.DeviceID == "A"; got != c.arrives {
			t.Fatalf("%s %d: arrives %v", c.kind.Name, c.seq, got)
		}
		if n.DeviceID == "end" {
			continue
		}
		if n.Missed != c.missed {
			t.Errorf("%s %d: %d missed, want %d", c.kind.Name, c.seq, n.Missed, c.missed)
		}
		next(t, s)
	}
}

// A device that lost its journal numbers its events from 1 again.
func TestListenerCountsAnew(t *testing.T) {
	l, s := startListener(t, trap.ListenerConfig{})
	g := sender(t, l, nil)
	for _, life := range []struct{ operation, events uint32 }{{7, 20}, {8, 4}, {9, 30}} {
		for seq := uint32(1); seq <= life.events; seq++ {
			event := makeTrap(mib.NotifyOpFailed, "A", seq, false)
			event.Variables[4].Value = life.operation
			for range 2 { // a true repeat is reported once
				send(t, g, event)
			}
			send(t, g, makeTrap(mib.NotifyOpProgress, "end", 1, false))
			if n := next(t, s); n.DeviceID != "A" || n.Seq != seq || n.Op.ID != life.operation || n.Missed != 0 {
				t.Fatalf("event %d of operation %d: got %v, %d missed", seq, life.operation, n, n.Missed)
			}
			if n := next(t, s); n.DeviceID != "end" {
				t.Fatalf("event %d of operation %d is reported twice", seq, life.operation)
			}
		}
	}
}

func TestSubscriptions(t *testing.T) {
	l, all := startListener(t, trap.ListenerConfig{})
	ofB := l.Subscribe(trap.Filter{DeviceID: "B"}, 1)
	elsewhere := l.Subscribe(trap.Filter{From: netip.MustParseAddr("192.0.2.1")}, 1)
	g := sender(t, l, nil)
	for seq := uint32(1); seq <= 3; seq++ {
		send(t, g, makeTrap(mib.NotifyOpCompleted, "A", seq, false))
		send(t, g, makeTrap(mib.NotifyOpCompleted, "B", seq, false))
		next(t, all)
		next(t, all)
	}
	if n := next(t, ofB); n.DeviceID != "B" || n.Seq != 3 {
		t.Errorf("of B: %+v; the newest should be kept", n)
	}
	ofB.Close()
	if _, err := ofB.Next(t.Context()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if n, err := elsewhere.Next(t.Context()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("from elsewhere: %+v, %v", n, err)
	}
}
