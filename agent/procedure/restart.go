package procedure

import (
	"fmt"
	"strings"
	"time"

	"example.com/iad/mib"
)

// restart makes Run return a RestartError once the events have left.
func (e *Engine) restart(reason mib.RestartReasonEnum) {
	op := &e.j.Op
	if op.State == mib.OperationStateRunning {
		e.fire(OnRestart)
		op.Phase = mib.OperationPhaseRestarting
	}
	e.j.Planned, e.j.Expected = reason, e.cfg.Banks.Status().Next
	left := e.deadline().Sub(e.clock.Now())
	e.event(mib.EventTypeRestarting, func(ev *Event) {
		if op.State.Final() {
			ev.Op = noOperation
			return
		}
		ev.TimeLeft = seconds(left)
	})
	_ = e.persist()
	e.endWindow()
	e.pendingRestart = &RestartError{reason}
	e.restartBy = e.clock.Now().Add(e.cfg.Grace)
}

// boot finds out, when the device has started, what became of the operation
// and of software on trial.
func (e *Engine) boot() {
	now := e.clock.Now()
	st := e.cfg.Banks.Status()
	j := &e.j
	e.base = now.Add(-time.Duration(j.Op.Elapsed) * time.Second)
	e.changed = now
	findings := e.cfg.Findings
	if e.cfg.JournalUnsaved {
		_ = e.persist() // whether it can be written now
		if text := e.unrecorded(); text != "" {
			findings = append([]string{text}, findings...)
		}
	}
	rolledBack := false
	if n := j.Trial.Bank; n != 0 {
		b := st.Bank(n)
		rolledBack = n != st.Running && (b.State == mib.BankStateFailed || b.State == mib.BankStateCorrupt)
	}
	j.Restarts = next(j.Restarts)
	switch {
	case st.Running == 0:
		j.Reason = mib.RestartReasonFault // rescue mode
	case rolledBack:
		j.Reason = mib.RestartReasonRollback
	case j.Planned != 0:
		j.Reason = j.Planned
	case e.cfg.BootReason != 0:
		j.Reason = e.cfg.BootReason
	default:
		j.Reason = mib.RestartReasonPowerOn
	}
	expected := j.Expected
	if expected == 0 && rolledBack {
		expected = j.Trial.Bank
	}
	j.Planned, j.Expected, j.ConfigReset = 0, 0, false
	if rolledBack {
		e.rolledBack(j.Trial.Bank)
	}
	e.event(mib.EventTypeRestarted, func(ev *Event) {
		if j.Op.State.Final() {
			ev.Op = noOperation
		}
		ev.Reason, ev.Restarts = j.Reason, j.Restarts
		ev.Text = cutAll(findings)
		if st.Running != 0 {
			ev.Software = st.Bank(st.Running).Version
		}
		ev.ConfigFormat = e.cfg.Store.Status().Format
	})
	e.resume(st, expected)
	if n := j.Trial.Bank; n != 0 && st.Bank(n).State != mib.BankStateTrial {
		// Confirmed, or never activated: a cut came before this was noted.
		// Or a download withdrew it, and no event has reported that yet.
		if n == st.Running && st.Bank(n).State == mib.BankStateGood || n != st.Next && st.Bank(n).State == mib.BankStateWriting {
			e.event(mib.EventTypeBankSwitched, e.aboutBank(st.Next))
		}
		j.Trial = trial{}
	}
	if st.OnTrial() && j.Trial.Bank != st.Running {
		// Boot record or journal were lost. How it ends is reported all the same.
		j.Trial = trial{Bank: st.Running}
	}
	if st.OnTrial() {
		e.openWindow()
	}
	_ = e.persist()
	e.progress.begin(now)
	e.publish()
}

// resume takes up an operation that was under way when the device went down.
// expected is the bank that was to start, 0 if that is not known.
func (e *Engine) resume(st BankStatus, expected int) {
	op := &e.j.Op
	planned := op.State == mib.OperationStateRestarting
	late := op.State == mib.OperationStateRunning && (op.Phase == mib.OperationPhaseSwitching || op.Phase == mib.OperationPhaseRestarting || op.Phase == mib.OperationPhaseTrying)
	switch {
	case op.State.Final():
	case planned && op.Kind == mib.OperationKindRecoverConfig, (planned || late) && op.Kind == mib.OperationKindReset:
		e.resumeRestart(st, expected)
	case (planned || late) && (op.Kind == mib.OperationKindDownloadSoftware || op.Kind == mib.OperationKindActivate || op.Kind == mib.OperationKindRestoreOldSoftware):
		e.resumeSwitch(st, planned)
	default:
		e.interrupted()
	}
}

// resumeRestart judges an operation that restarted the device with the software of the
// bank expected.
func (e *Engine) resumeRestart(st BankStatus, expected int) {
	tr := &e.j.Trial
	switch {
	case expected != 0 && expected != st.Running:
		f := e.givenUp(st.Bank(expected))
		text := fmt.Sprintf("bank %d runs instead of bank %d", st.Running, expected)
		if st.Running == 0 {
			text = fmt.Sprintf("bank %d did not start, and the device is in rescue mode", expected)
		}
		if f.Code == mib.FailCauseBootFailed {
			f.Code = mib.FailCauseOther // it was not this operation that put new software to use
		}
		if st.Bank(expected).Cause > mib.FailCauseNone {
			text += ": " + f.Text
		}
		e.fail(failure(f.Code, cut(text)))
	case st.OnTrial() && tr.Bank == st.Running && tr.Left == 1:
		e.fail(e.windowOver()) // it is given up as soon as the engine runs
	default:
		e.succeed()
	}
}

// resumeSwitch judges an operation that put other software to use.
func (e *Engine) resumeSwitch(st BankStatus, planned bool) {
	op := &e.j.Op
	target := st.Bank(max(op.Bank, 1))
	switch {
	case op.Bank == st.Running && (target.State == mib.BankStateTrial || target.State == mib.BankStateGood):
		tries := op.Kind == mib.OperationKindRestoreOldSoftware || op.Params.Options.Has(ThenReset) || e.cfg.Device.TakesOver() && !target.NeedsReset
		if !tries || target.State == mib.BankStateGood && op.Kind != mib.OperationKindRestoreOldSoftware {
			e.succeed()
			return
		}
		if op.State == mib.OperationStateRestarting {
			e.fire(OnTrial)
		}
		op.Phase, op.Cause, op.Text = mib.OperationPhaseTrying, mib.FailCauseNone, ""
	case target.State == mib.BankStateFailed || target.State == mib.BankStateCorrupt:
		f := failure(op.Cause, op.Text) // noted when it was given up
		if f.Code <= mib.FailCauseNone {
			f = e.givenUp(target)
		}
		e.fail(f)
	case planned && op.Kind == mib.OperationKindRestoreOldSoftware:
		e.fail(failure(mib.FailCauseRollbackFailed, "the device did not return to the expected software"))
	case planned:
		e.fail(failure(mib.FailCauseBootFailed, "the device did not start the expected software"))
	default:
		e.interrupted()
	}
}

// interrupted ends an operation that a restart came into. Its phase was journaled
// when its transfer began and at its point of no return, so which of the phases in
// between it was in is not known; nearly all of that time is the transfer's.
func (e *Engine) interrupted() {
	op := &e.j.Op
	when := "before a transfer or a change"
	if op.Phase != mib.OperationPhaseNone {
		when = "while " + either(possiblePhases(op))
		if op.Phase == mib.OperationPhaseErasing {
			op.Phase = mib.OperationPhaseTransferring
		}
	}
	op.Cause, op.Text = mib.FailCauseInterrupted, cut("power loss or an unexpected restart "+when)
	if _, files := usedRows(op.Kind, &op.Params); op.Phase >= mib.OperationPhaseTransferring {
		for _, k := range files.Kinds() {
			if r := &e.j.Files[k-1]; r.OpID != op.ID || r.Result != mib.FailCauseNone {
				*r = FileResult{OpID: op.ID, Result: mib.FailCauseInterrupted}
			}
		}
	}
	e.end(OnInterruption)
}

// possiblePhases are those that an operation can have been in whose journal has op.Phase.
func possiblePhases(op *Operation) []mib.OperationPhase {
	plan := planFor(op)
	i := indexOf(plan, op.Phase)
	if i == len(plan) {
		return []mib.OperationPhase{op.Phase}
	}
	phases := []mib.OperationPhase{op.Phase}
	for _, s := range plan[i+1:] {
		switch s.phase {
		case mib.OperationPhaseSwitching, mib.OperationPhaseApplying, mib.OperationPhaseRestarting, mib.OperationPhaseTrying:
			return phases // journaled
		}
		phases = append(phases, s.phase)
	}
	return phases
}

// either joins the names of phases as alternatives.
func either(phases []mib.OperationPhase) string {
	names := make([]string, len(phases))
	for i, p := range phases {
		names[i] = p.String()
	}
	last := len(names) - 1
	if last == 0 {
		return names[0]
	}
	return strings.Join(names[:last], ", ") + " or " + names[last]
}

// startTrial tests software on trial when the engine starts to run.
func (e *Engine) startTrial() {
	op := &e.j.Op
	running := e.cfg.Banks.Status().OnTrial()
	if op.State == mib.OperationStateRunning && op.Phase == mib.OperationPhaseTrying {
		t := e.newTask()
		t.past = true
		t.live = live{phase: mib.OperationPhaseTrying, file: op.File, done: op.Done, total: op.Total}
		e.run(t, indexOf(t.plan, mib.OperationPhaseTrying))
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

// openWindow begins the trial of the running software, or continues with what the
// starts before have left of it.
func (e *Engine) openWindow() {
	left := e.s.ConfirmWindow
	if l := e.j.Trial.Left; l != 0 && l < left {
		left = l
	}
	if left == 1 {
		left = 0
	}
	e.tested = false
	e.opened = e.clock.Now()
	e.noted = e.opened
	e.window = e.opened.Add(time.Duration(left) * time.Second)
}

func (e *Engine) endWindow() {
	e.window, e.retryConfirmAt, e.retest, e.recordPause = time.Time{}, time.Time{}, time.Time{}, 0
}

// charged is until when this start has used the window at the time now. A start costs
// a twentieth of the window at least, or software that passes its self-test and dies
// would never end its trial.
func (e *Engine) charged(now time.Time) time.Time {
	least := e.opened.Add(e.confirmWindow() / 20)
	if now.Before(least) {
		return least
	}
	return now
}

// tenth is when to journal next what is left of the window, for the case of a power
// cut; zero for never.
func (e *Engine) tenth() time.Time {
	if e.window.IsZero() {
		return time.Time{}
	}
	return e.noted.Add(e.confirmWindow() / 10)
}

func (e *Engine) confirmWindow() time.Duration {
	return time.Duration(e.s.ConfirmWindow) * time.Second
}

// windowOver is why software is given up at the end of its window.
func (e *Engine) windowOver() *Failure {
	return failure(mib.FailCauseConfirmTimeout, fmt.Sprintf("not confirmed within %d s", e.s.ConfirmWindow))
}

// windowChanged moves the end of the trial that goes on by as much as the window has
// been made longer or shorter.
func (e *Engine) windowChanged(before uint32) {
	if e.window.IsZero() || e.s.ConfirmWindow == before {
		return
	}
	e.window = e.window.Add(time.Duration(int64(e.s.ConfirmWindow)-int64(before)) * time.Second)
	_ = e.persist() // what is left of it outlives a restart
}

// tries reports whether the operation is the one that tries the running software.
func (e *Engine) onTrial() bool {
	st, op := e.cfg.Banks.Status(), &e.j.Op
	return st.OnTrial() && op.State == mib.OperationStateRunning && op.Phase == mib.OperationPhaseTrying && op.Bank == st.Running
}

// trialPassed is called when the self-test of the running software has passed.
func (e *Engine) trialPassed() {
	e.tested = true
	e.confirmIfDue()
	e.passed()
}

// passed records that the software on trial has passed its self-test, if it has not
// been confirmed: from now on its restarts use up no tries.
func (e *Engine) passed() {
	e.retest = time.Time{}
	if !e.cfg.Banks.Status().OnTrial() || !e.retryConfirmAt.IsZero() || e.pendingRestart != nil || e.pendingGiveUp != nil || e.handover {
		return
	}
	if err := e.cfg.Banks.Tested(); err != nil {
		e.log.Error("the passed self-test could not be recorded; retrying", "err", err)
		e.retest = e.clock.Now().Add(e.nextPause())
		return
	}
	e.recordPause = 0
}

// confirmIfDue accepts the software on trial if that is up to the device.
func (e *Engine) confirmIfDue() {
	if e.tested && e.s.ConfirmMode == mib.ConfirmModeAutomatic {
		e.confirm()
	}
}

// The first pause between two tries to record a confirmation, or that the self-test passed, and the longest one.
const (
	firstRecordPause   = 5 * time.Second
	longestRecordPause = time.Minute
)

// nextPause returns how long to wait before the next try, each time longer: the state may take no writes for days.
func (e *Engine) nextPause() time.Duration {
	e.recordPause = min(max(2*e.recordPause, firstRecordPause), longestRecordPause)
	return e.recordPause
}

// confirm accepts the software on trial, if the running one is.
func (e *Engine) confirm() {
	e.retryConfirmAt = time.Time{}
	st := e.cfg.Banks.Status()
	if !st.OnTrial() || e.pendingRestart != nil || e.pendingGiveUp != nil || e.handover {
		return
	}
	n := st.Running
	if err := e.cfg.Banks.Confirm(); err != nil {
		e.log.Error("the software on trial could not be confirmed; retrying", "bank", n, "err", err)
		e.retryConfirmAt = e.clock.Now().Add(e.nextPause())
		return
	}
	e.endWindow()
	e.event(mib.EventTypeBankSwitched, e.aboutTrial(n))
	e.j.Trial = trial{}
	_ = e.persist()
}

// giveUp ends the trial of the running software once the work has stopped.
func (e *Engine) giveUp(f *Failure) {
	e.endWindow()
	if e.pendingRestart != nil || e.pendingGiveUp != nil || e.handover {
		return
	}
	if f.Code == mib.FailCauseConfirmTimeout {
		e.j.Trial.Left = 1 // a power cut before the record is written gives no second window
	}
	if t := e.work; t != nil {
		e.pendingGiveUp = f
		if t.stop == nil {
			t.requestStop(f)
		}
		return
	}
	e.abandon(f)
}

// abandon goes back to the fallback. An operation that tries this software gets
// its verdict when the old software runs again; any other one ends now.
func (e *Engine) abandon(f *Failure) {
	st := e.cfg.Banks.Status()
	if !st.OnTrial() || e.pendingRestart != nil {
		return // confirmed in the last moment, or on its way back already
	}
	op := &e.j.Op
	if e.onTrial() {
		op.Cause, op.Text = f.Code, f.Text
	} else if !op.State.Final() {
		e.fail(f)
	}
	if err := e.cfg.Banks.GiveUp(f.Code, f.Text); err != nil {
		e.log.Error("could not give up the software on trial; restarting anyway", "err", err)
	}
	old := st.Fallback
	if old == 0 || old == st.Running || !e.cfg.Device.TakesOver() || st.Bank(old).NeedsReset {
		e.restart(mib.RestartReasonRollback)
		return
	}
	e.handover = true
	e.workers.Go(func() {
		err := e.cfg.Banks.TakeOver(old)
		_ = e.call(func() { e.tookOver(st.Running, err) })
	})
}

// tookOver ends the return from bank n to the old software without a restart.
func (e *Engine) tookOver(n int, err error) {
	e.handover = false
	op := &e.j.Op
	if err != nil {
		e.log.Error("could not switch to the old software without a restart", "err", err)
		e.restart(mib.RestartReasonRollback)
		return
	}
	e.rolledBack(n)
	e.j.Trial = trial{}
	if !op.State.Final() {
		e.fail(failure(op.Cause, op.Text))
		return
	}
	_ = e.persist()
}

// rolledBack reports that the old software runs again instead of that of bank n.
func (e *Engine) rolledBack(n int) {
	f := e.givenUp(e.cfg.Banks.Status().Bank(n))
	e.event(mib.EventTypeRolledBack, func(ev *Event) {
		e.aboutTrial(n)(ev)
		ev.Cause, ev.Text = f.Code, f.Text
		ev.BankInfo.Cause, ev.BankInfo.Text = f.Code, f.Text
	})
}

// givenUp returns why software on trial was given up. The boot decision knows only that
// it did not come up; the hardware may know more.
func (e *Engine) givenUp(b Bank) *Failure {
	switch {
	case b.Cause <= mib.FailCauseNone:
		return failure(mib.FailCauseBootFailed, "the new software did not start")
	case b.Cause == mib.FailCauseBootFailed && e.cfg.BootReason == mib.RestartReasonWatchdog:
		return failure(mib.FailCauseWatchdogReset, "restarted by the watchdog while on trial")
	}
	return failure(b.Cause, b.Text)
}

// noOperation stands in an event that belongs to none.
var noOperation = Operation{Kind: mib.OperationKindNone, State: mib.OperationStateIdle, Phase: mib.OperationPhaseNone, Cause: mib.FailCauseNone}

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

// aboutTrial is aboutBank for software whose operation may have ended, or may not be
// known.
func (e *Engine) aboutTrial(n int) func(*Event) {
	return func(ev *Event) {
		e.aboutBank(n)(ev)
		if tr := e.j.Trial; tr.Bank == n && tr.OpID == 0 {
			ev.Op = noOperation
		} else if tr.Bank == n && tr.OpID != ev.Op.ID {
			ev.Op = Operation{ID: tr.OpID, Kind: tr.Kind, State: mib.OperationStateSucceeded, Phase: mib.OperationPhaseNone, Cause: mib.FailCauseNone, Params: Params{ReqID: tr.ReqID}}
		}
	}
}
