package snmp

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// The engine ends all that it started, however often it is made.
func TestNoLeaks(t *testing.T) {
	for range 5 {
		e, _ := newEngine(t, Config{Listen: "127.0.0.1:0", Communities: communities(),
			Sinks: []Sink{{Address: "127.0.0.1:9", Community: "traps", Inform: true, Timeout: time.Hour}}})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- e.Run(ctx) }()
		conn, err := net.Dial("udp", e.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		conn.Write(appendCommunityMessage(nil, version2c, "public", getID(), encodeVars(getID().vars)))
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
	e, _ = newEngine(t, Config{Listen: ":0"})
	if !e.Addr().Addr().IsUnspecified() || e.Addr().Port() == 0 || e.Addr() == (netip.AddrPort{}) {
		t.Errorf("listens on %v", e.Addr())
	}
}
