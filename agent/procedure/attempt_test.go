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
		if err := l.request(procedure.BackupConfig, delayed); err != nil {
			t.Fatal(err)
		}
		l.expect(procedure.Waiting, procedure.PhaseNone, mib.FailCauseNone)
		time.Sleep(59 * time.Second)
		l.expect(procedure.Waiting, procedure.PhaseNone, mib.FailCauseNone)
		time.Sleep(time.Second)
		if op := l.expect(procedure.Succeeded, procedure.Verifying, mib.FailCauseNone); op.Elapsed != 60 {
			t.Errorf("elapsed %d s", op.Elapsed)
		}
		if err := l.request(procedure.BackupConfig, delayed); err != nil {
			t.Fatal(err)
		}
		l.begin(procedure.Abort, 0)
		l.expect(procedure.Aborted, procedure.PhaseNone, mib.FailCauseAbortedByManager)
		time.Sleep(time.Hour)
		l.expect(procedure.Aborted, procedure.PhaseNone, mib.FailCauseAbortedByManager)
	})
}

// The time limit counts from acceptance, in waiting as in running.
func TestTimeLimit(t *testing.T) {
	run(t, func(l *lab) {
		l.hold("connect")
		limited := func(p *procedure.Params) { p.TimeLimit = 30 }
		if err := l.request(procedure.BackupConfig, limited); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		if s := l.now(); s.TimeLeft() != 20 || s.Elapsed() != 10 {
			t.Errorf("time left %d, elapsed %d", s.TimeLeft(), s.Elapsed())
		}
		time.Sleep(20 * time.Second)
		l.expect(procedure.Failed, procedure.Connecting, mib.FailCauseDeadlineExceeded)
		if s := l.now(); s.TimeLeft() != 0 || s.Elapsed() != 30 || s.History[0].Elapsed != 30 {
			t.Errorf("time left %d, elapsed %d", s.TimeLeft(), s.Elapsed())
		}

		l.failing("put", coded(mib.FailCauseServerBusy), coded(mib.FailCauseServerBusy))
		l.set(func() { delete(l.gates, "connect") })
		if err := l.request(procedure.BackupConfig, func(p *procedure.Params) { p.TimeLimit, p.Delay = 30, 29 }); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		l.expect(procedure.Failed, procedure.Transferring, mib.FailCauseServerBusy) // no room for another attempt

		l.failing("apply", nil) // nothing: the gate is what matters
		l.hold("apply")
		if err := l.request(procedure.RecoverConfig, limited); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute) // past the point of no return the limit does not count
		l.expect(procedure.Running, procedure.Applying, mib.FailCauseNone)
		if left := l.now().TimeLeft(); left != 0 {
			t.Errorf("time left %d", left)
		}
		l.release("apply")
		l.expect(procedure.Succeeded, procedure.Applying, mib.FailCauseNone)
	})
}

// The device chooses a limit where the request does not, and adds the delay.
func TestChosenLimit(t *testing.T) {
	run(t, func(l *lab) {
		if err := l.request(procedure.BackupConfig, func(p *procedure.Params) { p.Delay = 1000 }); err != nil {
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
		l.begin(procedure.DownloadSoftware, 0)
		op := l.expect(procedure.Waiting, procedure.Erasing, mib.FailCauseConnectionLost)
		if op.Attempt != 1 || op.Advice() != mib.RetryAdviceRetryNow || op.Text == "" {
			t.Errorf("attempt %d, advice %s, text %q", op.Attempt, op.Advice(), op.Text)
		}
		start := time.Now()
		time.Sleep(time.Second)
		op = l.expect(procedure.Waiting, procedure.Erasing, mib.FailCauseServerUnreachable)
		if op.Attempt != 2 {
			t.Errorf("attempt %d", op.Attempt)
		}
		time.Sleep(time.Minute)
		op = l.expect(procedure.Succeeded, procedure.Verifying, mib.FailCauseNone)
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
		l.begin(procedure.BackupConfig, 0)
		time.Sleep(4 * time.Minute)
		if op := l.expect(procedure.Failed, procedure.Connecting, mib.FailCauseTransferTimeout); op.Attempt != 3 {
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
			l.begin(procedure.DownloadSoftware, 0)
			if op := l.now().Op; op.State != procedure.Failed || op.Cause != cause || op.Attempt != 1 {
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
		l.begin(procedure.BackupConfig, 0)
		l.expect(procedure.Waiting, procedure.Connecting, mib.FailCauseServerBusy)
		l.begin(procedure.Abort, 0)
		if op := l.expect(procedure.Aborted, procedure.Connecting, mib.FailCauseAbortedByManager); op.Attempt != 1 {
			t.Errorf("%d attempts", op.Attempt)
		}
		delayed := func(p *procedure.Params) { p.Delay = 60 }
		for _, n := range []uint32{0, 1} {
			if err := l.request(procedure.BackupConfig, delayed); err != nil {
				t.Fatal(err)
			}
			if op := l.now().Op; op.Attempt != 0 {
				t.Errorf("attempt %d in the delay", op.Attempt)
			}
			if n == 1 {
				time.Sleep(time.Minute)
			}
			l.begin(procedure.Abort, 0)
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
		l.begin(procedure.RecoverConfig, 0)
		if op := l.expect(procedure.Failed, procedure.Applying, mib.FailCauseConfigSaveError); op.Attempt != 1 || op.Advice() != mib.RetryAdviceRetryLater {
			t.Errorf("attempt %d, advice %s", op.Attempt, op.Advice())
		}
	})
}

// steps are the places where an operation can be held, with the phase that it
// is in and whether it can be stopped there.
var steps = []struct {
	kind      procedure.Kind
	options   procedure.Options
	step      string
	phase     procedure.Phase
	stoppable bool
}{
	{procedure.BackupConfig, 0, "collect", procedure.Collecting, true},
	{procedure.BackupConfig, 0, "connect", procedure.Connecting, true},
	{procedure.BackupConfig, 0, "put", procedure.Transferring, true},
	{procedure.BackupConfig, 0, "get", procedure.Verifying, true},
	{procedure.DownloadSoftware, 0, "connect", procedure.Connecting, true},
	{procedure.DownloadSoftware, 0, "erase", procedure.Erasing, true},
	{procedure.DownloadSoftware, 0, "read", procedure.Transferring, true},
	{procedure.DownloadSoftware, 0, "verify", procedure.Verifying, true},
	{procedure.DownloadSoftware, procedure.ThenActivate, "activate", procedure.Switching, false},
	{procedure.Activate, 0, "check", procedure.Checking, true},
	{procedure.Activate, 0, "activate", procedure.Switching, false},
	{procedure.RestoreOldSoftware, 0, "restore", procedure.Switching, false},
	{procedure.RecoverConfig, 0, "get", procedure.Transferring, true},
	{procedure.RecoverConfig, procedure.ConvertFirst, "convert", procedure.Converting, true},
	{procedure.RecoverConfig, 0, "check config", procedure.Applying, true},
	{procedure.RecoverConfig, 0, "apply", procedure.Applying, false},
	{procedure.ConvertConfig, 0, "other", procedure.Checking, true},
	{procedure.ConvertConfig, 0, "convert", procedure.Converting, true},
	{procedure.ConvertConfig, 0, "apply", procedure.Applying, false},
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
				l.expect(procedure.Running, c.phase, mib.FailCauseNone)
				err := l.request(procedure.Abort, func(p *procedure.Params) { p.TargetOp, p.Owner = 1, "me" })
				if !c.stoppable {
					l.refused(err, procedure.Inconsistent, mib.FailCauseNotPermitted)
					l.release(c.step)
					if op := l.now().Op; op.State != procedure.Succeeded {
						t.Errorf("%s, %s", op.State, op.Text)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				op := l.expect(procedure.Aborted, c.phase, mib.FailCauseAbortedByManager)
				if op.Text != "aborted by me" || op.Kind != c.kind || op.ID != 1 || op.Percent == 100 {
					t.Errorf("operation %+v", op)
				}
				if err := l.request(procedure.Abort, nil); err != nil {
					t.Errorf("abort repeated: %v", err)
				}
				s := l.now()
				if len(s.History) != 1 || s.Events[len(s.Events)-1].Type != procedure.EventFailed || s.Op.ID != 1 {
					t.Errorf("history %d, events %v", len(s.History), l.events(1))
				}
				l.begin(procedure.BackupConfig, procedure.CheckOnly) // the way is free
			})
		})
	}
}

// An abort that was tested is not overtaken by the point of no return.
func TestAbortHoldsThePointOfNoReturn(t *testing.T) {
	for _, undo := range []bool{false, true} {
		run(t, func(l *lab) {
			l.hold("check")
			l.begin(procedure.Activate, 0)
			r, err := l.e.Test(procedure.Change{Command: procedure.Abort})
			if err != nil {
				t.Fatal(err)
			}
			l.release("check") // the work goes on to the switch
			if l.calls["activate"] != 0 {
				t.Error("switched before the abort was decided")
			}
			if err := r.Commit(); err != nil {
				t.Fatal(err)
			}
			if undo {
				if err := r.Undo(); err != nil {
					t.Fatal(err)
				}
				l.expect(procedure.Succeeded, procedure.Switching, mib.FailCauseNone)
				return
			}
			r.Done()
			l.expect(procedure.Aborted, procedure.Switching, mib.FailCauseAbortedByManager)
			if l.calls["activate"] != 0 {
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
		l.begin(procedure.BackupConfig, 0)
		r, err := l.e.Test(procedure.Change{Command: procedure.Abort})
		if err != nil {
			t.Fatal(err)
		}
		l.release("get")
		if err := r.Commit(); err != nil {
			t.Fatal(err)
		}
		r.Done()
		l.expect(procedure.Succeeded, procedure.Verifying, mib.FailCauseNone)
	})
}

// While the work has not noticed that it is told to stop, the operation is
// aborting: it is not over, and abort may be repeated.
func TestAborting(t *testing.T) {
	run(t, func(l *lab) {
		l.deaf = true
		l.hold("connect")
		l.begin(procedure.BackupConfig, 0)
		l.begin(procedure.Abort, 0)
		l.expect(procedure.Aborting, procedure.Connecting, mib.FailCauseNone)
		l.begin(procedure.Abort, 0)
		l.refused(l.request(procedure.Reset, nil), procedure.Inconsistent, mib.FailCauseBusy)
		time.Sleep(time.Hour) // the time limit does not make it failed
		l.expect(procedure.Aborting, procedure.Connecting, mib.FailCauseNone)
		l.release("connect")
		l.expect(procedure.Aborted, procedure.Connecting, mib.FailCauseAbortedByManager)
	})
}

// An operation that has hit its time limit waits for its work, and cannot be
// aborted any more.
func TestExpiredWorkIsWaitedFor(t *testing.T) {
	run(t, func(l *lab) {
		l.deaf = true
		l.hold("connect")
		if err := l.request(procedure.BackupConfig, func(p *procedure.Params) { p.TimeLimit = 10 }); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		l.expect(procedure.Running, procedure.Connecting, mib.FailCauseNone)
		l.refused(l.request(procedure.Abort, nil), procedure.Inconsistent, mib.FailCauseNotPermitted)
		l.release("connect")
		l.expect(procedure.Failed, procedure.Connecting, mib.FailCauseDeadlineExceeded)
	})
}

// The version asked for decides whether a download is needed at all.
func TestVersionAskedFor(t *testing.T) {
	version := func(v string, o procedure.Options) func(*procedure.Params) {
		return func(p *procedure.Params) { p.Version, p.Options = v, o }
	}
	run(t, func(l *lab) {
		l.failing("connect", coded(mib.FailCauseServerUnreachable)) // is not asked
		if err := l.request(procedure.DownloadSoftware, version("2.0.0", 0)); err != nil {
			t.Fatal(err)
		}
		op := l.expect(procedure.Succeeded, procedure.Checking, mib.FailCauseNone)
		if op.Bank != 2 || op.NewVersion != "2.0.0" || l.calls["connect"] != 0 {
			t.Errorf("bank %d, version %s", op.Bank, op.NewVersion)
		}
		if err := l.request(procedure.DownloadSoftware, version("1.0.0", 0)); err != nil {
			t.Fatal(err)
		}
		l.expect(procedure.Failed, procedure.Checking, mib.FailCauseAlreadyInstalled)
	})
	run(t, func(l *lab) {
		if err := l.request(procedure.DownloadSoftware, version("2.0.0", procedure.ThenActivate)); err != nil {
			t.Fatal(err)
		}
		l.expect(procedure.Succeeded, procedure.Switching, mib.FailCauseNone)
		if l.calls["connect"] != 0 || l.calls["activate"] != 1 {
			t.Errorf("calls %v", l.calls)
		}
	})
	run(t, func(l *lab) {
		if err := l.request(procedure.DownloadSoftware, version("1.0.0", procedure.Force)); err != nil {
			t.Fatal(err)
		}
		if l.now(); l.calls["connect"] != 1 {
			t.Error("force did not fetch the file")
		}
	})
	run(t, func(l *lab) {
		if err := l.request(procedure.Activate, version("3.0.0", 0)); err != nil {
			t.Fatal(err)
		}
		l.expect(procedure.Failed, procedure.Checking, mib.FailCauseVersionMismatch)
	})
}

// Calls that begin after the request hold a restart up, unless it is forced.
func TestCallsInProgress(t *testing.T) {
	for _, k := range []procedure.Kind{procedure.Reset, procedure.RestoreOldSoftware, procedure.Activate, procedure.DownloadSoftware, procedure.RecoverConfig} {
		for _, force := range []procedure.Options{0, procedure.Force} {
			run(t, func(l *lab) {
				old := l.banks
				l.banks.Running, l.banks.Next, l.banks.Fallback = 2, 2, 1
				l.banks.Banks[1].State = procedure.BankGood
				o := force
				if k == procedure.Activate || k == procedure.RecoverConfig || k == procedure.DownloadSoftware {
					l.banks = old
					o |= procedure.ThenReset
				}
				if k == procedure.DownloadSoftware {
					o |= procedure.ThenActivate
				}
				if err := l.request(k, func(p *procedure.Params) { p.Options, p.Delay = o, 60 }); err != nil {
					t.Fatal(err)
				}
				l.set(func() { l.inUse = 1 })
				time.Sleep(time.Minute)
				op := l.now().Op
				want := procedure.Failed
				if force != 0 {
					want = procedure.Restarting
				}
				if op.State != want || force == 0 && (op.Cause != mib.FailCauseServiceInUse || l.calls["activate"]+l.calls["restore"]+l.calls["apply"] != 0) {
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
		l.begin(procedure.Activate, 0)
		if s := l.now(); s.Banks.Next != 2 || !s.ResetRequired() {
			t.Fatalf("next %d", s.Banks.Next)
		}
		l.inUse = 1
		l.begin(procedure.RestoreOldSoftware, 0)
		l.expect(procedure.Succeeded, procedure.Switching, mib.FailCauseNone)
		if s := l.now(); s.Banks.Next != 1 || s.ResetRequired() || s.Op.Bank != 1 || l.calls["selftest"] != 0 {
			t.Errorf("next %d, bank %d, self-tests %d", s.Banks.Next, s.Op.Bank, l.calls["selftest"])
		}
		l.wantEvents(l.now().Seq-2, procedure.EventStarted, procedure.EventBankSwitched, procedure.EventCompleted)
	})
}
