package agent_test

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"example.com/iad/agent/procedure"
	"example.com/iad/bank/image"
	"example.com/iad/mib"
	"example.com/iad/sim"
)

// The parameters go back to their DEFVAL when a request is accepted, and stay
// when it is refused; the trigger reads none.
func TestParametersAfterRequest(t *testing.T) {
	onBench(t, nil, func(b *bench) {
		b.server()
		params := []mib.Varbind{
			num(mib.ReqId, 7), text(mib.ReqOwner, "ems"), num(mib.ReqServer, 1), bits(mib.ReqFiles, 1), num(mib.ReqBank, 2),
			text(mib.ReqVersion, "1"), options(checkOnly), num(mib.ReqTimeLimit, 99), num(mib.ReqRetries, 9), num(mib.ReqDelay, 1),
			num(mib.ReqTargetOpId, 3),
		}
		b.refused(mib.InconsistentValue, mib.FailCauseBadRequest, command(backupConfig), options(convertFirst), text(mib.ReqOwner, "ems"))
		b.wantText(mib.ReqOwner, "")
		b.must(params...)
		b.want(mib.ReqRetries, 9)
		b.must(command(backupConfig))
		for _, v := range params {
			o, idx, _ := b.tree().Module().Lookup(v.OID)
			if got := b.get(o, idx...); !got.Equal(pad(o, *o.Default)) {
				t.Errorf("%s is %v", o.Name, got)
			}
		}
		b.want(mib.ReqCommand, int64(mib.OperationKindNone))
		b.succeeded()
		b.want(mib.OpReqId, 7)
		b.wantText(mib.OpOwner, "ems")
		b.want(mib.HistReqId, 7, 1)
		b.wantText(mib.HistOwner, "ems", 1)
	})
}

// Two managers: one is faster, the other sees it by the lock, by the refusal
// What a tool writes without the lock between two SETs of a manager does not go
// unnoticed.
func TestLockMovesWithoutIt(t *testing.T) {
	onBench(t, nil, func(b *bench) {
		lock := b.num(mib.ReqLock)
		for _, c := range []struct {
			by  int64
			set mib.Varbind
		}{
			{1, text(mib.ServerPath, "elsewhere", 1)}, {1, text(mib.FileName, "other", 2)}, {1, num(mib.ReqRetries, 1)},
			{0, num(mib.ConfirmWindow, 77)}, {0, num(mib.ConfirmMode, 2)}, {0, num(mib.NotifyStep, 20)},
		} {
			b.must(c.set)
			if lock += c.by; b.num(mib.ReqLock) != lock {
				t.Errorf("%s: iadUpgReqLock is %d, want %d", c.set.OID, b.num(mib.ReqLock), lock)
			}
		}
	})
}

// and by the operation that runs.
func TestTwoManagers(t *testing.T) {
	onBench(t, nil, func(b *bench) {
		b.server()
		b.hold()
		lock := b.num(mib.ReqLock)
		b.must(num(mib.ReqLock, lock), num(mib.ReqId, 1), text(mib.ReqOwner, "first"), command(backupConfig))
		if err := b.set(text(mib.ReqOwner, "second"), num(mib.ReqLock, lock), command(backupConfig)); err == nil ||
			err.Status != mib.InconsistentValue || err.Index != 2 {
			t.Errorf("the old lock: %v", err)
		}
		b.refused(mib.InconsistentValue, mib.FailCauseBusy, num(mib.ReqLock, lock+1), text(mib.ReqOwner, "second"), command(backupConfig))
		b.wantText(mib.OpOwner, "first")
		b.wantText(mib.ReqOwner, "")
		b.refused(mib.InconsistentValue, mib.FailCauseBadRequest, command(abort), num(mib.ReqTargetOpId, 77))
		b.must(command(abort), num(mib.ReqTargetOpId, 1), text(mib.ReqOwner, "second"))
		b.want(mib.OpState, int64(mib.OperationStateAborted))
		b.want(mib.OpFailCause, int64(mib.FailCauseAbortedByManager))
		b.wantText(mib.OpFailText, "aborted by second")
		b.want(mib.OpKind, int64(backupConfig))
		b.release()
		b.must(command(backupConfig))
		b.refused(mib.InconsistentValue, mib.FailCauseBadRequest, command(abort), num(mib.ReqTargetOpId, 1)) // too late, and meant for another
		b.succeeded()
		b.want(mib.OpId, 2)
	})
}

// The repeat of a request whose response was lost starts nothing.
func TestLostResponse(t *testing.T) {
	onBench(t, nil, func(b *bench) {
		b.server()
		request := []mib.Varbind{num(mib.ReqId, 5), text(mib.ReqOwner, "ems"), command(backupConfig)}
		b.hold()
		b.must(request...)
		before := b.num(mib.EventSeq)
		b.must(request...)
		b.want(mib.OpId, 1)
		b.release()
		b.succeeded()
		b.must(request...)
		b.want(mib.OpId, 1)
		b.want(mib.EventSeq, before+1)
		b.must(num(mib.ReqId, 0), text(mib.ReqOwner, "ems"), command(backupConfig))
		b.must(num(mib.ReqId, 6), text(mib.ReqOwner, "ems"), command(backupConfig))
		b.want(mib.OpId, 3)
	})
}

// Delay, time limit and retries.
func TestReqDelayTimeLimitRetries(t *testing.T) {
	onBench(t, nil, func(b *bench) {
		b.server()
		b.must(command(backupConfig), num(mib.ReqDelay, 100), num(mib.ReqTimeLimit, 120))
		b.want(mib.OpState, int64(mib.OperationStateWaiting))
		time.Sleep(99 * time.Second)
		b.want(mib.OpState, int64(mib.OperationStateWaiting))
		b.want(mib.OpElapsed, 99)
		b.want(mib.OpTimeLeft, 21)
		b.hold()
		time.Sleep(time.Second)
		b.want(mib.OpState, int64(mib.OperationStateRunning))
		time.Sleep(20 * time.Second)
		b.want(mib.OpState, int64(mib.OperationStateFailed))
		b.want(mib.OpFailCause, int64(mib.FailCauseDeadlineExceeded))
		b.want(mib.OpElapsed, 120)
		b.want(mib.OpTimeLeft, 0)
		b.release()
		b.broken = &procedure.Failure{Code: mib.FailCauseServerUnreachable, Text: "nobody there"}
		b.must(command(backupConfig), num(mib.ReqRetries, 3))
		b.want(mib.OpState, int64(mib.OperationStateWaiting))
		b.want(mib.OpFailCause, int64(mib.FailCauseServerUnreachable))
		b.want(mib.OpAdvice, int64(mib.RetryAdviceRetryLater))
		time.Sleep(2 * time.Minute)
		b.want(mib.OpState, int64(mib.OperationStateFailed))
		b.want(mib.OpAttempt, 4)
		b.wantText(mib.OpFailText, "nobody there")
		b.want(mib.HistAttempts, 4, 2)
	})
}

// A SET that changes a row which the running operation uses fails; the rest may
// be written.
func TestRowsInUse(t *testing.T) {
	onBench(t, nil, func(b *bench) {
		b.server()
		b.hold()
		b.must(command(downloadSoftware))
		for _, v := range []mib.Varbind{num(mib.ServerPort, 99, 1), text(mib.FileName, "other", 1), text(mib.ServerPath, "x", 1)} {
			if err := b.set(num(mib.NotifyStep, 3), v); err == nil || err.Status != mib.InconsistentValue || err.Index != 2 {
				t.Errorf("%v: %v", v.OID, err)
			}
		}
		b.must(text(mib.FileName, "software", 1), num(mib.ServerPort, 99, 2), text(mib.FileName, "x", 2))
		b.release()
	})
}

// Address and type fit together in every SET.
func TestServerAddress(t *testing.T) {
	onBench(t, nil, func(b *bench) {
		typ := func(n mib.InetAddressType) mib.Varbind { return num(mib.ServerAddressType, int64(n), 3) }
		address := func(s string) mib.Varbind { return vb(mib.ServerAddress, mib.Octets([]byte(s)), 3) }
		for _, bad := range [][]mib.Varbind{
			{typ(mib.InetAddressTypeIpv4)}, {address("\x7f\x00\x00\x01")}, {typ(mib.InetAddressTypeIpv4), address("12345")},
			{typ(mib.InetAddressTypeDns), address("-no-")}, {typ(mib.InetAddressTypeIpv6), address("1234")},
		} {
			if err := b.set(bad...); err == nil || err.Status != mib.InconsistentValue {
				t.Errorf("%v: %v", bad, err)
			}
		}
		for _, good := range [][]mib.Varbind{
			{typ(mib.InetAddressTypeIpv4), address("\x7f\x00\x00\x01")}, {address("\x0a\x00\x00\x01")},
			{address("files.example.net"), typ(mib.InetAddressTypeDns)},
			{typ(mib.InetAddressTypeIpv6), address("0123456789abcdef")},
			{typ(mib.InetAddressTypeUnknown), address("")},
		} {
			b.must(good...)
		}
		b.refused(mib.InconsistentValue, mib.FailCauseBadRequest, command(backupConfig), num(mib.ReqServer, 3))
	})
}

// The password is taken only where nobody on the way can read it, and never
// shown.
func TestPassword(t *testing.T) {
	secret := text(mib.ServerPassword, "secret", 1)
	for _, plain := range []bool{false, true} {
		onBench(t, func(c *sim.Config) { c.PlainPasswords = plain }, func(b *bench) {
			tx, err := b.tree().Set(mib.Caller{}, []mib.Varbind{num(mib.NotifyStep, 9), secret})
			switch {
			case plain && err == nil:
				tx.Done()
			case plain || err == nil || err.Status != mib.AuthorizationError || err.Index != 2:
				t.Fatalf("plain %v: %v", plain, err)
			}
			b.want(mib.ServerPasswordSet, int64(map[bool]mib.TruthValue{true: mib.TruthValueTrue, false: mib.TruthValueFalse}[plain]), 1)
			b.must(secret)
			b.want(mib.ServerPasswordSet, int64(mib.TruthValueTrue), 1)
			b.wantText(mib.ServerPassword, "", 1)
			b.must(text(mib.ServerPassword, "", 1))
			b.want(mib.ServerPasswordSet, int64(mib.TruthValueFalse), 1)
		})
	}
}

// By iadUpgConfirmMode a manager accepts software, within the window; other
// operations may be carried out meanwhile.
func TestConfirmByManager(t *testing.T) {
	onBench(t, nil, func(b *bench) {
		b.must(num(mib.ConfirmMode, int64(mib.ConfirmModeManager)), num(mib.ConfirmWindow, 300))
		b.upgrade(1)
		b.want(mib.BankState, int64(mib.BankStateTrial), 2)
		b.want(mib.BankTriesLeft, 3, 2)
		if left := b.num(mib.ConfirmTimeLeft); left < 285 || left > 300 {
			t.Errorf("%d s left", left)
		}
		b.must(command(backupConfig))
		b.succeeded()
		b.must(command(confirm))
		b.want(mib.BankState, int64(mib.BankStateGood), 2)
		b.want(mib.ConfirmTimeLeft, 0)
		b.want(mib.OpKind, int64(backupConfig))
		b.must(command(confirm))
		time.Sleep(time.Hour)
		b.wantText(mib.SoftwareVersion, "2.0.0")
	})
	onBench(t, nil, func(b *bench) {
		b.must(num(mib.ConfirmMode, int64(mib.ConfirmModeManager)), num(mib.ConfirmWindow, 30))
		b.upgrade(1)
		time.Sleep(time.Minute)
		b.wantText(mib.SoftwareVersion, "1.0.0")
		b.want(mib.BankState, int64(mib.BankStateFailed), 2)
		b.want(mib.BankError, int64(mib.FailCauseConfirmTimeout), 2)
		b.want(mib.RestartReason, int64(mib.RestartReasonRollback))
	})
}

// Software that fails its self-test is given up, and the operation says why.
func TestSelfTestFails(t *testing.T) {
	onBench(t, nil, func(b *bench) {
		b.server()
		b.selfTest = errors.New("no dial tone")
		b.image("2.0.0", 1)
		b.must(command(downloadSoftware), options(thenActivate, thenReset))
		time.Sleep(time.Minute)
		b.failed(mib.FailCauseSelfTestFailed)
		b.wantText(mib.OpFailText, "no dial tone")
		b.wantText(mib.SoftwareVersion, "1.0.0")
		b.want(mib.BankState, int64(mib.BankStateFailed), 2)
		b.want(mib.BankError, int64(mib.FailCauseSelfTestFailed), 2)
		b.wantText(mib.BankErrorText, "no dial tone", 2)
		b.refused(mib.InconsistentValue, mib.FailCausePreconditionMissing, command(activate))
		b.selfTest = nil
		b.upgrade(1) // with the right software it works
		b.want(mib.BankError, int64(mib.FailCauseNone), 2)
	})
}

// A device that needs no reset takes software over within activate.
func TestDeviceWithoutReset(t *testing.T) {
	quick := func(m *image.Manifest) { m.NoReset = true }
	onBench(t, func(c *sim.Config) { c.NoReset = true }, func(b *bench) {
		b.server()
		b.image("2.0.0", 1, quick)
		b.must(command(downloadSoftware), options(thenActivate))
		b.succeeded()
		b.wantText(mib.SoftwareVersion, "2.0.0")
		b.want(mib.RestartCount, 1)
		b.want(mib.ResetRequired, int64(mib.TruthValueFalse))
		b.want(mib.BankState, int64(mib.BankStateGood), 2)
		b.powerCut()
		b.wantText(mib.SoftwareVersion, "2.0.0")
	})
	onBench(t, func(c *sim.Config) { c.NoReset = true }, func(b *bench) {
		b.server()
		b.selfTest = errors.New("no dial tone")
		b.image("2.0.0", 1, quick)
		b.must(command(downloadSoftware), options(thenActivate))
		b.failed(mib.FailCauseSelfTestFailed)
		b.wantText(mib.SoftwareVersion, "1.0.0")
		b.want(mib.RestartCount, 1)
		b.want(mib.ConfigGeneration, 1)
		b.device.SetCalls(1)
		b.selfTest = nil
		b.must(command(downloadSoftware), options(thenActivate))
		b.failed(mib.FailCauseServiceInUse)
	})
	onBench(t, func(c *sim.Config) { c.NoReset = true }, func(b *bench) { // the manifest has a say, too
		b.server()
		b.image("2.0.0", 1)
		b.must(command(downloadSoftware), options(thenActivate))
		b.succeeded()
		b.wantText(mib.SoftwareVersion, "1.0.0")
		b.want(mib.ResetRequired, int64(mib.TruthValueTrue))
	})
}

// Power that fails during an operation ends it as interrupted; history and
// events survive.
func TestInterrupted(t *testing.T) {
	onBench(t, nil, func(b *bench) {
		b.server()
		b.must(command(backupConfig))
		b.hold()
		b.must(command(downloadSoftware))
		b.powerCut()
		b.failed(mib.FailCauseInterrupted)
		b.want(mib.HistFailCause, int64(mib.FailCauseNone), 1)
		b.want(mib.HistFailCause, int64(mib.FailCauseInterrupted), 2)
		b.want(mib.EventSeq, 6) // restarted, started, completed, started, restarted, failed
		b.want(mib.EventType, int64(mib.EventTypeFailed), 6)
		b.want(mib.EventOpId, 2, 6)
		b.want(mib.EventCause, int64(mib.FailCauseInterrupted), 6)
		b.want(mib.RestartReason, int64(mib.RestartReasonPowerOn))
		b.want(mib.RestartCount, 2)
		b.release()
		b.image("2.0.0", 1)
		b.must(command(downloadSoftware))
		b.succeeded()
	})
}

// What is wrong with software is reported, and what runs is untouched.
func TestWrongSoftware(t *testing.T) {
	onBench(t, nil, func(b *bench) {
		b.server()
		for cause, change := range map[mib.FailCause]func(*image.Manifest){
			mib.FailCauseIncompatibleHardware: func(m *image.Manifest) { m.Hardware = []string{"OTHER"} },
			mib.FailCausePreconditionMissing:  func(m *image.Manifest) { m.MinVersion = "1.9.0" },
		} {
			b.image("2.0.0", 1, change)
			b.must(command(downloadSoftware), num(mib.ReqRetries, 0))
			b.failed(cause)
		}
		b.upload("software", bytes.Repeat([]byte("not software"), 100))
		b.must(command(downloadSoftware), num(mib.ReqRetries, 0))
		b.failed(mib.FailCauseBadFormat)
		delete(b.files, "software")
		b.must(command(downloadSoftware))
		b.failed(mib.FailCauseFileNotFound)
		b.want(mib.OpAttempt, 1)
		b.want(mib.BankState, int64(mib.BankStateEmpty), 2)
		b.wantText(mib.SoftwareVersion, "1.0.0")
	})
	onBench(t, func(c *sim.Config) { c.BankSize = 2400 }, func(b *bench) {
		b.server()
		b.want(mib.BankCapacity, 2400, 2)
		b.image("2.0.0-with-a-version-that-makes-it-longer", 1)
		b.must(command(downloadSoftware))
		b.failed(mib.FailCauseFileTooLarge)
	})
}
