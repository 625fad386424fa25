package procedure_test

import (
	"slices"
	"testing"
	"time"

	"example.com/iad/agent/procedure"
	"example.com/iad/internal/clock"
	"example.com/iad/mib"
)

// With a full state partition nothing new is accepted, and nothing changes.
func TestFullDisk(t *testing.T) {
	for name, full := range map[string]func(*lab) *memory{
		"journal":  func(l *lab) *memory { return &l.journal },
		"settings": func(l *lab) *memory { return &l.setting },
	} {
		t.Run(name, func(t *testing.T) {
			run(t, func(l *lab) {
				l.settings(func(s *procedure.Settings) { s.Params.Owner = "me" }) // so that settings must be written
				full(l).full = true
				before := l.now()
				err := l.request(mib.OperationKindBackupConfig, nil)
				if err == nil {
					t.Fatal("accepted")
				}
				s := l.now()
				if s.Op.ID != 0 || s.Seq != before.Seq || s.Settings.Params.Owner != "me" {
					t.Errorf("operation %d, event %d, owner %q", s.Op.ID, s.Seq, s.Settings.Params.Owner)
				}
				if s.Refusal != mib.FailCauseStorageFull || s.RefusalText == "" {
					t.Errorf("refusal %s %q", s.Refusal, s.RefusalText)
				}
				full(l).full = false
				l.begin(mib.OperationKindBackupConfig, 0)
				l.expect(mib.OperationStateSucceeded, mib.OperationPhaseVerifying, mib.FailCauseNone)
			})
		})
	}
	run(t, func(l *lab) {
		l.setting.full = true
		if err := l.do(procedure.Change{Edit: func(s *procedure.Settings) error { s.ConfirmWindow = 99; return nil }}); err == nil {
			t.Error("settings changed without being stored")
		}
		if l.now().Settings.ConfirmWindow != 600 {
			t.Error("settings changed")
		}
	})
}

// The ways back and out must not need room: reset, restoreOldSoftware, abort
// and confirm work with records that cannot be written.
func TestFullDiskWayOut(t *testing.T) {
	full := func(l *lab) { l.journal.full, l.setting.full = true, true }
	run(t, func(l *lab) {
		full(l)
		l.begin(mib.OperationKindReset, 0)
		if r := l.restart(nil); r != mib.RestartReasonCommanded {
			t.Errorf("reason %s", r)
		}
	})
	run(t, func(l *lab) {
		l.old()
		full(l)
		l.begin(mib.OperationKindRestoreOldSoftware, 0)
		l.restart(nil)
		if l.now().Banks.Running != 1 {
			t.Error("not restored")
		}
	})
	run(t, func(l *lab) {
		l.hold("connect")
		l.begin(mib.OperationKindBackupConfig, 0)
		full(l)
		l.begin(mib.OperationKindAbort, 0)
		l.expect(mib.OperationStateAborted, mib.OperationPhaseConnecting, mib.FailCauseAbortedByManager)
	})
	run(t, func(l *lab) {
		l.trial()
		full(l)
		l.begin(mib.OperationKindConfirm, 0)
		if l.now().Banks.Banks[1].State != mib.BankStateGood {
			t.Error("not confirmed")
		}
	})
	run(t, func(l *lab) { // but nothing is switched that a restart would not find recorded
		l.hold("check")
		l.begin(mib.OperationKindActivate, 0)
		full(l)
		l.release("check")
		l.expect(mib.OperationStateFailed, mib.OperationPhaseSwitching, mib.FailCauseStorageFull)
		if l.called("activate") != 0 {
			t.Error("switched all the same")
		}
	})
}

// The rings keep the newest, over restarts too; the numbers have no gaps.
func TestRings(t *testing.T) {
	run(t, func(l *lab) {
		const n = procedure.HistoryMax + 8
		for range n {
			l.begin(mib.OperationKindBackupConfig, procedure.CheckOnly)
		}
		check := func(newest uint32) {
			t.Helper()
			s := l.now()
			if len(s.History) != procedure.HistoryMax || len(s.Events) != procedure.EventsMax {
				t.Fatalf("%d operations, %d events", len(s.History), len(s.Events))
			}
			for i, op := range s.History {
				if want := newest - procedure.HistoryMax + 1 + uint32(i); op.ID != want || op.State != mib.OperationStateSucceeded {
					t.Errorf("row %d is operation %d, %s", i, op.ID, op.State)
				}
			}
			for i, ev := range s.Events {
				if want := s.Seq - procedure.EventsMax + 1 + uint32(i); ev.Seq != want {
					t.Errorf("event %d in the place of %d", ev.Seq, want)
				}
			}
		}
		check(n)
		l.cut(nil)
		check(n)
		l.begin(mib.OperationKindBackupConfig, procedure.CheckOnly)
		check(n + 1)
	})
}

// A device that starts again and again, and reaches nobody, does not forget why: the
// restarts make room, the others keep their numbers.
func TestRingOfRestarts(t *testing.T) {
	run(t, func(l *lab) {
		l.e.Sent(l.now().Seq)
		l.trial()
		before := slices.DeleteFunc(slices.Clone(l.now().Events), restarted)
		l.cut(fellBack)
		for range 2 * procedure.EventsMax {
			l.cut(nil)
		}
		s := l.now()
		others := slices.DeleteFunc(slices.Clone(s.Events), restarted)
		if n := len(before); len(s.Events) != procedure.EventsMax || len(others) != n+1 || others[n].Type != mib.EventTypeRolledBack {
			t.Fatalf("%d events, besides restarts %v", len(s.Events), others)
		}
		for i := range before {
			if others[i].Seq != before[i].Seq || others[i].Type != before[i].Type {
				t.Errorf("event %d %s, was %d %s", others[i].Seq, others[i].Type, before[i].Seq, before[i].Type)
			}
		}
		if last := s.Events[len(s.Events)-1]; last.Seq != s.Seq || last.Restarts != s.Restarts {
			t.Errorf("the last event is %d of %d", last.Seq, s.Seq)
		}
		// What was sent makes room first.
		l.e.Sent(others[len(others)-1].Seq - 1)
		l.begin(mib.OperationKindBackupConfig, procedure.CheckOnly)
		if s := l.now(); s.Events[0].Seq != others[2].Seq {
			t.Errorf("event %d is the oldest, not %d", s.Events[0].Seq, others[2].Seq)
		}
	})
}

func restarted(e procedure.Event) bool { return e.Type == mib.EventTypeRestarted }

// An event is in the journal before anybody can see it.
func TestEventsAreStoredFirst(t *testing.T) {
	run(t, func(l *lab) {
		changed, stop := l.e.Watch()
		defer stop()
		done := make(chan struct{})
		go func() {
			defer close(done)
			for range changed {
				s := l.e.Snapshot()
				last, err := procedure.ReadJournal(l.journal.read())
				if err != nil || last.Seq < s.Seq || last.Op.ID < s.Op.ID {
					t.Errorf("event %d is seen, %d is stored (%v)", s.Seq, last.Seq, err)
				}
				if s.Op.State.Final() && s.Op.ID == 2 {
					return
				}
			}
		}()
		l.begin(mib.OperationKindBackupConfig, 0)
		l.begin(mib.OperationKindRecoverConfig, 0)
		<-done
	})
}

// What each file was last used for is kept.
func TestFileResults(t *testing.T) {
	run(t, func(l *lab) {
		l.begin(mib.OperationKindBackupConfig, 0)
		s := l.now()
		for _, k := range procedure.AllConfig.Kinds() {
			r := s.Files[k-1]
			if r.OpID != 1 || r.Result != mib.FailCauseNone || r.Size != uint64(len(configFile(k, 1))) || len(r.Digest) != 32 || r.Format != 1 {
				t.Errorf("%s: %+v", k, r)
			}
		}
		if r := s.Files[0]; r.OpID != 0 || r.Result != mib.FailCauseNone {
			t.Errorf("software: %+v", r)
		}
		delete(l.remote, "portData")
		l.begin(mib.OperationKindRecoverConfig, 0)
		l.expect(mib.OperationStateFailed, mib.OperationPhaseTransferring, mib.FailCauseFileNotFound)
		l.cut(nil)
		s = l.now()
		if r := s.Files[mib.FileTypeUserData-1]; r.OpID != 2 || r.Result != mib.FailCauseNone {
			t.Errorf("userData: %+v", r)
		}
		if r := s.Files[mib.FileTypePortData-1]; r.OpID != 2 || r.Result != mib.FailCauseFileNotFound {
			t.Errorf("portData: %+v", r)
		}
		if r := s.Files[mib.FileTypeOtherData-1]; r.OpID != 1 {
			t.Errorf("otherData: %+v", r)
		}
	})
}

// Everything but the lock, the trigger and the refusal is kept.
func TestSettingsAreKept(t *testing.T) {
	run(t, func(l *lab) {
		l.settings(func(s *procedure.Settings) {
			s.Servers[3] = procedure.Server{AddressType: 2, Address: make([]byte, 16), Port: 99, Protocol: mib.ProtocolFtp,
				User: "u", Password: []byte("p"), Path: "/x", Timeout: 7}
			s.Files[2].Size, s.Files[2].Digest = 5, make([]byte, 32)
			s.Params = procedure.Params{ReqID: 1, Owner: "o", Server: 3, Files: procedure.AllConfig, Bank: 2, Version: "v",
				Options: procedure.Force, TimeLimit: 11, Retries: 9, Delay: 3, TargetOp: 4}
			s.ConfirmMode, s.ConfirmWindow = mib.ConfirmModeManager, 31
			s.Notify = procedure.Notify{Enable: 1, Step: 2, MinInterval: 3, MaxInterval: 5}
		})
		l.refused(l.request(mib.OperationKindAbort, nil), procedure.Inconsistent, mib.FailCauseBadRequest)
		before := l.now().Settings
		l.cut(nil)
		after := l.now()
		if after.Settings.Params != before.Params || after.Settings.Notify != before.Notify || after.Settings.ConfirmWindow != 31 ||
			string(after.Settings.Servers[3].Password) != "p" || after.Settings.Servers[3].Timeout != 7 || after.Settings.Files[2].Size != 5 {
			t.Errorf("settings %+v", after.Settings)
		}
		if after.Refusal != mib.FailCauseNone {
			t.Errorf("refusal %s", after.Refusal)
		}
	})
}

// A device that does not know the time says so, and starts with its own when it
// does.
func TestUnknownTime(t *testing.T) {
	run(t, func(l *lab) {
		l.begin(mib.OperationKindBackupConfig, 0)
		if op := l.now().Op; op.Started.IsZero() || op.Ended.IsZero() {
			t.Errorf("started %v, ended %v", op.Started, op.Ended)
		}
		l.cfg.Clock = oldClock{}
		l.cut(nil)
		l.begin(mib.OperationKindBackupConfig, 0)
		if op := l.now().Op; !op.Started.IsZero() || !op.Ended.IsZero() || op.State != mib.OperationStateSucceeded {
			t.Errorf("started %v, ended %v", op.Started, op.Ended)
		}
		if ev := l.now().Events; !ev[len(ev)-1].Time.IsZero() {
			t.Errorf("event of %v", ev[len(ev)-1].Time)
		}
	})
}

// oldClock is the clock of a board whose clock says 1999.
type oldClock struct{ clock.System }

func (oldClock) Now() time.Time { return time.Now().AddDate(-27, 0, 0) }

// A power cut in a transfer leaves a record that names what the operation was
// about: it is written once, when the transfer begins, and never for progress.
func TestRecordOfAnInterruptedTransfer(t *testing.T) {
	for _, c := range []struct {
		kind  mib.OperationKind
		step  string
		phase mib.OperationPhase
		bank  int
		file  mib.FileType
		when  string
	}{
		{mib.OperationKindDownloadSoftware, "erase", mib.OperationPhaseTransferring, 2, mib.FileTypeSoftware, "erasing, transferring or verifying"},
		{mib.OperationKindDownloadSoftware, "read", mib.OperationPhaseTransferring, 2, mib.FileTypeSoftware, "erasing, transferring or verifying"},
		{mib.OperationKindDownloadSoftware, "verify", mib.OperationPhaseTransferring, 2, mib.FileTypeSoftware, "erasing, transferring or verifying"},
		{mib.OperationKindBackupConfig, "put", mib.OperationPhaseTransferring, 0, mib.FileTypeUserData, "transferring or verifying"},
		{mib.OperationKindRecoverConfig, "read", mib.OperationPhaseTransferring, 0, mib.FileTypeUserData, "transferring, verifying or converting"},
	} {
		t.Run(c.kind.String()+" "+c.step, func(t *testing.T) {
			run(t, func(l *lab) {
				l.begin(c.kind, 0) // the record of this one must not be what is seen
				l.hold("connect")
				l.begin(c.kind, 0)
				time.Sleep(5 * time.Second)
				before := l.journal.writes
				l.hold(c.step)
				l.release("connect")
				if n := l.journal.writes - before; n != 1 {
					t.Errorf("%d writes of the journal", n)
				}
				time.Sleep(20 * time.Second)
				shown := l.now().Op.Percent
				l.cut(nil)
				op := l.expect(mib.OperationStateFailed, c.phase, mib.FailCauseInterrupted)
				if op.Bank != c.bank || op.File != c.file.String() || op.Elapsed != 5 || op.Attempt != 1 {
					t.Errorf("bank %d, file %q, elapsed %d s, attempt %d", op.Bank, op.File, op.Elapsed, op.Attempt)
				}
				// Progress is not recorded: what the journal knows is what it was at the beginning of the transfer.
				if loading := c.kind == mib.OperationKindDownloadSoftware && c.step != "erase"; op.Percent > shown || loading != (op.Percent < shown) {
					t.Errorf("%d percent, %d before the power cut", op.Percent, shown)
				}
				if want := "power loss or an unexpected restart while " + c.when; op.Text != want {
					t.Errorf("text %q", op.Text)
				}
				s := l.now()
				if h := s.History[1]; h.Phase != c.phase || h.Bank != c.bank || h.File != op.File {
					t.Errorf("history %+v", h)
				}
				if r := s.Files[c.file-1]; r.OpID != 2 || r.Result != mib.FailCauseInterrupted || r.Size != 0 || r.Digest != nil {
					t.Errorf("file %+v", r)
				}
			})
		})
	}
}

// Files that were dealt with before the power cut keep their result if the
// journal knows it; an operation that had not come to its files leaves them alone.
func TestFilesOfAnInterruptedOperation(t *testing.T) {
	run(t, func(l *lab) {
		l.hold("apply") // behind the point of no return, which is journaled
		l.begin(mib.OperationKindRecoverConfig, 0)
		l.cut(nil)
		l.expect(mib.OperationStateFailed, mib.OperationPhaseApplying, mib.FailCauseInterrupted)
		if r := l.now().Files[mib.FileTypeUserData-1]; r.OpID != 1 || r.Result != mib.FailCauseNone || len(r.Digest) != 32 {
			t.Errorf("file %+v", r)
		}
		l.hold("connect")
		l.begin(mib.OperationKindRecoverConfig, 0)
		l.cut(nil)
		l.expect(mib.OperationStateFailed, mib.OperationPhaseNone, mib.FailCauseInterrupted)
		if r := l.now().Files[mib.FileTypeUserData-1]; r.OpID != 1 {
			t.Errorf("file %+v", r)
		}
	})
}

// A journal that cannot be written does not keep software from coming.
func TestFullDiskInADownload(t *testing.T) {
	run(t, func(l *lab) {
		l.hold("connect")
		l.begin(mib.OperationKindDownloadSoftware, 0)
		l.journal.full = true
		l.release("connect")
		l.expect(mib.OperationStateSucceeded, mib.OperationPhaseVerifying, mib.FailCauseNone)
	})
}
