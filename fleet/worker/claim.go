package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"example.com/iad/fleet"
	"example.com/iad/fleet/engine"
	"example.com/iad/fleet/store"
	"example.com/iad/manager"
)

// run is a run that this worker has claimed.
type run struct {
	worker   *Worker
	campaign *fleet.Campaign
	log      *slog.Logger
	lease    *engine.Lease
	claim    fleet.Claim
	// ctx ends when the worker ends or has lost the run.
	ctx  context.Context
	lose context.CancelFunc

	mu       sync.Mutex
	run      fleet.Run
	revision uint64
	lost     bool
	lostBy   error     // why it could not be stored; nil: somebody else has it, or the lease ended
	stored   time.Time // when the run was last stored
	// consumed: the manager has got the stored answer, which is removed together with the
	// question once the journal shows that it was acted on.
	consumed bool
	// gaveUp: a person has answered that the device is left as it is.
	gaveUp bool
}

// lostPause is the pause before it is looked again whether this worker has a run.
const lostPause = time.Second

// claim makes this worker the one that has a queued run. It returns nil if there is nothing
// to do: the task was delivered twice, or the campaign has been paused or stopped.
func (w *Worker) claim(ctx context.Context, lease *engine.Lease, t store.Task, log *slog.Logger) (*run, error) {
	claim := &fleet.Claim{Worker: w.cfg.ID, Lease: w.lease, Time: time.Now().UTC()}
	for {
		r, err := w.tryClaim(ctx, lease, t, claim, log)
		if err == nil {
			return r, nil
		}
		if errors.Is(err, engine.ErrConflict) {
			continue
		}
		// The claim may be stored although that was not reported. Nobody else knows that
		// nothing is done under it.
		if claim.Epoch == 0 || pause(ctx, lostPause) != nil {
			return nil, err
		}
	}
}

// tryClaim tries once to store a claim, whose Epoch it sets then. The error wraps
// engine.ErrConflict if the run has changed meanwhile.
func (w *Worker) tryClaim(ctx context.Context, lease *engine.Lease, t store.Task, claim *fleet.Claim, log *slog.Logger) (*run, error) {
	stored, revision, err := w.cfg.Store.Runs.Get(ctx, t.Campaign, t.Device)
	if errors.Is(err, engine.ErrNotFound) {
		return nil, nil
	}
	if errors.Is(err, engine.ErrDamaged) { // for a person
		log.Error("task dropped", "err", err)
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	// Another delivery of the task to this worker has claimed at another time.
	claimed := stored.State == fleet.RunRunning && stored.Claim.Same(claim) && stored.Claim.Time.Equal(claim.Time)
	if stored.State != fleet.RunQueued && !claimed {
		return nil, nil
	}
	campaign, _, err := w.cfg.Store.Campaigns.Get(ctx, t.Campaign)
	if errors.Is(err, engine.ErrDamaged) { // the scheduler publishes the task again, later
		log.Error("task dropped", "err", err)
		return nil, nil
	}
	if errors.Is(err, engine.ErrNotFound) { // it was damaged, and somebody removed it: nobody else ends its runs
		now := time.Now().UTC()
		stored.State, stored.Ended, stored.Question, stored.Answer, stored.Claim = fleet.RunFailed, now, nil, nil, nil
		stored.Failure = &fleet.RunFailure{Cause: fleet.CauseInternal, Time: now,
			Text: "the campaign was removed; look at the history of the device before another campaign"}
		if _, err := w.cfg.Store.Runs.Update(ctx, stored, revision); err != nil {
			return nil, err
		}
		r := &run{worker: w, log: log, run: *stored}
		r.releaseDevice(ctx, nil)
		w.emit(ctx, &fleet.Event{Kind: fleet.EventRun, Campaign: stored.Campaign, Device: stored.Device, State: string(stored.State), Text: stored.Failure.Text})
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if !claimed && paused(campaign, stored) {
		stored.State, stored.Attempt = fleet.RunPending, max(stored.Attempt-1, 0)
		if campaign.State.Final() {
			stored.State, stored.Ended = fleet.RunCanceled, time.Now().UTC()
		}
		_, err := w.cfg.Store.Runs.Update(ctx, stored, revision)
		return nil, err
	}
	if !claimed {
		claim.Epoch = stored.Epoch + 1
		own := *claim
		stored.State, stored.Epoch, stored.Claim, stored.Failure = fleet.RunRunning, claim.Epoch, &own, nil
		if stored.Started.IsZero() {
			stored.Started = claim.Time
		}
		if revision, err = w.cfg.Store.Runs.Update(ctx, stored, revision); err != nil {
			return nil, err
		}
	}
	r := &run{worker: w, campaign: campaign, log: log, lease: lease, claim: *claim, run: *stored, revision: revision, stored: claim.Time}
	r.ctx, r.lose = context.WithCancel(ctx)
	return r, nil
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// paused reports whether a queued run is not to be started after all. What has begun to
// change a device is finished.
func paused(c *fleet.Campaign, r *fleet.Run) bool {
	return c.State != fleet.CampaignRunning && !r.HalfDone() && r.Answer == nil
}

// update changes the run and stores it, unless another worker has got it or the lease of
// this one may have expired. Then the error wraps manager.ErrNotOwner, and the run ends
// here.
func (r *run) update(ctx context.Context, change func(*fleet.Run)) error {
	// When the worker ends, what is being stored is finished, so that the run can be given
	// back.
	base, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(giveBackTime, cancel) })()
	ctx = base
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.lost {
		return r.notOwner()
	}
	if !r.lease.Held() {
		r.lost = true
		r.lose()
		return r.notOwner()
	}
	change(&r.run)
	revision, err := r.worker.cfg.Store.Runs.Update(ctx, &r.run, r.revision)
	if err != nil {
		// Whether it was stored is not known if the time was not enough.
		r.lost = true
		if !errors.Is(err, engine.ErrConflict) {
			r.lostBy = err
		}
		r.lose()
		return errors.Join(r.notOwner(), err)
	}
	r.revision, r.stored = revision, time.Now()
	return nil
}

func (r *run) notOwner() error {
	return fmt.Errorf("run of %s in campaign %s: %w", r.run.Device, r.run.Campaign, manager.ErrNotOwner)
}

// isLost reports whether another worker may have the run.
func (r *run) isLost() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lost
}

// journal keeps the manager's record in the run.
type journal struct{ *run }

var _ manager.Journal = journal{}

// Load implements manager.Journal.
func (j journal) Load() (*manager.Record, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.run.run.Record == nil {
		return nil, fmt.Errorf("run of %s: %w", j.run.run.Device, manager.ErrNoRecord)
	}
	return j.run.run.Record, nil
}

// Save implements manager.Journal. It waits for an engine that cannot be reached.
func (j journal) Save(record *manager.Record) error {
	return j.update(j.ctx, func(r *fleet.Run) {
		r.Record = record
		if j.consumed && !(r.Answer.Choice == fleet.ChoiceModify && (record.Modified == nil || len(record.Tasks) == 0)) {
			r.Question, r.Answer, j.consumed = nil, nil, false
		}
	})
}

// Owned implements manager.Journal. What the engine returns may be old, but nothing can be
// stored by whoever has not the last revision.
func (j journal) Owned() error {
	return j.update(j.ctx, func(r *fleet.Run) { r.Claim.Time = time.Now().UTC() })
}
