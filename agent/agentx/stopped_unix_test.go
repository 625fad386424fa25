//go:build unix

package agentx

import (
	"context"
	"errors"
	"syscall"
	"testing"
	"time"

	"example.com/iad/mib"
)

// TestSnmpdStopped stops snmpd without ending it: the session gives it up, and
// comes back when it goes on.
func TestSnmpdStopped(t *testing.T) {
	master := startSnmpd(t)
	s := start(t, Config{Address: master.address, PingInterval: 100 * time.Millisecond, Timeout: 300 * time.Millisecond}, newDevice())
	s.awaitReady()
	signal := func(sig syscall.Signal) {
		if err := master.cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
	}
	signal(syscall.SIGSTOP)
	if err := s.Notify(t.Context(), mib.Notice{Notification: mib.NotifyRestarted}); !errors.Is(err, ErrAway) {
		t.Errorf("Notify while snmpd stands still: %v", err)
	}
	signal(syscall.SIGCONT)
	s.awaitReady()
	if err := s.Notify(context.Background(), mib.Notice{Notification: mib.NotifyRestarted}); err != nil {
		t.Errorf("Notify after it goes on: %v", err)
	}
}
