package worker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"example.com/iad/fleet"
	"example.com/iad/fleet/engine"
	"example.com/iad/manager"
)

// unsuitableError: the device is not as the campaign expects; nothing was changed.
type unsuitableError struct{ err error }

func (e *unsuitableError) Error() string { return e.err.Error() }
func (e *unsuitableError) Unwrap() error { return e.err }

func unsuitable(format string, args ...any) error {
	return &unsuitableError{fmt.Errorf(format, args...)}
}

// change performs an operation that changes how the device is reached or where it sends
// notifications, and returns the access that is valid then.
func (r *run) change(a *access, d *fleet.Device) (*access, manager.Result, error) {
	found, err := a.client.Device(r.ctx)
	if err != nil {
		return a, manager.Result{}, err
	}
	if err := r.recognize(d, a.client); err != nil {
		return a, manager.Result{}, err
	}
	result := manager.Result{Device: found.ID, OldVersion: found.Version, NewVersion: found.Version}
	var undone *fleet.Change
	if back := r.campaign.Spec.Back; back != "" {
		if undone, err = r.undone(back); err != nil || undone == nil {
			result.Unchanged = true
			return a, result, err
		}
	}
	if r.campaign.Spec.Operation == fleet.OperationMove {
		result.Unchanged, err = r.moveTargets(a.client, undone)
		return a, result, err
	}
	a, result.Unchanged, err = r.rotate(a, d, undone)
	return a, result, err
}

// undone returns what a campaign has changed on the device; nil: nothing.
func (r *run) undone(campaign string) (*fleet.Change, error) {
	other, _, err := r.worker.cfg.Store.Runs.Get(r.ctx, campaign, r.run.Device)
	if errors.Is(err, engine.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if !other.State.Final() {
		return nil, unsuitable("campaign %s, which is to be undone, still works on %s; wait until it has ended", campaign, r.run.Device)
	}
	return other.Change, nil
}

// begin stores what the run is going to change, before the device is asked for it.
func (r *run) begin(c *fleet.Change) error {
	p := fleet.Progress{Text: c.String(), Time: time.Now().UTC()}
	if err := r.update(r.ctx, func(run *fleet.Run) { run.Change, run.Progress = c, p }); err != nil {
		return err
	}
	r.worker.emit(r.ctx, &fleet.Event{Kind: fleet.EventStep, Campaign: r.run.Campaign, Device: r.run.Device, Text: p.Text, Progress: p})
	return nil
}

// owned returns an error unless this worker still is the only one that may command the
// device.
func (r *run) owned() error { return journal{r}.Owned() }

// changeDevice changes the device in the inventory, which must be reserved for the campaign.
func (r *run) changeDevice(ctx context.Context, change func(*fleet.Device)) (*fleet.Device, error) {
	return r.worker.cfg.Store.Devices.Change(ctx, func(d *fleet.Device) error {
		if d.ActiveRun != r.run.Campaign {
			return r.notOwner()
		}
		change(d)
		return nil
	}, r.run.Device)
}
