package procedure_test

import (
	"testing"
	"time"

	"example.com/iad/agent/procedure"
	"example.com/iad/mib"
)

// slow makes a download of 10,000 bytes in chunks of 100, one a second.
func (l *lab) slow(notify procedure.Notify) {
	l.remote["software"] = make([]byte, 10000)
	l.settings(func(s *procedure.Settings) { s.Notify = notify })
}

// follow runs a slow operation and returns the snapshots with progress that
// became due, as a front end sees them.
func (l *lab) follow(k mib.OperationKind, params func(*procedure.Params)) (list []procedure.Snapshot) {
	l.t.Helper()
	changed, stop := l.e.Watch()
	defer stop()
	count := l.e.Snapshot().Progress
	if err := l.request(k, params); err != nil {
		l.t.Fatal(err)
	}
	for {
		s := l.e.Snapshot()
		if s.Op.State.Final() {
			return list
		}
		if s.Progress != count {
			count = s.Progress
			list = append(list, *s)
		}
		<-changed
	}
}

// With step 10 and no least time there is one at each phase and each tenth.
func TestProgressStep(t *testing.T) {
	run(t, func(l *lab) {
		l.slow(procedure.Notify{Enable: 0xff, Step: 10})
		l.pace = time.Second
		list := l.follow(mib.OperationKindDownloadSoftware, nil)
		last := procedure.Snapshot{}
		phases := map[mib.OperationPhase]bool{}
		for i, s := range list {
			if i > 0 && s.Op.Phase == last.Op.Phase && s.Op.State == last.Op.State && s.Op.Percent < last.Op.Percent+10 {
				t.Errorf("%d %% in phase %s after %d %% in phase %s", s.Op.Percent, s.Op.Phase, last.Op.Percent, last.Op.Phase)
			}
			if s.Op.Percent < last.Op.Percent || s.Op.Percent > 99 {
				t.Errorf("%d %% after %d %%", s.Op.Percent, last.Op.Percent)
			}
			phases[s.Op.Phase] = true
			last = s
		}
		for _, p := range []mib.OperationPhase{mib.OperationPhaseTransferring, mib.OperationPhaseVerifying} {
			if !phases[p] {
				t.Errorf("none in phase %s", p)
			}
		}
		if len(list) < 9 || len(list) > 15 {
			t.Errorf("%d of them", len(list))
		}
		if op := l.now().Op; op.Percent != 100 || op.Done != 10000 || op.Total != 10000 {
			t.Errorf("at the end %d %%, %d of %d", op.Percent, op.Done, op.Total)
		}
	})
}

// The least time between two holds over phases and operations; the sign of life
// comes in time.
func TestProgressIntervals(t *testing.T) {
	run(t, func(l *lab) {
		l.slow(procedure.Notify{Enable: 0xff, Step: 1, MinInterval: 10})
		l.pace = time.Second
		var last time.Time
		for range 2 {
			changed, stop := l.e.Watch()
			count := l.e.Snapshot().Progress
			l.begin(mib.OperationKindDownloadSoftware, 0)
			for !l.e.Snapshot().Op.State.Final() {
				<-changed
				if n := l.e.Snapshot().Progress; n != count {
					if count = n; !last.IsZero() && time.Since(last) < 10*time.Second {
						t.Errorf("%v after the last one", time.Since(last))
					}
					last = time.Now()
				}
			}
			stop()
			if count == 0 {
				t.Error("none at all")
			}
		}
	})
	run(t, func(l *lab) {
		l.settings(func(s *procedure.Settings) {
			s.Notify = procedure.Notify{Enable: 0xff, Step: 100, MinInterval: 2, MaxInterval: 60}
		})
		l.hold("connect")
		count := l.now().Progress
		l.begin(mib.OperationKindBackupConfig, 0)
		for minute := range uint64(4) {
			time.Sleep(time.Minute - time.Second)
			if n := l.now().Progress - count; n != minute+2 && minute > 0 {
				t.Errorf("%d after %d minutes", n, minute)
			}
			time.Sleep(time.Second)
		}
		l.settings(func(s *procedure.Settings) { s.Notify.MaxInterval = 0 })
		before := l.now().Progress
		time.Sleep(50 * time.Second)
		if n := l.now().Progress; n != before {
			t.Errorf("%d signs of life though switched off", n-before)
		}
		l.release("connect")
	})
}

// Without the size of the file the percentage is unknown while it is fetched,
// and known again afterwards; the bytes are counted all the same.
func TestProgressUnknown(t *testing.T) {
	run(t, func(l *lab) {
		l.slow(procedure.Notify{Enable: 0xff, Step: 10})
		l.sizes = false
		l.pace = time.Second
		l.begin(mib.OperationKindDownloadSoftware, 0)
		time.Sleep(10*time.Second + 500*time.Millisecond)
		s := l.now()
		if s.Op.Percent != procedure.PercentUnknown || s.Op.Done != 1000 || s.Op.Total != 0 || s.SinceChange() != 0 {
			t.Errorf("%d %%, %d of %d bytes, changed %d s ago", s.Op.Percent, s.Op.Done, s.Op.Total, s.SinceChange())
		}
		time.Sleep(2 * time.Minute)
		if op := l.now().Op; op.State != mib.OperationStateSucceeded || op.Percent != 100 || op.Done != 10000 {
			t.Errorf("%s, %d %%, %d bytes", op.State, op.Percent, op.Done)
		}
	})
}

// A GET between two progress notifications sees each byte, and how long there
// was none.
func TestProgressBetween(t *testing.T) {
	run(t, func(l *lab) {
		l.slow(procedure.Notify{Enable: 0xff, Step: 100})
		l.pace = time.Second
		l.begin(mib.OperationKindDownloadSoftware, 0)
		time.Sleep(1500 * time.Millisecond)
		before := l.now()
		time.Sleep(time.Second)
		after := l.now()
		if before.Op.Done != 100 || after.Op.Done != 200 || before.Op.Total != 10000 {
			t.Errorf("%d, then %d of %d bytes", before.Op.Done, after.Op.Done, after.Op.Total)
		}
		l.hold("read")
		time.Sleep(30 * time.Second)
		if n := l.now().SinceChange(); n < 28 || n > 30 {
			t.Errorf("last change %d s ago", n)
		}
		l.begin(mib.OperationKindAbort, 0)
		if op := l.now().Op; op.State != mib.OperationStateAborted || op.Percent == 100 || op.Percent == procedure.PercentUnknown {
			t.Errorf("%s, %d %%", op.State, op.Percent)
		}
	})
}

// Each attempt begins at 0 again.
func TestProgressOfAttempts(t *testing.T) {
	run(t, func(l *lab) {
		l.slow(procedure.Notify{Enable: 0xff, Step: 10})
		l.pace = time.Second
		l.begin(mib.OperationKindDownloadSoftware, 0)
		time.Sleep(50*time.Second + 500*time.Millisecond)
		l.failing("read", coded(mib.FailCauseConnectionLost))
		time.Sleep(600 * time.Millisecond)
		op := l.expect(mib.OperationStateWaiting, mib.OperationPhaseTransferring, mib.FailCauseConnectionLost)
		if op.Percent < 30 {
			t.Errorf("%d %%", op.Percent)
		}
		time.Sleep(1500 * time.Millisecond)
		if now := l.now().Op; now.State != mib.OperationStateRunning || now.Percent >= op.Percent || now.Cause != mib.FailCauseNone {
			t.Errorf("%s, %d %%, cause %s", now.State, now.Percent, now.Cause)
		}
	})
}

// Several files make one percentage; sizes that were announced help.
func TestProgressOfConfiguration(t *testing.T) {
	run(t, func(l *lab) {
		l.pace = time.Second
		l.sizes = false
		l.settings(func(s *procedure.Settings) {
			for i := range s.Files {
				s.Files[i].Size = uint32(len(l.remote[s.Files[i].Name]))
			}
		})
		l.begin(mib.OperationKindRecoverConfig, 0)
		last := uint8(0)
		for range 15 {
			time.Sleep(time.Second)
			op := l.now().Op
			if op.State == mib.OperationStateRunning && (op.Percent < last || op.Percent == procedure.PercentUnknown || op.Phase == mib.OperationPhaseTransferring && op.Total < 1500) {
				t.Errorf("%d %% after %d %%, %d of %d bytes of %s", op.Percent, last, op.Done, op.Total, op.File)
			}
			last = op.Percent
		}
		time.Sleep(time.Minute)
		l.expect(mib.OperationStateSucceeded, mib.OperationPhaseApplying, mib.FailCauseNone)
	})
}
