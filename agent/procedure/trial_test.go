package procedure_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"example.com/iad/agent/procedure"
	"example.com/iad/mib"
)

// trial brings the device to software 2.0.0 on trial, which a manager has to
// confirm.
func (l *lab) trial() {
	l.t.Helper()
	l.settings(func(s *procedure.Settings) { s.ConfirmMode = mib.ConfirmModeManager })
	l.begin(mib.OperationKindActivate, procedure.ThenReset)
	l.restart(nil)
	l.expect(mib.OperationStateSucceeded, mib.OperationPhaseTrying, mib.FailCauseNone)
	if s := l.now(); s.Banks.Banks[1].State != mib.BankStateTrial || s.ConfirmLeft() != 600 {
		l.t.Fatalf("bank is %d, %d s left", s.Banks.Banks[1].State, s.ConfirmLeft())
	}
}

func TestConfirmByDevice(t *testing.T) {
	run(t, func(l *lab) {
		l.begin(mib.OperationKindActivate, procedure.ThenReset)
		seq := l.now().Seq
		l.restart(nil)
		s := l.now()
		if s.Banks.Banks[1].State != mib.BankStateGood || s.ConfirmLeft() != 0 {
			t.Errorf("bank is %d, %d s left", s.Banks.Banks[1].State, s.ConfirmLeft())
		}
		l.wantEvents(seq+1, mib.EventTypeRestarted, mib.EventTypeBankSwitched, mib.EventTypeCompleted)
		if ev := s.Events[len(s.Events)-2]; ev.Bank != 2 || ev.Op.ID != 1 || ev.BankInfo.State != mib.BankStateGood {
			t.Errorf("event %+v", ev)
		}
	})
}

func TestConfirmByManager(t *testing.T) {
	run(t, func(l *lab) {
		l.trial()
		l.refused(l.request(mib.OperationKindDownloadSoftware, nil), procedure.Inconsistent, mib.FailCauseBankUnavailable)
		l.refused(l.request(mib.OperationKindActivate, nil), procedure.Inconsistent, mib.FailCauseBankUnavailable)
		time.Sleep(100 * time.Second)
		if left := l.now().ConfirmLeft(); left != 500 {
			t.Errorf("%d s left", left)
		}
		l.hold("connect")
		if err := l.request(mib.OperationKindBackupConfig, func(p *procedure.Params) { p.ReqID = 77 }); err != nil { // others may be carried out
			t.Fatal(err)
		}
		seq := l.now().Seq
		l.begin(mib.OperationKindConfirm, 0)
		s := l.now()
		if s.Banks.Banks[1].State != mib.BankStateGood || s.ConfirmLeft() != 0 || s.Op.ID != 2 || s.Op.Kind != mib.OperationKindBackupConfig {
			t.Errorf("bank is %d, %d s left, operation %d", s.Banks.Banks[1].State, s.ConfirmLeft(), s.Op.ID)
		}
		l.wantEvents(seq+1, mib.EventTypeBankSwitched)
		if ev := s.Events[len(s.Events)-1]; ev.Op.ID != 1 || ev.Op.Kind != mib.OperationKindActivate || ev.Op.Params.ReqID != 0 {
			t.Errorf("the confirmation belongs to the operation that activated, not to %+v", ev.Op)
		}
		l.release("connect")
		l.begin(mib.OperationKindConfirm, 0) // none is on trial: succeeds
		time.Sleep(time.Hour)
		l.expect(mib.OperationStateSucceeded, mib.OperationPhaseVerifying, mib.FailCauseNone)
	})
}

// Confirm is refused until the self-test has passed.
func TestConfirmTooEarly(t *testing.T) {
	run(t, func(l *lab) {
		l.settings(func(s *procedure.Settings) { s.ConfirmMode = mib.ConfirmModeManager })
		l.begin(mib.OperationKindActivate, procedure.ThenReset)
		<-l.ended
		l.banks.Running = 2
		l.hold("selftest")
		l.start()
		l.refused(l.request(mib.OperationKindConfirm, nil), procedure.Inconsistent, mib.FailCausePreconditionMissing)
		l.release("selftest")
		l.begin(mib.OperationKindConfirm, 0)
		if l.now().Banks.Banks[1].State != mib.BankStateGood {
			t.Error("not confirmed")
		}
	})
}

// Leaving the decision to the device after the self-test makes it decide.
func TestConfirmModeChanged(t *testing.T) {
	run(t, func(l *lab) {
		l.trial()
		l.settings(func(s *procedure.Settings) { s.ConfirmMode = mib.ConfirmModeAutomatic })
		if l.now().Banks.Banks[1].State != mib.BankStateGood {
			t.Error("not confirmed")
		}
	})
}

// A confirmation that could not be recorded is tried again.
func TestConfirmAgain(t *testing.T) {
	run(t, func(l *lab) {
		l.failing("confirm", errFull, errFull)
		l.begin(mib.OperationKindActivate, procedure.ThenReset)
		l.restart(nil)
		l.expect(mib.OperationStateSucceeded, mib.OperationPhaseTrying, mib.FailCauseNone)
		if l.now().Banks.Banks[1].State != mib.BankStateTrial {
			t.Error("confirmed without a record")
		}
		time.Sleep(15 * time.Second)
		if s := l.now(); s.Banks.Banks[1].State != mib.BankStateGood || s.ConfirmLeft() != 0 {
			t.Error("not confirmed")
		}
	})
}

// What cannot be recorded for long is tried more and more seldom: each try may wear the boot loader's medium. Once it can be, it
// is within a minute.
func TestRecordPause(t *testing.T) {
	for step, mode := range map[string]mib.ConfirmModeEnum{"confirm": mib.ConfirmModeAutomatic, "tested": mib.ConfirmModeManager} {
		run(t, func(l *lab) {
			l.settings(func(s *procedure.Settings) { s.ConfirmMode, s.ConfirmWindow = mode, 4*3600 })
			l.failing(step, slices.Repeat([]error{errFull}, 1000)...)
			l.begin(mib.OperationKindActivate, procedure.ThenReset)
			l.restart(nil)
			time.Sleep(3 * time.Hour)
			if n := l.called(step); n < 180 || n > 190 {
				t.Errorf("%s: %d tries in three hours", step, n)
			}
			before := l.called(step)
			l.set(func() { l.fails[step] = nil })
			time.Sleep(time.Minute)
			if n := l.called(step); n != before+1 {
				t.Errorf("%s: %d tries after there is room", step, n-before)
			}
			time.Sleep(10 * time.Minute)
			if n := l.called(step); n != before+1 {
				t.Errorf("%s: %d tries after it was recorded", step, n-before)
			}
		})
	}
}

// At the end of the window the device goes back, and what is running fails.
func TestConfirmWindow(t *testing.T) {
	run(t, func(l *lab) {
		l.trial()
		l.hold("connect")
		time.Sleep(500 * time.Second)
		l.begin(mib.OperationKindBackupConfig, 0)
		seq := l.now().Seq
		time.Sleep(100 * time.Second)
		l.expect(mib.OperationStateFailed, mib.OperationPhaseConnecting, mib.FailCauseConfirmTimeout)
		if r := l.restart(nil); r != mib.RestartReasonRollback {
			t.Errorf("reason %s", r)
		}
		l.wantEvents(seq+1, mib.EventTypeFailed, mib.EventTypeRestarting, mib.EventTypeRolledBack, mib.EventTypeRestarted)
		s := l.now()
		if ev := s.Events[len(s.Events)-2]; ev.Bank != 2 || ev.Cause != mib.FailCauseConfirmTimeout || ev.Op.ID != 1 || ev.Software != "1.0.0" {
			t.Errorf("event %+v", ev)
		}
		if s.Banks.Running != 1 || s.Banks.Banks[1].State != mib.BankStateFailed || s.Reason != mib.RestartReasonRollback {
			t.Errorf("bank %d runs, bank 2 is %d, reason %s", s.Banks.Running, s.Banks.Banks[1].State, s.Reason)
		}
		l.cut(nil)
		if s := l.now(); s.Reason != mib.RestartReasonPowerOn || s.Events[len(s.Events)-2].Type != mib.EventTypeRestarted {
			t.Errorf("rolled back twice: %v", l.events(seq))
		}
	})
}

// The window goes on over a restart; it does not begin anew.
func TestConfirmWindowOverRestart(t *testing.T) {
	run(t, func(l *lab) {
		l.trial()
		time.Sleep(400 * time.Second)
		l.begin(mib.OperationKindReset, 0)
		l.restart(nil)
		if left := l.now().ConfirmLeft(); left != 200 {
			t.Errorf("%d s left", left)
		}
		time.Sleep(200 * time.Second)
		if r := l.restart(nil); r != mib.RestartReasonRollback {
			t.Errorf("reason %s", r)
		}
	})
}

// An operation that is past the point of no return is waited for, then the
// device goes back.
func TestConfirmWindowWaitsForWork(t *testing.T) {
	run(t, func(l *lab) {
		l.trial()
		l.hold("apply")
		l.begin(mib.OperationKindRecoverConfig, 0)
		time.Sleep(600 * time.Second)
		l.expect(mib.OperationStateRunning, mib.OperationPhaseApplying, mib.FailCauseNone)
		l.begin(mib.OperationKindConfirm, 0) // too late
		l.release("apply")
		l.expect(mib.OperationStateSucceeded, mib.OperationPhaseApplying, mib.FailCauseNone)
		l.restart(nil)
		if l.now().Banks.Running != 1 {
			t.Error("the trial was not given up")
		}
	})
}

// Going back by command at the end of the window happens once.
func TestConfirmWindowAtRestore(t *testing.T) {
	run(t, func(l *lab) {
		l.trial()
		l.hold("restore")
		l.begin(mib.OperationKindRestoreOldSoftware, 0)
		time.Sleep(600 * time.Second)
		l.release("restore")
		l.expect(mib.OperationStateRestarting, mib.OperationPhaseRestarting, mib.FailCauseNone)
		l.restart(nil)
		l.expect(mib.OperationStateSucceeded, mib.OperationPhaseTrying, mib.FailCauseNone)
		if l.called("giveup") != 0 {
			t.Error("given up as well")
		}
	})
}

// Software that fails its self-test is given up; the operation fails once the
// old software runs again, with the reason.
func TestSelfTestFails(t *testing.T) {
	for name, err := range map[string]error{
		"without a cause": errors.New("no dial tone on port 3"),
		"with a cause":    coded(mib.FailCauseSelfTestFailed),
	} {
		t.Run(name, func(t *testing.T) {
			run(t, func(l *lab) {
				l.failing("selftest", err)
				l.begin(mib.OperationKindDownloadSoftware, thenAll)
				<-l.ended
				l.banks.Running = 2
				l.start()
				op := l.now().Op
				if op.State != mib.OperationStateRestarting {
					t.Fatalf("%s in phase %s", op.State, op.Phase)
				}
				seq := l.now().Seq
				if r := l.restart(nil); r != mib.RestartReasonRollback {
					t.Errorf("reason %s", r)
				}
				op = l.expect(mib.OperationStateFailed, mib.OperationPhaseRestarting, mib.FailCauseSelfTestFailed)
				if op.Text != err.Error() || op.Advice() != mib.RetryAdviceDoNotRetry {
					t.Errorf("text %q, advice %s", op.Text, op.Advice())
				}
				l.wantEvents(seq+1, mib.EventTypeRolledBack, mib.EventTypeRestarted, mib.EventTypeFailed)
			})
		})
	}
}

// Software that was activated earlier is tested after any start.
func TestTrialWithoutOperation(t *testing.T) {
	run(t, func(l *lab) {
		l.begin(mib.OperationKindActivate, 0)
		l.hold("selftest")
		l.stop()
		l.banks.Running = 2
		l.start()
		l.expect(mib.OperationStateSucceeded, mib.OperationPhaseSwitching, mib.FailCauseNone)
		l.failing("selftest", coded(mib.FailCauseSelfTestFailed))
		l.release("selftest")
		l.restart(nil)
		if s := l.now(); s.Banks.Running != 1 || s.Events[len(s.Events)-2].Type != mib.EventTypeRolledBack {
			t.Errorf("bank %d runs", s.Banks.Running)
		}
	})
}

// A device that cannot record that it gives up restarts all the same: the tries
// of the boot loader end the trial.
func TestGiveUpNotRecorded(t *testing.T) {
	run(t, func(l *lab) {
		l.trial()
		l.failing("giveup", errFull)
		time.Sleep(600 * time.Second)
		if r := l.restart(fellBack); r != mib.RestartReasonRollback {
			t.Errorf("reason %s", r)
		}
	})
}

// A window that was over stays so if the power fails before that is recorded.
func TestConfirmWindowOverThenCut(t *testing.T) {
	run(t, func(l *lab) {
		l.trial()
		l.hold("connect")
		time.Sleep(500 * time.Second)
		l.begin(mib.OperationKindBackupConfig, 0)
		l.failing("giveup", errFull) // as if it had never been written
		time.Sleep(100 * time.Second)
		l.expect(mib.OperationStateFailed, mib.OperationPhaseConnecting, mib.FailCauseConfirmTimeout)
		l.cut(nil)
		if s := l.now(); s.Banks.Running != 2 || s.ConfirmLeft() > 1 {
			t.Errorf("bank %d runs, %d s left", s.Banks.Running, s.ConfirmLeft())
		}
		time.Sleep(time.Second)
		l.restart(fellBack)
	})
}

// Software on trial that is not, or no longer, in the journal is reported when
// it is given up, and has a whole confirm window.
func TestTrialNotInTheJournal(t *testing.T) {
	for name, lose := range map[string]func(l *lab){
		"journal lost": func(l *lab) { l.trial(); l.stop(); l.journal.data = nil; l.boot(nil) },
		// The boot record was rebuilt: the bank with the newer software is on trial.
		"boot record lost": func(l *lab) {
			l.begin(mib.OperationKindBackupConfig, procedure.CheckOnly)
			l.settings(func(s *procedure.Settings) { s.ConfirmMode = mib.ConfirmModeManager })
			l.cut(func(b *procedure.BankStatus) {
				b.Running, b.Next, b.Fallback, b.Banks[1].State = 2, 2, 1, mib.BankStateTrial
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, func(l *lab) {
				lose(l)
				if s := l.now(); !s.Banks.OnTrial() || s.ConfirmLeft() != 600 {
					t.Fatalf("on trial %v, %d s left", s.Banks.OnTrial(), s.ConfirmLeft())
				}
				seq := l.now().Seq
				l.cut(fellBack)
				l.wantEvents(seq+1, mib.EventTypeRolledBack, mib.EventTypeRestarted)
				s := l.now()
				if ev := s.Events[len(s.Events)-2]; ev.Bank != 2 || ev.Op.ID != 0 || ev.Cause != mib.FailCauseBootFailed || s.Reason != mib.RestartReasonRollback {
					t.Errorf("event %+v, reason %s", ev, s.Reason)
				}
				l.cut(nil) // what was journaled can be read
				if now := l.now(); now.Seq != s.Seq+1 || now.Restarts != s.Restarts+1 {
					t.Errorf("event %d, start %d", now.Seq, now.Restarts)
				}
			})
		})
	}
}

// A device that needs no reset takes new software over, tests and confirms it.
func TestTakeOver(t *testing.T) {
	run(t, func(l *lab) {
		l.over = true
		l.banks.Banks[0].NeedsReset, l.banks.Banks[1].NeedsReset = false, false
		seq := l.now().Seq
		l.begin(mib.OperationKindActivate, 0)
		l.expect(mib.OperationStateSucceeded, mib.OperationPhaseTrying, mib.FailCauseNone)
		s := l.now()
		if s.Banks.Running != 2 || s.Banks.Banks[1].State != mib.BankStateGood || s.ResetRequired() || s.Restarts != 1 || l.called("selftest") != 1 {
			t.Errorf("bank %d runs, bank 2 is %d", s.Banks.Running, s.Banks.Banks[1].State)
		}
		l.wantEvents(seq+1, mib.EventTypeStarted, mib.EventTypeBankSwitched, mib.EventTypeBankSwitched, mib.EventTypeCompleted)
	})
}

// There, too, a manager may have the say, within the window.
func TestTakeOverConfirmWindow(t *testing.T) {
	run(t, func(l *lab) {
		l.over = true
		l.banks.Banks[0].NeedsReset, l.banks.Banks[1].NeedsReset = false, false
		l.settings(func(s *procedure.Settings) { s.ConfirmMode, s.ConfirmWindow = mib.ConfirmModeManager, 60 })
		l.begin(mib.OperationKindActivate, 0)
		if left := l.now().ConfirmLeft(); left != 60 {
			t.Fatalf("%d s left", left)
		}
		l.hold("takeover")
		time.Sleep(time.Minute)
		l.refused(l.request(mib.OperationKindBackupConfig, nil), procedure.Unavailable, mib.FailCauseBusy)
		l.release("takeover")
		s := l.now()
		if s.Banks.Running != 1 || s.Restarts != 1 || s.Events[len(s.Events)-1].Type != mib.EventTypeRolledBack {
			t.Errorf("bank %d runs, restarts %d, events %v", s.Banks.Running, s.Restarts, l.events(1))
		}
		l.begin(mib.OperationKindBackupConfig, 0)
	})
}

func TestTakeOverSelfTestFails(t *testing.T) {
	run(t, func(l *lab) {
		l.over = true
		l.banks.Banks[0].NeedsReset, l.banks.Banks[1].NeedsReset = false, false
		l.failing("selftest", errors.New("sick"))
		l.begin(mib.OperationKindActivate, 0)
		op := l.expect(mib.OperationStateFailed, mib.OperationPhaseTrying, mib.FailCauseSelfTestFailed)
		if s := l.now(); s.Banks.Running != 1 || op.Text != "sick" || s.ResetRequired() {
			t.Errorf("bank %d runs, text %q", s.Banks.Running, op.Text)
		}
	})
	run(t, func(l *lab) { // the way back needs a restart after all
		l.over = true
		l.banks.Banks[0].NeedsReset, l.banks.Banks[1].NeedsReset = false, false
		l.failing("selftest", errors.New("sick"))
		l.failing("takeover", nil, errFull)
		l.begin(mib.OperationKindActivate, 0)
		l.restart(nil)
		l.expect(mib.OperationStateFailed, mib.OperationPhaseRestarting, mib.FailCauseSelfTestFailed)
	})
}

// Software that cannot be taken over leaves everything as it was.
func TestTakeOverFails(t *testing.T) {
	run(t, func(l *lab) {
		l.over = true
		l.banks.Banks[0].NeedsReset, l.banks.Banks[1].NeedsReset = false, false
		l.failing("takeover", coded(mib.FailCauseBootFailed))
		l.begin(mib.OperationKindActivate, 0)
		l.expect(mib.OperationStateFailed, mib.OperationPhaseTrying, mib.FailCauseBootFailed)
		if s := l.now(); s.Banks.Running != 1 || s.Banks.Next != 1 || s.Banks.Banks[0].State != mib.BankStateGood || l.called("giveup") != 0 {
			t.Errorf("banks %+v", s.Banks)
		}
	})
}

// Where the hardware knows that the watchdog ended the trial, that is the cause.
func TestWatchdogEndsTrial(t *testing.T) {
	run(t, func(l *lab) {
		l.cfg.BootReason = mib.RestartReasonWatchdog
		l.begin(mib.OperationKindActivate, procedure.ThenReset)
		l.restart(fellBack)
		l.expect(mib.OperationStateFailed, mib.OperationPhaseRestarting, mib.FailCauseWatchdogReset)
		s := l.now()
		if ev := s.Events[len(s.Events)-3]; ev.Type != mib.EventTypeRolledBack || ev.Cause != mib.FailCauseWatchdogReset || ev.BankInfo.Cause != ev.Cause {
			t.Errorf("event %+v", ev)
		}
	})
}

// A request that was tested before the device begins to go back is not accepted
// after that.
func TestCommitAfterGivingUp(t *testing.T) {
	run(t, func(l *lab) {
		l.trial()
		r, err := l.e.Test(procedure.Change{Command: mib.OperationKindBackupConfig})
		if err != nil {
			t.Fatal(err)
		}
		id := l.now().Op.ID
		time.Sleep(600 * time.Second)
		if err := r.Commit(); err == nil {
			t.Error("accepted by a device that restarts")
		}
		if err := r.Undo(); err != nil {
			t.Error(err)
		}
		l.restart(nil)
		if op := l.now().Op; op.ID != id {
			t.Errorf("operation %d, %s", op.ID, op.State)
		}
	})
}

// An operation that was accepted and has not begun when the trial ends fails
// with it, once.
func TestTrialEndsBeforeDone(t *testing.T) {
	for _, undo := range []bool{false, true} {
		run(t, func(l *lab) {
			l.begin(mib.OperationKindActivate, 0)
			l.hold("selftest")
			l.stop()
			l.banks.Running = 2
			l.start()
			r, err := l.e.Test(procedure.Change{Command: mib.OperationKindBackupConfig})
			if err != nil {
				t.Fatal(err)
			}
			if err := r.Commit(); err != nil {
				t.Fatal(err)
			}
			l.failing("selftest", errors.New("sick"))
			l.release("selftest")
			if undo {
				_ = r.Undo()
			} else {
				r.Done()
			}
			l.restart(nil)
			s := l.now()
			if s.Op.ID != 2 || s.Op.State != mib.OperationStateFailed || s.Op.Cause != mib.FailCauseSelfTestFailed || len(s.History) != 2 {
				t.Errorf("operation %d, %s, cause %s, history %d", s.Op.ID, s.Op.State, s.Op.Cause, len(s.History))
			}
		})
	}
}
