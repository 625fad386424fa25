package worker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"example.com/iad/fleet"
	"example.com/iad/fleet/engine"
	"example.com/iad/manager"
	"example.com/iad/manager/device"
	"example.com/iad/mib"
)

// busyPause is the pause before a device is tried again that another campaign works on.
const busyPause = 30 * time.Second

// giveBackTime is how long a worker that ends may take to give a run back.
const giveBackTime = 3 * time.Second

// end stores how the run ended. a is nil if the device was not contacted.
func (r *run) end(a *access, result manager.Result, err error) {
	if r.isLost() || errors.Is(err, manager.ErrNotOwner) {
		r.log.Warn("run lost", "epoch", r.run.Epoch)
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.ctx), giveBackTime)
	defer cancel()
	if r.ctx.Err() != nil {
		r.giveBack(ctx)
		return
	}
	now := time.Now().UTC()
	device := r.contacted(a, err, now)
	if storeErr := r.update(r.ctx, func(run *fleet.Run) { r.judge(run, result, err, now) }); storeErr != nil {
		r.log.Warn("run lost", "err", storeErr)
		return
	}
	r.releaseDevice(r.ctx, device)
	text := ""
	if err != nil {
		text = err.Error()
	}
	r.log.Info("run ends", "state", r.run.State, "err", err)
	kind := fleet.EventRun
	if r.run.State == fleet.RunWaiting {
		kind = fleet.EventQuestion
	}
	r.emit(kind, string(r.run.State), text)
}

// giveBack queues the run for another worker, because this one ends.
func (r *run) giveBack(ctx context.Context) {
	err := r.update(ctx, func(run *fleet.Run) {
		run.State, run.Claim, run.Queued = fleet.RunQueued, nil, time.Now().UTC()
	})
	if err == nil {
		err = r.worker.cfg.Store.Queue(ctx, &r.run, engine.Urgent)
	}
	if err != nil {
		r.log.Info("run not given back; the scheduler queues it again", "err", err)
	}
}

// maxUnstored is how often in a row a run is given back that could not be stored. What is
// to be stored does not become different by itself.
const maxUnstored = 5

// giveBackLost queues a run that this worker has lost because it could not be stored, unless
// somebody else has it. The scheduler does not do that while this worker has its lease. A
// run that was given back too often fails.
func (r *run) giveBackLost(ctx context.Context) {
	s := r.worker.cfg.Store
	for {
		stored, revision, err := s.Runs.Get(ctx, r.run.Campaign, r.run.Device)
		switch {
		case errors.Is(err, engine.ErrNotFound), errors.Is(err, engine.ErrDamaged):
			return
		case err != nil:
		case stored.Epoch < r.claim.Epoch:
			err = errors.New("what the engine returned is old")
		case stored.State != fleet.RunRunning || !stored.Claim.Same(&r.claim):
			return
		default:
			now := time.Now().UTC()
			stored.Claim = nil
			if r.lostBy != nil {
				stored.Unstored++
			}
			if stored.Unstored > maxUnstored {
				stored.State, stored.Ended, stored.Question, stored.Answer = fleet.RunFailed, now, nil, nil
				stored.Failure = &fleet.RunFailure{Step: r.run.Progress.Step, Cause: fleet.CauseInternal, Time: now,
					Text: fmt.Sprintf("what happened could not be stored %d times in a row; look at the history of the device before another campaign: %v", stored.Unstored, r.lostBy)}
			} else {
				stored.State, stored.Queued = fleet.RunQueued, now
			}
			_, err = s.Runs.Update(ctx, stored, revision)
		}
		if err == nil && stored.State.Final() {
			r.log.Error("run ends: it could not be stored", "times", stored.Unstored, "err", r.lostBy)
			r.run = *stored
			r.releaseDevice(ctx, nil)
			r.worker.emit(ctx, &fleet.Event{Kind: fleet.EventRun, Campaign: stored.Campaign, Device: stored.Device, State: string(stored.State), Text: stored.Failure.Text})
			return
		}
		if err == nil {
			r.log.Info("run queued again: it could not be stored", "err", r.lostBy)
			if err := s.Queue(ctx, stored, engine.Urgent); err != nil {
				r.log.Info("task not published; the scheduler publishes it", "err", err)
			}
			return
		}
		r.log.Debug("run not given back", "err", err)
		if pause(ctx, lostPause) != nil { // without the lease, the scheduler queues it
			return
		}
	}
}

// judge changes the run to what its attempt led to.
func (r *run) judge(run *fleet.Run, result manager.Result, err error, now time.Time) {
	run.Claim, run.Unstored, run.Lost = nil, 0, 0
	if result.OldVersion != "" {
		run.OldVersion = result.OldVersion
	}
	if result.NewVersion != "" {
		run.NewVersion = result.NewVersion
	}
	var busy *busyError
	switch {
	case err == nil && result.Unchanged:
		run.State = fleet.RunUnchanged
	case err == nil:
		run.State = fleet.RunSucceeded
	case errors.Is(err, manager.ErrParked):
		run.State = fleet.RunWaiting
		return
	case errors.As(err, &busy):
		run.State, run.RetryAt, run.Attempt = fleet.RunRetrying, now.Add(busyPause), max(run.Attempt-1, 0)
		run.Progress = fleet.Progress{Text: err.Error(), Time: now}
		return
	default:
		if r.consumed {
			run.Question, run.Answer = nil, nil
		}
		run.Failure = failure(err, run.Progress.Step, now)
		run.Failure.Passing = run.Failure.Passing && !r.gaveUp
		at, retry := r.campaign.Spec.Retry.Next(run, r.campaign.Spec.Deadline, now)
		if retry {
			run.State, run.RetryAt = fleet.RunRetrying, at
			return
		}
		run.State = fleet.RunFailed
	}
	run.Question, run.Answer = nil, nil
	run.Ended = now
}

// failure says why an attempt failed, and whether that may pass.
func failure(err error, step manager.Step, now time.Time) *fleet.RunFailure {
	f := &fleet.RunFailure{Step: step, Cause: fleet.CauseOf(err), Text: err.Error(), Time: now}
	var failed *manager.Failure
	var refused *device.RefusalError
	var set *device.SetError
	var unsuited *unsuitableError
	switch {
	case errors.As(err, &failed):
		f.Step = failed.Step
		f.Passing = failed.NoAnswer || !failed.Software && !failed.Decision &&
			(failed.Advice == mib.RetryAdviceRetryNow || failed.Advice == mib.RetryAdviceRetryLater)
	case errors.Is(err, device.ErrNoAnswer):
		f.Cause, f.Passing = fleet.CauseNoAnswer, true
	case errors.Is(err, device.ErrIdentity):
		f.Cause = fleet.CauseIdentity
	case errors.Is(err, device.ErrCredentials):
		f.Cause = fleet.CauseCredentials
	case errors.As(err, &refused), errors.As(err, &set):
		f.Cause = fleet.CauseRefused
	case errors.As(err, &unsuited), errors.Is(err, device.ErrNotSupported):
		f.Cause = fleet.CauseUnsuitable
	}
	return f
}

// contacted returns what is known of the device now; nil: nothing new.
func (r *run) contacted(a *access, err error, now time.Time) *fleet.Device {
	if a == nil || errors.Is(err, device.ErrIdentity) {
		return nil
	}
	return read(r.ctx, a, r.run.Device, now)
}

// read returns what a device says, or why it does not; nil: it is not one that can be upgraded.
func read(ctx context.Context, a *access, name string, now time.Time) *fleet.Device {
	d := &fleet.Device{Contact: fleet.Contact{Time: now}}
	found, err := a.client.Device(ctx)
	switch {
	case err != nil:
		d.Contact.Problem = err.Error()
		return d
	case found.ID == "":
		return nil
	}
	d.Contact.Credentials = a.secret.Name // learn removes it if it is the one in force
	identity := a.client.Identity()
	identity.Target, identity.Time = name, now
	d.Facts, d.Identity = fleet.FactsOf(found, now), &identity
	return d
}

// learn changes a device of the inventory to what is known of it now.
func learn(d, found *fleet.Device) {
	if found.Contact.Problem != "" {
		found.Contact.Since = d.Contact.Since
		if d.Contact.Problem == "" {
			found.Contact.Since = d.Contact.Time
		}
		found.Contact.Credentials = d.Contact.Credentials // not known any better
	}
	d.Contact = found.Contact
	if d.Contact.Problem == "" && d.Contact.Credentials == d.SecretName() {
		d.Contact.Credentials, d.Rotating = "", ""
	}
	if found.Facts != nil {
		d.Facts, d.Identity = found.Facts, found.Identity
	}
}

// releaseDevice ends the reservation of the device, unless its run continues, and stores what is
// known of it.
func (r *run) releaseDevice(ctx context.Context, found *fleet.Device) {
	state := r.run.State
	keeps := !state.Final() && (state == fleet.RunWaiting || r.run.HalfDone())
	_, err := r.worker.cfg.Store.Devices.Change(ctx, func(d *fleet.Device) error {
		if d.ActiveRun == r.run.Campaign && !keeps {
			d.ActiveRun = ""
		}
		if state.Final() {
			d.LastCampaign, d.LastOutcome = r.run.Campaign, state
		}
		if found != nil {
			learn(d, found)
		}
		return nil
	}, r.run.Device)
	if err != nil && !errors.Is(err, engine.ErrNotFound) {
		r.log.Warn("what is known of the device was not stored", "err", err)
	}
}
