package procedure_test

import (
	"testing"
	"time"

	"example.com/iad/agent/procedure"
	"example.com/iad/mib"
)

// Software on trial that passes its self-test keeps its tries, and each start costs
// at least a twentieth of the confirm window: a loop of crashes ends.
func TestCrashLoopEndsTheTrial(t *testing.T) {
	run(t, func(l *lab) {
		l.trial()
		for start := 2; start <= 20; start++ {
			time.Sleep(2 * time.Second)
			l.cut(nil)
			if left := l.now().ConfirmLeft(); left != uint32(600-30*(start-1)) {
				t.Fatalf("start %d: %d s left", start, left)
			}
		}
		if l.tested() != 20 {
			t.Errorf("%d of 20 starts recorded that the self-test has passed", l.tested())
		}
		seq := l.now().Seq
		l.cut(nil) // start 21
		if r := l.restart(nil); r != mib.RestartReasonRollback {
			t.Errorf("reason %s", r)
		}
		l.wantEvents(seq+1, mib.EventTypeRestarted, mib.EventTypeRestarting, mib.EventTypeRolledBack, mib.EventTypeRestarted)
		s := l.now()
		if ev := s.Events[len(s.Events)-2]; s.Banks.Running != 1 || ev.Cause != mib.FailCauseConfirmTimeout {
			t.Errorf("bank %d runs; event %+v", s.Banks.Running, ev)
		}
	})
}

// The window goes on after a power cut too; what is used of it is journaled at its
// tenths and no more often.
func TestConfirmWindowOverPowerCuts(t *testing.T) {
	run(t, func(l *lab) {
		l.trial()
		before := l.writes()
		time.Sleep(299 * time.Second)
		if n := l.writes() - before; n != 4 {
			t.Errorf("the journal was written %d times in 299 s of 600", n)
		}
		l.cut(nil)
		if left := l.now().ConfirmLeft(); left != 360 {
			t.Errorf("%d s left", left)
		}
		time.Sleep(360 * time.Second)
		if r := l.restart(nil); r != mib.RestartReasonRollback {
			t.Errorf("reason %s", r)
		}
	})
}

// A passed self-test that could not be recorded is recorded later.
func TestPassedSelfTestNotRecorded(t *testing.T) {
	run(t, func(l *lab) {
		l.failing("tested", errFull, errFull)
		l.trial()
		time.Sleep(16 * time.Second)
		if l.tested() != 3 {
			t.Errorf("tried %d times", l.tested())
		}
		time.Sleep(100 * time.Second)
		if l.tested() != 3 {
			t.Errorf("recorded again and again, %d times", l.tested())
		}
	})
}

// A restart by command fails if the device comes back with other software.
func TestResetToOtherSoftware(t *testing.T) {
	corrupt := func(b *procedure.BankStatus) {
		fellBack(b)
		b.Banks[1].State, b.Banks[1].Cause = mib.BankStateCorrupt, mib.FailCauseDigestMismatch
	}
	for _, c := range []struct {
		name    string
		prepare func(l *lab)
		kind    mib.OperationKind
		options procedure.Options
		boot    func(*procedure.BankStatus)
		cause   mib.FailCause
	}{
		{"reset in a trial", (*lab).trial, mib.OperationKindReset, 0, fellBack, mib.FailCauseOther},
		{"reset, software damaged", (*lab).old, mib.OperationKindReset, 0, corrupt, mib.FailCauseDigestMismatch},
		{"recovery in a trial", (*lab).trial, mib.OperationKindRecoverConfig, procedure.ThenReset, fellBack, mib.FailCauseOther},
		{"reset after an activation", func(l *lab) { l.begin(mib.OperationKindActivate, 0) }, mib.OperationKindReset, 0, fellBack, mib.FailCauseOther},
	} {
		t.Run(c.name, func(t *testing.T) {
			run(t, func(l *lab) {
				c.prepare(l)
				l.begin(c.kind, c.options)
				l.restart(c.boot)
				op := l.now().Op
				if op.State != mib.OperationStateFailed || op.Cause != c.cause || op.Text == "" {
					t.Errorf("%s is %s: %s %q", op.Kind, op.State, op.Cause, op.Text)
				}
			})
		})
	}
	t.Run("the window is over", func(t *testing.T) {
		run(t, func(l *lab) {
			l.trial()
			l.settings(func(s *procedure.Settings) { s.ConfirmWindow = 30 })
			for _, s := range []time.Duration{10, 10, 9} {
				time.Sleep(s * time.Second)
				l.begin(mib.OperationKindReset, 0)
				l.restart(nil)
			}
			if op := l.now().Op; op.Kind != mib.OperationKindReset || op.State != mib.OperationStateFailed || op.Cause != mib.FailCauseConfirmTimeout {
				t.Errorf("%s is %s: %s", op.Kind, op.State, op.Cause)
			}
			if r := l.restart(nil); r != mib.RestartReasonRollback || l.now().Banks.Running != 1 {
				t.Errorf("reason %s", r)
			}
		})
	})
}

// tested is how often it was recorded that the self-test has passed.
func (l *lab) tested() (n int) {
	l.set(func() { n = l.calls["tested"] })
	return n
}

// writes is how often the journal was written; the engine writes before or after.
func (l *lab) writes() int {
	l.e.Sync()
	defer l.e.Sync()
	return l.journal.writes
}
