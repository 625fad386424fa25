package conformance

import (
	"time"

	"example.com/iad/manager/device"
	"example.com/iad/mib"
)

var testsOfRequests = []*Test{
	{Name: "lock", Title: "iadUpgReqLock protects a SET, and each SET that takes effect increments it", Quick: true, run: lock},
	{Name: "two-managers", Title: "Of two managers with the same lock, one is refused", Quick: true, run: twoManagers},
	{Name: "refusals", Title: "Requests that cannot be carried out are refused with their causes", Quick: true, run: refusals},
	{Name: "parameters-reset", Title: "Nothing of one request is left for the next", Quick: true, run: parametersReset},
	{Name: "repeated-request", Title: "A repeated request succeeds and starts nothing", Quick: true, run: repeatedRequest},
	{Name: "request-without-number", Title: "Requests with iadUpgReqId 0 are never taken for repeats", Quick: true, run: requestWithoutNumber},
	{Name: "busy", Title: "While an operation runs, others are refused and its rows cannot be changed", Quick: true, needs: needSoftware, run: busy},
	{Name: "delay", Title: "iadUpgReqDelay delays an operation, which can be aborted meanwhile", Quick: true, run: delay},
	{Name: "abort-nothing", Title: "abort and confirm succeed if there is nothing to abort or confirm", Quick: true, run: abortNothing},
}

// harmless is a SET without effect on operations.
func (t *T) harmless() mib.Varbind {
	return t.v(mib.FileName, mib.Str(""), uint32(mib.FileTypeOtherData))
}

func lock(t *T) {
	read := func() int64 { return t.number(mib.ReqLock) }
	successor := func(n int64) int64 { return (n + 1) & (1<<31 - 1) } // TestAndIncr, RFC 2579
	now := read()
	t.refuses("LOCK-WRONG", mib.InconsistentValue, 1, t.v(mib.ReqLock, mib.Int32(successor(now))), t.harmless())
	t.check("LOCK-FAILED", read() == now, "iadUpgReqLock went from %d to %d by a SET that failed", now, read())
	before := t.get(mib.ServerPath, 4)
	t.refuses("LOCK-WRONG", mib.InconsistentValue, 2, t.v(mib.ServerPath, mib.Str("lock"), 4), t.v(mib.ReqLock, mib.Int32(successor(now))))
	t.check("SET-ATOMIC", before.Equal(t.get(mib.ServerPath, 4)), "iadUpgServerPath.4 was written with a wrong lock")
	for _, vbs := range [][]mib.Varbind{
		{t.v(mib.ReqLock, mib.Int32(now)), t.harmless()}, // with the lock
		{t.harmless()}, // without it
		{t.v(mib.ServerTimeout, *mib.ServerTimeout.Default, 4)},
		{t.v(mib.ReqRetries, *mib.ReqRetries.Default)},
	} {
		now = read()
		if vbs[0].OID.Compare(t.client.OID(mib.ReqLock, 0)) == 0 {
			vbs[0].Value = mib.Int32(now)
		}
		t.write(vbs...)
		t.check("LOCK-INCREMENT", read() == successor(now), "iadUpgReqLock went from %d to %d by %s; want %d", now, read(), t.describe(vbs), successor(now))
	}
	now = read()
	t.refuses("SET-VALUE", mib.WrongValue, 1, t.v(mib.ServerTimeout, mib.Uint32(601), 4))
	t.check("LOCK-FAILED", read() == now, "iadUpgReqLock went from %d to %d by a SET that failed", now, read())
	t.write(t.v(mib.ConfirmWindow, t.get(mib.ConfirmWindow)))
	t.check("LOCK-INCREMENT", read() == now, "iadUpgReqLock went from %d to %d by a SET of iadUpgConfirmWindow, which is an exception", now, read())
}

func twoManagers(t *T) {
	second, err := device.Dial(t.cfg.Target)
	t.answered(err)
	defer second.Close()
	t.useServer(t.protocol(), 0)
	for range 3 {
		seen := t.number(mib.ReqLock)
		r := request{kind: mib.OperationKindBackupConfig, options: []int{mib.ReqOptionsCheckOnly}, files: configKinds[:1], before: append(
			[]mib.Varbind{t.v(mib.ReqLock, mib.Int32(seen))}, t.file(configKinds[0], "two.cfg", 0, nil)...)}
		t.awaitEnd(t.start(r))
		t.record(EntryNote, "the other manager")
		err := second.Set(t.ctx, t.v(mib.ReqLock, mib.Int32(seen)), t.v(mib.ServerPath, mib.Str("other"), 1))
		t.check("LOCK-WRONG", err != nil, "a second manager changed the device with a lock that the first one had used")
		t.check("SET-ATOMIC", len(t.get(mib.ServerPath, 1).Bytes) == 0, "iadUpgServerPath.1 was written with a wrong lock")
	}
}

func refusals(t *T) {
	t.useServer(t.protocol(), 0)
	running, other := t.banks()
	backup, download, recovering := mib.OperationKindBackupConfig, mib.OperationKindDownloadSoftware, mib.OperationKindRecoverConfig
	// Rows that are not in use are empty.
	t.write(t.v(mib.ServerAddressType, mib.InetAddressTypeUnknown.Value(), 2), t.v(mib.ServerAddress, mib.Octets(nil), 2))
	names := t.configNames("")
	software := t.file(mib.FileTypeSoftware, "fw.iad", 0, nil)
	option := func(kind mib.OperationKind, options ...int) request {
		return request{kind: kind, options: options, before: append(append([]mib.Varbind{}, names...), software...)}
	}
	bad := func(r request) { t.refused("REFUSE-BAD", r, mib.InconsistentValue, mib.FailCauseBadRequest) }
	// Options that do not belong to the operation.
	bad(option(backup, mib.ReqOptionsThenReset))
	bad(option(backup, mib.ReqOptionsConvertFirst))
	bad(option(download, mib.ReqOptionsConvertFirst))
	bad(option(download, mib.ReqOptionsThenReset)) // without thenActivate
	bad(option(recovering, mib.ReqOptionsThenActivate))
	bad(option(mib.OperationKindReset, mib.ReqOptionsThenActivate))
	// Files.
	bad(request{kind: backup, files: []mib.FileType{mib.FileTypeSoftware}, before: append(names, software...)})
	bad(request{kind: download, files: []mib.FileType{mib.FileTypeUserData}, before: append(names, software...)})
	bad(request{kind: backup, files: configKinds[:1], before: t.file(configKinds[0], "", 0, nil)})
	bad(request{kind: download, before: t.file(mib.FileTypeSoftware, "", 0, nil)})
	// Servers: none, and one without an address.
	none := request{kind: backup, before: append(append([]mib.Varbind{}, names...), t.v(mib.ReqServer, mib.Uint32(0)))}
	bad(none)
	bad(request{kind: backup, server: 2, before: names})
	// The time limit ends within the delay.
	bad(request{kind: backup, before: names, delay: 20 * time.Second, limit: 10 * time.Second})
	// Banks.
	t.refused("REFUSE-BANK", request{kind: download, bank: running.Number, before: software}, mib.InconsistentValue, mib.FailCauseBankUnavailable)
	t.refused("REFUSE-BANK", request{kind: mib.OperationKindActivate, bank: running.Number}, mib.InconsistentValue, mib.FailCauseBankUnavailable)
	switch other.State {
	case mib.BankStateReady, mib.BankStateGood, mib.BankStateTrial:
		t.record(EntryNote, "bank %d is %s: activate and restoreOldSoftware are not judged here", other.Number, other.State)
	default:
		t.refused("REFUSE-PRECONDITION", request{kind: mib.OperationKindActivate}, mib.InconsistentValue, mib.FailCausePreconditionMissing)
		if running.Fallback {
			// After a return to the old software, to go back to it once more is no mistake.
			t.record(EntryNote, "the running bank is the fallback: restoreOldSoftware is not judged here")
			break
		}
		t.refused("REFUSE-PRECONDITION", request{kind: mib.OperationKindRestoreOldSoftware}, mib.InconsistentValue, mib.FailCauseNoFallback)
	}
	// A kind that is not in the module, and kinds that the device does not support.
	before := t.operation().ID
	t.refuses("REFUSE-KIND", mib.WrongValue, 0, t.v(mib.ReqCommand, mib.Int32(11)))
	t.check("REQ-NOTHING", t.operation().ID == before, "iadUpgReqCommand 11 started an operation")
	for kind := mib.OperationKindBackupConfig; kind <= mib.OperationKindConfirm; kind++ {
		if !t.first.Supports(kind) {
			t.refused("REFUSE-KIND", request{kind: kind}, mib.WrongValue, mib.FailCauseUnsupported)
		}
	}
	// abort of another operation.
	t.refused("REFUSE-TARGET", request{kind: mib.OperationKindAbort, target: t.operation().ID + 1000}, mib.InconsistentValue, mib.FailCauseBadRequest)
	t.write(t.v(mib.ReqCommand, mib.OperationKindNone.Value()))
	t.check("REQ-NOTHING", t.operation().ID == before, "iadUpgReqCommand none started an operation")
}

func parametersReset(t *T) {
	t.useServer(t.protocol(), 0)
	params := []mib.Varbind{
		t.v(mib.ReqId, mib.Uint32(device.NewReqID())), t.v(mib.ReqOwner, mib.Str("somebody")), t.v(mib.ReqFiles, mib.Octets(mib.Bits(mib.FileSetUserData))),
		t.v(mib.ReqOptions, mib.Octets(mib.Bits(mib.ReqOptionsCheckOnly))), t.v(mib.ReqTimeLimit, mib.Uint32(60)), t.v(mib.ReqRetries, mib.Uint32(0)),
	}
	t.write(params...)
	for _, vb := range params {
		vbs, err := t.client.Get(t.ctx, vb.OID)
		t.answered(err)
		t.check("SET-READ", vbs[0].Value.Equal(vb.Value), "%s: it reads %s", t.describe([]mib.Varbind{vb}), vbs[0].Value)
	}
	// A refused request leaves them as they are.
	t.set(t.v(mib.ReqServer, mib.Uint32(0)), t.v(mib.ReqCommand, mib.OperationKindBackupConfig.Value()))
	t.check("SET-ATOMIC", t.number(mib.ReqTimeLimit) == 60, "iadUpgReqTimeLimit is %d after a request that was refused; want 60", t.number(mib.ReqTimeLimit))
	before := t.operation().ID
	t.write(t.v(mib.ReqCommand, mib.OperationKindBackupConfig.Value()))
	op := t.awaitEnd(next(before))
	t.check("REQ-PARAMETERS", op.Owner == "somebody", "iadUpgOpOwner is %q; want the one that was written before the command", op.Owner)
	for _, o := range mib.Objects {
		if o.Access != mib.ReadWrite || o.Default == nil || o.Kind != mib.Scalar || o.Rel[1] != mib.ReqLock.Rel[1] || o == mib.ReqLock || o == mib.ConfirmMode || o == mib.ConfirmWindow {
			continue
		}
		v := t.get(o)
		same := v.Equal(*o.Default)
		if o.IsBits {
			same = !anyBit(v.Bytes)
		}
		t.check("REQ-RESET", same, "%s is %s after the request; want its DEFVAL %s", o.Name, show(o, v), show(o, *o.Default))
	}
}

func anyBit(b []byte) bool {
	for _, x := range b {
		if x != 0 {
			return true
		}
	}
	return false
}

func repeatedRequest(t *T) {
	t.useServer(t.protocol(), 3*time.Second)
	t.servers.put("slow.cfg", nil, behaviour{hold: 1})
	first := request{kind: mib.OperationKindBackupConfig, id: device.NewReqID(), files: configKinds[:1], before: t.file(configKinds[0], "slow.cfg", 0, nil)}
	id := t.start(first)
	again := request{kind: first.kind, id: first.id}
	repeat := func(r request, when string) {
		lock := t.number(mib.ReqLock)
		status, _ := t.set(t.varbinds(&r)...)
		t.check("REPEAT-SAME", status == mib.NoError, "a repeat %s fails with %s; want noError", when, status)
		now := t.operation()
		t.check("REPEAT-SAME", now.ID == id, "a repeat %s started operation %d", when, now.ID)
		t.check("REPEAT-LOCK", t.number(mib.ReqLock) == lock, "a repeat %s incremented iadUpgReqLock", when)
		if now.ID != id {
			t.awaitEnd(now.ID)
		}
	}
	repeat(again, "while the operation runs")
	t.servers.reset()
	t.awaitEnd(id)
	repeat(again, "after the operation has ended")
	// A wrong lock makes even a repeat fail.
	wrong := again
	wrong.before = []mib.Varbind{t.v(mib.ReqLock, mib.Int32((t.number(mib.ReqLock)+1)&(1<<31-1)))}
	t.refuses("LOCK-WRONG", mib.InconsistentValue, 1, t.varbinds(&wrong)...)
	// After another operation, it is one that has been carried out.
	t.execute(request{kind: mib.OperationKindBackupConfig, files: configKinds[:1], options: []int{mib.ReqOptionsCheckOnly}})
	t.refused("REPEAT-OLD", again, mib.InconsistentValue, mib.FailCauseBadRequest)
}

func requestWithoutNumber(t *T) {
	t.useServer(t.protocol(), 0)
	for range 2 {
		op := t.execute(request{kind: mib.OperationKindBackupConfig, noID: true, files: configKinds[:1], options: []int{mib.ReqOptionsCheckOnly}})
		t.check("REPEAT-ZERO", op.ReqID == 0, "iadUpgOpReqId is %d; want 0", op.ReqID)
	}
}

func busy(t *T) {
	t.useServer(t.protocol(), 30*time.Second)
	f := t.servers.put("fw.iad", t.software.newer, behaviour{hold: int64(len(t.software.newer) / 2)})
	id := t.start(request{kind: mib.OperationKindDownloadSoftware, options: []int{mib.ReqOptionsForce}, before: t.file(mib.FileTypeSoftware, "fw.iad", 0, nil)})
	t.holds(f)
	for _, kind := range []mib.OperationKind{mib.OperationKindBackupConfig, mib.OperationKindDownloadSoftware, mib.OperationKindReset, mib.OperationKindRestoreOldSoftware, mib.OperationKindRecoverConfig} {
		t.refused("REFUSE-BUSY", request{kind: kind}, mib.InconsistentValue, mib.FailCauseBusy)
	}
	t.refuses("ROW-BUSY", mib.InconsistentValue, 1, t.v(mib.ServerPath, mib.Str("elsewhere"), 1))
	t.refuses("ROW-BUSY", mib.InconsistentValue, 1, t.v(mib.FileName, mib.Str("other.iad"), uint32(mib.FileTypeSoftware)))
	t.check("ROW-BUSY", len(t.get(mib.ServerPath, 1).Bytes) == 0, "iadUpgServerPath.1 was written by a SET that failed")
	// A device may have received the first half of the file while it still erases.
	t.until("phase transferring", func() bool {
		phase := t.operation().Phase
		return phase == mib.OperationPhaseTransferring || phase == mib.OperationPhaseWriting
	})
	running, other := t.banks()
	t.check("BANK-WRITING", other.State == mib.BankStateWriting || other.State == mib.BankStateVerifying, "during a download iadUpgBankState.%d is %s; want writing", other.Number, other.State)
	t.check("BANK-NEXT", running.Next && !other.Next, "during a download bank %d, which is being written, has the role nextBoot", other.Number)
	f.release()
	op := t.awaitEnd(id)
	t.check("DOWNLOAD", op.State == mib.OperationStateSucceeded, "the download ended as %s, %s: %s; want succeeded", op.State, op.Cause, op.Text)
}

// holds waits until a transfer of a file holds.
func (t *T) holds(f *served) {
	ctx, cancel := t.deadline(t.cfg.Limit)
	defer cancel()
	select {
	case <-f.reached:
	case <-ctx.Done():
		op := t.operation()
		t.must("REQ-ACCEPT", false, "the device did not come to the middle of the file: operation %d is %s, %s: %s", op.ID, op.State, op.Cause, op.Text)
	}
}

func delay(t *T) {
	t.useServer(t.protocol(), 0)
	began := time.Now()
	id := t.start(request{kind: mib.OperationKindBackupConfig, delay: 2 * time.Second, options: []int{mib.ReqOptionsCheckOnly}, files: configKinds[:1]})
	op := t.operation()
	t.check("DELAY", op.State == mib.OperationStateWaiting && op.Attempt == 0, "during the delay the state is %s, attempt %d; want waiting, 0", op.State, op.Attempt)
	t.awaitEnd(id)
	t.check("DELAY", time.Since(began) >= 1900*time.Millisecond, "with iadUpgReqDelay 2 the operation had ended after %s", seconds(time.Since(began)))
	id = t.start(request{kind: mib.OperationKindBackupConfig, delay: time.Hour, files: configKinds[:1]})
	t.abort(id)
}

func abortNothing(t *T) {
	before := t.operation().ID
	for _, kind := range []mib.OperationKind{mib.OperationKindAbort, mib.OperationKindConfirm} {
		status, _ := t.set(t.v(mib.ReqCommand, kind.Value()))
		t.check("ABORT-NOTHING", status == mib.NoError, "%s with nothing to act on: %s; want noError", kind, status)
	}
	t.check("ABORT-NOTHING", t.operation().ID == before, "abort or confirm changed iadUpgOpId")
	t.refused("REFUSE-TARGET", request{kind: mib.OperationKindAbort, target: before + 7}, mib.InconsistentValue, mib.FailCauseBadRequest)
}
