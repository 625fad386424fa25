package manager_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gosnmp/gosnmp"
	"github.com/spf13/afero"

	"example.com/iad/internal/clock"
	"example.com/iad/internal/iadtest"
	"example.com/iad/manager"
	"example.com/iad/manager/device"
	"example.com/iad/mib"
)

// A run that was paused while another one continued the upgrade commands nothing more.
func TestJournalTakenOver(t *testing.T) {
	l := newLab(t, labOptions{})
	journals := afero.NewMemMapFs()
	plan := l.plan(l.image("2.0.0", 2))
	plan.Journal = manager.NewJournal(journals, "TEST-0001")
	other := manager.NewJournal(journals, "TEST-0001")
	_, err := manager.Upgrade(l.ctx, plan, &scripted{t: t}, func(u manager.Update) {
		l.observe(u)
		if u.Step == manager.StepUpdate && u.Kind == manager.StepBegins {
			r, err := other.Load()
			if err == nil {
				r.Owner = "another"
				err = other.Save(r)
			}
			if err != nil {
				t.Error(err)
			}
		}
	})
	if !errors.Is(err, manager.ErrNotOwner) {
		t.Errorf("ended with %v", err)
	}
	if d, err := l.client.Device(l.ctx); err != nil || d.Version != "1.0.0" {
		t.Errorf("%+v, %v", d, err)
	}
	if r, err := other.Load(); err != nil || r.Owner != "another" {
		t.Errorf("the other run's journal: %+v, %v", r, err)
	}
}

// slow is an agent that takes its time and gives one value at a time.
func slow(t *testing.T, delay time.Duration) string {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	go func() {
		buf := make([]byte, 65536)
		g := &gosnmp.GoSNMP{Version: gosnmp.Version2c}
		for row := uint32(1); ; row++ {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			p, err := g.SnmpDecodePacket(buf[:n])
			if err != nil {
				continue
			}
			p.PDUType, p.Error, p.ErrorIndex = gosnmp.GetResponse, 0, 0
			p.Variables = []gosnmp.SnmpPDU{{
				Name: "." + mib.NewModule(nil).OID(mib.HistOwner, row).String(), Type: gosnmp.OctetString, Value: "x"}}
			if out, err := p.MarshalMsg(); err == nil {
				time.AfterFunc(delay, func() { _, _ = conn.WriteTo(out, from) })
			}
		}
	}()
	return conn.LocalAddr().String()
}

// A device that answers, but hardly, does not keep the manager for hours.
func TestSlowTable(t *testing.T) {
	c, err := device.Dial(device.Target{
		Address: slow(t, 40*time.Millisecond), Timeout: 50 * time.Millisecond, Credentials: device.Credentials{Read: "public", Write: "private"},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := c.History(ctx); !errors.Is(err, device.ErrNoAnswer) || ctx.Err() != nil {
		t.Errorf("%v", err)
	}
}

// scaledClock is a clock that is fast by a factor.
type scaledClock struct {
	fastClock
	start time.Time
}

func (c scaledClock) Now() time.Time {
	return c.start.Add(time.Since(c.start) * time.Duration(c.factor))
}

// A device that always says that a minute is left does not move the deadline for ever.
func TestTimeLeftForever(t *testing.T) {
	p := iadtest.NewPeer(t)
	p.Put(mib.DeviceId, mib.Str("TEST-0001"))
	l := newLab(t, labOptions{})
	ctx, cancel := context.WithTimeout(l.ctx, 20*time.Second)
	defer cancel()
	_, err := manager.Reset(ctx, manager.Plan{
		Client: p.Client(), Files: l.servers, Clock: scaledClock{fastClock{100}, time.Now()},
	}, manager.Automatic{}, nil)
	var failure *manager.Failure
	if !errors.As(err, &failure) || !failure.TimedOut {
		t.Errorf("ended with %v", err)
	}
}

// An agent that is away for a while ends nothing, also behind snmpd, which then answers
// that it does not have the module.
func TestAgentAwayAfterCheck(t *testing.T) {
	for name, options := range map[string]func(*testing.T) labOptions{
		"embedded": func(*testing.T) labOptions { return labOptions{} },
		"snmpd":    func(t *testing.T) labOptions { return behindSnmpd(t, false) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, options(t))
			l.awaitDevice()
			plan := l.plan(l.image("2.0.0", 2))
			plan.Verify = func(context.Context, *device.Device) error {
				l.device.CutPower()
				return nil
			}
			said := ""
			result, err := manager.Upgrade(l.ctx, plan, manager.Automatic{Retries: 2, Clock: fastClock{20}}, func(u manager.Update) {
				l.observe(u)
				if u.Kind == manager.StepFails && said == "" {
					said = u.Text
					if _, err := l.client.History(l.ctx); !errors.Is(err, device.ErrNoAnswer) {
						t.Errorf("history without an agent: %v", err)
					}
					l.device.PowerOn()
				}
			})
			if err != nil || result.NewVersion != "2.0.0" || result.OnDefaults || !strings.Contains(said, "no answer") {
				t.Errorf("%+v, %v; said %q", result, err, said)
			}
		})
	}
}

// The time limit of the backup covers judging it too.
func TestJudgingTakesTooLong(t *testing.T) {
	l := newLab(t, labOptions{})
	ctx, cancel := context.WithTimeout(l.ctx, 20*time.Second)
	defer cancel()
	timers := &stoppedClock{fire: make(chan time.Time)}
	plan := l.plan(nil)
	plan.Clock = timers
	_, err := manager.Backup(ctx, plan, &scripted{t: t, answers: []manager.Answer{{Choice: manager.GiveUp}}}, func(u manager.Update) {
		l.observe(u)
		switch {
		case u.Step == manager.StepBackupWatch && u.Operation != nil && u.Operation.Final():
			timers.stopped.Store(true)
		case u.Step == manager.StepBackupJudge && u.Kind == manager.StepBegins:
			select {
			case timers.fire <- time.Now():
			case <-ctx.Done():
			}
			timers.stopped.Store(false)
		}
	})
	var failure *manager.Failure
	if !errors.As(err, &failure) || !failure.TimedOut || failure.Step != manager.StepBackupJudge {
		t.Errorf("ended with %v", err)
	}
}

// stoppedClock is the system's clock; timers that it makes while it is stopped fire when a
// test says so.
type stoppedClock struct {
	clock.System
	stopped atomic.Bool
	fire    chan time.Time
}

func (c *stoppedClock) NewTimer(d time.Duration) clock.Timer {
	if c.stopped.Load() {
		return firedTimer{c.fire}
	}
	return c.System.NewTimer(d)
}

type firedTimer struct{ fire chan time.Time }

func (t firedTimer) C() <-chan time.Time    { return t.fire }
func (firedTimer) Stop() bool               { return true }
func (firedTimer) Reset(time.Duration) bool { return true }
