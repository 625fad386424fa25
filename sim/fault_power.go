package sim

import (
	"context"
	"time"

	"example.com/iad/agent"
	"example.com/iad/agent/procedure"
)

// watchPower starts watchPhase, or wakes it, if there is a power cut to wait for.
func (d *Device) watchPower(ctx context.Context, a *agent.Agent) {
	f := &d.faults
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.hasLocked(PowerCut) {
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

// watchPhase cuts the power when a fault wants it, until there is no such fault any more.
func (d *Device) watchPhase(ctx context.Context, a *agent.Agent, injected <-chan struct{}) {
	changed, stop := a.Engine().Watch()
	defer stop()
	timer := d.cfg.Clock.NewTimer(time.Hour)
	defer timer.Stop()
	last := procedure.Operation{}
	for d.stillWatches(ctx) {
		op := a.Engine().Snapshot().Op
		if op.ID != last.ID || op.Phase != last.Phase || op.Attempt != last.Attempt {
			d.count(PowerCut)
			last = op
		}
		pause := time.Hour
		f, ok := d.happens(func(f *armed) bool {
			switch {
			case f.Write != 0:
				return false
			case f.At == 0 || op.Total != 0 && op.Done*100 >= uint64(f.At)*op.Total:
				return true
			}
			pause = progressPoll
			return false
		}, PowerCut)
		if ok {
			d.fail(f.delay())
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
	if ctx.Err() == nil && f.hasLocked(PowerCut) {
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
