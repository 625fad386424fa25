package sim

import (
	"context"
	"slices"
	"sync"
	"time"

	"example.com/iad/mib"
)

// faults are the faults of one device.
type faults struct {
	mu       sync.Mutex
	list     []*armed
	watching context.Context // of the watchPhase that runs, nil for none
	injected chan struct{}   // wakes it
}

// armed is a fault that waits for its occasion, or lasts.
type armed struct {
	Fault
	until       time.Time // zero for no limit
	seen, fired int
}

// until is when a fault that is injected now ends, zero for never.
func (f Fault) until(now time.Time) time.Time {
	if f.For == 0 {
		return time.Time{}
	}
	return now.Add(f.For)
}

// FaultState is a fault of a device.
type FaultState struct {
	Fault
	// Fired is how often it has happened.
	Fired int
}

// Inject gives the device a fault, which may happen at once.
func (d *Device) Inject(f Fault) {
	a := &armed{Fault: f, until: f.until(d.cfg.Clock.Now())}
	d.faults.mu.Lock()
	d.faults.list = append(d.faults.list, a)
	d.faults.mu.Unlock()
	d.distinguish()
	d.mu.Lock()
	ctx, running := d.ctx, d.agent
	d.mu.Unlock()
	if running != nil {
		d.watchPhases(ctx, running)
	}
}

// ClearFaults removes the device's faults of a kind, or all of them if kind is empty, and
// returns how many there were.
func (d *Device) ClearFaults(kind FaultKind) int {
	defer d.distinguish()
	d.faults.mu.Lock()
	defer d.faults.mu.Unlock()
	before := len(d.faults.list)
	d.faults.list = slices.DeleteFunc(d.faults.list, func(a *armed) bool { return kind == "" || a.Kind == kind })
	return before - len(d.faults.list)
}

// Faults returns the faults that wait for their occasion or last.
func (d *Device) Faults() (list []FaultState) {
	now := d.cfg.Clock.Now()
	d.faults.mu.Lock()
	defer d.faults.mu.Unlock()
	d.faults.expire(now)
	for _, a := range d.faults.list {
		list = append(list, FaultState{a.Fault, a.fired})
	}
	return list
}

// expire removes faults whose time is over.
func (f *faults) expire(now time.Time) {
	f.list = slices.DeleteFunc(f.list, func(a *armed) bool { return !a.until.IsZero() && !now.Before(a.until) })
}

// has reports whether there may be faults of some kinds.
func (f *faults) has(kinds ...FaultKind) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.hasLocked(kinds...)
}

func (f *faults) hasLocked(kinds ...FaultKind) bool {
	return slices.ContainsFunc(f.list, func(a *armed) bool { return slices.Contains(kinds, a.Kind) })
}

// occasion says that faults of some kinds could happen now, and returns the one that does.
func (d *Device) occasion(kinds ...FaultKind) (Fault, bool) {
	if !d.faults.has(kinds...) {
		return Fault{}, false
	}
	d.count(kinds...)
	return d.happens(nil, kinds...)
}

// count says that faults of some kinds could happen from now on, until the next occasion.
func (d *Device) count(kinds ...FaultKind) {
	op, phase := d.operation()
	d.countIn(op, phase, kinds...)
}

// countIn is count for what the device is doing.
func (d *Device) countIn(op mib.OperationKind, phase mib.OperationPhase, kinds ...FaultKind) {
	d.faults.mu.Lock()
	defer d.faults.mu.Unlock()
	for _, a := range d.faults.list {
		if slices.Contains(kinds, a.Kind) && a.matches(op, phase) && a.Write == 0 {
			a.seen++
		}
	}
}

func (f *Fault) matches(op mib.OperationKind, phase mib.OperationPhase) bool {
	return (f.Operation == 0 || f.Operation == op) && (f.Phase == 0 || f.Phase == phase)
}

// happens returns the fault that happens now, one that accept, if given, accepts. That
// it was injected after its occasion had been counted does not matter, unless it waits for
// a later one.
func (d *Device) happens(accept func(*armed) bool, kinds ...FaultKind) (Fault, bool) {
	if !d.faults.has(kinds...) {
		return Fault{}, false
	}
	op, phase := d.operation()
	return d.happensIn(op, phase, accept, kinds...)
}

// happensIn is happens for what the device is doing.
func (d *Device) happensIn(op mib.OperationKind, phase mib.OperationPhase, accept func(*armed) bool, kinds ...FaultKind) (Fault, bool) {
	now := d.cfg.Clock.Now()
	d.faults.mu.Lock()
	defer d.faults.mu.Unlock()
	d.faults.expire(now)
	for i, a := range d.faults.list {
		if !slices.Contains(kinds, a.Kind) || !a.matches(op, phase) || a.Nth > 1 && a.seen < a.Nth || accept != nil && !accept(a) {
			continue
		}
		a.fired++
		if a.fired == 1 || a.times() != 0 {
			d.event(Event{Kind: FaultEvent, Fault: a.Fault.String(), Operation: op, Phase: phase})
		}
		if a.fired == a.times() {
			d.faults.list = slices.Delete(d.faults.list, i, i+1)
		}
		return a.Fault, true
	}
	return Fault{}, false
}

// operation is what the device is doing, 0 for nothing.
func (d *Device) operation() (mib.OperationKind, mib.OperationPhase) {
	d.mu.Lock()
	running := d.agent
	d.mu.Unlock()
	if running == nil {
		return 0, 0
	}
	op := running.Engine().Snapshot().Op
	if op.State.Final() {
		return 0, 0
	}
	return op.Kind, op.Phase
}

// EventKind is a kind of Event.
type EventKind string

// Kinds of events.
const (
	StartEvent EventKind = "start" // the device has started again
	PowerEvent EventKind = "power" // the power was switched or failed
	FaultEvent EventKind = "fault" // a fault happened; one that lasts is an event when it happens first
)

// Event is something that happened to a device.
type Event struct {
	Time   time.Time
	Device string
	Kind   EventKind
	Fault  string // as ParseFault reads it
	Power  string // on or off
	// Operation and Phase are what the device was doing, 0 for nothing.
	Operation mib.OperationKind
	Phase     mib.OperationPhase
}

// event reports an event.
func (d *Device) event(e Event) {
	e.Time, e.Device = d.cfg.Clock.Now(), d.cfg.ID
	if d.cfg.OnEvent != nil {
		d.cfg.OnEvent(e)
	}
}
