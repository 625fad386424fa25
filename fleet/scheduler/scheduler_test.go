package scheduler_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/iad/fleet"
	"example.com/iad/fleet/engine"
	"example.com/iad/fleet/scheduler"
	"example.com/iad/fleet/seal"
	"example.com/iad/fleet/store"
)

// lab is one node with devices that nobody reaches, and schedulers.
type lab struct {
	*store.Store
	t       *testing.T
	ctx     context.Context
	running sync.WaitGroup
}

func newLab(t *testing.T) *lab {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	l := &lab{t: t, ctx: ctx}
	e, err := engine.Start(ctx, engine.Config{Data: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		l.running.Wait()
		e.Close()
	})
	key, err := seal.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	if l.Store, err = store.Open(ctx, e, key); err != nil {
		t.Fatal(err)
	}
	return l
}

// schedule runs a scheduler until stop is called.
func (l *lab) schedule(name string) (stop func()) {
	ctx, cancel := context.WithCancel(l.ctx)
	ended := make(chan struct{})
	l.running.Go(func() {
		defer close(ended)
		if err := scheduler.Run(ctx, scheduler.Config{Store: l.Store, Name: name}); err != nil {
			l.t.Error(err)
		}
	})
	return func() { cancel(); <-ended }
}

func (l *lab) devices(n int) {
	l.t.Helper()
	for i := range n {
		d := &fleet.Device{Name: fmt.Sprintf("d%02d", i), Address: "192.0.2.1", Site: []string{"north", "south"}[i%2]}
		if _, err := l.Devices.Create(l.ctx, d); err != nil {
			l.t.Fatal(err)
		}
	}
}

// attend makes a worker known that does nothing.
func (l *lab) attend(id string, slots int) *engine.Lease {
	l.t.Helper()
	lease, err := l.Attend(l.ctx, &fleet.Worker{ID: id, Pool: fleet.DefaultPool, Slots: slots})
	if err != nil {
		l.t.Fatal(err)
	}
	return lease
}

func (l *lab) campaign(id string, change func(*fleet.CampaignSpec)) {
	l.t.Helper()
	c := &fleet.Campaign{ID: id, State: fleet.CampaignScheduled, CreatedBy: "test", Created: time.Now().UTC()}
	c.Spec = fleet.CampaignSpec{Title: id, Operation: fleet.OperationBackup, Filter: "true"}
	if change != nil {
		change(&c.Spec)
	}
	if err := c.Spec.Validate(); err != nil {
		l.t.Fatal(err)
	}
	if _, err := l.Campaigns.Create(l.ctx, c); err != nil {
		l.t.Fatal(err)
	}
}

var errSeen = errors.New("seen")

// until waits until the runs of a campaign are as wanted.
func (l *lab) until(id, what string, wanted func(fleet.Counts, map[string]*fleet.Run) bool) {
	l.t.Helper()
	runs := make(map[string]*fleet.Run)
	var counts fleet.Counts
	err := l.Runs.Watch(l.ctx, func(c store.Change[fleet.Run]) error {
		if c.Value != nil {
			runs[c.Value.Device] = c.Value
		}
		counts = fleet.Counts{}
		for _, r := range runs {
			counts.Add(r.State, 1)
		}
		if wanted(counts, runs) {
			return errSeen
		}
		return nil
	}, id)
	if !errors.Is(err, errSeen) {
		l.t.Fatalf("%s: %+v, %v", what, counts, err)
	}
}

// finish ends a run as a worker does.
func (l *lab) finish(id, device string, state fleet.RunState) {
	l.t.Helper()
	_, err := l.Runs.Change(l.ctx, func(r *fleet.Run) error {
		r.State, r.Claim, r.Ended = state, nil, time.Now().UTC()
		return nil
	}, id, device)
	if err != nil {
		l.t.Fatal(err)
	}
}

// TestWavesWithinSlots: no more devices are queued than workers have slots, a wave follows
// the one before, and what is queued has a task.
func TestWavesWithinSlots(t *testing.T) {
	l := newLab(t)
	l.devices(10)
	l.attend("w", 3)
	l.schedule("a")
	l.campaign("spring", func(s *fleet.CampaignSpec) {
		s.Filter, s.Waves = `site == "north"`, []fleet.Wave{{Count: 2}, {}}
	})
	canaries := make(map[string]bool)
	l.until("spring", "the canaries are queued", func(c fleet.Counts, runs map[string]*fleet.Run) bool {
		for name, r := range runs {
			if r.State == fleet.RunQueued {
				canaries[name] = true
				if r.Wave != 0 {
					t.Errorf("%s of wave %d is queued", name, r.Wave)
				}
			}
		}
		return c.Queued == 2 && c.Pending == 3
	})
	for name := range canaries {
		l.finish("spring", name, fleet.RunSucceeded)
	}
	l.until("spring", "the rest is queued", func(c fleet.Counts, _ map[string]*fleet.Run) bool { return c.Succeeded == 2 && c.Queued == 3 })
	q, err := l.Engine.Queue(l.ctx, fleet.DefaultPool, engine.Urgent, engine.Normal)
	if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		if _, err := q.Next(l.ctx); err != nil {
			t.Fatal(err)
		}
	}
}

// TestStopCancels: a campaign that is stopped starts nothing more.
func TestStopCancels(t *testing.T) {
	l := newLab(t)
	l.devices(4)
	l.attend("w", 1)
	l.schedule("a")
	l.campaign("spring", nil)
	l.until("spring", "one is queued", func(c fleet.Counts, _ map[string]*fleet.Run) bool { return c.Queued == 1 && c.Pending == 3 })
	_, err := l.Campaigns.Change(l.ctx, func(c *fleet.Campaign) error {
		c.State = fleet.CampaignStopped
		return nil
	}, "spring")
	if err != nil {
		t.Fatal(err)
	}
	l.until("spring", "the rest is canceled", func(c fleet.Counts, _ map[string]*fleet.Run) bool { return c.Queued == 1 && c.Canceled == 3 })
}

// TestGoneWorkerAndScheduler: another scheduler takes over, queues the runs of a worker that
// has gone, leaves those of one that is there, and releases devices.
func TestGoneWorkerAndScheduler(t *testing.T) {
	l := newLab(t)
	l.devices(3)
	gone, here := l.attend("gone", 2), l.attend("here", 1)
	defer here.Release()
	stop := l.schedule("a")
	l.campaign("spring", nil)
	l.until("spring", "all are queued", func(c fleet.Counts, _ map[string]*fleet.Run) bool { return c.Queued == 3 })
	for device, worker := range map[string]string{"d00": "gone", "d01": "here"} {
		_, err := l.Runs.Change(l.ctx, func(r *fleet.Run) error {
			r.State, r.Epoch = fleet.RunRunning, r.Epoch+1
			r.Claim = &fleet.Claim{Worker: worker, Epoch: r.Epoch, Time: time.Now().Add(-time.Minute)}
			return nil
		}, "spring", device)
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := l.Devices.Change(l.ctx, func(d *fleet.Device) error { d.ActiveRun = "spring"; return nil }, "d02"); err != nil {
		t.Fatal(err)
	}
	stop()
	l.finish("spring", "d02", fleet.RunSucceeded) // its worker did not release the device
	gone.Release()
	l.schedule("b")
	l.until("spring", "the run of the worker that has gone is queued", func(_ fleet.Counts, runs map[string]*fleet.Run) bool {
		r := runs["d00"]
		return r != nil && r.State == fleet.RunQueued && r.Claim == nil
	})
	err := l.Devices.Watch(l.ctx, func(c store.Change[fleet.Device]) error {
		if c.Value != nil && c.Value.ActiveRun == "" {
			return errSeen
		}
		return nil
	}, "d02")
	if !errors.Is(err, errSeen) {
		t.Errorf("the device is not released: %v", err)
	}
	r, _, err := l.Runs.Get(l.ctx, "spring", "d01")
	if err != nil || r.State != fleet.RunRunning || r.Claim == nil || r.Claim.Worker != "here" {
		t.Errorf("the run of the worker that is there: %+v, %v", r, err)
	}
}

// TestWorkersGoAgainAndAgain: a run whose workers go each time at the same step is queued again
// later, and fails in the end.
func TestWorkersGoAgainAndAgain(t *testing.T) {
	l := newLab(t)
	l.devices(3)
	here := l.attend("here", 3)
	defer here.Release()
	l.schedule("a")
	l.campaign("spring", nil)
	l.until("spring", "all are queued", func(c fleet.Counts, _ map[string]*fleet.Run) bool { return c.Queued == 3 })
	for device, lost := range map[string]int{"d00": 7, "d01": 6, "d02": 7} {
		_, err := l.Runs.Change(l.ctx, func(r *fleet.Run) error {
			r.State, r.Epoch, r.Lost, r.LostStep, r.Progress.Step = fleet.RunRunning, r.Epoch+1, lost, 140, 140
			if device == "d02" { // it has got on
				r.Progress.Step = 150
			}
			r.Claim = &fleet.Claim{Worker: "gone", Epoch: r.Epoch, Time: time.Now().Add(-time.Minute)}
			return nil
		}, "spring", device)
		if err != nil {
			t.Fatal(err)
		}
	}
	var last map[string]*fleet.Run
	l.until("spring", "none is running", func(c fleet.Counts, runs map[string]*fleet.Run) bool {
		last = runs
		return c.Running == 0 && c.Total == 3 && (c.Failed == 1 || c.Queued == 3)
	})
	if r := last["d00"]; r.State != fleet.RunFailed || r.Failure == nil || r.Failure.Cause != fleet.CauseInternal || r.Claim != nil || r.Ended.IsZero() {
		t.Errorf("%+v", r)
	} else if text := r.Failure.Text; !strings.Contains(text, "8 times") || !strings.Contains(text, "gone") {
		t.Error(text)
	}
	if r := last["d01"]; r.State != fleet.RunRetrying || !r.RetryAt.After(time.Now().Add(-time.Minute)) || r.Attempt != 0 || r.Lost != 7 {
		t.Errorf("%+v", r)
	}
	if r := last["d02"]; r.State != fleet.RunQueued || r.Lost != 1 {
		t.Errorf("%+v", r)
	}
}

// TestSchedules: a schedule creates its campaign once.
func TestSchedules(t *testing.T) {
	l := newLab(t)
	l.devices(1)
	at := time.Now().UTC().Add(-2 * time.Minute) // another node has just missed it
	s := &fleet.Schedule{Name: "nightly", At: at.Format("15:04"), CreatedBy: "test", Spec: fleet.CampaignSpec{Title: "nightly", Operation: fleet.OperationBackup, Filter: "true"}}
	if err := s.Validate(); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Schedules.Create(l.ctx, s); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a", "b"} {
		stop := l.schedule(name)
		id := "nightly-" + at.Format("20060102-1504")
		l.until(id, "its campaign is planned", func(c fleet.Counts, _ map[string]*fleet.Run) bool { return c.Total == 1 })
		stop()
	}
	if list, err := l.Campaigns.List(l.ctx); err != nil || len(list) != 1 {
		t.Errorf("%d campaigns, %v", len(list), err)
	}
}

// TestWorkerWithAnotherLease: a run that was claimed under an earlier lease of a worker is
// queued again, although the worker is there.
func TestWorkerWithAnotherLease(t *testing.T) {
	l := newLab(t)
	l.devices(2)
	lease := func(name string) *engine.Lease {
		lease, err := l.Attend(l.ctx, &fleet.Worker{ID: "w", Lease: name, Pool: fleet.DefaultPool, Slots: 2})
		if err != nil {
			t.Fatal(err)
		}
		return lease
	}
	first := lease("first")
	l.schedule("a")
	l.campaign("spring", nil)
	l.until("spring", "all are queued", func(c fleet.Counts, _ map[string]*fleet.Run) bool { return c.Queued == 2 })
	first.Release()
	defer lease("second").Release()
	for device, name := range map[string]string{"d00": "first", "d01": "second"} {
		_, err := l.Runs.Change(l.ctx, func(r *fleet.Run) error {
			r.State, r.Epoch = fleet.RunRunning, r.Epoch+1
			r.Claim = &fleet.Claim{Worker: "w", Lease: name, Epoch: r.Epoch, Time: time.Now().Add(-time.Minute)}
			return nil
		}, "spring", device)
		if err != nil {
			t.Fatal(err)
		}
	}
	l.until("spring", "the run of the first lease is queued", func(_ fleet.Counts, runs map[string]*fleet.Run) bool {
		r := runs["d00"]
		return r != nil && r.State == fleet.RunQueued && r.Epoch == 1 && r.Claim == nil
	})
	r, _, err := l.Runs.Get(l.ctx, "spring", "d01")
	if err != nil || r.State != fleet.RunRunning || r.Claim == nil || r.Claim.Lease != "second" {
		t.Errorf("the run of the second lease: %+v, %v", r, err)
	}
}

// spoil stores what is not an object, in place of one with this revision.
func (l *lab) spoil(bucket engine.BucketName, revision uint64, key ...string) {
	l.t.Helper()
	b, err := l.Engine.Bucket(l.ctx, bucket)
	if err != nil {
		l.t.Fatal(err)
	}
	if revision == 0 {
		_, err = b.Create(l.ctx, engine.Key(key...), []byte("{"))
	} else {
		_, err = b.Update(l.ctx, engine.Key(key...), []byte("{"), revision)
	}
	if err != nil {
		l.t.Fatal(err)
	}
}

// TestDamagedObjectsDoNotStopOthers: whatever is damaged, the campaign of the other devices
// ends. The device of a damaged run is released when the run has been removed.
func TestDamagedObjectsDoNotStopOthers(t *testing.T) {
	l := newLab(t)
	l.devices(3)
	worker := l.attend("w", 3)
	defer worker.Release()
	for bucket, key := range map[engine.BucketName][]string{
		engine.Devices: {"dx"}, engine.Campaigns: {"bad"}, engine.Settings: {"schedule", "bad"},
	} {
		l.spoil(bucket, 0, key...)
	}
	stop := l.schedule("a")
	l.campaign("spring", nil)
	l.until("spring", "all are queued", func(c fleet.Counts, _ map[string]*fleet.Run) bool { return c.Queued == 3 })
	if _, err := l.Devices.Change(l.ctx, func(d *fleet.Device) error { d.ActiveRun = "spring"; return nil }, "d00"); err != nil {
		t.Fatal(err)
	}
	_, revision, err := l.Runs.Get(l.ctx, "spring", "d00")
	if err != nil {
		t.Fatal(err)
	}
	l.spoil(engine.Runs, revision, "spring", "d00")
	l.finish("spring", "d01", fleet.RunSucceeded)
	stop() // another one schedules, which finds the damage at its start
	l.schedule("b")
	l.finish("spring", "d02", fleet.RunSucceeded)
	err = l.Campaigns.Watch(l.ctx, func(c store.Change[fleet.Campaign]) error {
		if c.Value != nil && c.Value.State == fleet.CampaignDone {
			return errSeen
		}
		return nil
	}, "spring")
	if !errors.Is(err, errSeen) {
		t.Fatalf("the campaign does not end: %v", err)
	}
	if d, _, err := l.Devices.Get(l.ctx, "d00"); err != nil || d.ActiveRun != "spring" {
		t.Errorf("the device of the damaged run is released: %+v, %v", d, err)
	}
	for _, d := range l.Engine.Damage() {
		if d.Place == string(engine.Runs) {
			if err := l.RemoveDamaged(l.ctx, d); err != nil {
				t.Fatal(err)
			}
		}
	}
	err = l.Devices.Watch(l.ctx, func(c store.Change[fleet.Device]) error {
		if c.Value != nil && c.Value.ActiveRun == "" {
			return errSeen
		}
		return nil
	}, "d00")
	if !errors.Is(err, errSeen) {
		t.Errorf("the device is not released: %v", err)
	}
}
