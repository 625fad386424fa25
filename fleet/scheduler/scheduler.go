package scheduler

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"example.com/iad/fleet"
	"example.com/iad/fleet/engine"
	"example.com/iad/fleet/store"
)

// Config configures a scheduler.
type Config struct {
	// Store is where campaigns and runs are. Required.
	Store *store.Store
	// Name identifies this node to others.
	Name string
	// Refresh is after what time without contact devices are read; 0: never.
	Refresh time.Duration
	// Log gets what is decided; nil: nothing is logged.
	Log *slog.Logger
}

const (
	// checkPause is the interval at which workers and queued runs are checked.
	checkPause = time.Second
	// minPause is the minimum pause between two decisions. It is longer if there are many
	// runs to look at, so that this takes at most a tenth of the time.
	minPause = 50 * time.Millisecond
	// releaseAfter is how long a worker may take to release the device of a run that has
	// ended.
	releaseAfter = 5 * time.Second
	// requeueAfter is how long a run may be queued before its task is published again.
	requeueAfter = 3 * time.Minute
	// parallel is how many runs are written at the same time.
	parallel = 32
)

// Run schedules whenever this node holds the lease, until ctx ends.
func Run(ctx context.Context, cfg Config) error {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	for ctx.Err() == nil {
		lease, err := cfg.Store.Lead(ctx, cfg.Name)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		cfg.Log.Info("this node schedules", "node", cfg.Name)
		err = lead(ctx, cfg, lease)
		lease.Release()
		if err != nil && ctx.Err() == nil && !errors.Is(err, context.Canceled) {
			cfg.Log.Error("the scheduler starts again", "err", err)
			pause(ctx, time.Second)
		}
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// lead schedules as long as the lease lasts.
func lead(ctx context.Context, cfg Config, lease *engine.Lease) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(lease.Context(), cancel)()
	l := &leader{cfg: cfg, state: newState(), lease: lease}
	group, ctx := errgroup.WithContext(ctx)
	synced := make(chan struct{}, 5)
	s, state := cfg.Store, l.state
	watch(ctx, group, synced, s.Campaigns.Watch, state.campaignChanged)
	watch(ctx, group, synced, s.Runs.Watch, state.runChanged)
	watch(ctx, group, synced, s.Sites.Watch, state.siteChanged)
	watch(ctx, group, synced, s.Schedules.Watch, state.scheduleChanged)
	watch(ctx, group, synced, s.WatchWorkers, state.workerChanged)
	group.Go(func() error {
		for range cap(synced) {
			select {
			case <-synced:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if cfg.Refresh > 0 {
			group.Go(func() error { return l.refresh(ctx) })
		}
		return l.schedule(ctx)
	})
	return group.Wait()
}

// watch keeps the state current.
func watch[T any](ctx context.Context, group *errgroup.Group, synced chan<- struct{},
	watch func(context.Context, func(store.Change[T]) error, ...string) error, changed func(store.Change[T])) {
	group.Go(func() error {
		return watch(ctx, func(c store.Change[T]) error {
			if c.Synced {
				synced <- struct{}{}
			} else {
				changed(c)
			}
			return nil
		})
	})
}

// leader is the scheduler of a node that holds the lease.
type leader struct {
	cfg   Config
	lease *engine.Lease
	state *state
	// scheduled is until when schedules were looked at.
	scheduled time.Time
	// looked is how long the last decisions took to look at runs.
	looked time.Duration
}

// schedule decides after every change, and at the times that decisions name.
func (l *leader) schedule(ctx context.Context) error {
	check := time.NewTicker(checkPause)
	defer check.Stop()
	l.scheduled = time.Now().Add(-10 * time.Minute) // another node may have gone in the meantime
	if err := l.findReserved(ctx); err != nil {
		return err
	}
	for {
		l.looked = 0
		wake, err := l.decideAll(ctx)
		if err != nil {
			return err
		}
		pause(ctx, max(minPause, 10*l.looked))
		timer := time.NewTimer(wake)
		select {
		case <-l.state.changed:
		case <-timer.C:
		case <-check.C:
			if err := l.reconcile(ctx); err != nil {
				return err
			}
			if err := l.release(ctx); err != nil {
				return err
			}
			if err := l.createScheduled(ctx); err != nil {
				return err
			}
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// each calls do for the runs, several at a time.
func each(ctx context.Context, runs []*entry, do func(context.Context, *entry) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	for _, e := range runs {
		group.Go(func() error { return do(ctx, e) })
	}
	return group.Wait()
}

// gone reports whether an object does not exist or is damaged. The watch reports either, and
// other devices do not wait for it.
func gone(err error) bool {
	return errors.Is(err, engine.ErrNotFound) || errors.Is(err, engine.ErrDamaged)
}

// change changes a run, if it still is what the state says, and notes what it is now.
func (l *leader) change(ctx context.Context, e *entry, change func(*fleet.Run)) (*fleet.Run, error) {
	if !l.lease.Held() {
		return nil, context.Canceled
	}
	s := l.cfg.Store.Runs
	run, revision, err := s.Get(ctx, e.campaign, e.device)
	if gone(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if run.State != e.state || run.Epoch != e.epoch {
		l.state.noteRun(run, revision)
		return nil, nil
	}
	change(run)
	revision, err = s.Update(ctx, run, revision)
	if errors.Is(err, engine.ErrConflict) { // the watch reports what it is
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	l.state.noteRun(run, revision)
	return run, nil
}
