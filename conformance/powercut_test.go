package conformance_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spf13/afero"

	"example.com/iad/conformance"
	"example.com/iad/sim"
)

// simPower is the switch of a simulated device. If damage is not nil, it is called while
// the power is off.
type simPower struct {
	device *sim.Device
	damage func()
}

func (p *simPower) Off(context.Context) error {
	p.device.CutPower()
	if p.damage != nil {
		p.damage()
	}
	return nil
}

func (p *simPower) On(context.Context) error {
	p.device.PowerOn()
	return nil
}

// cuts is how often the power is cut: a sample, or 200 with IAD_LAB=full.
func cuts() int {
	if fullLab {
		return 200
	}
	return 8
}

// TestPowerCuts: the simulated device stands every power cut, also in restarts, in which it
// does not answer.
func TestPowerCuts(t *testing.T) {
	b := simulated(t, func(c *sim.Config) { c.RestartTime = 600 * time.Millisecond })
	b.cfg.Progress = func(_ *conformance.Test, r *conformance.TestResult) {
		if r != nil {
			t.Logf("%-7s %5.1f s  %s %s (%s)", r.Verdict, r.Seconds, r.Name, r.Title, r.Reason)
		}
	}
	p := conformance.PowerCuts{Power: &simPower{device: b.device}, Cuts: cuts(), Seed: 7, OffTime: 20 * time.Millisecond}
	// The first half, as if it had been interrupted, and the rest.
	ctx, interrupt := context.WithCancel(t.Context())
	var saved bytes.Buffer
	p.Saved = func(run *conformance.Run) error {
		saved.Reset()
		if len(run.Tests) == p.Cuts/2 {
			interrupt()
		}
		return run.WriteJSON(&saved)
	}
	run, err := p.Execute(ctx, b.cfg)
	if err != nil || !strings.Contains(run.Problem, "interrupted") {
		t.Fatalf("%v, %s\n%s", err, run.Problem, failures(run))
	}
	if run, err = conformance.ReadJSON(&saved); err != nil || len(run.Tests) != p.Cuts/2 {
		t.Fatalf("%v, %d cuts were saved", err, len(run.Tests))
	}
	p.Done, p.Saved = run.Tests, nil
	run, err = p.Execute(t.Context(), b.cfg)
	if err != nil {
		t.Fatal(err)
	}
	if run.Failed() > 0 || run.Problem != "" || len(run.Tests) != p.Cuts {
		t.Errorf("%d of %d cuts failed; %s\n%s", run.Failed(), len(run.Tests), run.Problem, failures(run))
	}
	phases, _ := json.Marshal(run.Phases())
	t.Logf("cuts by phase: %s", phases)
	if fullLab && (run.Phases()["restart"] == 0 || len(run.Phases()) < 5) || len(run.Phases()) < 2 {
		t.Errorf("the cuts were in %s only", phases)
	}
}

// TestPowerCutsWithoutConfigurationData: what the device does not have is not recovered.
func TestPowerCutsWithoutConfigurationData(t *testing.T) {
	b := simulatedWith(t, nil, nil)
	p := conformance.PowerCuts{Power: &simPower{device: b.device}, Cuts: 4, Seed: 1, OffTime: 20 * time.Millisecond}
	run, err := p.Execute(t.Context(), b.cfg)
	if err != nil || run.Problem != "" || run.Failed() > 0 || len(run.Tests) != p.Cuts {
		t.Fatalf("%v, %s\n%s", err, run.Problem, failures(run))
	}
	if got := run.Tests[2]; got.Verdict != conformance.Skipped {
		t.Errorf("%s: %s, want skipped", got.Title, got.Verdict)
	}
}

// brokenPower is a switch that does not work.
type brokenPower struct {
	simPower
	on, off error
	stuck   bool // it does nothing
}

func (p *brokenPower) Off(ctx context.Context) error {
	if p.off != nil || p.stuck {
		return p.off
	}
	return p.simPower.Off(ctx)
}

func (p *brokenPower) On(ctx context.Context) error {
	if p.on != nil || p.stuck {
		return p.on
	}
	return p.simPower.On(ctx)
}

// TestBrokenPowerSwitch: it ends a campaign, and the device has not failed.
func TestBrokenPowerSwitch(t *testing.T) {
	for name, c := range map[string]struct {
		power brokenPower
		want  string
		first bool // it is noticed before the first cut
	}{
		"on fails":  {brokenPower{on: errors.New("no such outlet")}, "the power switch does not work: no such outlet", true},
		"off fails": {brokenPower{off: errors.New("jammed")}, "cut 1 of 3: the power could not be switched off: jammed", false},
		"stuck":     {brokenPower{stuck: true}, "cut 1 of 3: the device still answers 200ms after its power was switched off", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := simulated(t, nil)
			b.cfg.Limit = 20 * time.Second
			c.power.device = b.device
			p := conformance.PowerCuts{Power: &c.power, Cuts: 3, Seed: 1, OffTime: 200 * time.Millisecond}
			run, err := p.Execute(t.Context(), b.cfg)
			if c.first {
				if err == nil || err.Error() != c.want {
					t.Errorf("error %v, want %s", err, c.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if !strings.HasPrefix(run.Problem, c.want) || run.Failed() > 0 || len(run.Tests) > 0 {
				t.Errorf("problem %q, %d of %d cuts failed; want %q, and no cut\n%s", run.Problem, run.Failed(), len(run.Tests), c.want, failures(run))
			}
		})
	}
}

// snapshot copies the files of a file system.
func snapshot(t *testing.T, fs afero.Fs) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	err := afero.Walk(fs, ".", func(name string, info os.FileInfo, err error) error {
		if err != nil || info.IsDir() {
			return nil // it was replaced meanwhile
		}
		if data, err := afero.ReadFile(fs, name); err == nil {
			files[name] = data
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// TestLostWritesAreFound: a device whose state is written late, so that a power cut takes
// back the last moments of it, is found out.
func TestLostWritesAreFound(t *testing.T) {
	disk := sim.Memory()
	b := simulated(t, func(c *sim.Config) { c.Disk = disk })
	var mu sync.Mutex
	old, recent := snapshot(t, disk.State), snapshot(t, disk.State)
	ctx, stop := context.WithCancel(t.Context())
	var copying sync.WaitGroup
	copying.Go(func() {
		tick := time.NewTicker(300 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				mu.Lock()
				old, recent = recent, snapshot(t, disk.State)
				mu.Unlock()
			case <-ctx.Done():
				return
			}
		}
	})
	defer copying.Wait()
	defer stop()
	power := &simPower{device: b.device, damage: func() {
		mu.Lock()
		defer mu.Unlock()
		for name, data := range old {
			if err := afero.WriteFile(disk.State, name, data, 0o600); err != nil {
				t.Error(err)
			}
		}
	}}
	b.cfg.Limit = 5 * time.Second
	p := conformance.PowerCuts{Power: power, Cuts: 200, Seed: 7, OffTime: 20 * time.Millisecond}
	ctx2, found := context.WithCancel(t.Context())
	defer found()
	at, what := 0, ""
	p.Saved = func(run *conformance.Run) error {
		if run.Failed() > 0 && at == 0 {
			at, what = len(run.Tests), failures(run)
			found()
		}
		return nil
	}
	run, err := p.Execute(ctx2, b.cfg)
	if err != nil || run.Tests[0].Name == "learn" {
		t.Fatalf("%v, %s", err, failures(run))
	}
	if at == 0 {
		t.Error("the device passed 200 power cuts")
	}
	first, _, _ := strings.Cut(what, "\n")
	t.Logf("found by cut %d: %s", at, first)
}
