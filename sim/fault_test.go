package sim_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/iad/bank/image"
	"example.com/iad/manager"
	"example.com/iad/manager/device"
	"example.com/iad/mib"
	"example.com/iad/sim"
)

func TestParseFault(t *testing.T) {
	for _, s := range []string{
		"stall", "stall@transferring", "corrupt,op=downloadSoftware,nth=2,times=3", "silent,for=30s", "slow,delay=200ms",
		"powercut@transferring,at=50", "powercut,write=7,delay=2s", "powercut@switching,unsynced=lost", "powercut,write=7,unsynced=kept", "clock", "clock,by=-48h", "linkdelay,delay=20ms,jitter=5ms", "linkloss,percent=5", "linkrate,rate=128000", "reset@transferring,nth=2", "losttraps,nth=3", "silent,for=1h", "slow,delay=10m", "slow,for=1h30m,delay=1m30s",
	} {
		f, err := sim.ParseFault(s)
		if err != nil || f.String() != s {
			t.Errorf("%s was read as %s, %v", s, f, err)
		}
	}
	for s, want := range map[string]string{
		"fire": "want one of stall, corrupt", "stall@nowhere": "unknown phase", "stall,op=nothing": "unknown operation",
		"stall,nth=0": "nth=0", "silent,for=x": "such as 30s", "stall,delay=1s": `stall does not take "delay"`,
		"silent,at=5": "does not take", "powercut,unsynced=x": "want kept, lost or mixed", "silent,unsynced=lost": "does not take", "linkloss,percent=101": "from 1 to 100", "linkrate,rate=1": "from 100", "silent,jitter=1s": "does not take", "clock,by=0s": "such as -48h", "silent,by=1s": "does not take", "powercut,at=50": "needs a phase", "powercut@trying,at=100": "from 1 to 99", "silent,": "",
	} {
		if _, err := sim.ParseFault(s); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", s, err, want)
		}
	}
	if s, err := sim.ParseShare("stall,nth=2:5"); err != nil || s.Percent != 5 || s.Nth != 2 {
		t.Errorf("%+v, %v", s, err)
	}
	if _, err := sim.ParseShare("stall:101"); err == nil {
		t.Error("101 % was accepted")
	}
}

// A share is exact, and the same seed gives it to the same devices.
func TestDraw(t *testing.T) {
	shares := []sim.Share{{Fault: sim.Fault{Kind: sim.Stall}, Percent: 5}, {Fault: sim.Fault{Kind: sim.Silent}, Percent: 50}, {Fault: sim.Fault{Kind: sim.Wrong}, Percent: 100}}
	with := func(drawn [][]sim.Fault, kind sim.FaultKind) (list []int) {
		for i, faults := range drawn {
			if slices.ContainsFunc(faults, func(f sim.Fault) bool { return f.Kind == kind }) {
				list = append(list, i)
			}
		}
		return list
	}
	for _, n := range []int{1, 10, 100, 1000} {
		one, other := sim.Draw(shares, 7, n), sim.Draw(shares, 8, n)
		for _, s := range shares {
			if got := len(with(one, s.Kind)); got != (n*s.Percent+50)/100 {
				t.Errorf("%d of %d devices have %s", got, n, s.Kind)
			}
			if again := with(sim.Draw(shares, 7, n), s.Kind); !slices.Equal(again, with(one, s.Kind)) {
				t.Errorf("%s of %d devices: the same seed gives others", s.Kind, n)
			}
		}
		if n == 1000 && slices.Equal(with(one, sim.Stall), with(other, sim.Stall)) {
			t.Error("another seed gives the same devices")
		}
	}
}

// heard are the events of a device.
type heard struct {
	mu      sync.Mutex
	events  []sim.Event
	changed chan struct{}
}

func listenTo(c *sim.Config) *heard {
	h := &heard{changed: make(chan struct{}, 1000)}
	c.OnEvent = func(e sim.Event) {
		h.mu.Lock()
		h.events = append(h.events, e)
		h.mu.Unlock()
		h.changed <- struct{}{}
	}
	return h
}

// has returns the events of a fault.
func (h *heard) has(fault string) (list []sim.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, e := range h.events {
		if e.Kind == sim.FaultEvent && e.Fault == fault {
			list = append(list, e)
		}
	}
	return list
}

// A fault makes an operation fail, is an event, and is over: the next attempt succeeds.
func TestFaultsOfOperations(t *testing.T) {
	for fault, want := range map[string]mib.FailCause{
		"truncate":                          mib.FailCauseSizeMismatch,
		"corrupt,op=downloadSoftware":       mib.FailCauseDigestMismatch,
		"refuse":                            mib.FailCauseServerUnreachable,
		"diskfull@transferring":             mib.FailCauseStorageFull,
		"readonly@transferring,for=1h":      mib.FailCauseWriteError,
		"powercut@transferring,at=50":       mib.FailCauseInterrupted,
		"powercut@transferring,delay=20ms":  mib.FailCauseInterrupted,
		"powercut,write=20,delay=20ms":      mib.FailCauseInterrupted,
		"powercut@transferring,nth=2,at=10": 0,
	} {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			text := fault
			f, err := sim.ParseFault(text)
			if err != nil {
				t.Fatal(err)
			}
			var h *heard
			l := newLab(t, func(c *sim.Config) { h = listenTo(c); c.Transfer.RateLimit = 2_000_000 })
			l.device.Agent(t.Context(), 1)
			l.device.Inject(f)
			img := map[string][]byte{"fw.iad": l.build(image.Manifest{Version: "2.0.0", ConfigFormat: 1})}
			op := l.download(mib.ProtocolFtp, img, "fw.iad", mib.OperationKindDownloadSoftware)
			events := h.has(text)
			if want == 0 {
				if op.State != mib.OperationStateSucceeded || len(events) != 0 || len(l.device.Faults()) != 1 {
					t.Fatalf("%v %v, events %v, faults %v", op.State, op.Cause, events, l.device.Faults())
				}
				return
			}
			if op.Cause != want || len(events) == 0 || events[0].Operation != mib.OperationKindDownloadSoftware {
				t.Fatalf("%v (%s), want %v; events %+v", op.Cause, op.Text, want, events)
			}
			l.device.ClearFaults("")
			if op := l.download(mib.ProtocolFtp, img, "fw.iad", mib.OperationKindDownloadSoftware); op.State != mib.OperationStateSucceeded {
				t.Errorf("without the fault: %v %v (%s)", op.State, op.Cause, op.Text)
			}
		})
	}
}

// Faults of SNMP are those of the answers.
func TestFaultsOfAnswers(t *testing.T) {
	l := newLab(t, nil)
	c, err := device.Dial(device.Target{Address: l.device.Addr(t.Context()).String(), Credentials: device.Credentials{Read: "public", Write: "private"}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	answers := func() (time.Duration, error) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		_, err := c.Device(ctx)
		return time.Since(began), err
	}
	if _, err := answers(); err != nil {
		t.Fatal(err)
	}
	l.device.Inject(sim.Fault{Kind: sim.Silent})
	if _, err := answers(); err == nil {
		t.Error("a silent device answers")
	}
	if s := l.device.Faults(); len(s) != 1 || s[0].Fired == 0 {
		t.Errorf("%+v", s)
	}
	l.device.ClearFaults(sim.Silent)
	l.device.Inject(sim.Fault{Kind: sim.Slow, Delay: 200 * time.Millisecond})
	if took, err := answers(); err != nil || took < 200*time.Millisecond {
		t.Errorf("a slow device answers after %v, %v", took, err)
	}
	l.device.ClearFaults("")
	l.device.Inject(sim.Fault{Kind: sim.Silent, For: time.Millisecond})
	for range 2 { // the first may come too early
		_, err = answers()
	}
	if err != nil || len(l.device.Faults()) != 0 {
		t.Errorf("%v, %+v", err, l.device.Faults())
	}
}

// The documentation has the table of faults.
func TestFaultsAreDocumented(t *testing.T) {
	doc, err := os.ReadFile("../docs/iadsim.md")
	if err != nil {
		t.Fatal(err)
	}
	table := "| fault | effect | happens |\n|---|---|---|\n"
	for _, i := range sim.FaultInfos {
		happens := "while it lasts"
		if i.Once {
			happens = "once"
		}
		effect := i.Effect
		if i.Delay != 0 {
			effect += " (`delay=" + sim.Fault{Delay: i.Delay}.String()[len(",delay="):] + "`)"
		}
		table += "| `" + string(i.Kind) + "` | " + effect + " | " + happens + " |\n"
	}
	if !strings.Contains(string(doc), table) {
		t.Errorf("docs/iadsim.md must have this table:\n%s", table)
	}
}

// A device that lost what it had not synced, in the middle of any write, runs complete
// software with its configuration data, and can be upgraded.
func TestPowerCutsLoseWrites(t *testing.T) {
	for n := 1; n <= 81; n += 10 {
		for _, how := range []string{sim.UnsyncedMixed, sim.UnsyncedLost} {
			t.Run(fmt.Sprint(how, " ", n), func(t *testing.T) {
				t.Parallel()
				var h *heard
				l := newLab(t, func(c *sim.Config) { h = listenTo(c) })
				first := l.device.Agent(t.Context(), 1).Engine().Snapshot().Config.Digest
				f := sim.Fault{Kind: sim.PowerCut, Write: n, Unsynced: how, Delay: 10 * time.Millisecond}
				l.device.Inject(f)
				plan := l.plan(l.build(image.Manifest{Version: "2.0.0", ConfigFormat: 1}), "fw.iad")
				// How the procedure ends depends on the write.
				_, err := manager.Upgrade(t.Context(), plan, manager.Automatic{}, func(manager.Update) {})
				if len(h.has(f.String())) != 1 {
					t.Fatalf("no power cut; the upgrade: %v", err)
				}
				s := l.device.Agent(t.Context(), 2).Engine().Snapshot()
				if v := s.Banks.Bank(s.Banks.Running).Version; v != "1.0.0" && v != "2.0.0" || !bytes.Equal(s.Config.Digest, first) {
					t.Fatalf("it runs %q with configuration data %x, want %x", v, s.Config.Digest, first)
				}
				plan = l.plan(l.build(image.Manifest{Version: "3.0.0", ConfigFormat: 1}), "fw.iad")
				if r, err := manager.Upgrade(t.Context(), plan, manager.Automatic{}, func(manager.Update) {}); err != nil || r.NewVersion != "3.0.0" {
					t.Errorf("the next upgrade: %+v, %v", r, err)
				}
			})
		}
	}
}

// A wrong clock is what the device goes by from its next start on.
func TestWrongClock(t *testing.T) {
	l := newLab(t, nil)
	last := func(start int) time.Time {
		events := l.device.Agent(t.Context(), start).Engine().Snapshot().Events
		return events[len(events)-1].Time
	}
	near := func(got time.Time, by time.Duration) {
		t.Helper()
		if off := time.Since(got) + by; off < -time.Minute || off > time.Minute {
			t.Errorf("the time is %v, want one that is wrong by %v", got, by)
		}
	}
	near(last(1), 0)
	l.device.Inject(sim.Fault{Kind: sim.WrongClock, By: -48 * time.Hour})
	l.device.Restart()
	near(last(2), -48*time.Hour)
	l.device.ClearFaults("")
	l.device.Inject(sim.Fault{Kind: sim.WrongClock})
	l.device.Restart()
	if got := last(3); !got.IsZero() {
		t.Errorf("with a clock that begins in 1970 the time is %v, want none", got)
	}
}
