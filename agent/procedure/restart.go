package procedure

import (
	"strings"
	"time"
)

// restart makes Run return a RestartError once the events have left.
func (e *Engine) restart(reason RestartReason) {
	op := &e.j.Op
	if op.State == Running {
		e.fire(OnRestart)
		op.Phase = PhaseRestarting
	}
	e.j.Planned = reason
	left := e.deadline().Sub(e.clock.Now())
	e.event(EventRestarting, func(ev *Event) {
		if op.State.Final() {
			ev.Op = Operation{Kind: None, State: Idle, Phase: PhaseNone, Cause: CauseNone}
			return
		}
		ev.TimeLeft = seconds(left)
	})
	_ = e.persist()
	e.window = time.Time{}
	e.leave = &RestartError{reason}
	e.leaveAt = e.clock.Now().Add(e.cfg.Grace)
}

// boot finds out, when the device has started, what became of the operation
// and of software on trial.
func (e *Engine) boot() {
	now := e.clock.Now()
	st := e.cfg.Banks.Status()
	j := &e.j
	e.base = now.Add(-time.Duration(j.Op.Elapsed) * time.Second)
	e.changed = now
	rolledBack := false
	if n := j.Trial.Bank; n != 0 {
		b := st.Bank(n)
		rolledBack = n != st.Running && (b.State == BankFailed || b.State == BankCorrupt)
	}
	j.Restarts = next(j.Restarts)
	switch {
	case rolledBack:
		j.Reason = ReasonRollback
	case j.Planned != 0:
		j.Reason = j.Planned
	case e.cfg.BootReason != 0:
		j.Reason = e.cfg.BootReason
	default:
		j.Reason = ReasonPowerOn
	}
	j.Planned, j.ConfigReset = 0, false
	if rolledBack {
		e.rolledBack()
	}
	e.event(EventRestarted, func(ev *Event) {
		if j.Op.State.Final() {
			ev.Op = Operation{Kind: None, State: Idle, Phase: PhaseNone, Cause: CauseNone}
		}
		ev.Reason, ev.Restarts = j.Reason, j.Restarts
		ev.Text = cut(strings.Join(e.cfg.Findings, "; "))
		if st.Running != 0 {
			ev.Software = st.Bank(st.Running).Version
		}
		ev.ConfigFormat = e.cfg.Store.Status().Format
	})
	e.resume(st)
	if n := j.Trial.Bank; n != 0 && st.Bank(n).State != BankTrial {
		// Confirmed, or never activated: a cut came before this was noted.
		if n == st.Running && st.Bank(n).State == BankGood {
			e.event(EventBankSwitched, e.aboutBank(n))
		}
		j.Trial = trial{}
	}
	_ = e.persist()
	e.progress.last = now
	e.publish()
}

// resume takes up an operation that was under way when the device went down.
func (e *Engine) resume(st BankStatus) {
	op := &e.j.Op
	if op.State.Final() {
		return
	}
	planned := op.State == Restarting
	if !planned && (op.State != Running || op.Phase != Switching && op.Phase != PhaseRestarting && op.Phase != Trying) {
		e.interrupted()
		return
	}
	switch op.Kind {
	case Reset, RecoverConfig:
		if !planned && op.Kind == RecoverConfig {
			e.interrupted()
			return
		}
		e.succeed()
	case DownloadSoftware, Activate, RestoreOldSoftware:
		e.resumeSwitch(st, planned)
	default:
		e.interrupted()
	}
}

// resumeSwitch judges an operation that put other software to use.
func (e *Engine) resumeSwitch(st BankStatus, planned bool) {
	op := &e.j.Op
	target := st.Bank(max(op.Bank, 1))
	switch {
	case op.Bank == st.Running && (target.State == BankTrial || target.State == BankGood):
		tries := op.Kind == RestoreOldSoftware || op.Params.Options.Has(ThenReset) || e.cfg.Device.TakesOver() && !target.NeedsReset
		if !tries || target.State == BankGood && op.Kind != RestoreOldSoftware {
			e.succeed()
			return
		}
		if op.State == Restarting {
			e.fire(OnTrial)
		}
		op.Phase, op.Cause, op.Text = Trying, CauseNone, ""
	case target.State == BankFailed || target.State == BankCorrupt:
		if op.Cause == CauseNone {
			op.Cause, op.Text = target.Cause, target.Text
		}
		if op.Cause <= CauseNone {
			op.Cause, op.Text = CauseBootFailed, "the new software did not start"
		}
		e.fail(failure(op.Cause, op.Text))
	case planned:
		e.fail(failure(CauseBootFailed, "the device runs other software than it was to start"))
	default:
		e.interrupted()
	}
}

func (e *Engine) interrupted() {
	op := &e.j.Op
	op.Cause, op.Text = CauseInterrupted, cut("power loss or an unexpected restart in phase "+op.Phase.String())
	e.end(OnInterruption)
}

// startTrial tests software on trial when the engine starts to run.
func (e *Engine) startTrial() {
	st := e.cfg.Banks.Status()
	op := &e.j.Op
	running := st.Running != 0 && st.Bank(st.Running).State == BankTrial
	if running {
		e.openWindow()
	}
	if op.State == Running && op.Phase == Trying {
		t := e.newTask()
		t.live.phase, t.live.file = Trying, op.File
		t.live.done, t.live.total = op.Done, op.Total
		e.run(t, indexOf(t.plan, Trying))
		return
	}
	if !running {
		return
	}
	ctx := e.ctx
	e.workers.Go(func() {
		err := e.selfTest(ctx)
		if ctx.Err() != nil {
			return
		}
		_ = e.call(func() {
			if err != nil {
				e.giveUp(classify(err))
				return
			}
			e.trialPassed()
		})
	})
}

func (e *Engine) openWindow() {
	e.tested = false
	e.window = e.clock.Now().Add(time.Duration(e.s.ConfirmWindow) * time.Second)
}

// trialPassed is called when the self-test of the running software has passed.
func (e *Engine) trialPassed() {
	e.tested = true
	if e.s.ConfirmMode == ConfirmAutomatic {
		e.confirm()
	}
}

// confirm accepts the software on trial, if the running one is.
func (e *Engine) confirm() {
	n := e.cfg.Banks.Status().Running
	if n == 0 || e.cfg.Banks.Status().Bank(n).State != BankTrial || e.leave != nil {
		return
	}
	if err := e.cfg.Banks.Confirm(); err != nil {
		e.log.Error("the software on trial could not be confirmed; the trial goes on", "bank", n, "err", err)
		return
	}
	e.window = time.Time{}
	e.event(EventBankSwitched, e.aboutTrial(n))
	e.j.Trial = trial{}
	_ = e.persist()
}

// trialFailed ends an operation whose software failed its self-test.
func (e *Engine) trialFailed(f *Failure) {
	if e.j.Op.Kind == RestoreOldSoftware {
		e.fail(f)
		return
	}
	e.giveUp(f)
}

// giveUp ends the trial of the running software and goes back to the fallback.
// An operation that tries this software gets its verdict when the old software
// runs again; any other one ends now.
func (e *Engine) giveUp(f *Failure) {
	st := e.cfg.Banks.Status()
	op := &e.j.Op
	mine := !op.State.Final() && op.Phase == Trying && op.Bank == st.Running
	e.window = time.Time{}
	if t := e.work; t != nil {
		t.stop = f
		t.cancel(f)
		e.work = nil
	}
	switch {
	case mine:
		op.Cause, op.Text = f.Code, f.Text
	case !op.State.Final():
		e.fail(f)
	}
	if err := e.cfg.Banks.GiveUp(f.Code, f.Text); err != nil {
		e.log.Error("software on trial could not be given up in the record; restarting all the same", "err", err)
	}
	n := st.Running
	if e.cfg.Device.TakesOver() && !st.Bank(n).NeedsReset && st.Fallback != 0 {
		if err := e.cfg.Banks.TakeOver(st.Fallback); err == nil {
			e.rolledBack()
			e.j.Trial = trial{}
			if mine {
				e.fail(f)
			}
			_ = e.persist()
			return
		}
	}
	e.restart(ReasonRollback)
}

// rolledBack tells that the old software runs again.
func (e *Engine) rolledBack() {
	n := e.j.Trial.Bank
	b := e.cfg.Banks.Status().Bank(n)
	e.event(EventRolledBack, func(ev *Event) {
		e.aboutTrial(n)(ev)
		ev.Cause, ev.Text = b.Cause, b.Text
	})
}

// aboutBank fills in an event about a bank.
func (e *Engine) aboutBank(n int) func(*Event) {
	return func(ev *Event) {
		st := e.cfg.Banks.Status()
		ev.Bank, ev.BankInfo = n, st.Bank(n)
		if st.Running != 0 {
			ev.Software = st.Bank(st.Running).Version
		}
	}
}

// aboutTrial is aboutBank for software whose operation may have ended.
func (e *Engine) aboutTrial(n int) func(*Event) {
	return func(ev *Event) {
		e.aboutBank(n)(ev)
		if tr := e.j.Trial; tr.Bank == n && tr.OpID != ev.Op.ID {
			ev.Op = Operation{ID: tr.OpID, Kind: tr.Kind, State: Succeeded, Phase: PhaseNone, Cause: CauseNone, Params: Params{ReqID: tr.ReqID}}
		}
	}
}
