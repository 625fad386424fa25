package worker

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"

	"example.com/iad/fleet"
	"example.com/iad/fleet/engine"
	"example.com/iad/fleet/store"
	"example.com/iad/manager/device"
)

// parallelReads is how many devices are read at the same time beside the runs.
const parallelReads = 16

// refresh reads devices that the scheduler names, until ctx ends.
func (w *Worker) refresh(ctx context.Context) error {
	queue, err := w.cfg.Store.Engine.Queue(ctx, w.cfg.Pool, engine.Idle)
	if err != nil {
		return err
	}
	var group errgroup.Group
	defer group.Wait()
	group.SetLimit(parallelReads)
	for {
		task, err := queue.Next(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		group.Go(func() error {
			w.refreshOne(ctx, task)
			return nil
		})
	}
}

func (w *Worker) refreshOne(ctx context.Context, task *engine.Task) {
	var r store.Refresh
	if err := json.Unmarshal(task.Data, &r); err != nil {
		w.cfg.Log.Error("task dropped: it is damaged", "err", err)
	} else if err := w.readDevice(ctx, r); err != nil && ctx.Err() == nil {
		w.cfg.Log.Warn("device not read", "device", r.Device, "err", err)
	}
	if ctx.Err() == nil { // else another worker does it
		w.done(ctx, task)
	}
}

// readDevice reads a device and stores what it says, unless a campaign works on it or it was
// contacted meanwhile.
func (w *Worker) readDevice(ctx context.Context, r store.Refresh) error {
	if time.Now().After(r.Until) {
		return nil
	}
	d, _, err := w.cfg.Store.Devices.Get(ctx, r.Device)
	if errors.Is(err, engine.ErrNotFound) {
		return nil
	}
	if err != nil || d.ActiveRun != "" || d.Contact.Time.After(r.Due) {
		return err
	}
	log := w.cfg.Log.With("device", d.Name)
	began := time.Now().UTC()
	var found *fleet.Device
	a, err := w.connect(ctx, d, log)
	switch {
	case err == nil:
		defer a.close()
		found = read(ctx, a, d.Name, began)
	case errors.Is(err, device.ErrNoAnswer), errors.Is(err, device.ErrCredentials):
		found = &fleet.Device{Contact: fleet.Contact{Time: began, Problem: err.Error()}}
	default:
		return err
	}
	if found == nil || ctx.Err() != nil {
		return ctx.Err()
	}
	if found.Facts != nil {
		if err := recognize(d, *found.Identity); err != nil {
			found = &fleet.Device{Contact: fleet.Contact{Time: began, Problem: err.Error()}}
		}
	}
	_, err = w.cfg.Store.Devices.Change(ctx, func(d *fleet.Device) error {
		if d.ActiveRun != "" || d.Contact.Time.After(began) {
			return store.ErrUnchanged
		}
		learn(d, found)
		return nil
	}, d.Name)
	if errors.Is(err, engine.ErrNotFound) {
		return nil
	}
	return err
}
