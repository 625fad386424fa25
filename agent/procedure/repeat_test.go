package procedure_test

import (
	"strings"
	"testing"

	"example.com/iad/agent/procedure"
	"example.com/iad/mib"
)

// A request whose response was lost may be repeated, while the operation runs
// and afterwards; anything that differs is another request.
func TestRepeat(t *testing.T) {
	run(t, func(l *lab) {
		again := func(id uint32, owner string, k mib.OperationKind, hasID, hasOwner bool) error {
			return l.do(procedure.Change{Command: k, HasReqID: hasID, HasOwner: hasOwner, Edit: func(s *procedure.Settings) error {
				s.Params.ReqID, s.Params.Owner = id, owner
				s.Params.Bank = 1
				return nil
			}})
		}
		l.hold("connect")
		if err := again(5, "a", mib.OperationKindBackupConfig, true, true); err != nil {
			t.Fatal(err)
		}
		seq := l.now().Seq
		if err := again(5, "a", mib.OperationKindBackupConfig, true, true); err != nil {
			t.Errorf("repeat refused: %v", err)
		}
		if s := l.now(); s.Op.ID != 1 || s.Seq != seq || s.Settings.Params != (procedure.Params{Server: 1, Retries: 2}) {
			t.Errorf("the repeat changed something: operation %d, event %d", s.Op.ID, s.Seq)
		}
		for name, err := range map[string]error{
			"other owner":     again(5, "b", mib.OperationKindBackupConfig, true, true),
			"other id":        again(6, "a", mib.OperationKindBackupConfig, true, true),
			"other kind":      again(5, "a", mib.OperationKindRecoverConfig, true, true),
			"id not in it":    again(5, "a", mib.OperationKindBackupConfig, false, true),
			"owner not in it": again(5, "a", mib.OperationKindBackupConfig, true, false),
			"id 0":            again(0, "a", mib.OperationKindBackupConfig, true, true),
		} {
			t.Log(name)
			l.refused(err, procedure.Inconsistent, mib.FailCauseBusy)
		}
		l.release("connect")
		if err := again(5, "a", mib.OperationKindBackupConfig, true, true); err != nil || l.now().Op.ID != 1 {
			t.Errorf("repeat after the end: %v, operation %d", err, l.now().Op.ID)
		}
		wrong := int32(-1)
		err := l.do(procedure.Change{Command: mib.OperationKindBackupConfig, HasReqID: true, HasOwner: true, Lock: &wrong,
			Edit: func(s *procedure.Settings) error { s.Params.ReqID, s.Params.Owner = 5, "a"; return nil }})
		if r := l.refused(err, procedure.Inconsistent, mib.FailCauseOther); r.Subject != procedure.SubjectLock {
			t.Errorf("the lock is not to blame: %+v", r)
		}
	})
}

// A manager that was paused sends a request after another one came between: it is
// not carried out a second time, not even after a restart.
func TestRepeatOfAnOlderRequest(t *testing.T) {
	run(t, func(l *lab) {
		send := func(id uint32, owner string, k mib.OperationKind) error {
			return l.do(procedure.Change{Command: k, HasReqID: true, HasOwner: true, Edit: func(s *procedure.Settings) error {
				s.Params.ReqID, s.Params.Owner = id, owner
				return nil
			}})
		}
		for _, id := range []uint32{1001, 1001, 1002} {
			if err := send(id, "a", mib.OperationKindBackupConfig); err != nil {
				t.Fatal(err)
			}
			l.expect(mib.OperationStateSucceeded, mib.OperationPhaseVerifying, mib.FailCauseNone)
		}
		seq, lock := l.now().Seq, l.now().Lock
		r := l.refused(send(1001, "a", mib.OperationKindBackupConfig), procedure.Inconsistent, mib.FailCauseBadRequest)
		if !strings.Contains(r.Text, "operation 1 ") || l.now().Refusal != mib.FailCauseBadRequest {
			t.Errorf("refused with %q, shown as %s", r.Text, l.now().Refusal)
		}
		if s := l.now(); s.Op.ID != 2 || s.Seq != seq || s.Lock != lock {
			t.Errorf("operation %d, event %d, lock %d", s.Op.ID, s.Seq, s.Lock)
		}
		l.cut(nil)
		l.refused(send(1001, "a", mib.OperationKindBackupConfig), procedure.Inconsistent, mib.FailCauseBadRequest)
		if err := send(1002, "a", mib.OperationKindBackupConfig); err != nil || l.now().Op.ID != 2 {
			t.Errorf("the last request again: %v, operation %d", err, l.now().Op.ID)
		}
		// Another owner or kind is another request.
		if err := send(1001, "b", mib.OperationKindBackupConfig); err != nil || l.now().Op.ID != 3 {
			t.Errorf("other owner: %v, operation %d", err, l.now().Op.ID)
		}
		if err := send(1002, "a", mib.OperationKindRecoverConfig); err != nil || l.now().Op.ID != 4 {
			t.Errorf("other kind: %v, operation %d", err, l.now().Op.ID)
		}
	})
}

// A repeat is recognised while the device is on its way to a restart.
func TestRepeatOfReset(t *testing.T) {
	run(t, func(l *lab) {
		c := procedure.Change{Command: mib.OperationKindReset, HasReqID: true, HasOwner: true,
			Edit: func(s *procedure.Settings) error { s.Params.ReqID = 9; return nil }}
		if err := l.do(c); err != nil {
			t.Fatal(err)
		}
		l.expect(mib.OperationStateRestarting, mib.OperationPhaseRestarting, mib.FailCauseNone)
		if err := l.do(c); err != nil {
			t.Errorf("repeat: %v", err)
		}
		l.refused(l.request(mib.OperationKindBackupConfig, nil), procedure.Unavailable, mib.FailCauseBusy)
		if r := l.restart(nil); r != mib.RestartReasonCommanded {
			t.Errorf("reason %s", r)
		}
		l.expect(mib.OperationStateSucceeded, mib.OperationPhaseRestarting, mib.FailCauseNone)
		if l.now().Op.ID != 1 || l.now().Restarts != 2 {
			t.Errorf("operation %d, restart %d", l.now().Op.ID, l.now().Restarts)
		}
	})
}

// A SET that leaves the lock out moves it as well; a repeat, one that fails and one of
// other objects do not.
func TestLockMovesUnasked(t *testing.T) {
	run(t, func(l *lab) {
		lock := l.now().Lock
		moved := func(by int32) {
			t.Helper()
			if lock += by; l.now().Lock != lock {
				t.Errorf("lock %d, want %d", l.now().Lock, lock)
				lock = l.now().Lock
			}
		}
		path := func(s *procedure.Settings) error { s.Servers[0].Path = "elsewhere"; return nil }
		if err := l.do(procedure.Change{Guarded: true, Edit: path}); err != nil {
			t.Fatal(err)
		}
		moved(1)
		l.settings(func(s *procedure.Settings) { s.ConfirmWindow = 77 }) // not guarded
		moved(0)
		request := func(s *procedure.Settings) error { s.Params.ReqID, s.Params.Owner = 9, "a"; return nil }
		for _, by := range []int32{1, 0} { // the second one is a repeat
			l.hold("connect")
			if err := l.do(procedure.Change{Command: mib.OperationKindBackupConfig, HasReqID: true, HasOwner: true, Edit: request}); err != nil {
				t.Fatal(err)
			}
			moved(by)
		}
		l.refused(l.do(procedure.Change{Guarded: true, Edit: func(s *procedure.Settings) error { s.Servers[0].Path = "third"; return nil }}),
			procedure.Inconsistent, mib.FailCauseBusy) // the operation uses the row
		moved(0)
		l.release("connect")
	})
}

// The lock goes up by one with each SET that carries it.
func TestLock(t *testing.T) {
	run(t, func(l *lab) {
		lock := l.now().Lock
		for range 2 {
			if err := l.do(procedure.Change{Lock: &lock}); err != nil {
				t.Fatal(err)
			}
			if lock++; l.now().Lock != lock {
				t.Fatalf("lock %d, want %d", l.now().Lock, lock)
			}
		}
		old := lock - 1
		l.refused(l.do(procedure.Change{Lock: &old, Command: mib.OperationKindReset}), procedure.Inconsistent, mib.FailCauseOther)
		l.cut(nil)
		if l.now().Lock == lock {
			t.Error("the lock is the same after a restart")
		}
	})
}
