package procedure

import (
	"time"

	"example.com/iad/mib"
)

// Snapshot is a consistent state of the engine. It never changes.
type Snapshot struct {
	Settings    Settings
	Lock        int32
	Refusal     mib.FailCause
	RefusalText string
	Op          Operation
	History     []Operation // oldest first
	Events      []Event     // oldest first
	Seq         uint32
	Sent        uint32
	Files       [FileKinds]FileResult
	Restarts    uint32
	Reason      mib.RestartReasonEnum
	// ConfigReset is true while configuration data wait for a restart.
	ConfigReset bool
	// Banks is what is known without a look at the banks.
	Banks  BankStatus
	Config ConfigStatus
	// Progress counts the iadUpgOpProgress that became due.
	Progress uint64

	now     func() time.Time
	base    time.Time
	changed time.Time
	window  time.Time
	work    *task // whose progress belongs to Op, nil for none
	known   uint8 // Op.Percent before it was unknown
}

// Snapshot returns the present state; it does not block.
func (e *Engine) Snapshot() *Snapshot {
	s := e.snap.Load()
	t := s.work
	if t == nil {
		return s
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.live.phase != s.Op.Phase {
		return s // the engine is about to take the new phase over
	}
	now := *s
	now.Op.Percent = s.known
	if t.live.show(&now.Op, t.plan) {
		now.Op.Percent = PercentUnknown
	}
	if t.live.changed.After(now.changed) {
		now.changed = t.live.changed
	}
	return &now
}

func (e *Engine) snapshot() *Snapshot {
	s := &Snapshot{
		Settings: e.s, Lock: e.lock, Refusal: e.refusal.Code, RefusalText: e.refusal.Text,
		Op: e.j.Op, History: e.j.History[:len(e.j.History):len(e.j.History)],
		Events: e.j.Events[:len(e.j.Events):len(e.j.Events)],
		Seq:    e.j.Seq, Sent: e.j.Sent, Files: e.j.Files, Restarts: e.j.Restarts, Reason: e.j.Reason,
		ConfigReset: e.j.ConfigReset, Banks: e.cfg.Banks.Known(), Config: e.cfg.Store.Status(),
		Progress: e.progress.count,
		now:      e.clock.Now, base: e.base, changed: e.changed, window: e.window, known: e.j.Op.Percent,
	}
	if e.unknown {
		s.Op.Percent = PercentUnknown
	}
	if s.Op.State == mib.OperationStateRunning || s.Op.State == mib.OperationStateAborting {
		s.work = e.work
	}
	return s
}

// Elapsed is how long the operation has been going on or went on, in seconds.
func (s *Snapshot) Elapsed() uint32 {
	if s.Op.State.Final() {
		return s.Op.Elapsed
	}
	return seconds(s.now().Sub(s.base))
}

// TimeLeft is how long until the time limit in seconds, 0 in a final state.
func (s *Snapshot) TimeLeft() uint32 {
	if s.Op.State.Final() {
		return 0
	}
	if e := s.Elapsed(); e < s.Op.Limit {
		return s.Op.Limit - e
	}
	return 0
}

// SinceChange is how many seconds ago phase, percentage or bytes last changed.
func (s *Snapshot) SinceChange() uint32 {
	if s.changed.IsZero() {
		return 0
	}
	return seconds(s.now().Sub(s.changed))
}

// ConfirmLeft is how many seconds software on trial has left, 0 if none is.
func (s *Snapshot) ConfirmLeft() uint32 {
	if s.window.IsZero() {
		return 0
	}
	return seconds(s.window.Sub(s.now()))
}

// ResetRequired reports whether software or configuration data are in place that
// take effect only after a restart.
func (s *Snapshot) ResetRequired() bool {
	return s.ConfigReset || s.Config.NeedsReset || s.Banks.Next != s.Banks.Running
}

func seconds(d time.Duration) uint32 {
	if d <= 0 {
		return 0
	}
	return uint32(min(d/time.Second, 1<<32-1))
}

func (e *Engine) elapsed() uint32 { return seconds(e.clock.Now().Sub(e.base)) }

func (e *Engine) deadline() time.Time {
	return e.base.Add(time.Duration(e.j.Op.Limit) * time.Second)
}
