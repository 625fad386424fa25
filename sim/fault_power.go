package sim

import (
	"context"
	"slices"
	"time"

	"example.com/iad/agent"
)

// watchPhases starts watchPhase, or wakes it, if somebody needs to know the phases.
func (d *Device) watchPhases(ctx context.Context, a *agent.Agent) {
	f := &d.faults
	f.mu.Lock()
	defer f.mu.Unlock()
	if d.phases.waits.Load() == 0 && !f.hasLocked(PowerCut) {
		return
	}
	if f.watching != ctx {
		f.watching, f.injected = ctx, make(chan struct{}, 1)
		go d.watchPhase(ctx, a, f.injected)
	}
	select {
	case f.injected <- struct{}{}:
	default:
	}
}

// progressPoll is how often the bytes of a phase are looked at: nobody is woken by them.
const progressPoll = 5 * time.Millisecond

// watchPhase looks at phases in which the device does nothing that looks, until nobody
// needs to know them any more.
func (d *Device) watchPhase(ctx context.Context, a *agent.Agent, injected <-chan struct{}) {
	changed, stop := a.Engine().Watch()
	defer stop()
	timer := d.cfg.Clock.NewTimer(time.Hour)
	defer timer.Stop()
	for d.stillWatches(ctx) {
		pause := time.Hour
		if d.look() {
			pause = progressPoll
		}
		timer.Reset(pause)
		select {
		case <-ctx.Done():
		case <-changed:
		case <-injected:
		case <-timer.C():
		}
	}
}

// stillWatches reports whether watchPhase has something to wait for.
func (d *Device) stillWatches(ctx context.Context) bool {
	f := &d.faults
	f.mu.Lock()
	defer f.mu.Unlock()
	if ctx.Err() == nil && (f.hasLocked(PowerCut) || d.phases.waits.Load() > 0) {
		return true
	}
	if f.watching == ctx {
		f.watching = nil
	}
	return false
}

// distinguish prepares the disk for a power cut that loses what was not synced, if one is
// due. Disks in directories are not prepared: what is there must last.
func (d *Device) distinguish() {
	if d.cfg.Disk.root != nil {
		return
	}
	d.faults.mu.Lock()
	due := slices.ContainsFunc(d.faults.list, func(a *armed) bool {
		how := a.unsynced()
		return a.Kind == PowerCut && (how == UnsyncedLost || how == UnsyncedMixed)
	})
	d.faults.mu.Unlock()
	if err := d.medium.distinguish(due); err != nil {
		d.cfg.Log.Error("the disk could not be prepared for a power cut; it will keep what was not synced", "err", err)
	}
}

// failWith cuts the power as a fault says.
func (d *Device) failWith(f Fault) {
	d.mu.Lock()
	d.losing = f.unsynced()
	d.mu.Unlock()
	d.fail(f.delay())
}

// fail cuts the power for a time, or until somebody switches it.
func (d *Device) fail(off time.Duration) {
	number := d.cutPower()
	t := d.cfg.Clock.NewTimer(off)
	go func() {
		<-t.C()
		d.powerOnAfter(number)
	}()
}

// Blink cuts the power for a time; 0 for a second.
func (d *Device) Blink(off time.Duration) {
	if off == 0 {
		off = time.Second
	}
	d.fail(off)
}

// Restart switches the power off and on again.
func (d *Device) Restart() {
	d.CutPower()
	d.PowerOn()
}
