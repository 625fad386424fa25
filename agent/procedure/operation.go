package procedure

import (
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v5"

	"example.com/iad/mib"
)

// accept makes the request the present operation. Its work starts later.
func (e *Engine) accept(kind mib.OperationKind, p Params) {
	now := e.clock.Now()
	limit := p.TimeLimit
	if limit == 0 {
		limit = p.Delay + uint32(chosenLimits[kind]/time.Second)
	}
	st := e.cfg.Banks.Status()
	on, attempt := OnAccept, uint32(1)
	if p.Delay > 0 {
		on, attempt = OnDelay, 0
	}
	e.j.Op = Operation{
		ID: next(e.j.Op.ID), Kind: kind, State: e.j.Op.State, Phase: mib.OperationPhaseNone, Params: p, Limit: limit,
		Started: wall(now), Attempt: attempt, Cause: mib.FailCauseNone,
	}
	e.fire(on)
	if st.Running != 0 {
		e.j.Op.OldVersion = st.Bank(st.Running).Version
	}
	e.base, e.changed = now, now
	e.unknown = false
	e.progress.begin(now)
}

// starting reports whether an operation was accepted whose work waits for the
// response to its SET to leave.
func (e *Engine) starting() bool {
	return e.reserved != nil && e.reserved.committed && e.reserved.accepts()
}

// start begins the work of an accepted operation, or its delay.
func (e *Engine) start() {
	op := &e.j.Op
	e.log.Info("operation accepted", "id", op.ID, "kind", op.Kind, "owner", op.Params.Owner, "options", op.Params.Options)
	e.event(mib.EventTypeStarted, func(ev *Event) { ev.TimeLeft = op.Limit })
	_ = e.persist()
	if op.State == mib.OperationStateWaiting {
		e.pause = e.clock.Now().Add(time.Duration(op.Params.Delay) * time.Second)
		return
	}
	e.begin()
}

// begin starts an attempt in state running.
func (e *Engine) begin() {
	op := &e.j.Op
	op.Percent, op.Done, op.Total, op.Phase = 0, 0, 0, mib.OperationPhaseNone
	op.Cause, op.Text = mib.FailCauseNone, ""
	e.unknown = false
	e.run(e.newTask(), 0)
}

// resumeWaiting ends a delay or a pause.
func (e *Engine) resumeWaiting() {
	e.pause = time.Time{}
	e.fire(OnDue)
	e.j.Op.Attempt++
	e.begin()
}

// run carries out the steps of the plan from the given one on, beside the
// engine's goroutine.
func (e *Engine) run(t *task, from int) {
	e.work = t
	e.workers.Add(1)
	go func() {
		defer e.workers.Done()
		err := t.runSteps(from)
		t.cancel(nil)
		_ = e.call(func() { e.finished(t, err) })
	}()
}

// finished judges the end of an attempt.
func (e *Engine) finished(t *task, err error) {
	if e.work != t {
		return
	}
	e.work = nil
	op := &e.j.Op
	e.takeLive(t)
	var again *restartWanted
	switch {
	case op.State == mib.OperationStateAborting:
		op.Cause, op.Text = t.stop.Code, t.stop.Text
		e.end(OnStopped)
	case err == nil:
		e.succeed()
	case e.pendingGiveUp != nil && e.cfg.Banks.Status().OnTrial(): // abandon judges the operation
	case errors.As(err, &again):
		e.restart(again.reason)
	case t.stop != nil:
		e.fail(t.stop)
	default:
		e.attemptFailed(classify(err))
	}
	if f := e.pendingGiveUp; f != nil {
		e.pendingGiveUp = nil
		e.abandon(f)
	}
}

func (e *Engine) attemptFailed(f *Failure) {
	op := &e.j.Op
	if e.onTrial() {
		e.giveUp(f)
		return
	}
	adv := f.Code.Advice()
	if (adv == mib.RetryAdviceRetryNow || adv == mib.RetryAdviceRetryLater) && op.Attempt <= uint32(op.Params.Retries) && transferPhase(op.Phase) {
		pause := pauseAfter(op.Attempt, adv)
		if e.clock.Now().Add(pause).Before(e.deadline()) {
			e.log.Warn("attempt failed", "id", op.ID, "attempt", op.Attempt, "cause", f.Code, "err", f.Text, "pause", pause)
			op.Cause, op.Text = f.Code, f.Text
			e.fire(OnRetry)
			e.pause = e.clock.Now().Add(pause)
			return
		}
	}
	e.fail(f)
}

// transferPhase reports whether a failure in this phase is one of a transfer,
// which is what iadUpgReqRetries is about.
func transferPhase(p mib.OperationPhase) bool {
	return p == mib.OperationPhaseConnecting || p == mib.OperationPhaseErasing || p == mib.OperationPhaseTransferring || p == mib.OperationPhaseVerifying
}

// pauseAfter grows exponentially with the attempts and is jittered, so that
// many devices do not come back together.
func pauseAfter(attempt uint32, adv mib.RetryAdvice) time.Duration {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.MaxInterval = 500*time.Millisecond, time.Minute
	if adv == mib.RetryAdviceRetryLater {
		b.InitialInterval = 2 * time.Second
	}
	d := b.NextBackOff()
	for range attempt - 1 {
		d = b.NextBackOff()
	}
	return d
}

func (e *Engine) succeed() {
	op := &e.j.Op
	op.Cause, op.Text, op.Percent = mib.FailCauseNone, e.unrecorded(), 100
	e.unknown = false
	e.end(OnSuccess)
}

// unrecorded says what a power cut takes back of an operation that succeeds where
// nothing can be written, "" for nothing.
func (e *Engine) unrecorded() string {
	const why = ": nothing can be written to the state partition"
	switch n := e.cfg.Banks.Status().Recorded; {
	case n != 0:
		return fmt.Sprintf("after a power cut, bank %d would start", n) + why
	case e.behind:
		return "a power cut would undo this" + why
	}
	return ""
}

func (e *Engine) fail(f *Failure) {
	op := &e.j.Op
	op.Cause, op.Text = f.Code, f.Text
	e.end(OnFailure)
}

// end brings the operation to a final state: state, history and event are
// written together.
func (e *Engine) end(on Trigger) {
	op := &e.j.Op
	op.Elapsed = e.elapsed()
	e.unknown = false
	if !e.fire(on) {
		return
	}
	op.Ended = wall(e.clock.Now())
	e.pause = time.Time{}
	e.j.addHistory(*op)
	typ := mib.EventTypeFailed
	if op.State == mib.OperationStateSucceeded {
		typ = mib.EventTypeCompleted
	}
	e.event(typ, func(ev *Event) {
		ev.Cause, ev.Text = op.Cause, op.Text
		ev.ResetRequired = e.snapshot().ResetRequired()
	})
	_ = e.persist()
}

// event adds an event with the operation as it is now.
func (e *Engine) event(typ mib.EventTypeEnum, fill func(*Event)) {
	ev := Event{Type: typ, Time: wall(e.clock.Now()), Op: e.j.Op, Cause: mib.FailCauseNone}
	if fill != nil {
		fill(&ev)
	}
	e.j.addEvent(ev)
	e.log.Info("event", "seq", e.j.Seq, "type", typ, "op", ev.Op.ID, "cause", ev.Cause, "text", ev.Text)
}

// stoppable reports whether the operation can be stopped: it is not past the
// point of no return, and is not being stopped already.
func (e *Engine) stoppable() bool {
	switch e.j.Op.State {
	case mib.OperationStateWaiting:
		return true
	case mib.OperationStateRunning:
		return e.work != nil && !e.work.past && e.work.stop == nil
	}
	return false
}

// abort stops the operation, if it still can be.
func (e *Engine) abort(why *Failure) {
	op := &e.j.Op
	switch {
	case !e.stoppable():
	case op.State == mib.OperationStateWaiting:
		op.Cause, op.Text = why.Code, why.Text
		e.end(OnAbort)
	default:
		e.fire(OnAbort)
		e.work.requestStop(why)
	}
}

// expire ends the operation at its time limit. It is called only if it still
// can be stopped.
func (e *Engine) expire() {
	why := failure(mib.FailCauseDeadlineExceeded, fmt.Sprintf("not finished within its time limit of %d s", e.j.Op.Limit))
	if e.j.Op.State == mib.OperationStateWaiting {
		e.fail(why)
		return
	}
	e.work.requestStop(why)
}
