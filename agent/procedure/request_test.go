package procedure_test

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"example.com/iad/agent/procedure"
	"example.com/iad/mib"
)

// No operation, no refusal, nothing but the start of the device: what a manager
// finds at a new device.
func TestNewDevice(t *testing.T) {
	run(t, func(l *lab) {
		s := l.now()
		if s.Op.ID != 0 || s.Op.State != mib.OperationStateIdle || s.Op.Kind != mib.OperationKindNone || s.Refusal != mib.FailCauseNone {
			t.Errorf("operation %+v, refusal %s", s.Op, s.Refusal)
		}
		if s.Restarts != 1 || s.Seq != 1 || s.Events[0].Type != mib.EventTypeRestarted || s.Reason != mib.RestartReasonPowerOn {
			t.Errorf("restarts %d, events %v, reason %s", s.Restarts, l.events(1), s.Reason)
		}
		if s.TimeLeft() != 0 || s.Elapsed() != 0 || s.ConfirmLeft() != 0 || s.ResetRequired() {
			t.Errorf("time left %d, elapsed %d, confirm %d, reset %v", s.TimeLeft(), s.Elapsed(), s.ConfirmLeft(), s.ResetRequired())
		}
	})
}

// Each kind of operation is carried out in its phases, and ends once.
func TestOperationsSucceed(t *testing.T) {
	for _, c := range []struct {
		kind    mib.OperationKind
		options procedure.Options
		prepare func(*lab)
		phase   mib.OperationPhase // of the end
		bank    int
	}{
		{kind: mib.OperationKindBackupConfig, phase: mib.OperationPhaseVerifying},
		{kind: mib.OperationKindBackupConfig, options: procedure.CheckOnly, phase: mib.OperationPhaseVerifying},
		{kind: mib.OperationKindDownloadSoftware, phase: mib.OperationPhaseVerifying, bank: 2},
		{kind: mib.OperationKindDownloadSoftware, options: procedure.CheckOnly | procedure.ThenActivate, phase: mib.OperationPhaseVerifying},
		{kind: mib.OperationKindDownloadSoftware, options: procedure.ThenActivate, phase: mib.OperationPhaseSwitching, bank: 2},
		{kind: mib.OperationKindActivate, phase: mib.OperationPhaseSwitching, bank: 2},
		{kind: mib.OperationKindActivate, options: procedure.CheckOnly, phase: mib.OperationPhaseChecking},
		{kind: mib.OperationKindReset, options: procedure.CheckOnly, phase: mib.OperationPhaseChecking},
		{kind: mib.OperationKindRestoreOldSoftware, phase: mib.OperationPhaseSwitching, bank: 1},
		{kind: mib.OperationKindRestoreOldSoftware, options: procedure.CheckOnly, phase: mib.OperationPhaseChecking},
		{kind: mib.OperationKindRecoverConfig, phase: mib.OperationPhaseApplying},
		{kind: mib.OperationKindRecoverConfig, options: procedure.CheckOnly, phase: mib.OperationPhaseApplying},
		{kind: mib.OperationKindRecoverConfig, options: procedure.ConvertFirst, phase: mib.OperationPhaseApplying,
			prepare: func(l *lab) { l.config.Format = 2 }},
		{kind: mib.OperationKindConvertConfig, phase: mib.OperationPhaseApplying, prepare: func(l *lab) { l.other = true }},
		{kind: mib.OperationKindConvertConfig, options: procedure.CheckOnly, phase: mib.OperationPhaseApplying, prepare: func(l *lab) { l.other = true }},
	} {
		t.Run(c.kind.String()+" "+c.options.String(), func(t *testing.T) {
			run(t, func(l *lab) {
				if c.prepare != nil {
					c.prepare(l)
				}
				l.begin(c.kind, c.options)
				op := l.expect(mib.OperationStateSucceeded, c.phase, mib.FailCauseNone)
				if op.ID != 1 || op.Percent != 100 || op.Attempt != 1 || op.Bank != c.bank || op.Advice() != mib.RetryAdviceNotApplicable {
					t.Errorf("operation %+v, advice %s", op, op.Advice())
				}
				s := l.now()
				if len(s.History) != 1 || s.History[0].ID != 1 || s.History[0].State != mib.OperationStateSucceeded {
					t.Errorf("history %+v", s.History)
				}
				types := l.events(2)
				if types[0] != mib.EventTypeStarted || types[len(types)-1] != mib.EventTypeCompleted {
					t.Errorf("events %v", types)
				}
				if c.options.Has(procedure.CheckOnly) && (l.called("activate") != 0 || l.called("put") != 0 || l.called("apply") != 0 || l.called("restore") != 0) {
					t.Errorf("checkOnly did %v", l.calls)
				}
			})
		})
	}
}

// The parameters are copied, then set back to their DEFVAL.
func TestParametersGoBackToDefault(t *testing.T) {
	run(t, func(l *lab) {
		l.settings(func(s *procedure.Settings) { s.Params.Version, s.Params.Retries = "9.9.9", 0 })
		err := l.request(mib.OperationKindBackupConfig, func(p *procedure.Params) {
			p.ReqID, p.Owner, p.Files, p.TimeLimit = 7, "ems", procedure.SetOf(mib.FileTypeUserData), 100
		})
		if err != nil {
			t.Fatal(err)
		}
		if p := l.now().Settings.Params; p != (procedure.Params{Server: 1, Retries: 2}) {
			t.Errorf("parameters afterwards: %+v", p)
		}
		if p := l.now().Op.Params; p.Version != "9.9.9" || p.Retries != 0 || p.ReqID != 7 || p.Owner != "ems" || p.TimeLimit != 100 {
			t.Errorf("parameters of the operation: %+v", p)
		}
	})
}

// Undo after Commit leaves nothing; a reservation keeps other SETs out.
func TestUndo(t *testing.T) {
	run(t, func(l *lab) {
		before := l.now()
		lock := before.Lock
		r, err := l.e.Test(procedure.Change{Command: mib.OperationKindBackupConfig, Lock: &lock,
			Edit: func(s *procedure.Settings) error { s.ConfirmWindow = 99; return nil }})
		if err != nil {
			t.Fatal(err)
		}
		l.refused(l.do(procedure.Change{}), procedure.Unavailable, mib.FailCauseBusy)
		if err := r.Commit(); err != nil {
			t.Fatal(err)
		}
		if op := l.now().Op; op.ID != 1 || op.State != mib.OperationStateRunning {
			t.Errorf("after Commit: %+v", op)
		}
		time.Sleep(24 * time.Hour) // the operation has not begun: no time limit
		synctest.Wait()
		if err := r.Undo(); err != nil {
			t.Fatal(err)
		}
		after := l.now()
		if after.Op.ID != 0 || after.Lock != lock || after.Settings.ConfirmWindow != before.Settings.ConfirmWindow || after.Seq != before.Seq {
			t.Errorf("after Undo: operation %d, lock %d, window %d, event %d", after.Op.ID, after.Lock, after.Settings.ConfirmWindow, after.Seq)
		}
		r.Done() // too late: nothing
		if err := r.Commit(); err == nil {
			t.Error("a reservation that has ended was committed")
		}
		l.cut(nil)
		if l.now().Op.ID != 0 {
			t.Error("the operation is there after a restart")
		}
		l.begin(mib.OperationKindBackupConfig, 0)
		if l.now().Op.ID != 1 {
			t.Errorf("operation %d", l.now().Op.ID)
		}
	})
}

// Done without Commit releases the engine.
func TestDoneAlone(t *testing.T) {
	run(t, func(l *lab) {
		r, err := l.e.Test(procedure.Change{Command: mib.OperationKindBackupConfig})
		if err != nil {
			t.Fatal(err)
		}
		r.Done()
		if l.now().Op.ID != 0 {
			t.Error("started without Commit")
		}
		l.begin(mib.OperationKindBackupConfig, 0)
	})
}

// What cannot be is refused before any work, with cause and error-status.
func TestRefusals(t *testing.T) {
	type p = procedure.Params
	for _, c := range []struct {
		name    string
		kind    mib.OperationKind
		params  func(*p)
		prepare func(*lab)
		verdict procedure.Verdict
		cause   mib.FailCause
	}{
		{"unknown kind", mib.OperationKindConfirm + 1, nil, nil, procedure.WrongValue, mib.FailCauseUnsupported},
		{"option of another kind", mib.OperationKindReset, func(p *p) { p.Options = procedure.ThenActivate }, nil, procedure.Inconsistent, mib.FailCauseBadRequest},
		{"thenReset without thenActivate", mib.OperationKindDownloadSoftware, func(p *p) { p.Options = procedure.ThenReset }, nil, procedure.Inconsistent, mib.FailCauseBadRequest},
		{"limit within the delay", mib.OperationKindBackupConfig, func(p *p) { p.TimeLimit, p.Delay = 10, 10 }, nil, procedure.Inconsistent, mib.FailCauseBadRequest},
		{"configuration with download", mib.OperationKindDownloadSoftware, func(p *p) { p.Files = procedure.AllConfig }, nil, procedure.Inconsistent, mib.FailCauseBadRequest},
		{"software with backup", mib.OperationKindBackupConfig, func(p *p) { p.Files = procedure.SetOf(mib.FileTypeSoftware) }, nil, procedure.Inconsistent, mib.FailCauseBadRequest},
		{"no file name", mib.OperationKindDownloadSoftware, nil, func(l *lab) {
			l.settings(func(s *procedure.Settings) { s.Files[0].Name = "" })
		}, procedure.Inconsistent, mib.FailCauseBadRequest},
		{"no server", mib.OperationKindBackupConfig, func(p *p) { p.Server = 0 }, nil, procedure.Inconsistent, mib.FailCauseBadRequest},
		{"unused server", mib.OperationKindBackupConfig, func(p *p) { p.Server = 4 }, nil, procedure.Inconsistent, mib.FailCauseBadRequest},
		{"protocol", mib.OperationKindBackupConfig, nil, func(l *lab) {
			l.settings(func(s *procedure.Settings) { s.Servers[0].Protocol = mib.ProtocolFtps })
		}, procedure.Inconsistent, mib.FailCauseUnsupportedProtocol},
		{"running bank", mib.OperationKindDownloadSoftware, func(p *p) { p.Bank = 1 }, nil, procedure.Inconsistent, mib.FailCauseBankUnavailable},
		{"activate the running bank", mib.OperationKindActivate, func(p *p) { p.Bank = 1 }, nil, procedure.Inconsistent, mib.FailCauseBankUnavailable},
		{"activate nothing", mib.OperationKindActivate, nil, func(l *lab) { l.banks.Banks[1].State = mib.BankStateEmpty }, procedure.Inconsistent, mib.FailCausePreconditionMissing},
		{"no fallback", mib.OperationKindRestoreOldSoftware, nil, func(l *lab) { l.banks.Fallback = 0 }, procedure.Inconsistent, mib.FailCauseNoFallback},
		{"nothing to convert", mib.OperationKindConvertConfig, nil, nil, procedure.Inconsistent, mib.FailCausePreconditionMissing},
		{"calls in progress", mib.OperationKindReset, nil, func(l *lab) { l.inUse = 3 }, procedure.Unavailable, mib.FailCauseServiceInUse},
		{"calls in progress, activate", mib.OperationKindActivate, func(p *p) { p.Options = procedure.ThenReset }, func(l *lab) { l.inUse = 3 }, procedure.Unavailable, mib.FailCauseServiceInUse},
		{"another operation", mib.OperationKindAbort, func(p *p) { p.TargetOp = 4 }, nil, procedure.Inconsistent, mib.FailCauseBadRequest},
		{"trial not started", mib.OperationKindConfirm, nil, func(l *lab) { l.begin(mib.OperationKindActivate, 0) }, procedure.Inconsistent, mib.FailCausePreconditionMissing},
	} {
		t.Run(c.name, func(t *testing.T) {
			run(t, func(l *lab) {
				if c.prepare != nil {
					c.prepare(l)
				}
				before := l.now()
				l.refused(l.request(c.kind, c.params), c.verdict, c.cause)
				after := l.now()
				if after.Refusal != c.cause || after.RefusalText == "" {
					t.Errorf("refusal %s %q", after.Refusal, after.RefusalText)
				}
				if after.Seq != before.Seq || after.Op.ID != before.Op.ID || after.Settings.Params != before.Settings.Params {
					t.Error("the refused request changed something")
				}
				if err := l.request(mib.OperationKindAbort, nil); err != nil || l.now().Refusal != mib.FailCauseNone {
					t.Errorf("abort of nothing: %v, refusal %s", err, l.now().Refusal)
				}
			})
		})
	}
}

// An Edit that fails refuses the request as badRequest.
func TestEditError(t *testing.T) {
	run(t, func(l *lab) {
		bad := errors.New("no address")
		err := l.do(procedure.Change{Command: mib.OperationKindReset, Edit: func(*procedure.Settings) error { return bad }})
		if !errors.Is(err, bad) || l.now().Refusal != mib.FailCauseBadRequest || l.now().RefusalText != "no address" {
			t.Errorf("error %v, refusal %s", err, l.now().Refusal)
		}
	})
}

// Rows that the running operation uses may not be changed; others may.
func TestRowsInUse(t *testing.T) {
	run(t, func(l *lab) {
		l.hold("connect")
		if err := l.request(mib.OperationKindBackupConfig, func(p *procedure.Params) { p.Files = procedure.SetOf(mib.FileTypePortData) }); err != nil {
			t.Fatal(err)
		}
		edit := func(f func(*procedure.Settings)) error {
			return l.do(procedure.Change{Edit: func(s *procedure.Settings) error { f(s); return nil }})
		}
		r := l.refused(edit(func(s *procedure.Settings) { s.Servers[0].Port = 1 }), procedure.Inconsistent, mib.FailCauseBusy)
		if r.Subject != procedure.SubjectServer || r.Row != 1 {
			t.Errorf("subject %d, row %d", r.Subject, r.Row)
		}
		r = l.refused(edit(func(s *procedure.Settings) { s.Files[mib.FileTypePortData-1].Size = 1 }), procedure.Inconsistent, mib.FailCauseBusy)
		if r.Subject != procedure.SubjectFile || r.Row != int(mib.FileTypePortData) {
			t.Errorf("subject %d, row %d", r.Subject, r.Row)
		}
		if err := edit(func(s *procedure.Settings) {
			s.Servers[0].Password = []byte{} // as it was
			s.Servers[1].Port, s.Files[mib.FileTypeUserData-1].Name = 1, "x"
		}); err != nil {
			t.Errorf("change of other rows: %v", err)
		}
		if n := l.now().Refusal; n != mib.FailCauseNone {
			t.Errorf("a SET without command left refusal %s", n)
		}
		l.release("connect")
		if err := edit(func(s *procedure.Settings) { s.Servers[0].Port = 1 }); err != nil {
			t.Errorf("change afterwards: %v", err)
		}
	})
}

// One operation at a time: the second one is refused as busy.
func TestBusy(t *testing.T) {
	run(t, func(l *lab) {
		l.hold("connect")
		l.begin(mib.OperationKindBackupConfig, 0)
		for k := mib.OperationKindBackupConfig; k <= mib.OperationKindConvertConfig; k++ {
			l.refused(l.request(k, nil), procedure.Inconsistent, mib.FailCauseBusy)
		}
		l.release("connect")
		l.expect(mib.OperationStateSucceeded, mib.OperationPhaseVerifying, mib.FailCauseNone)
	})
}

// Identifiers wrap to 1, never to 0.
func TestNumbersWrap(t *testing.T) {
	run(t, func(l *lab) {
		l.begin(mib.OperationKindBackupConfig, 0)
		l.stop()
		l.journal.data = []byte(`{"op":{"id":4294967295,"kind":2,"state":6,"phase":6,"attempt":1,"cause":1},
			"seq":4294967294,"sent":4294967294,"restarts":4294967295,"events":[],"history":[]}`)
		l.start()
		if s := l.now(); s.Restarts != 1 || s.Seq != 4294967295 {
			t.Errorf("restarts %d, event %d", s.Restarts, s.Seq)
		}
		l.begin(mib.OperationKindBackupConfig, 0)
		s := l.now()
		if s.Op.ID != 1 || s.Seq != 2 {
			t.Errorf("operation %d, event %d", s.Op.ID, s.Seq)
		}
		var seqs []uint32
		for _, ev := range s.Events {
			seqs = append(seqs, ev.Seq)
		}
		if !slices.Equal(seqs, []uint32{4294967295, 1, 2}) {
			t.Errorf("events %v", seqs)
		}
		l.cut(nil)
		if l.now().Seq != 3 || len(l.now().Events) != 4 {
			t.Errorf("after a restart: event %d", l.now().Seq)
		}
	})
}

// Calls to an engine that has stopped return.
func TestStopped(t *testing.T) {
	run(t, func(l *lab) {
		r, err := l.e.Test(procedure.Change{})
		if err != nil {
			t.Fatal(err)
		}
		l.stop()
		if _, err := l.e.Test(procedure.Change{}); !errors.Is(err, procedure.ErrStopped) {
			t.Errorf("Test: %v", err)
		}
		if err := r.Commit(); !errors.Is(err, procedure.ErrStopped) {
			t.Errorf("Commit: %v", err)
		}
		if err := r.Undo(); !errors.Is(err, procedure.ErrStopped) {
			t.Errorf("Undo: %v", err)
		}
		r.Done()
		l.e.Sync()
		l.e.Sent(1)
	})
}

// TestPublished: a SET is published once it is committed, and once more when it ends; nothing can
// be seen of its test, unless it is refused. The status of the banks costs system calls.
func TestPublished(t *testing.T) {
	run(t, func(l *lab) {
		changes, stop := l.e.Watch()
		defer stop()
		expect := func(want int, what string) {
			t.Helper()
			synctest.Wait()
			got := 0
			select {
			case <-changes:
				got = 1
			default:
			}
			if got != want {
				t.Errorf("after %s: published %v, want %v", what, got == 1, want == 1)
			}
		}
		synctest.Wait()
		select {
		case <-changes:
		default:
		}
		r, err := l.e.Test(procedure.Change{Edit: func(s *procedure.Settings) error { s.ConfirmWindow = 99; return nil }})
		if err != nil {
			t.Fatal(err)
		}
		expect(0, "the test")
		l.refused(l.request(mib.OperationKindAbort, nil), procedure.Unavailable, mib.FailCauseBusy)
		expect(1, "the refusal of another SET")
		if err := r.Commit(); err != nil {
			t.Fatal(err)
		}
		expect(1, "the commit")
		expect(0, "the publication")
		r.Done()
		expect(1, "the end")
		expect(0, "the publication")
	})
}

// A front end that tests a SET and then goes silent is in the way of others for ten
// seconds; what it does later changes nothing.
func TestForgottenReservation(t *testing.T) {
	run(t, func(l *lab) {
		l.hold("connect")
		l.begin(mib.OperationKindBackupConfig, 0)
		forgotten, err := l.e.Test(procedure.Change{Edit: func(s *procedure.Settings) error { s.ConfirmWindow = 99; return nil }})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(9 * time.Second)
		l.refused(l.request(mib.OperationKindAbort, nil), procedure.Unavailable, mib.FailCauseBusy)
		time.Sleep(time.Second)
		l.begin(mib.OperationKindAbort, 0)
		l.expect(mib.OperationStateAborted, mib.OperationPhaseConnecting, mib.FailCauseAbortedByManager)
		if err := forgotten.Commit(); err == nil {
			t.Error("committed after it has expired")
		}
		if err := forgotten.Undo(); err != nil {
			t.Error(err)
		}
		forgotten.Done()
		if w := l.now().Settings.ConfirmWindow; w != 600 {
			t.Errorf("confirm window %d s", w)
		}
	})
	run(t, func(l *lab) { // it is not in the way of the point of no return either
		l.hold("check")
		l.begin(mib.OperationKindActivate, 0)
		if _, err := l.e.Test(procedure.Change{Command: mib.OperationKindAbort}); err != nil {
			t.Fatal(err)
		}
		l.release("check")
		l.expect(mib.OperationStateRunning, mib.OperationPhaseSwitching, mib.FailCauseNone)
		time.Sleep(10 * time.Second)
		l.expect(mib.OperationStateSucceeded, mib.OperationPhaseSwitching, mib.FailCauseNone)
	})
	run(t, func(l *lab) { // what was committed waits: the work begins when its front end says so
		r, err := l.e.Test(procedure.Change{Command: mib.OperationKindBackupConfig})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(9 * time.Second)
		if err := r.Commit(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if l.called("collect") != 0 {
			t.Error("the work began by itself")
		}
		r.Done()
		l.expect(mib.OperationStateSucceeded, mib.OperationPhaseVerifying, mib.FailCauseNone)
	})
}

// A refusal names what the manager has to write.
func TestRefusalNamesTheServer(t *testing.T) {
	run(t, func(l *lab) {
		for n, want := range map[uint8]string{
			0: "iadUpgReqServer is 0: name a server",
			4: "server 4 has no address: write iadUpgServerAddress.4",
		} {
			err := l.request(mib.OperationKindDownloadSoftware, func(p *procedure.Params) { p.Server = n })
			if r := l.refused(err, procedure.Inconsistent, mib.FailCauseBadRequest); r.Text != want {
				t.Errorf("server %d: %q", n, r.Text)
			}
		}
	})
}
