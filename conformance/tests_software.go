package conformance

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"example.com/iad/manager/device"
	"example.com/iad/mib"
)

var testsOfSoftware = []*Test{
	{Name: "reset", Title: "reset restarts the device, and nothing that was set is lost", run: reset},
	{Name: "activate", Title: "activate selects the other bank, and reset starts it", needs: needSoftware, run: activate},
	{Name: "upgrade", Title: "downloadSoftware with thenActivate and thenReset is one operation, over the restart", needs: needSoftware, run: upgrade},
	{Name: "activate-reset", Title: "activate with thenReset is one operation, over the restart", needs: needSoftware, run: activateReset},
	{Name: "confirm", Title: "With iadUpgConfirmMode manager, software stays on trial until confirm", needs: needSoftware, run: confirm},
	{Name: "confirm-window", Title: "Software that is not confirmed is given up at the end of iadUpgConfirmWindow", needs: needSoftware, run: confirmWindow},
	{Name: "trial-restored", Title: "restoreOldSoftware ends a trial", needs: needSoftware, run: trialRestored},
	{Name: "self-test-fails", Title: "Software that fails its self-test is given up, and the old software runs again", needs: needKey, run: selfTestFails},
	{Name: "abort-late", Title: "An operation that has switched the software cannot be aborted", needs: needKey, run: abortLate},
	{Name: "restore-running", Title: "restoreOldSoftware succeeds at once if the old software runs already", needs: needKey, run: restoreRunning},
	{Name: "check-only-software", Title: "activate, reset and restoreOldSoftware with checkOnly change nothing", needs: needSoftware, run: checkOnlySoftware},
	{Name: "restart-events", Title: "Event numbers, operation numbers and history continue over a restart", needs: needNotifications, run: restartEvents},
}

// ready makes the other bank hold the newer software in state ready or good.
func (t *T) ready() {
	t.useServer(t.protocol(), 5*time.Second)
	_, other := t.banks()
	if other.Version == t.software.version && other.State == mib.BankStateReady {
		return
	}
	t.servers.put("fw.iad", t.software.newer, behaviour{})
	t.succeed("DOWNLOAD", t.fetch("fw.iad", mib.ReqOptionsForce))
}

// runs checks which software runs, and that the banks say so.
func (t *T) runs(version string) *device.Device {
	d := t.device()
	t.check("SWITCH", d.Version == version, "iadUpgSoftwareVersion is %q; want %q", d.Version, version)
	running, other := t.banks()
	t.check("BANK-VERSION", running.Version == d.Version, "iadUpgBankVersion of the running bank is %q, iadUpgSoftwareVersion is %q", running.Version, d.Version)
	t.check("BANK-ROLES", running.Next && !other.Next, "after the restart bank %d is running, and bank %d has the role nextBoot", running.Number, other.Number)
	return d
}

// restored returns to the first software by restoreOldSoftware.
func (t *T) restored() *device.Operation {
	before := t.device()
	op := t.succeed("RESTORE", request{kind: mib.OperationKindRestoreOldSoftware})
	d := t.runs(t.first.Version)
	t.check("CONFIG-BACK", bytes.Equal(d.ConfigDigest, t.first.ConfigDigest), "after restoreOldSoftware iadUpgConfigDigest is %x; the old software had %x", d.ConfigDigest, t.first.ConfigDigest)
	t.check("RESTART-COUNT", d.RestartCount > before.RestartCount, "iadUpgRestartCount is %d after a restart; it was %d", d.RestartCount, before.RestartCount)
	return op
}

// events returns the events of an operation.
func (t *T) events(op uint32) []mib.EventTypeEnum {
	rows, err := t.client.Events(t.ctx)
	t.answered(err)
	var types []mib.EventTypeEnum
	for _, e := range rows {
		if e.OpID == op {
			types = append(types, e.Type)
		}
	}
	return types
}

// eventOrder checks that an operation had these events in this order, possibly among others.
func (t *T) eventOrder(op uint32, want ...mib.EventTypeEnum) {
	got := t.events(op)
	rest := got
	for _, w := range want {
		i := slices.Index(rest, w)
		if !t.check("EVENT-ORDER", i >= 0, "the events of operation %d are %v; want %v in this order", op, got, want) {
			return
		}
		rest = rest[i+1:]
	}
}

func reset(t *T) {
	t.useServer(t.protocol(), 2*time.Second)
	t.refused("REFUSE-BAD", request{kind: mib.OperationKindBackupConfig, server: 2, before: []mib.Varbind{
		t.v(mib.ServerAddressType, mib.InetAddressTypeUnknown.Value(), 2), t.v(mib.ServerAddress, mib.Octets(nil), 2)}}, mib.InconsistentValue, mib.FailCauseBadRequest)
	t.write(t.v(mib.ServerPath, mib.Str("kept"), 3), t.v(mib.FileName, mib.Str("kept"), uint32(mib.FileTypeOtherData)), t.v(mib.ConfirmWindow, mib.Uint32(601)))
	before := t.device()
	lock := t.number(mib.ReqLock)
	began := time.Now()
	op := t.succeed("RESET", request{kind: mib.OperationKindReset})
	t.record(EntryNote, "the restart took %s", seconds(time.Since(began)))
	now := t.device()
	t.check("RESTART-COUNT", now.RestartCount == next(before.RestartCount), "iadUpgRestartCount is %d after a reset; it was %d", now.RestartCount, before.RestartCount)
	t.check("RESTART-REASON", now.RestartReason == mib.RestartReasonCommanded, "iadUpgRestartReason is %s after a reset; want commanded", now.RestartReason)
	t.check("SWITCH", now.Version == before.Version, "after a reset %s runs; it was %s", now.Version, before.Version)
	t.check("CONFIG-SAME", bytes.Equal(now.ConfigDigest, before.ConfigDigest) && now.Generation == before.Generation, "a reset changed the configuration data from generation %d, %x to %d, %x", before.Generation, before.ConfigDigest, now.Generation, now.ConfigDigest)
	t.check("LOCK-RESTART", t.number(mib.ReqLock) != lock && t.number(mib.ReqLock) != (lock+1)&(1<<31-1), "iadUpgReqLock is %d after a restart; it was %d", t.number(mib.ReqLock), lock)
	t.check("REQ-REFUSAL-RESTART", t.number(mib.ReqRefusal) == int64(mib.FailCauseNone) && len(t.get(mib.ReqRefusalText).Bytes) == 0, "iadUpgReqRefusal is %s after a restart; want none", mib.FailCause(t.number(mib.ReqRefusal)))
	t.check("SET-PERSIST", string(t.get(mib.ServerPath, 3).Bytes) == "kept" && string(t.get(mib.FileName, uint32(mib.FileTypeOtherData)).Bytes) == "kept" && t.number(mib.ConfirmWindow) == 601,
		"iadUpgServerPath.3, iadUpgFileName.otherData or iadUpgConfirmWindow is not what it was before the restart")
	t.write(t.v(mib.ServerPath, mib.Str(""), 3), t.v(mib.FileName, mib.Str(""), uint32(mib.FileTypeOtherData)), t.v(mib.ConfirmWindow, *mib.ConfirmWindow.Default))
	t.eventOrder(op.ID, mib.EventTypeStarted, mib.EventTypeRestarting, mib.EventTypeRestarted, mib.EventTypeCompleted)
}

func activate(t *T) {
	t.ready()
	before := t.device()
	r := request{kind: mib.OperationKindActivate, version: "99.0.0"}
	op := t.execute(r)
	t.check("CAUSE-IMAGE", op.State == mib.OperationStateFailed && op.Cause == mib.FailCauseVersionMismatch, "activate of version 99.0.0 ended as %s, %s; want versionMismatch", op.State, op.Cause)
	r.version, r.id = t.software.version, 0
	op = t.succeed("ACTIVATE", r)
	running, other := t.banks()
	if t.device().Version == t.software.version {
		t.record(EntryNote, "this software takes effect without a restart")
		t.restored()
		return
	}
	t.check("ACTIVATE", other.Next && !running.Next && running.Running, "after activate the banks are %v and %v; want the other one as nextBoot", running, other)
	t.check("RESET-REQUIRED", t.device().ResetRequired, "iadUpgResetRequired is false after activate")
	t.check("OP-BANK", int(op.Bank) == other.Number, "iadUpgOpBank is %d; want %d", op.Bank, other.Number)
	t.eventOrder(op.ID, mib.EventTypeStarted, mib.EventTypeBankSwitched, mib.EventTypeCompleted)
	reset := t.succeed("RESET", request{kind: mib.OperationKindReset})
	d := t.runs(t.software.version)
	t.check("RESTART-COUNT", d.RestartCount > before.RestartCount, "iadUpgRestartCount is %d after a restart; it was %d", d.RestartCount, before.RestartCount)
	t.eventOrder(reset.ID, mib.EventTypeRestarting, mib.EventTypeRestarted)
	t.confirmed()
	t.check("RESET-REQUIRED", !t.device().ResetRequired || t.device().ConfigFormat != t.first.ConfigFormat, "iadUpgResetRequired is true after the reset")
	t.restored()
}

// confirmed waits until the running software is confirmed.
func (t *T) confirmed() {
	ok := t.until("the running software is confirmed", func() bool {
		running, _ := t.banks()
		return running.State == mib.BankStateGood
	})
	t.check("CONFIRM-AUTOMATIC", ok, "with iadUpgConfirmMode automatic the software is still on trial")
}

func upgrade(t *T) {
	t.useServer(t.protocol(), 5*time.Second)
	t.servers.put("fw.iad", t.software.newer, behaviour{})
	before := t.device()
	op := t.succeed("UPGRADE", t.fetch("fw.iad", mib.ReqOptionsForce, mib.ReqOptionsThenActivate, mib.ReqOptionsThenReset))
	d := t.runs(t.software.version)
	t.check("RESTART-REASON", d.RestartReason == mib.RestartReasonActivation || d.RestartReason == mib.RestartReasonCommanded, "iadUpgRestartReason is %s after an upgrade; want activation", d.RestartReason)
	t.check("RESTART-COUNT", d.RestartCount > before.RestartCount, "iadUpgRestartCount is %d after a restart; it was %d", d.RestartCount, before.RestartCount)
	running, other := t.banks()
	t.check("BANK-FALLBACK", other.Fallback && other.Version == t.first.Version, "after the upgrade bank %d (%s) is fallback: %v; want the old software as fallback", other.Number, other.Version, other.Fallback)
	t.check("OP-BANK", int(op.Bank) == running.Number, "iadUpgOpBank is %d; bank %d runs", op.Bank, running.Number)
	t.eventOrder(op.ID, mib.EventTypeStarted, mib.EventTypeBankSwitched, mib.EventTypeRestarting, mib.EventTypeRestarted, mib.EventTypeCompleted)
	t.confirmed()
	// The configuration data of the old software come back with it.
	op = t.restored()
	t.eventOrder(op.ID, mib.EventTypeStarted, mib.EventTypeBankSwitched, mib.EventTypeRestarting, mib.EventTypeRestarted, mib.EventTypeCompleted)
}

func activateReset(t *T) {
	t.ready()
	op := t.succeed("ACTIVATE", request{kind: mib.OperationKindActivate, options: []int{mib.ReqOptionsThenReset}})
	t.runs(t.software.version)
	t.eventOrder(op.ID, mib.EventTypeStarted, mib.EventTypeBankSwitched, mib.EventTypeRestarting, mib.EventTypeRestarted, mib.EventTypeCompleted)
	t.confirmed()
	t.restored()
}

// tried upgrades to the newer software with iadUpgConfirmMode manager.
func (t *T) tried(window uint32) {
	t.ready()
	t.write(t.v(mib.ConfirmMode, mib.ConfirmModeManager.Value()), t.v(mib.ConfirmWindow, mib.Uint32(window)))
	t.succeed("UPGRADE", request{kind: mib.OperationKindActivate, options: []int{mib.ReqOptionsThenReset}})
	t.runs(t.software.version)
	running, _ := t.banks()
	t.must("CONFIRM-MANAGER", running.State == mib.BankStateTrial, "with iadUpgConfirmMode manager, iadUpgBankState of new software is %s; want trial", running.State)
	left := t.number(mib.ConfirmTimeLeft)
	t.check("CONFIRM-TIME", left > 0 && left <= int64(window), "iadUpgConfirmTimeLeft is %d during a trial of %d s", left, window)
}

// untried sets the mode of confirmation to its default.
func (t *T) untried() {
	t.write(t.v(mib.ConfirmMode, mib.ConfirmModeAutomatic.Value()), t.v(mib.ConfirmWindow, *mib.ConfirmWindow.Default))
}

func confirm(t *T) {
	t.tried(600)
	// The fallback is not overwritten.
	t.useServer(t.protocol(), 2*time.Second)
	t.refused("TRIAL-FALLBACK", t.fetch("fw.iad", mib.ReqOptionsForce), mib.InconsistentValue, mib.FailCauseBankUnavailable)
	_, other := t.banks()
	t.check("BANK-FALLBACK", other.Fallback && other.Version == t.first.Version, "during the trial bank %d (%s) is fallback: %v", other.Number, other.Version, other.Fallback)
	// Other operations work.
	t.succeed("BACKUP", request{kind: mib.OperationKindBackupConfig, files: configKinds[:1], options: []int{mib.ReqOptionsCheckOnly}, before: t.configNames("trial-")})
	before := t.operation().ID
	t.write(t.v(mib.ReqCommand, mib.OperationKindConfirm.Value()))
	ok := t.within(20*time.Second, "state good", func() bool {
		running, _ := t.banks()
		return running.State == mib.BankStateGood
	})
	t.check("CONFIRM-MANAGER", ok, "after confirm the running bank is not good")
	t.check("CONFIRM-TIME", t.number(mib.ConfirmTimeLeft) == 0, "iadUpgConfirmTimeLeft is %d after confirm; want 0", t.number(mib.ConfirmTimeLeft))
	t.check("ABORT-NOTHING", t.operation().ID == before, "confirm changed iadUpgOpId")
	t.untried()
	t.restored()
}

func confirmWindow(t *T) {
	t.tried(30)
	before := t.device()
	began := time.Now()
	back := t.within(90*time.Second, "the old software runs", func() bool {
		d, err := t.client.Device(t.ctx)
		return err == nil && d.Version == t.first.Version
	})
	t.check("CONFIRM-WINDOW", back, "software that was not confirmed still runs %s after an iadUpgConfirmWindow of 30", seconds(time.Since(began)))
	if back {
		t.rolledBack(mib.FailCauseConfirmTimeout)
		d := t.device()
		t.check("RESTART-COUNT", d.RestartCount > before.RestartCount, "iadUpgRestartCount is %d after a restart; it was %d", d.RestartCount, before.RestartCount)
	}
	t.untried()
}

func trialRestored(t *T) {
	t.tried(600)
	t.restored()
	t.untried()
}

// rolledBack checks what a device reports after it has given up new software.
func (t *T) rolledBack(cause mib.FailCause) {
	d := t.runs(t.first.Version)
	t.check("ROLLBACK", d.RestartReason == mib.RestartReasonRollback, "iadUpgRestartReason is %s after software was given up; want rollback", d.RestartReason)
	_, other := t.banks()
	t.check("ROLLBACK", other.State == mib.BankStateFailed, "iadUpgBankState of software that was given up is %s; want failed", other.State)
	t.check("ROLLBACK", other.Error == cause, "iadUpgBankError of software that was given up is %s; want %s", other.Error, cause)
	rows, err := t.client.Events(t.ctx)
	t.answered(err)
	found := slices.ContainsFunc(rows, func(e device.EventEntry) bool {
		return e.Type == mib.EventTypeRolledBack && e.Seq > t.watch.start()
	})
	t.check("ROLLBACK", found, "iadUpgEventTable has no rolledBack since the start of the test")
	t.check("CONFIG-BACK", bytes.Equal(d.ConfigDigest, t.first.ConfigDigest), "the old software runs again with iadUpgConfigDigest %x; it had %x", d.ConfigDigest, t.first.ConfigDigest)
}

// start is the number of the last event before the test.
func (w *watch) start() uint32 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.began
}

func selfTestFails(t *T) {
	t.useServer(t.protocol(), 5*time.Second)
	bad, err := bump(t.first.Version, 5)
	if err != nil {
		t.skip("%v", err)
	}
	t.servers.put("bad.iad", t.image(spec{version: bad, selfTest: "#!/bin/sh\necho port 3 is dead\nexit 1\n"}), behaviour{})
	op := t.execute(t.fetch("bad.iad", mib.ReqOptionsForce, mib.ReqOptionsThenActivate, mib.ReqOptionsThenReset))
	t.check("SELF-TEST", op.State == mib.OperationStateFailed && op.Cause == mib.FailCauseSelfTestFailed, "an upgrade to software that fails its self-test ended as %s, %s: %s; want selfTestFailed", op.State, op.Cause, op.Text)
	t.rolledBack(mib.FailCauseSelfTestFailed)
	t.eventOrder(op.ID, mib.EventTypeStarted, mib.EventTypeBankSwitched, mib.EventTypeRestarting)
	if t.listener == nil {
		return
	}
	arrived := t.within(eventPatience, "iadUpgRolledBack", func() bool { return len(t.watch.received(mib.NotifyRolledBack)) > 0 })
	t.check("NOTIFY-SENT", arrived, "iadUpgRolledBack was not received")
	for _, n := range t.watch.received(mib.NotifyRolledBack) {
		version, _ := n.value(mib.BankVersion, t.watch.module)
		now, _ := n.value(mib.SoftwareVersion, t.watch.module)
		t.check("ROLLBACK", string(version.Bytes) == bad && string(now.Bytes) == t.first.Version, "iadUpgRolledBack has iadUpgBankVersion %q, iadUpgSoftwareVersion %q; want %q, %q", version.Bytes, now.Bytes, bad, t.first.Version)
	}
	// Software that was given up is not activated again.
	t.refused("REFUSE-PRECONDITION", request{kind: mib.OperationKindActivate}, mib.InconsistentValue, mib.FailCausePreconditionMissing)
}

func abortLate(t *T) {
	t.useServer(t.protocol(), 5*time.Second)
	slow, err := bump(t.first.Version, 6)
	if err != nil {
		t.skip("%v", err)
	}
	t.servers.put("slow.iad", t.image(spec{version: slow, selfTest: "#!/bin/sh\nsleep 3\nexit 0\n"}), behaviour{})
	id := t.start(t.fetch("slow.iad", mib.ReqOptionsForce, mib.ReqOptionsThenActivate, mib.ReqOptionsThenReset))
	trying := t.until("phase trying", func() bool {
		op, err := t.client.Operation(t.ctx)
		if err != nil {
			return false
		}
		t.watch.see(t, op)
		return op.Phase == mib.OperationPhaseTrying || final(op.State)
	})
	op := t.operation()
	if !trying || final(op.State) {
		t.record(EntryNote, "the self-test was over before it was seen")
	} else {
		t.check("OP-TRYING", op.State == mib.OperationStateRunning, "in phase trying the state is %s; want running", op.State)
		t.check("NOT-GOOD-EARLY", t.runningBank().State == mib.BankStateTrial, "while the self-test runs iadUpgBankState is %s; want trial", t.runningBank().State)
		t.refused("ABORT-LATE", request{kind: mib.OperationKindAbort, target: id}, mib.InconsistentValue, mib.FailCauseNotPermitted)
		t.refused("CONFIRM-EARLY", request{kind: mib.OperationKindConfirm}, mib.InconsistentValue, mib.FailCausePreconditionMissing)
	}
	op = t.awaitEnd(id)
	t.check("UPGRADE", op.State == mib.OperationStateSucceeded, "the upgrade ended as %s, %s: %s; want succeeded", op.State, op.Cause, op.Text)
	t.confirmed()
	t.restored()
}

func (t *T) runningBank() device.Bank {
	running, _ := t.banks()
	return running
}

func restoreRunning(t *T) {
	t.useServer(t.protocol(), 5*time.Second)
	bad, err := bump(t.first.Version, 7)
	if err != nil {
		t.skip("%v", err)
	}
	t.servers.put("bad.iad", t.image(spec{version: bad, selfTest: "#!/bin/sh\nexit 1\n"}), behaviour{})
	t.execute(t.fetch("bad.iad", mib.ReqOptionsForce, mib.ReqOptionsThenActivate, mib.ReqOptionsThenReset))
	before := t.runs(t.first.Version)
	op := t.execute(request{kind: mib.OperationKindRestoreOldSoftware})
	now := t.device()
	t.check("RESTORE-RUNNING", op.State == mib.OperationStateSucceeded, "restoreOldSoftware while the old software runs ended as %s, %s: %s; want succeeded", op.State, op.Cause, op.Text)
	t.check("RESTORE-RUNNING", now.RestartCount == before.RestartCount && now.Version == before.Version, "restoreOldSoftware while the old software runs restarted the device")
}

func checkOnlySoftware(t *T) {
	t.ready()
	before := t.device()
	running, other := t.banks()
	for _, r := range []request{
		{kind: mib.OperationKindActivate, options: []int{mib.ReqOptionsCheckOnly, mib.ReqOptionsThenReset}},
		{kind: mib.OperationKindReset, options: []int{mib.ReqOptionsCheckOnly}},
	} {
		t.succeed("CHECK-ONLY", r)
		t.unchanged(before)
		r2, o2 := t.banks()
		t.check("CHECK-ONLY", fmt.Sprint(r2, r2.Next, o2, o2.Next) == fmt.Sprint(running, running.Next, other, other.Next), "%s with checkOnly changed the banks from %v, %v to %v, %v", r.kind, running, other, r2, o2)
	}
}

func restartEvents(t *T) {
	seq, op := t.number(mib.EventSeq), t.operation()
	history, err := t.client.History(t.ctx)
	t.answered(err)
	r := t.succeed("RESET", request{kind: mib.OperationKindReset})
	t.check("OP-ID", r.ID == next(op.ID), "iadUpgOpId is %d after operation %d", r.ID, op.ID)
	t.check("EVENT-SEQ", t.number(mib.EventSeq) >= seq+4, "iadUpgEventSeq went from %d to %d over a reset; want 4 events at least", seq, t.number(mib.EventSeq))
	now, err := t.client.History(t.ctx)
	t.answered(err)
	kept := map[uint32]device.HistoryEntry{}
	for _, h := range now {
		kept[h.OpID] = h
	}
	most := t.number(mib.HistMax)
	t.check("HIST-MAX", int64(len(now)) <= most, "iadUpgHistTable has %d rows; iadUpgHistMax is %d", len(now), most)
	for i, h := range history {
		if int64(len(history)-i) >= most {
			continue // made room
		}
		t.check("HIST-PERSIST", kept[h.OpID] == h, "operation %d is %+v in iadUpgHistTable after a restart; it was %+v", h.OpID, kept[h.OpID], h)
	}
	arrived := t.within(eventPatience, "iadUpgRestarted", func() bool { return len(t.watch.received(mib.NotifyRestarted)) > 0 })
	t.check("NOTIFY-SENT", arrived, "iadUpgRestarted was not received after a reset")
}
