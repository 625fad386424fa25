package manager_test

import (
	"context"
	"errors"
	"net"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/afero"

	"example.com/iad/agent"
	"example.com/iad/manager"
	"example.com/iad/mib"
)

type agentConversion = agent.Conversion

func host(address string) string {
	h, _, _ := net.SplitHostPort(address)
	return h
}

func port(address string) uint16 {
	_, p, _ := net.SplitHostPort(address)
	n, _ := strconv.ParseUint(p, 10, 16)
	return uint16(n)
}

// interrupted runs a procedure until an update of a kind and step comes.
func (l *lab) interrupted(plan manager.Plan, operator manager.Operator, step manager.Step, kind manager.UpdateKind) {
	l.t.Helper()
	ctx, cancel := context.WithCancel(l.ctx)
	defer cancel()
	came := false
	_, err := manager.Upgrade(ctx, plan, operator, func(u manager.Update) {
		if u.Step == step && u.Kind == kind {
			came = true
			cancel()
		}
	})
	if !came || !errors.Is(err, context.Canceled) {
		l.t.Fatalf("not interrupted at %d %s: %v", step, kind, err)
	}
}

// Interrupted at any step and resumed, nothing that was done is done again.
func TestResume(t *testing.T) {
	for _, c := range []struct {
		name string
		step manager.Step
		kind manager.UpdateKind
	}{
		{"before the backup", 100, manager.StepBegins},
		{"in the backup", 110, manager.StepBegins},
		{"judging the backup", 120, manager.StepBegins},
		{"backup judged", 120, manager.StepEnds},
		{"before the update", 130, manager.StepBegins},
		{"in the update", 140, manager.Progressed},
		{"judging the update", 150, manager.StepBegins},
		{"before the recovery", 170, manager.StepBegins},
		{"in the recovery", 180, manager.StepBegins},
		{"judging the recovery", 190, manager.StepBegins},
		{"recovery judged", 190, manager.StepEnds},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, labOptions{})
			plan := l.plan(l.image("2.0.0", 2))
			plan.Journal = manager.NewJournal(afero.NewMemMapFs(), "TEST-0001")
			plan.Pace = &manager.Pace{Step: 5}
			pace, err := l.client.Pace(l.ctx)
			if err != nil {
				t.Fatal(err)
			}
			l.interrupted(plan, &scripted{t: t}, c.step, c.kind)
			plan.Resume, plan.Owner = true, "somebody else"
			result, err := manager.Upgrade(l.ctx, plan, &scripted{t: t}, l.observe)
			if err != nil {
				t.Fatal(err)
			}
			if result.OldVersion != "1.0.0" || result.NewVersion != "2.0.0" {
				t.Errorf("upgraded %s -> %s", result.OldVersion, result.NewVersion)
			}
			l.checkBackup(result)
			l.checkDoneOnce(pace)
			// Resumed once more there is nothing left to do.
			if _, err := manager.Upgrade(l.ctx, plan, &scripted{t: t}, nil); err != nil {
				t.Error(err)
			}
			l.checkDoneOnce(pace)
		})
	}
}

func (l *lab) checkDoneOnce(pace manager.Pace) {
	l.t.Helper()
	history, err := l.client.History(l.ctx)
	if err != nil {
		l.t.Fatal(err)
	}
	done := make(map[string]int)
	for _, h := range history {
		if h.State == mib.OperationStateSucceeded {
			done[h.Kind.String()]++
		}
	}
	want := map[string]int{"backupConfig": 1, "downloadSoftware": 1, "recoverConfig": 1}
	if diff := cmp.Diff(want, done); diff != "" {
		l.t.Errorf("operations that succeeded (-want +got):\n%s", diff)
	}
	if now, err := l.client.Pace(l.ctx); err != nil || now != pace {
		l.t.Errorf("reports progress every %v (%v), before: %v", now, err, pace)
	}
}

// Interrupted at step 160, the failure is not forgotten: the operator is asked
// again, and the software that failed is not tried again.
func TestResumeRestore(t *testing.T) {
	l := newLab(t, labOptions{})
	l.failTest["2.0.0"] = true
	plan := l.plan(l.image("2.0.0", 2))
	plan.Journal = manager.NewJournal(afero.NewMemMapFs(), "TEST-0001")
	l.interrupted(plan, &scripted{t: t}, 160, manager.StepBegins)
	plan.Resume = true
	operator := &scripted{t: t, answers: []manager.Answer{{Choice: manager.OtherFile, Image: l.image("2.0.1", 2)}}}
	result, err := manager.Upgrade(l.ctx, plan, operator, l.observe)
	if err != nil {
		t.Fatal(err)
	}
	if result.NewVersion != "2.0.1" || len(operator.asked) != 1 {
		t.Errorf("runs %s after %d questions", result.NewVersion, len(operator.asked))
	}
	if steps := l.steps(); steps[0] != 160 {
		t.Errorf("went on with step %d", steps[0])
	}
}

func TestJournalRefuses(t *testing.T) {
	l := newLab(t, labOptions{})
	files := afero.NewMemMapFs()
	plan := l.plan(l.image("2.0.0", 2))
	plan.Journal, plan.Resume = manager.NewJournal(files, "TEST-0001"), true
	resume := func() error {
		_, err := manager.Upgrade(l.ctx, plan, &scripted{t: t}, l.observe)
		return err
	}
	if err := resume(); !errors.Is(err, manager.ErrNoRecord) {
		t.Errorf("without a record: %v", err)
	}
	for content, want := range map[string]string{
		"{":             "damaged",
		`{"format":99}`: "format 99",
		`{"format":2,"device":"OTHER","image":"x.iad"}`: "device OTHER",
	} {
		if err := afero.WriteFile(files, plan.Journal.Name(), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := resume(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", content, err)
		}
	}
}
