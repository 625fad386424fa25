package procedure_test

import (
	"testing"
	"time"

	"example.com/iad/agent/procedure"
	"example.com/iad/mib"
)

// The operation waits for its delay, and can be aborted while it does.
func TestDelay(t *testing.T) {
	run(t, func(l *lab) {
		delayed := func(p *procedure.Params) { p.Delay = 60 }
		if err := l.request(mib.OperationKindBackupConfig, delayed); err != nil {
			t.Fatal(err)
		}
		l.expect(mib.OperationStateWaiting, mib.OperationPhaseNone, mib.FailCauseNone)
		time.Sleep(59 * time.Second)
		l.expect(mib.OperationStateWaiting, mib.OperationPhaseNone, mib.FailCauseNone)
		time.Sleep(time.Second)
		if op := l.expect(mib.OperationStateSucceeded, mib.OperationPhaseVerifying, mib.FailCauseNone); op.Elapsed != 60 {
			t.Errorf("elapsed %d s", op.Elapsed)
		}
		if err := l.request(mib.OperationKindBackupConfig, delayed); err != nil {
			t.Fatal(err)
		}
		l.begin(mib.OperationKindAbort, 0)
		l.expect(mib.OperationStateAborted, mib.OperationPhaseNone, mib.FailCauseAbortedByManager)
		time.Sleep(time.Hour)
		l.expect(mib.OperationStateAborted, mib.OperationPhaseNone, mib.FailCauseAbortedByManager)
	})
}

// The time limit counts from acceptance, in waiting as in running.
func TestTimeLimit(t *testing.T) {
	run(t, func(l *lab) {
		l.hold("connect")
		limited := func(p *procedure.Params) { p.TimeLimit = 30 }
		if err := l.request(mib.OperationKindBackupConfig, limited); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		if s := l.now(); s.TimeLeft() != 20 || s.Elapsed() != 10 {
			t.Errorf("time left %d, elapsed %d", s.TimeLeft(), s.Elapsed())
		}
		time.Sleep(20 * time.Second)
		l.expect(mib.OperationStateFailed, mib.OperationPhaseConnecting, mib.FailCauseDeadlineExceeded)
		if s := l.now(); s.TimeLeft() != 0 || s.Elapsed() != 30 || s.History[0].Elapsed != 30 {
			t.Errorf("time left %d, elapsed %d", s.TimeLeft(), s.Elapsed())
		}

		l.failing("put", coded(mib.FailCauseServerBusy), coded(mib.FailCauseServerBusy))
		l.set(func() { delete(l.gates, "connect") })
		if err := l.request(mib.OperationKindBackupConfig, func(p *procedure.Params) { p.TimeLimit, p.Delay = 30, 29 }); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		l.expect(mib.OperationStateFailed, mib.OperationPhaseTransferring, mib.FailCauseServerBusy) // no room for another attempt

		l.failing("apply", nil) // nothing: the gate is what matters
		l.hold("apply")
		if err := l.request(mib.OperationKindRecoverConfig, limited); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute) // past the point of no return the limit does not count
		l.expect(mib.OperationStateRunning, mib.OperationPhaseApplying, mib.FailCauseNone)
		if left := l.now().TimeLeft(); left != 0 {
			t.Errorf("time left %d", left)
		}
		l.release("apply")
		l.expect(mib.OperationStateSucceeded, mib.OperationPhaseApplying, mib.FailCauseNone)
	})
}

// The device chooses a limit where the request does not, and adds the delay.
func TestChosenLimit(t *testing.T) {
	run(t, func(l *lab) {
		if err := l.request(mib.OperationKindBackupConfig, func(p *procedure.Params) { p.Delay = 1000 }); err != nil {
			t.Fatal(err)
		}
		if left := l.now().TimeLeft(); left != 1300 {
			t.Errorf("time left %d s", left)
		}
	})
}

// A transfer is tried again after a pause, as often as asked for, if the cause
// lets that make sense; the cause of the last attempt shows meanwhile.
func TestRetries(t *testing.T) {
	run(t, func(l *lab) {
		l.failing("get", coded(mib.FailCauseConnectionLost), coded(mib.FailCauseServerUnreachable))
		l.begin(mib.OperationKindDownloadSoftware, 0)
		op := l.expect(mib.OperationStateWaiting, mib.OperationPhaseErasing, mib.FailCauseConnectionLost)
		if op.Attempt != 1 || op.Advice() != mib.RetryAdviceRetryNow || op.Text == "" {
			t.Errorf("attempt %d, advice %s, text %q", op.Attempt, op.Advice(), op.Text)
		}
		start := time.Now()
		time.Sleep(time.Second)
		op = l.expect(mib.OperationStateWaiting, mib.OperationPhaseErasing, mib.FailCauseServerUnreachable)
		if op.Attempt != 2 {
			t.Errorf("attempt %d", op.Attempt)
		}
		time.Sleep(time.Minute)
		op = l.expect(mib.OperationStateSucceeded, mib.OperationPhaseVerifying, mib.FailCauseNone)
		if op.Attempt != 3 || op.Text != "" {
			t.Errorf("attempt %d, text %q", op.Attempt, op.Text)
		}
		if pause := time.Duration(op.Elapsed) * time.Second; pause > time.Since(start) || pause < time.Second {
			t.Errorf("elapsed %v", pause)
		}
	})
	run(t, func(l *lab) {
		for range 3 {
			l.failing("connect", coded(mib.FailCauseTransferTimeout))
		}
		l.begin(mib.OperationKindBackupConfig, 0)
		time.Sleep(4 * time.Minute)
		if op := l.expect(mib.OperationStateFailed, mib.OperationPhaseConnecting, mib.FailCauseTransferTimeout); op.Attempt != 3 {
			t.Errorf("attempt %d", op.Attempt)
		}
	})
	for cause, step := range map[mib.FailCause]string{
		mib.FailCauseFileNotFound: "get", // fixFirst
		mib.FailCauseAuthFailed:   "connect",
		mib.FailCauseTlsFailed:    "connect",
	} {
		run(t, func(l *lab) {
			l.failing(step, coded(cause))
			l.begin(mib.OperationKindDownloadSoftware, 0)
			if op := l.now().Op; op.State != mib.OperationStateFailed || op.Cause != cause || op.Attempt != 1 {
				t.Errorf("%s: %s, cause %s, attempt %d", cause, op.State, op.Cause, op.Attempt)
			}
		})
	}
}

// An attempt counts once it begins: what ends in the delay or in a pause was not
// tried again.
func TestAttemptsThatWereMade(t *testing.T) {
	run(t, func(l *lab) {
		l.failing("connect", coded(mib.FailCauseServerBusy))
		l.begin(mib.OperationKindBackupConfig, 0)
		l.expect(mib.OperationStateWaiting, mib.OperationPhaseConnecting, mib.FailCauseServerBusy)
		l.begin(mib.OperationKindAbort, 0)
		if op := l.expect(mib.OperationStateAborted, mib.OperationPhaseConnecting, mib.FailCauseAbortedByManager); op.Attempt != 1 {
			t.Errorf("%d attempts", op.Attempt)
		}
		delayed := func(p *procedure.Params) { p.Delay = 60 }
		for _, n := range []uint32{0, 1} {
			if err := l.request(mib.OperationKindBackupConfig, delayed); err != nil {
				t.Fatal(err)
			}
			if op := l.now().Op; op.Attempt != 0 {
				t.Errorf("attempt %d in the delay", op.Attempt)
			}
			if n == 1 {
				time.Sleep(time.Minute)
			}
			l.begin(mib.OperationKindAbort, 0)
			if h := l.now().History; h[len(h)-1].Attempt != n {
				t.Errorf("%d attempts, want %d", h[len(h)-1].Attempt, n)
			}
		}
	})
}

// Retries are for transfers: what fails elsewhere fails at once.
func TestNoRetryOutsideTransfers(t *testing.T) {
	run(t, func(l *lab) {
		l.failing("check config", coded(mib.FailCauseConfigSaveError)) // retryLater
		l.begin(mib.OperationKindRecoverConfig, 0)
		if op := l.expect(mib.OperationStateFailed, mib.OperationPhaseApplying, mib.FailCauseConfigSaveError); op.Attempt != 1 || op.Advice() != mib.RetryAdviceRetryLater {
			t.Errorf("attempt %d, advice %s", op.Attempt, op.Advice())
		}
	})
}

// steps are the places where an operation can be held, with the phase that it
// is in and whether it can be stopped there.
var steps = []struct {
	kind      mib.OperationKind
	options   procedure.Options
	step      string
	phase     mib.OperationPhase
	stoppable bool
}{
	{mib.OperationKindBackupConfig, 0, "collect", mib.OperationPhaseCollecting, true},
	{mib.OperationKindBackupConfig, 0, "connect", mib.OperationPhaseConnecting, true},
	{mib.OperationKindBackupConfig, 0, "put", mib.OperationPhaseTransferring, true},
	{mib.OperationKindBackupConfig, 0, "get", mib.OperationPhaseVerifying, true},
	{mib.OperationKindDownloadSoftware, 0, "connect", mib.OperationPhaseConnecting, true},
	{mib.OperationKindDownloadSoftware, 0, "erase", mib.OperationPhaseErasing, true},
	{mib.OperationKindDownloadSoftware, 0, "read", mib.OperationPhaseTransferring, true},
	{mib.OperationKindDownloadSoftware, 0, "verify", mib.OperationPhaseVerifying, true},
	{mib.OperationKindDownloadSoftware, procedure.ThenActivate, "activate", mib.OperationPhaseSwitching, false},
	{mib.OperationKindActivate, 0, "check", mib.OperationPhaseChecking, true},
	{mib.OperationKindActivate, 0, "activate", mib.OperationPhaseSwitching, false},
	{mib.OperationKindRestoreOldSoftware, 0, "restore", mib.OperationPhaseSwitching, false},
	{mib.OperationKindRecoverConfig, 0, "get", mib.OperationPhaseTransferring, true},
	{mib.OperationKindRecoverConfig, procedure.ConvertFirst, "convert", mib.OperationPhaseConverting, true},
	{mib.OperationKindRecoverConfig, 0, "check config", mib.OperationPhaseApplying, true},
	{mib.OperationKindRecoverConfig, 0, "apply", mib.OperationPhaseApplying, false},
	{mib.OperationKindConvertConfig, 0, "other", mib.OperationPhaseChecking, true},
	{mib.OperationKindConvertConfig, 0, "convert", mib.OperationPhaseConverting, true},
	{mib.OperationKindConvertConfig, 0, "apply", mib.OperationPhaseApplying, false},
}

// Abort stops an operation in each phase before the point of no return, and is
// refused behind it; the operation ends once.
func TestAbort(t *testing.T) {
	for _, c := range steps {
		t.Run(c.kind.String()+" "+c.step, func(t *testing.T) {
			run(t, func(l *lab) {
				if c.options.Has(procedure.ConvertFirst) {
					l.config.Format = 2
				}
				l.other = true
				l.hold(c.step)
				l.begin(c.kind, c.options)
				l.expect(mib.OperationStateRunning, c.phase, mib.FailCauseNone)
				err := l.request(mib.OperationKindAbort, func(p *procedure.Params) { p.TargetOp, p.Owner = 1, "me" })
				if !c.stoppable {
					l.refused(err, procedure.Inconsistent, mib.FailCauseNotPermitted)
					l.release(c.step)
					if op := l.now().Op; op.State != mib.OperationStateSucceeded {
						t.Errorf("%s, %s", op.State, op.Text)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				op := l.expect(mib.OperationStateAborted, c.phase, mib.FailCauseAbortedByManager)
				if op.Text != "aborted by me" || op.Kind != c.kind || op.ID != 1 || op.Percent == 100 {
					t.Errorf("operation %+v", op)
				}
				if err := l.request(mib.OperationKindAbort, nil); err != nil {
					t.Errorf("abort repeated: %v", err)
				}
				s := l.now()
				if len(s.History) != 1 || s.Events[len(s.Events)-1].Type != mib.EventTypeFailed || s.Op.ID != 1 {
					t.Errorf("history %d, events %v", len(s.History), l.events(1))
				}
				l.begin(mib.OperationKindBackupConfig, procedure.CheckOnly) // the way is free
			})
		})
	}
}

// An abort that was tested is not overtaken by the point of no return.
func TestAbortHoldsThePointOfNoReturn(t *testing.T) {
	for _, undo := range []bool{false, true} {
		run(t, func(l *lab) {
			l.hold("check")
			l.begin(mib.OperationKindActivate, 0)
			r, err := l.e.Test(procedure.Change{Command: mib.OperationKindAbort})
			if err != nil {
				t.Fatal(err)
			}
			l.release("check") // the work goes on to the switch
			if l.called("activate") != 0 {
				t.Error("switched before the abort was decided")
			}
			if err := r.Commit(); err != nil {
				t.Fatal(err)
			}
			if undo {
				if err := r.Undo(); err != nil {
					t.Fatal(err)
				}
				l.expect(mib.OperationStateSucceeded, mib.OperationPhaseSwitching, mib.FailCauseNone)
				return
			}
			r.Done()
			l.expect(mib.OperationStateAborted, mib.OperationPhaseSwitching, mib.FailCauseAbortedByManager)
			if l.called("activate") != 0 {
				t.Error("switched after the abort")
			}
		})
	}
}

// The work ends before an abort that was tested is carried out: it succeeds,
// and so does the operation.
func TestAbortTooSlow(t *testing.T) {
	run(t, func(l *lab) {
		l.hold("get") // the last step of a backup
		l.begin(mib.OperationKindBackupConfig, 0)
		r, err := l.e.Test(procedure.Change{Command: mib.OperationKindAbort})
		if err != nil {
			t.Fatal(err)
		}
		l.release("get")
		if err := r.Commit(); err != nil {
			t.Fatal(err)
		}
		r.Done()
		l.expect(mib.OperationStateSucceeded, mib.OperationPhaseVerifying, mib.FailCauseNone)
	})
}

// While the work has not noticed that it should stop, the operation is
// aborting: it is not over, and abort may be repeated.
func TestAborting(t *testing.T) {
	run(t, func(l *lab) {
		l.deaf = true
		l.hold("connect")
		l.begin(mib.OperationKindBackupConfig, 0)
		l.begin(mib.OperationKindAbort, 0)
		l.expect(mib.OperationStateAborting, mib.OperationPhaseConnecting, mib.FailCauseNone)
		l.begin(mib.OperationKindAbort, 0)
		l.refused(l.request(mib.OperationKindReset, nil), procedure.Inconsistent, mib.FailCauseBusy)
		time.Sleep(time.Hour) // the time limit does not make it failed
		l.expect(mib.OperationStateAborting, mib.OperationPhaseConnecting, mib.FailCauseNone)
		l.release("connect")
		l.expect(mib.OperationStateAborted, mib.OperationPhaseConnecting, mib.FailCauseAbortedByManager)
	})
}

// An operation that has hit its time limit waits for its work, and cannot be
// aborted any more.
func TestExpiredWorkIsWaitedFor(t *testing.T) {
	run(t, func(l *lab) {
		l.deaf = true
		l.hold("connect")
		if err := l.request(mib.OperationKindBackupConfig, func(p *procedure.Params) { p.TimeLimit = 10 }); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		l.expect(mib.OperationStateRunning, mib.OperationPhaseConnecting, mib.FailCauseNone)
		l.refused(l.request(mib.OperationKindAbort, nil), procedure.Inconsistent, mib.FailCauseNotPermitted)
		l.release("connect")
		l.expect(mib.OperationStateFailed, mib.OperationPhaseConnecting, mib.FailCauseDeadlineExceeded)
	})
}

// The version asked for decides whether a download is needed at all.
func TestVersionAskedFor(t *testing.T) {
	version := func(v string, o procedure.Options) func(*procedure.Params) {
		return func(p *procedure.Params) { p.Version, p.Options = v, o }
	}
	run(t, func(l *lab) {
		l.failing("connect", coded(mib.FailCauseServerUnreachable)) // is not asked
		if err := l.request(mib.OperationKindDownloadSoftware, version("2.0.0", 0)); err != nil {
			t.Fatal(err)
		}
		op := l.expect(mib.OperationStateSucceeded, mib.OperationPhaseChecking, mib.FailCauseNone)
		if op.Bank != 2 || op.NewVersion != "2.0.0" || l.called("connect") != 0 {
			t.Errorf("bank %d, version %s", op.Bank, op.NewVersion)
		}
		if err := l.request(mib.OperationKindDownloadSoftware, version("1.0.0", 0)); err != nil {
			t.Fatal(err)
		}
		l.expect(mib.OperationStateFailed, mib.OperationPhaseChecking, mib.FailCauseAlreadyInstalled)
	})
	run(t, func(l *lab) {
		if err := l.request(mib.OperationKindDownloadSoftware, version("2.0.0", procedure.ThenActivate)); err != nil {
			t.Fatal(err)
		}
		l.expect(mib.OperationStateSucceeded, mib.OperationPhaseSwitching, mib.FailCauseNone)
		if l.called("connect") != 0 || l.called("activate") != 1 {
			t.Errorf("calls %v", l.calls)
		}
	})
	run(t, func(l *lab) {
		if err := l.request(mib.OperationKindDownloadSoftware, version("1.0.0", procedure.Force)); err != nil {
			t.Fatal(err)
		}
		if l.now(); l.called("connect") != 1 {
			t.Error("force did not fetch the file")
		}
	})
	run(t, func(l *lab) {
		if err := l.request(mib.OperationKindActivate, version("3.0.0", 0)); err != nil {
			t.Fatal(err)
		}
		l.expect(mib.OperationStateFailed, mib.OperationPhaseChecking, mib.FailCauseVersionMismatch)
	})
}

// Calls that begin after the request hold a restart up, unless it is forced.
func TestCallsInProgress(t *testing.T) {
	for _, k := range []mib.OperationKind{mib.OperationKindReset, mib.OperationKindRestoreOldSoftware, mib.OperationKindActivate, mib.OperationKindDownloadSoftware, mib.OperationKindRecoverConfig} {
		for _, force := range []procedure.Options{0, procedure.Force} {
			run(t, func(l *lab) {
				old := l.banks
				l.banks.Running, l.banks.Next, l.banks.Fallback = 2, 2, 1
				l.banks.Banks[1].State = mib.BankStateGood
				o := force
				if k == mib.OperationKindActivate || k == mib.OperationKindRecoverConfig || k == mib.OperationKindDownloadSoftware {
					l.banks = old
					o |= procedure.ThenReset
				}
				if k == mib.OperationKindDownloadSoftware {
					o |= procedure.ThenActivate
				}
				if err := l.request(k, func(p *procedure.Params) { p.Options, p.Delay = o, 60 }); err != nil {
					t.Fatal(err)
				}
				l.set(func() { l.inUse = 1 })
				time.Sleep(time.Minute)
				op := l.now().Op
				want := mib.OperationStateFailed
				if force != 0 {
					want = mib.OperationStateRestarting
				}
				if op.State != want || force == 0 && (op.Cause != mib.FailCauseServiceInUse || l.called("activate")+l.called("restore")+l.called("apply") != 0) {
					t.Errorf("%s %s: %s, cause %s, calls %v", k, o, op.State, op.Cause, l.calls)
				}
				if force != 0 {
					l.restart(nil)
				}
			})
		}
	}
}

// Going back without a restart is not held up by calls.
func TestRestoreNeedsNoRestart(t *testing.T) {
	run(t, func(l *lab) {
		l.begin(mib.OperationKindActivate, 0)
		if s := l.now(); s.Banks.Next != 2 || !s.ResetRequired() {
			t.Fatalf("next %d", s.Banks.Next)
		}
		l.inUse = 1
		l.begin(mib.OperationKindRestoreOldSoftware, 0)
		l.expect(mib.OperationStateSucceeded, mib.OperationPhaseSwitching, mib.FailCauseNone)
		if s := l.now(); s.Banks.Next != 1 || s.ResetRequired() || s.Op.Bank != 1 || l.called("selftest") != 0 {
			t.Errorf("next %d, bank %d, self-tests %d", s.Banks.Next, s.Op.Bank, l.called("selftest"))
		}
		l.wantEvents(l.now().Seq-2, mib.EventTypeStarted, mib.EventTypeBankSwitched, mib.EventTypeCompleted)
	})
}
