package sim

import (
	"context"
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

// fail cuts the power for a time.
func (d *Device) fail(off time.Duration) {
	d.CutPower()
	t := d.cfg.Clock.NewTimer(off)
	go func() {
		<-t.C()
		d.PowerOn()
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
