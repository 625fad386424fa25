package worker

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"example.com/iad/fleet"
	"example.com/iad/fleet/engine"
	"example.com/iad/fleet/seal"
	"example.com/iad/fleet/store"
	"example.com/iad/manager"
	"example.com/iad/mib"
)

// TestClaimAnswerLost: a claim that was stored although nothing reported that is the
// worker's; one of another delivery of the task is not. Only from inside can the answer be
// lost.
func TestClaimAnswerLost(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	e, err := engine.Start(ctx, engine.Config{Data: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	key, err := seal.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(ctx, e, key)
	if err != nil {
		t.Fatal(err)
	}
	c := &fleet.Campaign{ID: "spring", State: fleet.CampaignRunning}
	if _, err := s.Campaigns.Create(ctx, c); err != nil {
		t.Fatal(err)
	}
	queued := &fleet.Run{Campaign: "spring", Device: "gw1", State: fleet.RunQueued, Attempt: 1}
	if _, err := s.Runs.Create(ctx, queued); err != nil {
		t.Fatal(err)
	}
	w := &Worker{cfg: Config{Store: s, ID: "w1"}, lease: "first"}
	task, log := store.Task{Campaign: "spring", Device: "gw1"}, slog.New(slog.DiscardHandler)
	claim := &fleet.Claim{Worker: "w1", Lease: "first", Time: time.Now().UTC()}
	if _, err := w.tryClaim(ctx, nil, task, claim, log); err != nil { // its answer is lost
		t.Fatal(err)
	}
	other := *claim // with the same epoch, but it has lost
	other.Time = claim.Time.Add(1)
	if r, err := w.tryClaim(ctx, nil, task, &other, log); r != nil || err != nil {
		t.Errorf("another delivery has got the run: %+v, %v", r, err)
	}
	r, err := w.tryClaim(ctx, nil, task, claim, log)
	if err != nil || r == nil {
		t.Fatalf("the run is not the worker's: %+v, %v", r, err)
	}
	defer r.lose()
	if _, revision, err := s.Runs.Get(ctx, "spring", "gw1"); err != nil || r.revision != revision || r.run.Epoch != 1 {
		t.Errorf("revision %d of epoch %d, stored is %d, %v", r.revision, r.run.Epoch, revision, err)
	}
}

// lab is a store on one node, with a running campaign and the queued run of gw1.
func lab(t *testing.T, spec fleet.CampaignSpec) (context.Context, *Worker, *engine.Lease) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	e, err := engine.Start(ctx, engine.Config{Data: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	key, err := seal.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(ctx, e, key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Campaigns.Create(ctx, &fleet.Campaign{ID: "spring", State: fleet.CampaignRunning, Spec: spec}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Devices.Create(ctx, &fleet.Device{Name: "gw1", ActiveRun: "spring"}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Runs.Create(ctx, &fleet.Run{Campaign: "spring", Device: "gw1", Pool: fleet.DefaultPool, State: fleet.RunQueued, Attempt: 1, Started: time.Now()}); err != nil {
		t.Fatal(err)
	}
	w := &Worker{cfg: Config{Store: s, ID: "w1", Log: slog.New(slog.DiscardHandler)}, lease: "first", events: make(chan *fleet.Event, 100)}
	lease, err := s.Attend(ctx, w.describe())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(lease.Release)
	return ctx, w, lease
}

func (w *Worker) take(ctx context.Context, t *testing.T, lease *engine.Lease) *run {
	t.Helper()
	r, err := w.claim(ctx, lease, store.Task{Campaign: "spring", Device: "gw1"}, w.cfg.Log)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestRunThatCannotBeStored: it is given back a few times and then fails, with the reason,
// and its device is released. Only from inside can what is stored be too large.
func TestRunThatCannotBeStored(t *testing.T) {
	ctx, w, lease := lab(t, fleet.CampaignSpec{})
	tries := 0
	for {
		r := w.take(ctx, t, lease)
		if r == nil {
			break
		}
		if tries++; tries > 2*maxUnstored {
			t.Fatal("the run is given back endlessly")
		}
		if err := r.update(r.ctx, func(run *fleet.Run) { run.Progress.Text = strings.Repeat("x", 2<<20) }); err == nil {
			t.Fatal("stored")
		}
		r.giveBackLost(ctx)
	}
	got, _, err := w.cfg.Store.Runs.Get(ctx, "spring", "gw1")
	if err != nil || tries != maxUnstored+1 || got.State != fleet.RunFailed || got.Failure == nil || got.Failure.Cause != fleet.CauseInternal || !strings.Contains(got.Failure.Text, "larger than") || got.Ended.IsZero() {
		t.Errorf("after %d tries: %+v, failure %+v, %v", tries, got, got.Failure, err)
	}
	if d, _, err := w.cfg.Store.Devices.Get(ctx, "gw1"); err != nil || d.ActiveRun != "" || d.LastOutcome != fleet.RunFailed {
		t.Errorf("%+v, %v", d, err)
	}
}

// TestDamagedTask: the task of a damaged run or campaign is not tried again and again.
func TestDamagedTask(t *testing.T) {
	for _, bucket := range []engine.BucketName{engine.Runs, engine.Campaigns} {
		ctx, w, lease := lab(t, fleet.CampaignSpec{})
		b, err := w.cfg.Store.Engine.Bucket(ctx, bucket)
		if err != nil {
			t.Fatal(err)
		}
		key := map[engine.BucketName]string{engine.Runs: engine.Key("spring", "gw1"), engine.Campaigns: "spring"}[bucket]
		entry, err := b.Get(ctx, key)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.Update(ctx, key, []byte("{"), entry.Revision); err != nil {
			t.Fatal(err)
		}
		if r := w.take(ctx, t, lease); r != nil {
			t.Errorf("%s: claimed", bucket)
		}
	}
}

// TestAttemptsBeforeQuestions: a failure that may pass becomes a question at the last attempt
// only; one that will not pass does at once. Who gives up then gets no further attempt.
func TestAttemptsBeforeQuestions(t *testing.T) {
	passing := manager.Question{Device: "IAD-1", Step: manager.StepBackup, Choices: []manager.Choice{manager.Retry, manager.GiveUp},
		Failure: &manager.Failure{Device: "IAD-1", Step: manager.StepBackup, Cause: mib.FailCauseServerUnreachable, Advice: mib.RetryAdviceRetryLater}}
	lasting := passing
	lasting.Failure = &manager.Failure{Device: "IAD-1", Step: manager.StepBackup, Cause: mib.FailCauseStorageFull, Advice: mib.RetryAdviceFixFirst}
	for name, c := range map[string]struct {
		question manager.Question
		attempt  int
		asked    bool
	}{
		"may pass, attempts left": {passing, 1, false}, "may pass, the last attempt": {passing, 2, true}, "will not pass": {lasting, 1, true},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, w, lease := lab(t, fleet.CampaignSpec{Options: fleet.RunOptions{OnFailure: []string{"ask"}}, Retry: fleet.RetryRule{Attempts: 2}})
			r := w.take(ctx, t, lease)
			r.run.Attempt = c.attempt
			answer, err := parking{r, nil}.Ask(ctx, c.question)
			if asked := errors.Is(err, manager.ErrParked); asked != c.asked || !asked && (err != nil || answer.Choice != manager.GiveUp) || (r.run.Question != nil) != c.asked {
				t.Fatalf("%+v, %v; question %+v", answer, err, r.run.Question)
			}
			if !c.asked {
				r.judge(&r.run, manager.Result{}, c.question.Failure, time.Now())
				if r.run.State != fleet.RunRetrying {
					t.Errorf("the run is %s", r.run.State)
				}
				return
			}
			r.run.Attempt = 1
			r.run.Answer = &fleet.Answer{Question: r.run.Question.ID, Choice: fleet.ChoiceGiveUp}
			if got, err := (answered{parking{r, nil}, nil}).Ask(ctx, c.question); err != nil || got.Choice != manager.GiveUp {
				t.Fatalf("%+v, %v", got, err)
			}
			r.judge(&r.run, manager.Result{}, c.question.Failure, time.Now())
			if r.run.State != fleet.RunFailed {
				t.Errorf("after a person gave up the run is %s", r.run.State)
			}
		})
	}
}
