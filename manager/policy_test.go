package manager_test

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"

	"example.com/iad/manager"
	"example.com/iad/manager/batch"
	"example.com/iad/manager/files"
	"example.com/iad/mib"
)

func TestPolicies(t *testing.T) {
	image := &files.Image{Path: "other.iad"}
	open := func(name string) (*files.Image, error) {
		if name != "other.iad" {
			return nil, errors.New("no such file")
		}
		return image, nil
	}
	afterUpdate := []manager.Choice{manager.Retry, manager.OtherFile, manager.GiveUp}
	afterRecovery := []manager.Choice{manager.Retry, manager.Modify, manager.RestoreOld, manager.GiveUp}
	question := func(step manager.Step, attempt int, advice mib.RetryAdvice, choices []manager.Choice) manager.Question {
		return manager.Question{Step: step, Attempt: attempt, Advice: advice, Choices: choices, Failure: &manager.Failure{}}
	}
	now, fix, first := mib.RetryAdviceRetryNow, mib.RetryAdviceFixFirst, mib.RetryAdviceRestoreFirst
	for _, c := range []struct {
		name      string
		policies  []string
		human     manager.Choice
		questions []manager.Question
		want      []manager.Choice
	}{
		{"advice to try again", []string{"advice"}, 0,
			[]manager.Question{question(120, 1, now, nil), question(120, 2, now, []manager.Choice{manager.Retry}), question(120, 3, now, []manager.Choice{manager.Retry})},
			[]manager.Choice{manager.GiveUp, manager.Retry, manager.GiveUp}},
		{"restored, so again", []string{"advice"}, 0, []manager.Question{question(160, 1, first, afterUpdate), question(160, 3, first, afterUpdate)},
			[]manager.Choice{manager.Retry, manager.GiveUp}},
		{"another file, once", []string{"advice", "other=other.iad", "give-up"}, 0,
			[]manager.Question{question(160, 1, fix, afterUpdate), question(160, 2, fix, afterUpdate)},
			[]manager.Choice{manager.OtherFile, manager.GiveUp}},
		{"another file is not for step 190", []string{"other=other.iad", "restore"}, 0,
			[]manager.Question{question(190, 1, fix, afterRecovery)}, []manager.Choice{manager.RestoreOld}},
		{"restored already", []string{"restore", "advice"}, 0, []manager.Question{question(160, 1, now, afterUpdate)}, []manager.Choice{manager.GiveUp}},
		{"edit, as often as retries", []string{"edit", "restore"}, 0,
			[]manager.Question{question(190, 2, fix, afterRecovery), question(190, 3, fix, afterRecovery)},
			[]manager.Choice{manager.Modify, manager.RestoreOld}},
		{"ask in the end", []string{"advice", "ask"}, manager.RestoreOld,
			[]manager.Question{question(190, 1, now, afterRecovery), question(190, 1, fix, afterRecovery)},
			[]manager.Choice{manager.Retry, manager.RestoreOld}},
		{"nobody to ask", []string{"ask"}, 0, []manager.Question{question(190, 1, now, afterRecovery)}, []manager.Choice{manager.GiveUp}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := &manager.Policies{Automatic: manager.Automatic{Retries: 2}}
			if c.human != 0 {
				p.Human = &scripted{t: t, answers: []manager.Answer{{Choice: c.human}}}
			}
			for _, name := range c.policies {
				policy, err := manager.ParsePolicy(name, open)
				if err != nil {
					t.Fatal(err)
				}
				p.List = append(p.List, policy)
			}
			for i, q := range c.questions {
				a, err := p.Ask(t.Context(), q)
				if err != nil || a.Choice != c.want[i] || (a.Choice == manager.OtherFile) != (a.Image == image) {
					t.Errorf("answer %d: %+v, %v; want %d", i, a, err, c.want[i])
				}
			}
		})
	}
	for _, bad := range []string{"", "Advice", "other", "other=nothing.iad", "advice=x", "other=other.iad=x"} {
		if p, err := manager.ParsePolicy(bad, open); err == nil {
			t.Errorf("%q is policy %+v", bad, p)
		}
	}
}

func TestAutomaticWaits(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	a := manager.Automatic{Retries: 1, Clock: fastClock{1000}}
	q := manager.Question{Step: 120, Attempt: 1, Advice: mib.RetryAdviceRetryLater, Choices: []manager.Choice{manager.Retry}}
	if answer, err := a.Ask(ctx, q); err != nil || answer.Choice != manager.Retry {
		t.Errorf("%v, %v", answer, err)
	}
	cancel()
	a.Clock = nil
	if _, err := a.Ask(ctx, q); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
	q.Failure = &manager.Failure{Cause: mib.FailCauseSelfTestFailed}
	q.Step, q.Advice = 160, mib.RetryAdviceRestoreFirst
	if answer, err := a.Ask(ctx, q); err != nil || answer.Choice != manager.GiveUp {
		t.Errorf("software that is not healthy is tried again: %v, %v", answer, err)
	}
}

func TestFleet(t *testing.T) {
	targets := []string{"a", "b", "c", "d", "e"}
	bad := errors.New("bad")
	t.Run("one failing stops nobody", func(t *testing.T) {
		var running, most atomic.Int32
		outcomes := batch.Runner{Parallel: 2}.Run(t.Context(), targets, func(_ context.Context, target string) error {
			most.Store(max(most.Load(), running.Add(1)))
			defer running.Add(-1)
			if target == "b" {
				return bad
			}
			return nil
		})
		if !slices.Equal(outcomes, []error{nil, bad, nil, nil, nil}) || most.Load() > 2 {
			t.Errorf("%v, %d at a time", outcomes, most.Load())
		}
	})
	t.Run("StopOnFailure", func(t *testing.T) {
		outcomes := batch.Runner{Parallel: 1, StopOnFailure: true}.Run(t.Context(), targets, func(_ context.Context, target string) error {
			if target == "b" {
				return bad
			}
			return nil
		})
		no := batch.ErrNotStarted
		if !slices.Equal(outcomes, []error{nil, bad, no, no, no}) {
			t.Errorf("%v", outcomes)
		}
	})
	t.Run("interrupted", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		outcomes := batch.Runner{Parallel: 1}.Run(ctx, targets, func(ctx context.Context, _ string) error {
			cancel()
			return ctx.Err()
		})
		if !errors.Is(outcomes[0], context.Canceled) || !errors.Is(outcomes[4], batch.ErrNotStarted) {
			t.Errorf("%v", outcomes)
		}
	})
}
