package worker_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/iad/fleet"
	"example.com/iad/fleet/engine"
	"example.com/iad/fleet/scheduler"
	"example.com/iad/fleet/seal"
	"example.com/iad/fleet/store"
	"example.com/iad/fleet/worker"
	"example.com/iad/internal/fleetsim"
	"example.com/iad/manager/device"
	"example.com/iad/manager/files"
	"example.com/iad/mib"
)

// service is one node with a scheduler.
type service struct {
	*store.Store
	refresh time.Duration
	t       *testing.T
	ctx     context.Context
	stop    context.CancelFunc
	running sync.WaitGroup
}

type testLog struct{ t *testing.T }

func (l testLog) Write(p []byte) (int, error) {
	l.t.Logf("%s", p)
	return len(p), nil
}

func start(t *testing.T) *service { return startRefreshing(t, 0) }

func startRefreshing(t *testing.T, refresh time.Duration) *service {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	s := &service{t: t, ctx: ctx, stop: cancel, refresh: refresh}
	e, err := engine.Start(ctx, engine.Config{Data: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		s.running.Wait()
		e.Close()
	})
	key, err := seal.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	if s.Store, err = store.Open(ctx, e, key); err != nil {
		t.Fatal(err)
	}
	if err := s.Secrets.Put(ctx, fleetsim.Secret()); err != nil {
		t.Fatal(err)
	}
	s.running.Go(func() {
		if err := scheduler.Run(ctx, scheduler.Config{Store: s.Store, Name: "node", Refresh: s.refresh, Log: slog.New(slog.NewTextHandler(testLog{t}, nil))}); err != nil {
			t.Error(err)
		}
	})
	return s
}

// work starts a worker. stop ends it.
func (s *service) work(id string, change func(*worker.Config)) (stop func()) {
	s.t.Helper()
	c := worker.Config{
		Store: s.Store, ID: id, Dir: s.t.TempDir(), Servers: files.ServersConfig{TFTP: "127.0.0.1:0"}, Poll: 200 * time.Millisecond,
		Log: slog.New(slog.NewTextHandler(testLog{s.t}, nil)),
	}
	if change != nil {
		change(&c)
	}
	w, err := worker.New(c)
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(s.ctx)
	ended := make(chan struct{})
	s.running.Go(func() {
		defer close(ended)
		if err := w.Run(ctx); err != nil {
			s.t.Error(err)
		}
		if err := w.Close(); err != nil {
			s.t.Error(err)
		}
	})
	return func() { cancel(); <-ended }
}

func (s *service) add(d *fleetsim.Devices) {
	s.t.Helper()
	for _, name := range d.Names {
		if _, err := s.Devices.Create(s.ctx, d.Device(name)); err != nil {
			s.t.Fatal(err)
		}
	}
}

func (s *service) image(d *fleetsim.Devices, version string, format uint32) string {
	s.t.Helper()
	image, open := fleetsim.Describe(d.Image(version, format), version, format)
	if err := s.AddImage(s.ctx, image, open); err != nil {
		s.t.Fatal(err)
	}
	return image.Digest
}

func (s *service) campaign(id string, spec fleet.CampaignSpec) {
	s.t.Helper()
	spec.Title = id
	if spec.Filter == "" {
		spec.Filter = "true"
	}
	if err := spec.Validate(); err != nil {
		s.t.Fatal(err)
	}
	c := &fleet.Campaign{ID: id, Spec: spec, State: fleet.CampaignScheduled, Created: time.Now().UTC(), CreatedBy: "test"}
	if _, err := s.Campaigns.Create(s.ctx, c); err != nil {
		s.t.Fatal(err)
	}
}

var errSeen = errors.New("seen")

// outcomes logs how the runs of a campaign are.
func (s *service) outcomes(id string) {
	runs, err := s.Runs.List(context.Background(), id)
	if err != nil {
		s.t.Error(err)
	}
	for _, r := range runs {
		s.t.Logf("%s: %s, %+v, question %+v, failure %+v", r.Device, r.State, r.Progress, r.Question, r.Failure)
	}
}

// ends waits until a campaign has ended.
func (s *service) ends(id string) *fleet.Campaign {
	s.t.Helper()
	var last *fleet.Campaign
	err := s.Campaigns.Watch(s.ctx, func(c store.Change[fleet.Campaign]) error {
		if c.Value != nil {
			if last = c.Value; last.State.Final() {
				return errSeen
			}
		}
		return nil
	}, id)
	if !errors.Is(err, errSeen) {
		s.outcomes(id)
		s.t.Fatalf("campaign %+v: %v", last, err)
	}
	return last
}

// reaches waits until a run is in a state.
func (s *service) reaches(id, device string, state fleet.RunState) *fleet.Run {
	s.t.Helper()
	var last *fleet.Run
	err := s.Runs.Watch(s.ctx, func(c store.Change[fleet.Run]) error {
		if c.Value != nil {
			if last = c.Value; last.State == state {
				return errSeen
			}
		}
		return nil
	}, id, device)
	if !errors.Is(err, errSeen) {
		s.t.Fatalf("run %+v: %v", last, err)
	}
	return last
}

func (s *service) run(id, device string) *fleet.Run {
	s.t.Helper()
	r, _, err := s.Runs.Get(s.ctx, id, device)
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

// TestCampaign upgrades devices with two workers. One device fails its self-test: the
// question takes no slot, and its answer continues the run.
func TestCampaign(t *testing.T) {
	d := fleetsim.Start(t, 12, fleetsim.Options{})
	s := start(t)
	s.add(d)
	s.work("w1", func(c *worker.Config) { c.Slots = 2 })
	s.work("w2", func(c *worker.Config) { c.Slots = 2 })
	bad := d.Names[3]
	d.FailSelfTest(bad, "2.0.0", true)
	s.campaign("spring", fleet.CampaignSpec{Operation: fleet.OperationUpgrade, Image: s.image(d, "2.0.0", 2), Waves: []fleet.Wave{{Count: 4}, {}},
		Caps: fleet.Caps{BytesPerSecond: 50 << 20}})
	r := s.reaches("spring", bad, fleet.RunWaiting)
	if q := r.Question; q == nil || q.Step != 160 || r.Claim != nil || q.Cause != mib.FailCauseSelfTestFailed.String() {
		t.Fatalf("question %+v, claim %+v", q, r.Claim)
	}
	d.FailSelfTest(bad, "2.0.0", false)
	_, err := s.Runs.Change(s.ctx, func(r *fleet.Run) error {
		r.State, r.Queued = fleet.RunQueued, time.Now().UTC()
		r.Answer = &fleet.Answer{Question: r.Question.ID, Choice: fleet.ChoiceRetry, By: "test"}
		return nil
	}, "spring", bad)
	if err != nil {
		t.Fatal(err)
	}
	if c := s.ends("spring"); c.State != fleet.CampaignDone {
		t.Errorf("campaign ended as %s: %s", c.State, c.Reason)
	}
	for _, name := range d.Names {
		r := s.run("spring", name)
		if r.State != fleet.RunSucceeded || r.NewVersion != "2.0.0" || r.OldVersion != "1.0.0" || r.Question != nil || r.Answer != nil {
			t.Errorf("%s: %s, %s -> %s, %+v", name, r.State, r.OldVersion, r.NewVersion, r.Failure)
		}
		found, err := d.Check(t.Context(), name)
		if err != nil {
			t.Error(err)
		} else if found.Version != "2.0.0" || found.ConfigFormat != 2 {
			t.Errorf("%s runs %s with format %d", name, found.Version, found.ConfigFormat)
		}
		dev, _, err := s.Devices.Get(s.ctx, name)
		if err != nil || dev.ActiveRun != "" || dev.Facts == nil || dev.Facts.Version != "2.0.0" || dev.Identity == nil || dev.LastOutcome != fleet.RunSucceeded {
			t.Errorf("%s in the inventory: %+v, %v", name, dev, err)
		}
		b, _, err := s.Backups.Get(s.ctx, name, r.Backup)
		if err != nil {
			t.Errorf("%s: backup %q: %v", name, r.Backup, err)
			continue
		}
		data, err := s.BackupFile(s.ctx, b, "userData")
		if want := fleetsim.Configuration(name, "")[mib.FileTypeUserData]; err != nil || string(data) != string(want) || !b.Good {
			t.Errorf("%s: backup has %q, %v", name, data, err)
		}
	}
}

// TestDrain: a worker that drains takes nothing, and says so; then it takes what waits.
func TestDrain(t *testing.T) {
	d := fleetsim.Start(t, 1, fleetsim.Options{})
	s := start(t)
	s.add(d)
	s.work("w1", nil)
	drained := func(want bool) {
		t.Helper()
		// The worker listens once it has begun: ask until it shows.
		for ticker := time.NewTicker(50 * time.Millisecond); ; {
			if err := s.Drain("w1", want); err != nil {
				t.Fatal(err)
			}
			workers, err := s.Workers(s.ctx)
			if err != nil {
				t.Fatal(err)
			}
			if len(workers) == 1 && workers[0].Drain == want {
				ticker.Stop()
				return
			}
			<-ticker.C
		}
	}
	drained(true)
	s.campaign("backup", fleet.CampaignSpec{Operation: fleet.OperationBackup})
	waits := errors.New("waits")
	err := s.Campaigns.Watch(s.ctx, func(c store.Change[fleet.Campaign]) error {
		if c.Value != nil && c.Value.WaitingFor == "workers in default" {
			return waits
		}
		return nil
	}, "backup")
	if !errors.Is(err, waits) {
		t.Fatal(err)
	}
	r := s.run("backup", d.Names[0])
	if r.State != fleet.RunPending {
		t.Errorf("a worker that drains has got a run: %s", r.State)
	}
	drained(false)
	if c := s.ends("backup"); c.State != fleet.CampaignDone {
		t.Errorf("%s: %s", c.State, c.Reason)
	}
}

// TestWorkerEndsInTheMiddle gives a run from one worker to the next at each step.
func TestWorkerEndsInTheMiddle(t *testing.T) {
	d := fleetsim.Start(t, 6, fleetsim.Options{})
	s := start(t)
	s.add(d)
	stop := s.work("w0", nil)
	s.campaign("spring", fleet.CampaignSpec{Operation: fleet.OperationUpgrade, Image: s.image(d, "2.0.0", 2)})
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	for i, step := range []int{110, 120, 140, 150, 180} {
		err := s.Events(ctx, 0, func(_ uint64, e *fleet.Event) error {
			if int(e.Progress.Step) == step {
				return errSeen
			}
			if e.Kind == fleet.EventCampaign && fleet.CampaignState(e.State).Final() {
				return errSeen // too fast
			}
			return nil
		})
		if !errors.Is(err, errSeen) {
			t.Fatalf("step %d: %v", step, err)
		}
		stop()
		stop = s.work(fmt.Sprintf("w%d", i+1), nil)
	}
	if c := s.ends("spring"); c.State != fleet.CampaignDone {
		t.Errorf("campaign ended as %s: %s", c.State, c.Reason)
	}
	for _, name := range d.Names {
		if r := s.run("spring", name); r.State != fleet.RunSucceeded {
			t.Errorf("%s: %s, %+v %+v", name, r.State, r.Failure, r.Question)
		}
		if found, err := d.Check(t.Context(), name); err != nil || found.Version != "2.0.0" {
			t.Errorf("%v, %v", found, err)
		}
	}
}

// TestRecoverOtherUnit: a name in the inventory that stood for another unit. The data of
// that unit are for this one only if the campaign permits it.
func TestRecoverOtherUnit(t *testing.T) {
	d := fleetsim.Start(t, 2, fleetsim.Options{})
	s := start(t)
	first, second := d.Names[0], d.Names[1]
	stop, workers := func() {}, 0
	// standsFor replaces the entry, and the worker by one that has seen neither unit.
	standsFor := func(unit string) {
		t.Helper()
		stop()
		workers++
		stop = s.work(fmt.Sprintf("w%d", workers), nil)
		if _, revision, err := s.Devices.Get(s.ctx, "gw1"); err == nil {
			if err := s.Devices.Delete(s.ctx, revision, "gw1"); err != nil {
				t.Fatal(err)
			}
		}
		entry := d.Device(unit)
		entry.Name = "gw1"
		if _, err := s.Devices.Create(s.ctx, entry); err != nil {
			t.Fatal(err)
		}
	}
	ends := func(id string, spec fleet.CampaignSpec, want fleet.RunState) *fleet.Run {
		t.Helper()
		s.campaign(id, spec)
		s.ends(id)
		r := s.run(id, "gw1")
		if r.State != want {
			t.Fatalf("%s: %s, %+v", id, r.State, r.Failure)
		}
		return r
	}
	recovers := fleet.CampaignSpec{Operation: fleet.OperationRecover}
	standsFor(first)
	ends("first-backup", fleet.CampaignSpec{Operation: fleet.OperationBackup}, fleet.RunSucceeded)
	standsFor(second)
	r := ends("refused", recovers, fleet.RunFailed)
	if text := r.Failure.Text; !strings.Contains(text, first) || !strings.Contains(text, second) {
		t.Errorf("the failure does not name both units: %s", text)
	}
	if found, err := d.Client(second).Device(s.ctx); err != nil || found.Generation != 1 {
		t.Errorf("the unit has data of generation %d, %v", found.Generation, err)
	}
	replaced := recovers
	replaced.Options.OtherDevice = true
	ends("replaced", replaced, fleet.RunSucceeded)
	b := ends("second-backup", fleet.CampaignSpec{Operation: fleet.OperationBackup}, fleet.RunSucceeded)
	backup, _, err := s.Backups.Get(s.ctx, "gw1", b.Backup)
	if err != nil || backup.DeviceID != second {
		t.Fatalf("backup %+v, %v", backup, err)
	}
	if data, err := s.BackupFile(s.ctx, backup, "userData"); err != nil || string(data) != string(fleetsim.Configuration(first, "")[mib.FileTypeUserData]) {
		t.Errorf("the unit that was replaced left %q, %v", data, err)
	}
	standsFor(first) // its backup is not the newest
	ends("own", recovers, fleet.RunSucceeded)
}

// TestRefresh: devices without contact are read, also those that changed outside of campaigns; another
// unit at the address is a problem, and what is known stays.
func TestRefresh(t *testing.T) {
	d := fleetsim.Start(t, 3, fleetsim.Options{})
	s := startRefreshing(t, time.Second)
	replaced, reserved := d.Names[1], d.Names[2]
	s.add(d)
	if _, err := s.Devices.Change(s.ctx, func(entry *fleet.Device) error {
		entry.Identity = &device.Identity{Device: "another unit", EngineID: "80001f8804616263"}
		return nil
	}, replaced); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Devices.Change(s.ctx, func(entry *fleet.Device) error { entry.ActiveRun = "spring"; return nil }, reserved); err != nil {
		t.Fatal(err)
	}
	s.work("w1", nil)
	known := make(map[string]*fleet.Device)
	var first time.Time
	err := s.Devices.Watch(s.ctx, func(c store.Change[fleet.Device]) error {
		if c.Value == nil || c.Value.Contact.Time.IsZero() {
			return nil
		}
		known[c.Value.Name] = c.Value
		if entry := c.Value; entry.Name == d.Names[0] && first.IsZero() {
			first = entry.Facts.Time
		}
		if len(known) == 2 && known[d.Names[0]] != nil && known[d.Names[0]].Facts.Time.After(first) { // read again
			return errSeen
		}
		return nil
	})
	if !errors.Is(err, errSeen) {
		t.Fatalf("%+v, %v", known, err)
	}
	if entry := known[d.Names[0]]; entry.Facts.Version != "1.0.0" || entry.Contact.Problem != "" || entry.Identity.Device != d.Names[0] {
		t.Errorf("%+v", entry)
	}
	if entry := known[replaced]; entry == nil || entry.Facts != nil || !strings.Contains(entry.Contact.Problem, "another unit") || entry.Identity.Device != "another unit" {
		t.Errorf("%+v", entry)
	}
}

// waitFor returns the command of a program that runs until the returned function is called.
func waitFor(t *testing.T) (command string, release func()) {
	dir := t.TempDir()
	script, flag := filepath.Join(dir, "wait"), filepath.Join(dir, "released")
	text := fmt.Sprintf("while ! test -e '%s'; do sleep 0.1; done\n", flag)
	if err := os.WriteFile(script, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return "sh " + script, func() {
		if err := os.WriteFile(flag, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// begin starts a worker and an upgrade that stands still after step 150.
func (s *service) begin(d *fleetsim.Devices) (device string, release func()) {
	s.t.Helper()
	s.add(d)
	command, release := waitFor(s.t)
	s.work("w1", func(c *worker.Config) { c.Programs = map[string]string{"wait": command} })
	spec := fleet.CampaignSpec{Operation: fleet.OperationUpgrade, Image: s.image(d, "2.0.0", 2)}
	spec.Options.VerifyWith = "wait"
	s.campaign("spring", spec)
	return d.Names[0], release
}

// claims waits until a worker has claimed the run for the n-th time.
func (s *service) claims(id, device string, n uint64) *fleet.Run {
	s.t.Helper()
	var last *fleet.Run
	err := s.Runs.Watch(s.ctx, func(c store.Change[fleet.Run]) error {
		if c.Value != nil {
			if last = c.Value; last.State == fleet.RunRunning && last.Epoch == n {
				return errSeen
			}
		}
		return nil
	}, id, device)
	if !errors.Is(err, errSeen) {
		s.t.Fatalf("run %+v: %v", last, err)
	}
	return last
}

func (s *service) succeeds(d *fleetsim.Devices, id, device string) {
	s.t.Helper()
	s.ends(id)
	if r := s.run(id, device); r.State != fleet.RunSucceeded {
		s.t.Errorf("%s: %s, %+v %+v", device, r.State, r.Failure, r.Question)
	}
	if entry, _, err := s.Devices.Get(s.ctx, device); err != nil || entry.ActiveRun != "" {
		s.t.Errorf("%+v, %v", entry, err)
	}
	if found, err := d.Check(s.ctx, device); err != nil || found.Version != "2.0.0" {
		s.t.Errorf("%+v, %v", found, err)
	}
}

// TestLeaseLost: a worker that has lost its lease and acquires another continues the run.
func TestLeaseLost(t *testing.T) {
	d := fleetsim.Start(t, 1, fleetsim.Options{})
	s := start(t)
	name, release := s.begin(d)
	first := s.claims("spring", name, 1)
	leases, err := s.Engine.Bucket(s.ctx, engine.Leases)
	if err != nil {
		t.Fatal(err)
	}
	key := engine.Key("worker", "w1")
	for { // it may be renewed at the same time
		entry, err := leases.Get(s.ctx, key)
		if err != nil {
			t.Fatal(err)
		}
		if err = leases.Delete(s.ctx, key, entry.Revision); err == nil {
			break
		}
		if !errors.Is(err, engine.ErrConflict) {
			t.Fatal(err)
		}
	}
	second := s.claims("spring", name, 2)
	if a, b := first.Claim, second.Claim; a.Worker != b.Worker || a.Lease == "" || a.Lease == b.Lease {
		t.Errorf("claims %+v and %+v", a, b)
	}
	release()
	s.succeeds(d, "spring", name)
}

// TestRunNotStored: a worker that could not store a run, but still has its lease, gives the
// run back.
func TestRunNotStored(t *testing.T) {
	d := fleetsim.Start(t, 1, fleetsim.Options{})
	s := start(t)
	name, release := s.begin(d)
	s.claims("spring", name, 1)
	// The worker's next change fails: the run has another revision.
	if _, err := s.Runs.Change(s.ctx, func(*fleet.Run) error { return nil }, "spring", name); err != nil {
		t.Fatal(err)
	}
	s.claims("spring", name, 2)
	release()
	s.succeeds(d, "spring", name)
}
