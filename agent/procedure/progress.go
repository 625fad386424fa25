package procedure

import "time"

// progressState decides when an iadUpgOpProgress is due (iadUpgNotifyStep,
// iadUpgNotifyMinInterval, iadUpgNotifyMaxInterval).
type progressState struct {
	last    time.Time // when the last one became due
	phase   Phase     // at the last one
	percent uint8
	state   State
	count   uint64
}

// wanted tells whether there is something to report.
func (p *progressState) wanted(e *Engine) bool {
	op := &e.j.Op
	return op.Phase != p.phase || op.State != p.state || op.Percent >= p.percent+e.s.Notify.Step || op.Percent < p.percent
}

// due is when the next one is to be sent, zero for not before something
// changes.
func (p *progressState) due(e *Engine) (t time.Time) {
	if p.wanted(e) {
		return p.last.Add(time.Duration(e.s.Notify.MinInterval) * time.Second)
	}
	if e.s.Notify.MaxInterval != 0 {
		t = p.last.Add(time.Duration(max(e.s.Notify.MaxInterval, e.s.Notify.MinInterval)) * time.Second)
	}
	return t
}

func (p *progressState) tick(e *Engine, now time.Time) {
	op := &e.j.Op
	if op.State.Final() || op.Phase == PhaseNone && op.State != Waiting {
		return
	}
	if d := p.due(e); d.IsZero() || now.Before(d) {
		return
	}
	p.last, p.phase, p.percent, p.state = now, op.Phase, op.Percent, op.State
	p.count++
}
