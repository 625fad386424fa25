package scheduler

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"example.com/iad/fleet"
	"example.com/iad/fleet/campaign"
	"example.com/iad/fleet/engine"
	"example.com/iad/fleet/store"
)

// reconcile queues runs whose worker has gone or has lost the lease under which it claimed
// them, and publishes tasks that may have been lost:
// those of runs that were queued by a node which ended before it told the workers, or by
// somebody who has answered a question.
func (l *leader) reconcile(ctx context.Context) error {
	now := time.Now()
	var orphaned, untold []*entry
	l.state.mu.Lock()
	for t, at := range l.state.toldAt {
		if now.Sub(at) > 2*requeueAfter {
			delete(l.state.toldAt, t)
		}
	}
	for _, c := range l.state.campaigns {
		for _, e := range c.runs {
			switch e.state {
			case fleet.RunRunning:
				w := l.state.workers[e.worker]
				if (w == nil || w.worker.Lease != e.lease || now.Sub(w.heard) >= lapse) && now.Sub(e.claimed) >= engine.LeaseTime/2 {
					orphaned = append(orphaned, e)
				}
			case fleet.RunQueued:
				if !l.state.told(e, now) {
					untold = append(untold, e)
				}
			}
		}
	}
	l.state.mu.Unlock()
	if err := l.requeue(ctx, orphaned); err != nil {
		return err
	}
	return each(ctx, untold, func(ctx context.Context, e *entry) error {
		run, _, err := l.cfg.Store.Runs.Get(ctx, e.campaign, e.device)
		if gone(err) {
			return nil
		}
		if err != nil || run.State != fleet.RunQueued {
			return err
		}
		c, _, err := l.cfg.Store.Campaigns.Get(ctx, e.campaign)
		if gone(err) {
			return nil
		}
		if err != nil {
			return err
		}
		return l.publish(ctx, c, run)
	})
}

// requeue queues runs again. Their workers may be alive but stopped for a while: whatever
// they store after this fails.
func (l *leader) requeue(ctx context.Context, orphaned []*entry) error {
	if len(orphaned) == 0 {
		return nil
	}
	workers, err := l.cfg.Store.Workers(ctx)
	if err != nil {
		return err
	}
	alive := make(map[string]string) // leases by worker
	for _, w := range workers {
		alive[w.ID] = w.Lease
	}
	return each(ctx, orphaned, func(ctx context.Context, e *entry) error {
		if lease, found := alive[e.worker]; found && lease == e.lease {
			return nil
		}
		run, err := l.change(ctx, e, func(r *fleet.Run) { lost(r, time.Now().UTC()) })
		if err != nil || run == nil {
			return err
		}
		log := l.cfg.Log.With("campaign", e.campaign, "device", e.device, "worker", e.worker, "times", run.Lost)
		switch run.State {
		case fleet.RunFailed:
			log.Error("run fails: its workers have gone again and again")
			return l.cfg.Store.Record(ctx, &fleet.Event{
				Time: run.Ended, Kind: fleet.EventRun, Campaign: run.Campaign, Device: run.Device, State: string(run.State), Text: run.Failure.Text,
			})
		case fleet.RunRetrying:
			log.Warn("run is queued again later: its worker has gone or has lost its lease", "at", run.RetryAt)
			return nil
		}
		log.Info("run queued again: its worker has gone or has lost its lease")
		return l.cfg.Store.Queue(ctx, run, engine.Urgent)
	})
}

const (
	// maxLost is how often in a row workers may go at the same step of a run.
	maxLost = 8
	// fewLost is how often the run is queued again at once.
	fewLost = 2
	// lostPause is the longest pause after one more time. It doubles with each.
	lostPause = 10 * time.Second
)

// lost changes a run whose worker has gone. If that happens again and again, the run may be what
// ends the process of each worker, and with it all other runs there. They are queued again after
// random pauses, so that the others get on while this one waits, and it fails in the end.
func lost(r *fleet.Run, now time.Time) {
	worker := ""
	if r.Claim != nil {
		worker = r.Claim.Worker
	}
	if r.Progress.Step != r.LostStep {
		r.Lost = 0
	}
	r.Lost, r.LostStep, r.Claim = r.Lost+1, r.Progress.Step, nil
	switch {
	case r.Lost >= maxLost:
		r.State, r.Ended, r.Question, r.Answer = fleet.RunFailed, now, nil, nil
		r.Failure = &fleet.RunFailure{Step: r.LostStep, Cause: fleet.CauseInternal, Time: now,
			Text: fmt.Sprintf("%d times in a row the worker that worked on this device ended or lost its lease, the last was %s; look at its log, and at the history of the device before another campaign", r.Lost, worker)}
	case r.Lost > fewLost:
		pause := lostPause << (r.Lost - fewLost - 1)
		r.State, r.RetryAt, r.Attempt = fleet.RunRetrying, now.Add(rand.N(pause)), max(r.Attempt-1, 0)
	default:
		r.State, r.Queued = fleet.RunQueued, now
	}
}

// findReserved notes the devices that are reserved by runs which may have ended while no
// node scheduled.
func (l *leader) findReserved(ctx context.Context) error {
	var reserved []task
	err := l.cfg.Store.Devices.Watch(ctx, func(c store.Change[fleet.Device]) error {
		switch {
		case c.Synced:
			return errSynced
		case c.Value != nil && c.Value.ActiveRun != "":
			reserved = append(reserved, task{campaign: c.Value.ActiveRun, device: c.Value.Name})
		}
		return nil
	})
	if !errors.Is(err, errSynced) {
		return err
	}
	l.state.mu.Lock()
	defer l.state.mu.Unlock()
	for _, t := range reserved {
		// Nobody knows how far a run is that is damaged.
		if e := l.state.campaign(t.campaign).runs[t.device]; !l.state.damaged[t] && (e == nil || e.state.Final()) {
			l.state.ended[t] = time.Now()
		}
	}
	return nil
}

var errSynced = errors.New("synced")

// release releases the devices of runs that have ended, if their workers have not.
func (l *leader) release(ctx context.Context) error {
	now := time.Now()
	var due []*entry
	l.state.mu.Lock()
	for t, at := range l.state.ended {
		if now.Sub(at) >= releaseAfter {
			delete(l.state.ended, t)
			due = append(due, &entry{campaign: t.campaign, device: t.device})
		}
	}
	l.state.mu.Unlock()
	return each(ctx, due, func(ctx context.Context, e *entry) error {
		_, err := l.cfg.Store.Devices.Change(ctx, func(d *fleet.Device) error {
			if d.ActiveRun != e.campaign {
				return store.ErrUnchanged
			}
			d.ActiveRun = ""
			return nil
		}, e.device)
		if gone(err) {
			return nil
		}
		return err
	})
}

// createScheduled creates the campaigns of schedules whose time has come.
func (l *leader) createScheduled(ctx context.Context) error {
	now := time.Now()
	var create []*fleet.Campaign
	l.state.mu.Lock()
	for _, s := range l.state.schedules {
		if at := campaign.NextStart(s, l.scheduled); !at.IsZero() && !at.After(now) {
			create = append(create, campaign.FromSchedule(s, at))
		}
	}
	l.state.mu.Unlock()
	for _, c := range create {
		if _, err := l.cfg.Store.Campaigns.Create(ctx, c); err != nil && !errors.Is(err, engine.ErrConflict) {
			return err
		}
		l.cfg.Log.Info("campaign created by its schedule", "campaign", c.ID, "schedule", c.Schedule)
	}
	l.scheduled = now
	return nil
}
