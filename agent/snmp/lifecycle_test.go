package snmp

import (
	"context"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"example.com/iad/internal/snmp"
)

// The engine ends all that it started, however often it is made.
func TestNoLeaks(t *testing.T) {
	for range 5 {
		e, _ := newEngine(t, Config{Conn: socketAt(t, "127.0.0.1:0"), Communities: communities(),
			Sinks: []Sink{{Address: "127.0.0.1:9", Community: "traps", Inform: true, Timeout: time.Hour}}})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- e.Run(ctx) }()
		conn, err := net.Dial("udp", e.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		conn.Write(snmp.AppendCommunityMessage(nil, snmp.Version2c, "public", getID(), snmp.EncodeVars(getID().Vars)))
		conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := conn.Read(make([]byte, 1500)); err != nil {
			t.Error(err)
		}
		conn.Close()
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	goleak.VerifyNone(t)
}

func TestAddr(t *testing.T) {
	e, _ := newEngine(t, Config{})
	if e.Addr().IsValid() {
		t.Errorf("listens on %v", e.Addr())
	}
	e, _ = newEngine(t, Config{Conn: socketAt(t, ":0")})
	if !e.Addr().Addr().IsUnspecified() || e.Addr().Port() == 0 || e.Addr() == (netip.AddrPort{}) {
		t.Errorf("listens on %v", e.Addr())
	}
}

// An address that cannot be listened on is named, with the remedy.
func TestListenErrors(t *testing.T) {
	busy := socketAt(t, "127.0.0.1:0").LocalAddr().String()
	for address, want := range map[string]string{
		busy:                "already in use; stop the program that uses it",
		"127.0.0.1":         "missing port in address; give HOST:PORT",
		"127.0.0.1:nowhere": "unknown port; give HOST:PORT",
		"192.0.2.1:0":       "cannot assign requested address; choose an address of this device",
	} {
		conn, err := Listen(address)
		if err == nil {
			conn.Close()
			t.Errorf("%s: opened", address)
			continue
		}
		if got := err.Error(); strings.Count(got, strconv.Quote(address)) != 1 || !strings.Contains(got, want) {
			t.Errorf("%s: %v", address, err)
		}
	}
}

// One socket serves engine after engine, and is not closed between them: what
// arrives meanwhile is answered by the next.
func TestSocketOutlivesEngine(t *testing.T) {
	cfg := Config{Conn: socketAt(t, "127.0.0.1:0"), Communities: communities()}
	conn, err := net.Dial("udp", cfg.Conn.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for range 50 {
		conn.Write(snmp.AppendCommunityMessage(nil, snmp.Version2c, "public", getID(), snmp.EncodeVars(getID().Vars)))
		e, _ := newEngine(t, cfg)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- e.Run(ctx) }()
		conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := conn.Read(make([]byte, 1500)); err != nil {
			t.Error(err)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}
