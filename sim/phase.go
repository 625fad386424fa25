package sim

import (
	"slices"
	"sync"
	"sync/atomic"

	"example.com/iad/mib"
)

// phases notices which phases the operations of a device enter. The engine publishes a
// phase before it begins and has the device look then, so that nothing is done in a phase before it was
// noticed. Whatever a device does in it, such as using its disk, looks at the phase, too: how far it is.
type phases struct {
	mu      sync.Mutex
	last    seen
	waiting []*phaseWait
	waits   atomic.Int32 // how many are waiting
}

// seen is what identifies a phase.
type seen struct {
	op, attempt uint32
	phase       mib.OperationPhase
}

// phaseWait is a call for when an operation enters a phase.
type phaseWait struct {
	op    mib.OperationKind // 0 for any
	phase mib.OperationPhase
	call  func()
}

// WhenPhase calls f once, when an operation of a kind, 0 for any, enters a phase: before
// the device does anything in it, and in a goroutine of the device. f must not wait for
// the device.
func (d *Device) WhenPhase(kind mib.OperationKind, phase mib.OperationPhase, f func()) {
	d.phases.mu.Lock()
	d.phases.waiting = append(d.phases.waiting, &phaseWait{kind, phase, f})
	d.phases.waits.Add(1)
	d.phases.mu.Unlock()
	d.mu.Lock()
	ctx, running := d.ctx, d.agent
	d.mu.Unlock()
	if running != nil {
		d.watchPhases(ctx, running)
	}
}

// phasesWanted reports whether somebody needs to know the phases.
func (d *Device) phasesWanted() bool { return d.phases.waits.Load() > 0 || d.faults.has(PowerCut) }

// look notices a new phase, and cuts the power if a fault wants that. bytesWanted says that
// one waits for more bytes of the phase.
func (d *Device) look() (bytesWanted bool) {
	if !d.phasesWanted() {
		return false
	}
	d.mu.Lock()
	running := d.agent
	d.mu.Unlock()
	if running == nil {
		return false
	}
	p := &d.phases
	p.mu.Lock()
	op := running.Engine().Snapshot().Op
	kind, phase := op.Kind, op.Phase
	if op.State.Final() {
		kind, phase = 0, 0
	}
	now := seen{op.ID, op.Attempt, phase}
	entered := phase != 0 && now != p.last
	p.last = now
	var calls []func()
	if entered {
		d.countIn(kind, phase, PowerCut)
		p.waiting = slices.DeleteFunc(p.waiting, func(w *phaseWait) bool {
			due := w.phase == phase && (w.op == 0 || w.op == kind)
			if due {
				calls = append(calls, w.call)
				p.waits.Add(-1)
			}
			return due
		})
	}
	p.mu.Unlock()
	for _, call := range calls {
		call()
	}
	f, ok := d.happensIn(kind, phase, func(f *armed) bool {
		switch {
		case f.Write != 0:
			return false
		case f.At == 0 || op.Total != 0 && op.Done*100 >= uint64(f.At)*op.Total:
			return true
		}
		bytesWanted = true
		return false
	}, PowerCut)
	if ok {
		d.failWith(f)
	}
	return bytesWanted
}
