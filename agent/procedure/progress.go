package procedure

import (
	"time"

	"example.com/iad/mib"
)

// progressState decides when an iadUpgOpProgress is due (iadUpgNotifyStep,
// iadUpgNotifyMinInterval, iadUpgNotifyMaxInterval).
type progressState struct {
	sent  time.Time // when the last one became due, of whatever operation
	since time.Time // when this operation began
	// What the last one of this operation reported.
	phase   mib.OperationPhase
	percent uint8
	state   mib.OperationState
	count   uint64
}

// begin is called for a new operation.
func (p *progressState) begin(now time.Time) {
	p.since = now
	p.phase, p.percent, p.state = mib.OperationPhaseNone, 0, 0
}

// wanted reports whether there is something to report.
func (p *progressState) wanted(e *Engine) bool {
	op := &e.j.Op
	if op.Phase == mib.OperationPhaseNone {
		return op.State != mib.OperationStateRunning && op.State != p.state // its first phase is about to come
	}
	return op.Phase != p.phase || op.State != p.state || op.Percent >= p.percent+e.s.Notify.Step || op.Percent < p.percent
}

// due is when the next one is to be sent, zero for not before something
// changes.
func (p *progressState) due(e *Engine) time.Time {
	after := func(t time.Time, s uint32) time.Time { return t.Add(time.Duration(s) * time.Second) }
	earliest := p.since
	if !p.sent.IsZero() {
		earliest = after(p.sent, e.s.Notify.MinInterval)
	}
	if p.wanted(e) {
		return earliest
	}
	if e.s.Notify.MaxInterval == 0 {
		return time.Time{}
	}
	last := p.since
	if p.sent.After(last) {
		last = p.sent
	}
	if t := after(last, e.s.Notify.MaxInterval); t.After(earliest) {
		return t
	}
	return earliest
}

// progressDue counts one; the front ends send it.
func (e *Engine) progressDue() {
	p, op := &e.progress, &e.j.Op
	p.sent, p.phase, p.percent, p.state = e.clock.Now(), op.Phase, op.Percent, op.State
	p.count++
}
