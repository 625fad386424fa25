package procedure

import (
	"context"
	"fmt"
	"sync"
	"time"

	"example.com/iad/mib"
)

// step is one phase of an operation. A plan is a list of them.
type step struct {
	phase  mib.OperationPhase
	weight int // share of the percentage
	do     func(*task) error
	needed func(*task) bool // nil: always
	enters bool             // do says itself when the phase begins
}

// restartWanted is how a step says that the device must restart; the plan goes
// on behind it once the device is back.
type restartWanted struct{ reason mib.RestartReasonEnum }

func (*restartWanted) Error() string { return "restart" }

// task is the work of an attempt. Its methods are called by the goroutine that
// does the work.
type task struct {
	e      *Engine
	ctx    context.Context
	cancel context.CancelCauseFunc
	plan   []step
	// What the steps share.
	op            Operation // as it was when the work began
	server        Server
	rows          [FileKinds]File
	conn          Files
	files         ConfigFiles
	format        uint32
	sent          map[mib.FileType][]byte // digests
	alreadyInBank bool                    // the software is in the bank already
	noted         bool                    // the journal knows that the attempt has come to its transfer

	stop *Failure // owned by the engine's goroutine: why the work has to stop
	past bool     // past the point where it can be stopped; changed by the engine while the work waits

	mu              sync.Mutex
	live            live
	reportedPercent uint8 // last percentage reported to the engine
}

// live is the progress of the work. The engine takes it over when the phase or
// the percentage changes, a snapshot when it is read.
type live struct {
	phase       mib.OperationPhase
	file        string
	done, total uint64 // bytes transferred
	part, whole uint64 // of the phase verifying
	changed     time.Time
}

// percent weighs the phases; the last percent is for success. unknown is true
// while that says nothing.
func (l *live) percent(plan []step) (percent uint8, unknown bool) {
	sum, before, here := 0, 0, 0
	reached := false
	for _, s := range plan {
		sum += s.weight
		if s.phase == l.phase && !reached {
			reached, here = true, s.weight
		}
		if !reached {
			before += s.weight
		}
	}
	if !reached || sum == 0 {
		return 0, false
	}
	p := float64(before)
	switch {
	case l.phase == mib.OperationPhaseTransferring && l.total > 0:
		p += float64(here) * min(1, float64(l.done)/float64(l.total))
	case l.phase == mib.OperationPhaseVerifying && l.whole > 0:
		p += float64(here) * min(1, float64(l.part)/float64(l.whole))
	}
	return uint8(min(99, 100*p/float64(sum))), l.phase == mib.OperationPhaseTransferring && l.total == 0 && l.done > 0
}

// show writes the progress into an operation.
func (l *live) show(op *Operation, plan []step) (unknown bool) {
	if l.file != "" {
		op.File = l.file
	}
	op.Phase, op.Done, op.Total = l.phase, l.done, l.total
	p, unknown := l.percent(plan)
	op.Percent = max(op.Percent, p)
	return unknown
}

func (e *Engine) newTask() *task {
	t := &task{e: e, op: e.j.Op, rows: e.s.Files, plan: planFor(&e.j.Op)}
	if s, _ := usedRows(t.op.Kind, &t.op.Params); s != 0 {
		t.server = e.s.Servers[s-1]
		t.server.Zone = e.zone
	}
	t.live.phase = mib.OperationPhaseNone
	t.ctx, t.cancel = context.WithCancelCause(e.ctx)
	return t
}

func (t *task) runSteps(from int) error {
	defer func() {
		if t.conn != nil {
			_ = t.conn.Close()
		}
	}()
	for _, s := range t.plan[from:] {
		if err := t.stopped(); err != nil {
			return err
		}
		if s.do == nil || s.needed != nil && !s.needed(t) {
			continue
		}
		if !s.enters {
			t.phase(s.phase)
		}
		if err := s.do(t); err != nil {
			return fmt.Errorf("%s: %w", s.phase, err)
		}
	}
	return nil
}

// stopped returns why the work must not continue. Behind the point of no return only
// the end of Run stops it.
func (t *task) stopped() error {
	if t.past {
		return t.e.ctx.Err()
	}
	return context.Cause(t.ctx)
}

// phase begins a phase.
func (t *task) phase(p mib.OperationPhase) {
	if t.enter(p) {
		_ = t.e.call(func() { t.e.takeLive(t) })
		if t.e.cfg.Entered != nil {
			t.e.cfg.Entered()
		}
	}
}

// enter notes the phase and reports whether it is another one.
func (t *task) enter(p mib.OperationPhase) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.live.phase == p {
		return false
	}
	t.live.phase, t.live.part, t.live.whole = p, 0, 0
	t.live.changed = t.e.clock.Now()
	return true
}

// file says which file is worked on.
func (t *task) file(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.live.file = name
}

// progress counts bytes transferred; total is 0 while it is not known.
func (t *task) progress(done, total uint64) {
	t.advance(func(l *live) { l.done, l.total = done, total })
}

// verified counts what was verified of the whole.
func (t *task) verified(part, whole uint64) {
	t.advance(func(l *live) { l.part, l.whole = part, whole })
}

// advance changes the progress. The engine is notified if the percentage is another
// one, not of each packet.
func (t *task) advance(f func(*live)) {
	t.mu.Lock()
	f(&t.live)
	t.live.changed = t.e.clock.Now()
	p, unknown := t.live.percent(t.plan)
	if unknown {
		p = PercentUnknown
	}
	changed := p != t.reportedPercent
	t.reportedPercent = p
	t.mu.Unlock()
	if changed {
		select {
		case t.e.poke <- struct{}{}:
		default:
		}
	}
}

// requestStop makes the work end with why.
func (t *task) requestStop(why *Failure) {
	t.stop = why
	t.cancel(why)
}

// pointOfNoReturn begins a phase that cannot be stopped; it is journaled. The
// error is why the work has to stop before. An abort that was tested but
// not carried out yet is waited for, so that its success means something.
func (t *task) pointOfNoReturn(p mib.OperationPhase, change func(*journal)) (err error) {
	for {
		var wait <-chan struct{}
		if stopped := t.e.call(func() {
			if r := t.e.reserved; r != nil && r.command == mib.OperationKindAbort && !t.past {
				wait = r.ended
				return
			}
			err = t.pass(p, change)
		}); stopped != nil {
			return stopped
		}
		if wait == nil {
			return err
		}
		select {
		case <-wait:
		case <-t.ctx.Done():
			return context.Cause(t.ctx)
		}
	}
}

// pass is pointOfNoReturn in the engine's goroutine.
func (t *task) pass(p mib.OperationPhase, change func(*journal)) error {
	e := t.e
	if t.stop != nil && (!t.past || p == mib.OperationPhaseTrying) {
		return t.stop
	}
	t.past = true
	t.enter(p)
	e.takeLive(t)
	if change != nil {
		change(&e.j)
	}
	err := e.persist()
	// Going back and restarting must be possible with a full or broken state
	// partition.
	if err == nil || e.j.Op.Kind == mib.OperationKindRestoreOldSoftware || e.j.Op.Kind == mib.OperationKindReset {
		return nil
	}
	return failure(mib.FailCauseStorageFull, cut(err.Error()))
}

// update changes the operation from the work.
func (t *task) update(f func(*journal)) {
	_ = t.e.call(func() {
		if t.e.work == t {
			f(&t.e.j)
		}
	})
}

// transfers journals, once an attempt, that it has come to its transfer: if a power
// cut ends the operation its record names the bank, the file and the phase.
func (t *task) transfers() {
	if t.noted {
		return
	}
	t.noted = true
	t.update(func(*journal) {
		t.e.takeLive(t)
		_ = t.e.persist() // it is logged; the transfer needs no room there
	})
}

// result notes how it went with a file.
func (t *task) result(k mib.FileType, r FileResult) {
	r.OpID = t.op.ID
	t.update(func(j *journal) { j.Files[k-1] = r })
}

// takeProgress takes over the progress of the running work.
func (e *Engine) takeProgress() {
	if e.work != nil {
		e.takeLive(e.work)
	}
}

// takeLive notes the progress of the work.
func (e *Engine) takeLive(t *task) {
	op := &e.j.Op
	if op.State != mib.OperationStateRunning && op.State != mib.OperationStateAborting {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	e.unknown = t.live.show(op, t.plan)
	if t.live.changed.After(e.changed) {
		e.changed = t.live.changed
	}
}
