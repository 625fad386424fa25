package scheduler

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"example.com/iad/fleet"
	"example.com/iad/fleet/store"
)

const (
	// minLook is the minimum interval at which all devices are looked at.
	minLook = time.Minute
	// maxGap is the longest pause between two devices that are to be read, so that those of a
	// small fleet do not wait.
	maxGap = 100 * time.Millisecond
)

// reading is a device that is to be read.
type reading struct{ device, pool string }

// refresh has workers read the devices without contact for a while, spread over time.
func (l *leader) refresh(ctx context.Context) error {
	every := min(max(l.cfg.Refresh/24, minLook), l.cfg.Refresh)
	for ctx.Err() == nil {
		began := time.Now().UTC()
		due, err := l.due(ctx, began)
		if err != nil {
			return err
		}
		next := began.Add(every)
		gap := min(every/time.Duration(max(len(due), 1)), maxGap)
		for _, r := range due {
			if !l.hasWorkers(r.pool) { // they may have just been started
				next = began.Add(min(every, minLook))
			} else {
				err := l.cfg.Store.QueueRefresh(ctx, r.pool, store.Refresh{Device: r.device, Due: began, Until: began.Add(every + minLook)})
				if err != nil {
					return err
				}
			}
			pause(ctx, gap)
		}
		pause(ctx, time.Until(next))
	}
	return ctx.Err()
}

// due returns the devices that are to be read. Those that were read at the same time become due
// at different times.
func (l *leader) due(ctx context.Context, now time.Time) ([]reading, error) {
	var list []reading
	err := l.cfg.Store.Devices.Watch(ctx, func(c store.Change[fleet.Device]) error {
		if c.Synced {
			return errSynced
		}
		if d := c.Value; d != nil && d.ActiveRun == "" && now.Sub(d.Contact.Time) >= l.cfg.Refresh-rand.N(l.cfg.Refresh/4+1) {
			list = append(list, reading{d.Name, d.PoolName()})
		}
		return nil
	})
	if !errors.Is(err, errSynced) {
		return nil, err
	}
	return list, nil
}

// hasWorkers reports whether somebody reads the devices of a pool.
func (l *leader) hasWorkers(pool string) bool {
	l.state.mu.Lock()
	defer l.state.mu.Unlock()
	return l.state.slots(time.Now())[pool] > 0
}
