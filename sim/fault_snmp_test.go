package sim

import (
	"context"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// wire is a connection that remembers what was sent.
type wire struct {
	net.Conn
	mu   sync.Mutex
	sent string
}

func (w *wire) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sent += string(p)
	return len(p), nil
}

func (w *wire) all() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.sent
}

// Notifications are lost, sent twice, late, or overtaken.
func TestFaultsOfNotifications(t *testing.T) {
	for fault, want := range map[string]struct{ atOnce, later string }{
		"silent": {"12345", "12345"}, "losttraps,nth=3": {"12", "12"}, "losttraps,times=1": {"2345", "2345"},
		"duptraps": {"1122334455", "1122334455"}, "latetraps,times=2,delay=3s": {"345", "34512"}, "reordertraps": {"2143", "21435"},
	} {
		t.Run(fault, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, err := ParseFault(fault)
				if err != nil {
					t.Fatal(err)
				}
				d := New(Config{Disk: Memory(), Faults: []Fault{f}})
				var w wire
				conn, err := d.faultyTraps(func(context.Context, string, string) (net.Conn, error) { return &w, nil }, &lifetime{})(t.Context(), "udp", "")
				if err != nil {
					t.Fatal(err)
				}
				for _, msg := range []string{"1", "2", "3", "4", "5"} {
					if n, err := conn.Write([]byte(msg)); n != 1 || err != nil {
						t.Fatal(n, err)
					}
					synctest.Wait()
					time.Sleep(time.Millisecond)
				}
				if got := w.all(); got != want.atOnce {
					t.Errorf("sent at once: %s, want %s", got, want.atOnce)
				}
				time.Sleep(10 * time.Second)
				synctest.Wait()
				if got := w.all(); got != want.later {
					t.Errorf("sent after all: %s, want %s", got, want.later)
				}
				close(d.stopped)
			})
		})
	}
}
