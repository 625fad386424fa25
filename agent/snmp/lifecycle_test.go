package snmp

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"example.com/iad/internal/snmp"
	"example.com/iad/mib"
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
	e, _ = newEngine(t, Config{Listen: ":0"})
	if !e.Addr().Addr().IsUnspecified() || e.Addr().Port() == 0 || e.Addr() == (netip.AddrPort{}) {
		t.Errorf("listens on %v", e.Addr())
	}
}

// TestBusyAddress: an address that somebody is about to leave is waited for, one
// that stays busy is told of.
func TestBusyAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		other, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		cfg := Config{Listen: other.LocalAddr().String()}
		began := time.Now()
		if _, err := New(cfg, mib.NewTree(module, newDevice())); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("while it is busy: %v", err)
		} else if took := time.Since(began); took < time.Second || took > busyFor {
			t.Errorf("given up after %v", took)
		}
		made := make(chan error)
		go func() {
			e, err := New(cfg, mib.NewTree(module, newDevice()))
			if err == nil {
				err = e.Close()
			}
			made <- err
		}()
		synctest.Wait()
		other.Close()
		if err := <-made; err != nil {
			t.Errorf("after it was left: %v", err)
		}
	})
}
