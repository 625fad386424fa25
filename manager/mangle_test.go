package manager_test

import (
	"bytes"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"example.com/iad/agent/snmp"
	"example.com/iad/manager"
	"example.com/iad/manager/device"
	"example.com/iad/manager/trap"
	"example.com/iad/mib"
	"example.com/iad/sim"
)

// mangler relays datagrams to the listener: mangle returns what to send on when
// a datagram arrives.
type mangler struct {
	conn   net.PacketConn
	mangle func(datagram []byte) [][]byte

	mu sync.Mutex
	to net.Addr // nil: nobody yet
}

func newMangler(t *testing.T, mangle func([]byte) [][]byte) *mangler {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := &mangler{conn: conn, mangle: mangle}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 65535)
		for {
			n, _, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			for _, d := range m.mangle(slices.Clone(buf[:n])) {
				m.mu.Lock()
				to := m.to
				m.mu.Unlock()
				if to != nil {
					_, _ = conn.WriteTo(d, to) // as unreliable as UDP is
				}
			}
		}
	}()
	t.Cleanup(func() { conn.Close(); <-done })
	return m
}

// Notifications that are lost, come twice, late or in another order change
// nothing about the way through the procedure nor about its verdict.
func TestMangledNotifications(t *testing.T) {
	for name, mangle := range map[string]func() func([]byte) [][]byte{
		"every other one lost": func() func([]byte) [][]byte {
			n := 0
			return func(d []byte) [][]byte {
				if n++; n%2 == 0 {
					return nil
				}
				return [][]byte{d}
			}
		},
		"doubled": func() func([]byte) [][]byte {
			return func(d []byte) [][]byte { return [][]byte{d, d} }
		},
		"late by three": func() func([]byte) [][]byte {
			var held [][]byte
			return func(d []byte) [][]byte {
				if held = append(held, d); len(held) < 4 {
					return nil
				}
				first := held[0]
				held = held[1:]
				return [][]byte{first}
			}
		},
		"in reverse, five at a time": func() func([]byte) [][]byte {
			var held [][]byte
			return func(d []byte) [][]byte {
				if held = append(held, d); len(held) < 5 {
					return nil
				}
				out := held
				held = nil
				slices.Reverse(out)
				return out
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMangler(t, mangle())
			l := newLab(t, labOptions{configure: func(_ *lab, c *sim.Config) {
				c.SNMP.Sinks = []snmp.Sink{{Address: m.conn.LocalAddr().String(), Community: "public"}}
			}})
			to := net.UDPAddrFromAddrPort(l.listener.Addr())
			m.mu.Lock()
			m.to = to
			m.mu.Unlock()
			l.failTest["2.0.0"] = true
			operator := &scripted{t: t, answers: []manager.Answer{{Choice: manager.OtherFile, Image: l.image("2.0.1", 2)}}}
			result, err := manager.Upgrade(l.ctx, l.plan(l.image("2.0.0", 2)), operator, l.observe)
			if err != nil {
				t.Fatal(err)
			}
			if result.NewVersion != "2.0.1" {
				t.Errorf("%s runs", result.NewVersion)
			}
			want := slices.Concat(backUp, []manager.Step{130, 140, 160}, update, recovery)
			if diff := cmp.Diff(want, l.steps()); diff != "" {
				t.Errorf("steps (-want +got):\n%s", diff)
			}
		})
	}
}

// What no notification reported is read from the event table. Who asked for none lost
// nothing.
func TestEventsWithoutNotification(t *testing.T) {
	for _, listens := range []bool{true, false} {
		l := newLab(t, labOptions{noNotifications: true})
		plan := l.plan(l.image("2.0.0", 2))
		var log bytes.Buffer
		plan.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
		if !listens {
			plan.Listener = nil
		}
		if _, err := manager.Upgrade(l.ctx, plan, &scripted{t: t}, l.observe); err != nil {
			t.Fatal(err)
		}
		var reported, want []string
		for _, u := range l.updates {
			if text, ok := strings.CutPrefix(u.Text, "event whose notification was lost: "); ok {
				_, kind, _ := strings.Cut(text, " ")
				kind, _, _ = strings.Cut(kind, " ")
				reported = append(reported, strings.TrimSuffix(kind, ","))
			}
		}
		if listens {
			want = []string{"bankSwitched", "restarting", "restarted", "bankSwitched"}
		} else if !strings.Contains(log.String(), "bankSwitched") {
			t.Errorf("the log has no events:\n%s", log.String())
		}
		if diff := cmp.Diff(want, reported); diff != "" {
			t.Errorf("listens %v: events reported (-want +got):\n%s", listens, diff)
		}
	}
}

// The device reports progress as the plan says, and afterwards as before.
func TestPace(t *testing.T) {
	l := newLab(t, labOptions{})
	before, err := l.client.Pace(l.ctx)
	if err != nil {
		t.Fatal(err)
	}
	sub := l.listener.Subscribe(trap.Filter{}, 1000)
	defer sub.Close()
	plan := l.plan(l.image("2.0.0", 2))
	plan.Pace = &device.Pace{Step: 1}
	if _, err := manager.Upgrade(l.ctx, plan, &scripted{t: t}, nil); err != nil {
		t.Fatal(err)
	}
	after, err := l.client.Pace(l.ctx)
	if err != nil {
		t.Fatal(err)
	}
	if after != before {
		t.Errorf("reports every %+v, before: %+v", after, before)
	}
	progress := 0
	for n := range sub.C() {
		if n.Is(mib.NotifyOpProgress) {
			progress++
		}
		if n.Is(mib.NotifyOpCompleted) && n.Op.Kind == mib.OperationKindRecoverConfig {
			break
		}
	}
	if progress < 15 { // every 2 s at the most there would be as many as there are phases, less
		t.Errorf("%d notifications of progress", progress)
	}
}
