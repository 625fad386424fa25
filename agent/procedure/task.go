package procedure

import (
	"context"
	"fmt"
	"sync"
)

// step is one phase of an operation. A plan is a list of them.
type step struct {
	phase  Phase
	weight int // share of the percentage
	do     func(*task) error
}

// restartWanted is how a step says that the device must restart; the plan goes
// on behind it once the device is back.
type restartWanted struct{ reason RestartReason }

func (*restartWanted) Error() string { return "restart" }

// task is the work of an attempt. Its methods are called by the goroutine that
// does the work.
type task struct {
	e      *Engine
	ctx    context.Context
	cancel context.CancelCauseFunc
	plan   []step
	// What the steps share.
	op     Operation // as it was when the work began
	server Server
	rows   [FileKinds]File
	conn   Files
	files  ConfigFiles
	format uint32
	sent   map[FileKind][]byte // digests

	stop *Failure // owned by the engine's goroutine: why the work was told to stop

	mu   sync.Mutex
	live live
}

// live is the progress of the work, taken over by the engine when it gets to
// it.
type live struct {
	phase       Phase
	file        string
	done, total uint64
}

func (e *Engine) newTask() *task {
	t := &task{e: e, op: e.j.Op, rows: e.s.Files, plan: e.planFor(&e.j.Op)}
	if s, _ := usedRows(t.op.Kind, &t.op.Params); s != 0 {
		t.server = e.s.Servers[s-1]
	}
	t.live.phase = PhaseNone
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
		if err := context.Cause(t.ctx); err != nil {
			return err
		}
		if s.do == nil {
			continue
		}
		t.phase(s.phase)
		if err := s.do(t); err != nil {
			return fmt.Errorf("%s: %w", s.phase, err)
		}
	}
	return nil
}

// phase begins a phase.
func (t *task) phase(p Phase) {
	t.mu.Lock()
	same := t.live.phase == p
	t.live.phase = p
	t.mu.Unlock()
	if !same {
		_ = t.e.call(func() { t.e.takeLive(t) })
	}
}

// file says which file is worked on.
func (t *task) file(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.live.file = name
}

// progress counts octets; total is 0 while it is not known.
func (t *task) progress(done, total uint64) {
	t.mu.Lock()
	t.live.done, t.live.total = done, total
	t.mu.Unlock()
	select {
	case t.e.poke <- struct{}{}:
	default:
	}
}

// pointOfNoReturn begins a phase that cannot be stopped; it is journaled. The
// error is why the work was told to stop before.
func (t *task) pointOfNoReturn(p Phase, change func(*journal)) (err error) {
	if stopped := t.e.call(func() {
		e := t.e
		if t.stop != nil {
			err = t.stop
			return
		}
		t.mu.Lock()
		t.live.phase = p
		t.mu.Unlock()
		e.takeLive(t)
		if change != nil {
			change(&e.j)
		}
		// Going back must be possible with a full or broken state partition.
		if err = e.persist(); err != nil && e.j.Op.Kind == RestoreOldSoftware {
			err = nil
		}
		if err != nil {
			err = failure(CauseStorageFull, cut(err.Error()))
		}
	}); stopped != nil {
		return stopped
	}
	return err
}

// update changes the operation from the work.
func (t *task) update(f func(*journal)) {
	_ = t.e.call(func() {
		if t.e.work == t {
			f(&t.e.j)
		}
	})
}

// result notes how it went with a file.
func (t *task) result(k FileKind, r FileResult) {
	r.OpID = t.op.ID
	t.update(func(j *journal) { j.Files[k-1] = r })
}

// takeProgress takes over the progress of the running work.
func (e *Engine) takeProgress() {
	if e.work != nil {
		e.takeLive(e.work)
	}
}

func (e *Engine) takeLive(t *task) {
	t.mu.Lock()
	l := t.live
	t.mu.Unlock()
	op := &e.j.Op
	if op.State != Running && op.State != Aborting {
		return
	}
	if l.file != "" {
		op.File = l.file
	}
	if op.Phase != l.phase || op.Done != l.done || op.Total != l.total {
		e.changed = e.clock.Now()
	}
	op.Phase = l.phase
	op.Done, op.Total = l.done, l.total
	e.unknown = l.phase == Transferring && l.total == 0 && l.done > 0
	op.Percent = max(op.Percent, percentOf(t.plan, l))
}

// percentOf weighs the phases of a plan; the last percent is for success.
func percentOf(plan []step, l live) uint8 {
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
		return 0
	}
	p := float64(before)
	if l.phase == Transferring || l.phase == Verifying {
		if l.total > 0 {
			p += float64(here) * min(1, float64(l.done)/float64(l.total))
		}
	}
	return uint8(min(99, 100*p/float64(sum)))
}
