package device_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/gosnmp/gosnmp"

	"example.com/iad/internal/iadtest"
	"example.com/iad/manager/device"
	"example.com/iad/mib"
)

func backupRequest() device.Request {
	return device.Request{
		Kind: mib.OperationKindBackupConfig, ID: 4711, Owner: "tester",
		Server: &device.ServerRow{Index: 2, Path: "backups", FileServerAddress: device.FileServerAddress{
			Protocol: device.FTP, Host: "192.0.2.1", Port: 2121, User: "u", Password: "p", Timeout: 7 * time.Second,
		}},
		Files:     []device.FileRow{{Kind: mib.FileTypeUserData, Name: "user.cfg", ExpectSize: 5}},
		TimeLimit: time.Minute, Retries: 3,
	}
}

func TestStartWritesEverything(t *testing.T) {
	p := iadtest.NewPeer(t)
	op, err := p.Client().Start(t.Context(), backupRequest())
	if err != nil {
		t.Fatal(err)
	}
	if op.ID != 1 || !op.Is(4711, "tester") || op.Kind != mib.OperationKindBackupConfig || op.TimeLeft != time.Minute {
		t.Errorf("operation %+v", op)
	}
	for _, c := range []struct {
		object *mib.Object
		index  uint32
		want   mib.Value
	}{
		{mib.ServerAddressType, 2, mib.InetAddressTypeIpv4.Value()},
		{mib.ServerAddress, 2, mib.Octets([]byte{192, 0, 2, 1})},
		{mib.ServerPort, 2, mib.Uint32(2121)},
		{mib.ServerProtocol, 2, mib.ProtocolFtp.Value()},
		{mib.ServerUser, 2, mib.Str("u")},
		{mib.ServerPassword, 2, mib.Str("p")},
		{mib.ServerPath, 2, mib.Str("backups")},
		{mib.ServerTimeout, 2, mib.Uint32(7)},
		{mib.FileName, 2, mib.Str("user.cfg")},
		{mib.FileExpectSize, 2, mib.Uint32(5)},
		{mib.ReqServer, 0, mib.Uint32(2)},
		{mib.ReqFiles, 0, mib.Octets(mib.Bits(mib.FileSetUserData))},
		{mib.ReqTimeLimit, 0, mib.Uint32(60)},
		{mib.ReqRetries, 0, mib.Uint32(3)},
	} {
		if got := p.Value(c.object, c.index); !got.Equal(c.want) {
			t.Errorf("%s.%d is %v, want %v", c.object.Name, c.index, got, c.want)
		}
	}
}

// losing drops the first n responses of a kind.
func losing(kind gosnmp.PDUType, n int) func(gosnmp.PDUType) bool {
	return func(got gosnmp.PDUType) bool {
		if got != kind || n == 0 {
			return false
		}
		n--
		return true
	}
}

func TestStartOnce(t *testing.T) {
	for _, c := range []struct {
		name    string
		lost    int // responses to SETs
		request func() device.Request
	}{
		// One loss is repeated by the SNMP layer, two are a time-out.
		{"response to the command lost", 1, func() device.Request {
			return device.Request{Kind: mib.OperationKindReset, ID: 5, Owner: "tester"}
		}},
		{"command times out", 2, func() device.Request {
			return device.Request{Kind: mib.OperationKindReset, ID: 5, Owner: "tester"}
		}},
		{"response to a row lost", 1, backupRequest},
		{"row times out", 2, backupRequest},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := iadtest.NewPeer(t)
			p.Script(func() { p.Drop = losing(gosnmp.SetRequest, c.lost) })
			r := c.request()
			op, err := p.Client().Start(t.Context(), r)
			if err != nil {
				t.Fatal(err)
			}
			if p.Started() != 1 || !op.Is(r.ID, r.Owner) {
				t.Errorf("%d operations started; got %+v", p.Started(), op)
			}
		})
	}
}

func TestStartAgainAfterCrash(t *testing.T) {
	p := iadtest.NewPeer(t)
	c := p.Client()
	first, err := c.Start(t.Context(), backupRequest())
	if err != nil {
		t.Fatal(err)
	}
	again, err := c.Start(t.Context(), backupRequest())
	if err != nil || again.ID != first.ID || p.Started() != 1 {
		t.Errorf("again: %+v, %v; %d operations started", again, err, p.Started())
	}
}

func TestOtherManagerFaster(t *testing.T) {
	p := iadtest.NewPeer(t)
	races := 2
	faster := func() { p.Put(mib.ReqLock, mib.Int32(p.Value(mib.ReqLock).Int+1)) }
	p.Script(func() {
		p.Before = func() {
			if races > 0 {
				races--
				faster()
			}
		}
	})
	if _, err := p.Client().Start(t.Context(), backupRequest()); err != nil {
		t.Fatal(err)
	}
	if p.Started() != 1 {
		t.Errorf("%d operations started", p.Started())
	}
	p.Script(func() { p.Before = faster })
	r := backupRequest()
	r.ID++
	if _, err := p.Client().Start(t.Context(), r); err == nil || p.Started() != 1 {
		t.Errorf("started against a manager that is always faster: %v", err)
	}
}

func TestRefusal(t *testing.T) {
	p := iadtest.NewPeer(t)
	p.Script(func() { p.Refuse = func() mib.FailCause { return mib.FailCauseServiceInUse } })
	_, err := p.Client().Start(t.Context(), device.Request{Kind: mib.OperationKindReset, ID: 1, Owner: "tester"})
	var refusal *device.RefusalError
	if !errors.As(err, &refusal) || refusal.Cause != mib.FailCauseServiceInUse || refusal.Text != "because the test wants it" {
		t.Fatalf("got %v", err)
	}
}

// Behind a master agent, a device that restarts is absent for a moment. One that restarts twice, because new software failed its
// self-test, may be absent, there and absent again in three requests: that does not mean that it lacks the objects.
func TestRestartsTwice(t *testing.T) {
	p := iadtest.NewPeer(t)
	c := p.Client()
	if _, err := c.Operation(t.Context()); err != nil {
		t.Fatal(err)
	}
	requests := 0
	p.Script(func() { p.Absent = func() bool { requests++; return requests%2 == 1 } })
	if _, err := c.Operation(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestErrorsTell(t *testing.T) {
	p := iadtest.NewPeer(t)
	readOnly, err := device.Dial(device.Target{
		Address: p.Address(), Credentials: device.Credentials{Read: "public", Write: "public"},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer readOnly.Close()
	_, err = readOnly.Start(t.Context(), backupRequest())
	var refusal *device.RefusalError
	if !errors.As(err, &refusal) || refusal.Cause != mib.FailCauseNotPermitted {
		t.Errorf("community that may not write: %v", err)
	}

	elsewhere, err := device.Dial(device.Target{
		Address: p.Address(), Credentials: device.Credentials{Write: "private"}, Root: mib.OID{1, 3, 6, 1, 4, 1, 99999, 1},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer elsewhere.Close()
	if _, err := elsewhere.Device(t.Context()); !errors.Is(err, device.ErrNoAnswer) || !strings.Contains(err.Error(), "root OID") {
		t.Errorf("wrong root: %v", err)
	}

	p.Script(func() { p.Drop = func(gosnmp.PDUType) bool { return true } })
	if _, err := p.Client().Device(t.Context()); !errors.Is(err, device.ErrNoAnswer) {
		t.Errorf("silence: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.Client().Device(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestCancelInMidRequest(t *testing.T) {
	p := iadtest.NewPeer(t)
	asked := make(chan struct{}, 10)
	p.Script(func() { p.Drop = func(gosnmp.PDUType) bool { asked <- struct{}{}; return true } })
	c, err := device.Dial(device.Target{
		Address: p.Address(), Timeout: time.Minute, Credentials: device.Credentials{Write: "private"},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-asked; cancel() }()
	if _, err := c.Device(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestTables(t *testing.T) {
	p := iadtest.NewPeer(t)
	for op := uint32(1); op <= 40; op++ { // more than one GETBULK holds
		p.Put(mib.HistKind, mib.OperationKindReset.Value(), op)
		p.Put(mib.HistState, mib.OperationStateFailed.Value(), op)
		p.Put(mib.HistElapsed, mib.Uint32(op), op)
		p.Put(mib.HistOwner, mib.Str("someone"), op)
		p.Put(mib.EventType, mib.EventTypeRestarted.Value(), op+100)
	}
	history, err := p.Client().History(t.Context())
	if err != nil || len(history) != 40 {
		t.Fatalf("%d rows, %v", len(history), err)
	}
	if h := history[39]; h.OpID != 40 || h.Elapsed != 40*time.Second || h.Owner != "someone" || h.Kind != mib.OperationKindReset {
		t.Errorf("last row %+v", h)
	}
	events, err := p.Client().Events(t.Context())
	if err != nil || len(events) != 40 || events[0].Seq != 101 || events[0].Type != mib.EventTypeRestarted {
		t.Errorf("events %+v, %v", events, err)
	}
}

func TestEveryCauseIsExplained(t *testing.T) {
	for _, e := range mib.OpFailCause.Enums {
		if mib.FailCause(e.Number).Explain().What == mib.FailCause(250).Explain().What || mib.FailCause(e.Number).Explain().What == "" {
			t.Errorf("%s is not explained", e.Name)
		}
	}
	if mib.FailCause(250).Explain().What != "failed, cause 250" {
		t.Errorf("an unknown cause: %s", mib.FailCause(250).Explain().What)
	}
}

func TestDialRefuses(t *testing.T) {
	for _, target := range []device.Target{
		{Address: "", Credentials: device.Credentials{Write: "x"}},
		{Address: "127.0.0.1:0", Credentials: device.Credentials{Write: "x"}},
		{Address: "127.0.0.1:66000", Credentials: device.Credentials{Write: "x"}},
		{Address: "127.0.0.1"},
		{Address: "127.0.0.1", Credentials: device.Credentials{User: &device.User{Name: "u", Auth: "sha", AuthPassphrase: "short"}}},
		{Address: "127.0.0.1", Credentials: device.Credentials{User: &device.User{Name: "u", Priv: "aes", PrivPassphrase: "12345678"}}},
		{Address: "127.0.0.1", Credentials: device.Credentials{User: &device.User{Name: "u", Auth: "rot13", AuthPassphrase: "12345678"}}},
	} {
		if c, err := device.Dial(target); err == nil {
			c.Close()
			t.Errorf("%+v: no error", target)
		}
	}
}
