package agent

import (
	"context"
	"errors"
	"time"

	"example.com/iad/agent/config"
)

// Pauses between attempts to hand the data in force to the platform.
const (
	applyPause    = 5 * time.Second
	applyPauseMax = 10 * time.Minute
)

// use puts configuration data that are in force to use. If the platform could not
// take them, keepTrying does it later.
func (d *device) use(ctx context.Context, g config.Generation, set config.Set) error {
	_, err := d.platform.ApplyConfig(ctx, g, set)
	d.unused.Store(err != nil)
	d.needsReset.Store(false)
	if errors.Is(err, ErrNotHandedOver) {
		select {
		case d.retry <- struct{}{}:
		default:
		}
	}
	return err
}

// keepTrying hands the data in force, which the platform could not take, to it again, at
// growing intervals. changed is called when the outcome is another one.
func (d *device) keepTrying(ctx context.Context, changed func()) error {
	pause := applyPause
	timer := d.clock.NewTimer(pause)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-d.retry:
			pause = applyPause
			timer.Reset(pause)
		case <-timer.C():
			if err := d.useAgain(ctx); err != nil {
				d.log.Warn("the configuration data in force are still not in use", "err", err)
				pause = min(2*pause, applyPauseMax)
				timer.Reset(pause)
				continue
			}
			changed()
		}
	}
}

// useAgain gives the platform what is in force, unless it has that already. What it
// refuses once it has the files is not tried again: that needs other data.
func (d *device) useAgain(ctx context.Context) error {
	d.applying.Lock()
	defer d.applying.Unlock()
	if !d.unused.Load() {
		return nil
	}
	g := d.config.InForce()
	set, err := d.config.Read(g.Number)
	if err != nil {
		return err
	}
	needsReset, err := d.platform.ApplyConfig(ctx, g, set)
	if errors.Is(err, ErrNotHandedOver) {
		return err
	}
	d.unused.Store(err != nil)
	d.needsReset.Store(needsReset)
	if err != nil {
		d.log.Error("the software rejects the configuration data in force", "generation", g.Number, "err", err)
		return nil
	}
	d.log.Info("configuration data handed to the software on a later attempt", "generation", g.Number)
	return nil
}
