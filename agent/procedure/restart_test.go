package procedure_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"example.com/iad/agent/procedure"
	"example.com/iad/mib"
)

const thenAll = procedure.ThenActivate | procedure.ThenReset

// A power cut in any phase before the switch ends the operation as interrupted,
// once, with its event.
func TestInterrupted(t *testing.T) {
	for _, c := range steps {
		t.Run(c.kind.String()+" "+c.step, func(t *testing.T) {
			run(t, func(l *lab) {
				if c.options.Has(procedure.ConvertFirst) {
					l.config.Format = 2
				}
				l.other = true
				l.hold(c.step)
				l.begin(c.kind, c.options)
				seq := l.now().Seq
				l.cut(nil)
				op := l.now().Op
				if c.kind == mib.OperationKindRestoreOldSoftware {
					l.expect(mib.OperationStateSucceeded, mib.OperationPhaseTrying, mib.FailCauseNone) // it runs: that goes on
					return
				}
				if op.State != mib.OperationStateFailed || op.Cause != mib.FailCauseInterrupted || op.Advice() != mib.RetryAdviceRetryNow {
					t.Errorf("%s, cause %s", op.State, op.Cause)
				}
				l.wantEvents(seq+1, mib.EventTypeRestarted, mib.EventTypeFailed)
				l.cut(nil)
				s := l.now()
				if len(s.History) != 1 || s.Op.ID != 1 {
					t.Errorf("history %+v", s.History)
				}
				l.wantEvents(seq+3, mib.EventTypeRestarted)
				l.begin(c.kind, c.options)
				if op := l.now().Op; op.ID != 2 || op.State != mib.OperationStateSucceeded {
					t.Errorf("commanded again: %s, cause %s", op.State, op.Cause)
				}
			})
		})
	}
}

func TestInterruptedWhileWaiting(t *testing.T) {
	run(t, func(l *lab) {
		if err := l.request(mib.OperationKindBackupConfig, func(p *procedure.Params) { p.Delay = 60 }); err != nil {
			t.Fatal(err)
		}
		time.Sleep(30 * time.Second)
		l.cut(nil)
		l.expect(mib.OperationStateFailed, mib.OperationPhaseNone, mib.FailCauseInterrupted)
	})
}

// Another event can leave state aborting in the journal.
func TestInterruptedWhileAborting(t *testing.T) {
	run(t, func(l *lab) {
		l.trial()
		l.deaf = true
		l.hold("connect")
		l.begin(mib.OperationKindBackupConfig, 0)
		l.begin(mib.OperationKindAbort, 0)
		l.expect(mib.OperationStateAborting, mib.OperationPhaseConnecting, mib.FailCauseNone)
		l.begin(mib.OperationKindConfirm, 0)
		l.cut(nil)
		l.expect(mib.OperationStateFailed, mib.OperationPhaseConnecting, mib.FailCauseInterrupted)
	})
}

// The operation that causes a restart carries the verdict on it.
func TestVerdictAfterRestart(t *testing.T) {
	for _, c := range []struct {
		name    string
		kind    mib.OperationKind
		options procedure.Options
		boot    func(*procedure.BankStatus)
		state   mib.OperationState
		phase   mib.OperationPhase
		cause   mib.FailCause
		reason  mib.RestartReasonEnum // of the restart
		shown   mib.RestartReasonEnum // after it
	}{
		{"download", mib.OperationKindDownloadSoftware, thenAll, nil,
			mib.OperationStateSucceeded, mib.OperationPhaseTrying, mib.FailCauseNone, mib.RestartReasonActivation, mib.RestartReasonActivation},
		{"activate", mib.OperationKindActivate, procedure.ThenReset, nil,
			mib.OperationStateSucceeded, mib.OperationPhaseTrying, mib.FailCauseNone, mib.RestartReasonActivation, mib.RestartReasonActivation},
		{"activate, boot fails", mib.OperationKindActivate, procedure.ThenReset, fellBack,
			mib.OperationStateFailed, mib.OperationPhaseRestarting, mib.FailCauseBootFailed, mib.RestartReasonActivation, mib.RestartReasonRollback},
		{"activate, no reason known", mib.OperationKindActivate, procedure.ThenReset,
			func(b *procedure.BankStatus) {
				fellBack(b)
				b.Banks[1].Cause = 0
			},
			mib.OperationStateFailed, mib.OperationPhaseRestarting, mib.FailCauseBootFailed, mib.RestartReasonActivation, mib.RestartReasonRollback},
		{"activate, other bank runs", mib.OperationKindActivate, procedure.ThenReset,
			func(b *procedure.BankStatus) { b.Running, b.Next, b.Banks[1].State = 1, 1, mib.BankStateReady },
			mib.OperationStateFailed, mib.OperationPhaseRestarting, mib.FailCauseBootFailed, mib.RestartReasonActivation, mib.RestartReasonActivation},
		{"activate, confirmed before", mib.OperationKindActivate, procedure.ThenReset,
			func(b *procedure.BankStatus) { b.Banks[1].State = mib.BankStateGood },
			mib.OperationStateSucceeded, mib.OperationPhaseRestarting, mib.FailCauseNone, mib.RestartReasonActivation, mib.RestartReasonActivation},
		{"reset", mib.OperationKindReset, 0, nil,
			mib.OperationStateSucceeded, mib.OperationPhaseRestarting, mib.FailCauseNone, mib.RestartReasonCommanded, mib.RestartReasonCommanded},
		{"recover", mib.OperationKindRecoverConfig, procedure.ThenReset, nil,
			mib.OperationStateSucceeded, mib.OperationPhaseRestarting, mib.FailCauseNone, mib.RestartReasonCommanded, mib.RestartReasonCommanded},
	} {
		t.Run(c.name, func(t *testing.T) {
			run(t, func(l *lab) {
				l.begin(c.kind, c.options)
				op := l.expect(mib.OperationStateRestarting, mib.OperationPhaseRestarting, mib.FailCauseNone)
				if op.Percent == 100 {
					t.Error("100 percent before the end")
				}
				events := l.now().Events
				if last := events[len(events)-1]; last.Type != mib.EventTypeRestarting || last.Op.ID != 1 || last.TimeLeft == 0 {
					t.Errorf("event %+v", last)
				}
				seq := l.now().Seq
				if r := l.restart(c.boot); r != c.reason {
					t.Errorf("reason %s", r)
				}
				l.expect(c.state, c.phase, c.cause)
				s := l.now()
				if s.Reason != c.shown || len(s.History) != 1 || s.Restarts != 2 {
					t.Errorf("reason %s, history %d, restarts %d", s.Reason, len(s.History), s.Restarts)
				}
				types := l.events(seq + 1)
				if i := slices.Index(types, mib.EventTypeRestarted); i < 0 || (types[0] == mib.EventTypeRolledBack) != (c.shown == mib.RestartReasonRollback) {
					t.Errorf("events %v", types)
				}
			})
		})
	}
}

// A cut right after the switch: the new bank starts, and the trial goes on.
func TestCutBehindTheSwitch(t *testing.T) {
	for _, options := range []procedure.Options{0, procedure.ThenReset} {
		run(t, func(l *lab) {
			l.hold("activate")
			l.begin(mib.OperationKindActivate, options)
			l.cut(func(b *procedure.BankStatus) {
				b.Banks[1].State, b.Running, b.Next, b.Fallback = mib.BankStateTrial, 2, 2, 1
			})
			op := l.now().Op
			if op.State != mib.OperationStateSucceeded || l.now().Banks.Banks[1].State != mib.BankStateGood || l.called("selftest") != 1 {
				t.Errorf("options %s: %s in phase %s, self-tests %d", options, op.State, op.Phase, l.called("selftest"))
			}
		})
	}
}

// A cut during the trial: it is taken up again.
func TestCutDuringTheTrial(t *testing.T) {
	run(t, func(l *lab) {
		l.begin(mib.OperationKindActivate, procedure.ThenReset)
		l.hold("selftest")
		<-l.ended
		l.banks.Running = 2
		l.start()
		l.expect(mib.OperationStateRunning, mib.OperationPhaseTrying, mib.FailCauseNone)
		l.cut(nil)
		l.expect(mib.OperationStateSucceeded, mib.OperationPhaseTrying, mib.FailCauseNone)
	})
}

// A reset that was about to come took place by the power cut.
func TestResetByPowerCut(t *testing.T) {
	run(t, func(l *lab) {
		l.begin(mib.OperationKindReset, 0)
		l.cut(nil)
		l.expect(mib.OperationStateSucceeded, mib.OperationPhaseRestarting, mib.FailCauseNone)
	})
}

// old makes the device run confirmed software 2.0.0 with 1.0.0 to go back to.
func (l *lab) old() {
	l.banks.Banks[1].State = mib.BankStateGood
	l.banks.Running, l.banks.Next, l.banks.Fallback = 2, 2, 1
}

func TestRestoreOldSoftware(t *testing.T) {
	run(t, func(l *lab) {
		l.old()
		l.begin(mib.OperationKindRestoreOldSoftware, 0)
		l.expect(mib.OperationStateRestarting, mib.OperationPhaseRestarting, mib.FailCauseNone)
		if r := l.restart(nil); r != mib.RestartReasonRollback {
			t.Errorf("reason %s", r)
		}
		op := l.expect(mib.OperationStateSucceeded, mib.OperationPhaseTrying, mib.FailCauseNone)
		if op.Bank != 1 || op.OldVersion != "2.0.0" || op.NewVersion != "1.0.0" || l.called("selftest") != 1 {
			t.Errorf("operation %+v", op)
		}
		l.begin(mib.OperationKindRestoreOldSoftware, 0) // it runs already
		l.expect(mib.OperationStateSucceeded, mib.OperationPhaseSwitching, mib.FailCauseNone)
	})
	run(t, func(l *lab) { // the old software is not healthy either
		l.old()
		l.failing("selftest", coded(mib.FailCauseSelfTestFailed))
		l.begin(mib.OperationKindRestoreOldSoftware, 0)
		l.restart(nil)
		l.expect(mib.OperationStateFailed, mib.OperationPhaseTrying, mib.FailCauseSelfTestFailed)
		if l.now().Banks.Running != 1 {
			t.Error("left the old software")
		}
	})
	run(t, func(l *lab) { // the boot loader chose otherwise
		l.old()
		l.begin(mib.OperationKindRestoreOldSoftware, 0)
		l.restart(func(b *procedure.BankStatus) { b.Running = 2 })
		l.expect(mib.OperationStateFailed, mib.OperationPhaseRestarting, mib.FailCauseRollbackFailed)
	})
	run(t, func(l *lab) { // nothing to go back to, found out late
		l.old()
		if err := l.request(mib.OperationKindRestoreOldSoftware, func(p *procedure.Params) { p.Delay = 10 }); err != nil {
			t.Fatal(err)
		}
		l.set(func() { l.banks.Banks[0].State = mib.BankStateCorrupt })
		time.Sleep(time.Minute)
		l.expect(mib.OperationStateFailed, mib.OperationPhaseChecking, mib.FailCauseNoFallback)
	})
}

// The device reports what caused the restart; the hardware reports its own causes.
func TestRestartReason(t *testing.T) {
	run(t, func(l *lab) {
		l.cfg.BootReason = mib.RestartReasonWatchdog
		l.cfg.Findings = []string{"journal: copy 1 is corrupt"}
		l.cut(nil)
		s := l.now()
		ev := s.Events[len(s.Events)-1]
		if s.Reason != mib.RestartReasonWatchdog || ev.Reason != mib.RestartReasonWatchdog || ev.Text != l.cfg.Findings[0] || ev.Restarts != 2 || ev.Software != "1.0.0" {
			t.Errorf("reason %s, event %+v", s.Reason, ev)
		}
	})
}

// Something is said of each finding, and a short one is not cut for the sake of long ones.
func TestManyFindings(t *testing.T) {
	for n := 1; n <= 8; n++ {
		run(t, func(l *lab) {
			l.cfg.Findings = []string{"boot record lost"}
			for i := range n {
				l.cfg.Findings = append(l.cfg.Findings, fmt.Sprintf("gen. %d äöü ", i)+strings.Repeat("very long ", 20))
			}
			l.cut(nil)
			s := l.now()
			text := s.Events[len(s.Events)-1].Text
			if parts := strings.Split(text, "; "); len(parts) != n+1 || parts[0] != "boot record lost" && n < 7 || len(text) > 128 || !utf8.ValidString(text) {
				t.Errorf("%d findings: %q", n+1, text)
			}
			for i := range n {
				if !strings.Contains(text, fmt.Sprintf("gen. %d", i)) {
					t.Errorf("%d findings: no %d in %q", n+1, i, text)
				}
			}
		})
	}
}

// Elapsed time goes on over a restart.
func TestElapsedOverRestart(t *testing.T) {
	run(t, func(l *lab) {
		l.hold("check")
		l.begin(mib.OperationKindActivate, procedure.ThenReset)
		time.Sleep(20 * time.Second)
		l.release("check")
		<-l.ended
		l.hold("selftest")
		time.Sleep(time.Hour) // off
		l.banks.Running = 2
		l.start()
		time.Sleep(5 * time.Second)
		if s := l.now(); s.Elapsed() != 25 {
			t.Errorf("elapsed %d s", s.Elapsed())
		}
		l.release("selftest")
		if op := l.expect(mib.OperationStateSucceeded, mib.OperationPhaseTrying, mib.FailCauseNone); op.Elapsed != 25 {
			t.Errorf("elapsed %d s", op.Elapsed)
		}
	})
}

// A restart waits for its events to leave, but not for ever; what was sent is
// not sent again.
func TestGrace(t *testing.T) {
	run(t, func(l *lab) {
		start := time.Now()
		l.begin(mib.OperationKindReset, 0)
		l.e.Sent(l.now().Seq)
		l.restart(nil)
		if d := time.Since(start); d != 0 {
			t.Errorf("waited %v", d)
		}
		s := l.now()
		if s.Sent != s.Seq-2 { // restarted and completed are new
			t.Errorf("sent %d of %d", s.Sent, s.Seq)
		}
		start = time.Now()
		l.begin(mib.OperationKindReset, 0)
		l.restart(nil)
		if d := time.Since(start); d != 3*time.Second {
			t.Errorf("waited %v", d)
		}
	})
}
