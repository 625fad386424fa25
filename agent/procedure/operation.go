package procedure

import (
	"errors"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// accept makes the request the present operation. Its work starts later.
func (e *Engine) accept(kind Kind, p Params) {
	now := e.clock.Now()
	limit := p.TimeLimit
	if limit == 0 {
		limit = p.Delay + uint32(chosenLimits[kind]/time.Second)
	}
	st := e.cfg.Banks.Status()
	on := OnAccept
	if p.Delay > 0 {
		on = OnDelay
	}
	to, _ := follow(e.j.Op.State, on)
	e.j.Op = Operation{
		ID: next(e.j.Op.ID), Kind: kind, State: to, Phase: PhaseNone, Params: p, Limit: limit,
		Started: wall(now), Attempt: 1, Cause: CauseNone,
	}
	if st.Running != 0 {
		e.j.Op.OldVersion = st.Bank(st.Running).Version
	}
	e.base, e.changed = now, now
	e.unknown = false
	e.progress = progressState{count: e.progress.count, last: now}
}

// start begins the work of an accepted operation, or its delay.
func (e *Engine) start() {
	op := &e.j.Op
	e.log.Info("operation accepted", "id", op.ID, "kind", op.Kind, "owner", op.Params.Owner, "options", op.Params.Options)
	e.event(EventStarted, func(ev *Event) { ev.TimeLeft = op.Limit })
	_ = e.persist()
	if op.State == Waiting {
		e.pause = e.clock.Now().Add(time.Duration(op.Params.Delay) * time.Second)
		return
	}
	e.begin()
}

// begin starts an attempt in state running.
func (e *Engine) begin() {
	op := &e.j.Op
	op.Percent, op.Done, op.Total, op.Phase = 0, 0, 0, PhaseNone
	e.unknown = false
	e.run(e.newTask(), 0)
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
	case e.leave != nil:
	case t.stop != nil && op.State == Aborting:
		op.Cause, op.Text = t.stop.Code, t.stop.Text
		e.end(OnStopped)
	case t.stop != nil && err != nil:
		e.fail(t.stop)
	case errors.As(err, &again):
		e.restart(again.reason)
	case err == nil:
		e.succeed()
	default:
		e.attemptFailed(classify(err))
	}
}

func (e *Engine) attemptFailed(f *Failure) {
	op := &e.j.Op
	if op.Phase == Trying {
		e.trialFailed(f)
		return
	}
	adv := AdviceFor(f.Code)
	if (adv == RetryNow || adv == RetryLater) && op.Attempt <= uint32(op.Params.Retries) && transferPhase(op.Phase) {
		pause := pauseAfter(op.Attempt, adv)
		if e.clock.Now().Add(pause).Before(e.deadline()) {
			e.log.Warn("attempt failed", "id", op.ID, "attempt", op.Attempt, "cause", f.Code, "err", f.Text, "pause", pause)
			op.Cause, op.Text = f.Code, f.Text
			op.Attempt++
			e.fire(OnRetry)
			e.pause = e.clock.Now().Add(pause)
			return
		}
	}
	e.fail(f)
}

// transferPhase tells whether a failure in this phase is one of a transfer,
// which is what iadUpgReqRetries is about.
func transferPhase(p Phase) bool {
	return p == Connecting || p == Erasing || p == Transferring || p == Verifying
}

// pauseAfter grows exponentially with the attempts and is jittered, so that
// many devices do not come back together.
func pauseAfter(attempt uint32, adv Advice) time.Duration {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.MaxInterval = 500*time.Millisecond, time.Minute
	if adv == RetryLater {
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
	op.Cause, op.Text, op.Percent = CauseNone, "", 100
	e.unknown = false
	e.end(OnSuccess)
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
	if !e.fire(on) {
		return
	}
	op.Ended = wall(e.clock.Now())
	e.pause = time.Time{}
	e.unknown = false
	e.j.addHistory(*op)
	typ := EventFailed
	if op.State == Succeeded {
		typ = EventCompleted
	}
	e.event(typ, func(ev *Event) {
		if typ == EventFailed {
			ev.Cause, ev.Text = op.Cause, op.Text
		}
		ev.ResetRequired = e.snapshot().ResetRequired()
	})
	_ = e.persist()
}

// event adds an event with the operation as it is now.
func (e *Engine) event(typ EventType, fill func(*Event)) {
	ev := Event{Type: typ, Time: wall(e.clock.Now()), Op: e.j.Op, Cause: CauseNone}
	if fill != nil {
		fill(&ev)
	}
	e.j.addEvent(ev)
	e.log.Info("event", "seq", e.j.Seq, "type", typ, "op", ev.Op.ID, "cause", ev.Cause, "text", ev.Text)
}

// stoppable tells whether the operation is not past the point of no return.
func (e *Engine) stoppable() bool {
	switch e.j.Op.State {
	case Waiting:
		return true
	case Running:
		switch e.j.Op.Phase {
		case Switching, PhaseRestarting, Trying, Applying:
			return false
		}
		return true
	}
	return false
}

// abort stops the operation, if it still can be.
func (e *Engine) abort(why *Failure) {
	op := &e.j.Op
	if !e.stoppable() {
		return
	}
	if op.State == Waiting {
		op.Cause, op.Text = why.Code, why.Text
		e.end(OnAbort)
		return
	}
	e.fire(OnAbort)
	e.stopWork(why)
}

// expire ends the operation at its time limit, if it still can be.
func (e *Engine) expire() {
	if !e.stoppable() {
		return
	}
	why := failure(CauseDeadlineExceeded, "not ended in its time limit of "+(time.Duration(e.j.Op.Limit)*time.Second).String())
	if e.j.Op.State == Waiting {
		e.fail(why)
		return
	}
	if e.work != nil && e.work.stop == nil {
		e.stopWork(why)
	}
}

func (e *Engine) stopWork(why *Failure) {
	if e.work == nil {
		// Accepted, but not begun: the response has not left yet.
		e.j.Op.Cause, e.j.Op.Text = why.Code, why.Text
		if e.j.Op.State == Aborting {
			e.end(OnStopped)
		} else {
			e.end(OnFailure)
		}
		return
	}
	e.work.stop = why
	e.work.cancel(why)
}
