package procedure_test

import (
	"testing"

	"example.com/iad/agent/procedure"
	"example.com/iad/mib"
)

// lastSwitch returns the last bankSwitched from event seq on.
func (l *lab) lastSwitch(seq uint32) (ev procedure.Event) {
	for _, e := range l.now().Events {
		if e.Seq >= seq && e.Type == mib.EventTypeBankSwitched {
			ev = e
		}
	}
	return ev
}

// A download over software that was activated takes that back: the running bank
// is next again, and an event reports that afterwards.
func TestDownloadTakesAnActivationBack(t *testing.T) {
	run(t, func(l *lab) {
		l.begin(mib.OperationKindActivate, 0)
		seq := l.now().Seq + 1
		l.hold("read")
		l.begin(mib.OperationKindDownloadSoftware, procedure.Force)
		if s := l.now(); s.Banks.Next != 1 {
			t.Fatalf("next %d", s.Banks.Next)
		}
		l.wantEvents(seq, mib.EventTypeStarted, mib.EventTypeBankSwitched)
		if ev := l.lastSwitch(seq); ev.Bank != 1 || ev.Op.ID != 2 || ev.Software != "1.0.0" {
			t.Errorf("event %+v", ev)
		}
		l.release("read")
		l.wantEvents(seq, mib.EventTypeStarted, mib.EventTypeBankSwitched, mib.EventTypeCompleted)

		seq = l.now().Seq + 1
		l.begin(mib.OperationKindDownloadSoftware, procedure.Force) // nothing is switched
		l.wantEvents(seq, mib.EventTypeStarted, mib.EventTypeCompleted)
	})
	run(t, func(l *lab) { // also if it fails at once
		l.begin(mib.OperationKindActivate, 0)
		seq := l.now().Seq + 1
		l.failing("get", coded(mib.FailCauseFileNotFound))
		l.begin(mib.OperationKindDownloadSoftware, procedure.Force)
		l.wantEvents(seq, mib.EventTypeStarted, mib.EventTypeBankSwitched, mib.EventTypeFailed)
		// What was taken back cannot fail its trial.
		l.cut(func(b *procedure.BankStatus) { b.Banks[1].State = mib.BankStateCorrupt })
		l.wantEvents(seq+3, mib.EventTypeRestarted)
	})
}

// A power cut comes before an event reported the change of the next bank: one follows after
// the restart, once.
func TestTakenBackBeforeACut(t *testing.T) {
	run(t, func(l *lab) {
		l.begin(mib.OperationKindActivate, 0)
		l.hold("erase")
		l.begin(mib.OperationKindDownloadSoftware, procedure.Force)
		seq := l.now().Seq + 1
		l.cut(func(b *procedure.BankStatus) {
			b.Banks[1], b.Running, b.Next, b.Fallback = procedure.Bank{State: mib.BankStateWriting}, 1, 1, 1
		})
		l.wantEvents(seq, mib.EventTypeRestarted, mib.EventTypeFailed, mib.EventTypeBankSwitched)
		if ev := l.lastSwitch(seq); ev.Bank != 1 {
			t.Errorf("event %+v", ev)
		}
		l.cut(nil)
		l.wantEvents(seq+3, mib.EventTypeRestarted)
	})
}

// An activation that is taken back because the software could not take over.
func TestFailedTakeOverIsToldOf(t *testing.T) {
	run(t, func(l *lab) {
		l.over = true
		l.banks.Banks[1].NeedsReset = false
		l.failing("takeover", coded(mib.FailCauseBootFailed))
		seq := l.now().Seq + 1
		l.begin(mib.OperationKindActivate, 0)
		l.wantEvents(seq, mib.EventTypeStarted, mib.EventTypeBankSwitched, mib.EventTypeBankSwitched, mib.EventTypeFailed)
		if ev := l.lastSwitch(seq); ev.Bank != 1 {
			t.Errorf("event %+v", ev)
		}
	})
}
