package agent_test

import (
	"testing"
	"testing/synctest"
	"time"

	"example.com/iad/mib"
)

// iadUpgReqRefusal says why a request was refused, also one that the module itself
// forbids; a SET that is no request leaves it alone.
func TestRefusalByTheModule(t *testing.T) {
	onBench(t, nil, func(b *bench) {
		b.server()
		b.refused(mib.WrongValue, mib.FailCauseUnsupported, num(mib.ReqCommand, 11))
		b.must(command(backupConfig))
		b.want(mib.ReqRefusal, int64(mib.FailCauseNone))
		b.succeeded()
		b.refused(mib.WrongValue, mib.FailCauseBadRequest, num(mib.ReqRetries, 11), command(backupConfig))
		b.refused(mib.WrongValue, mib.FailCauseUnsupportedProtocol, num(mib.ServerProtocol, int64(mib.ProtocolFtps), 2), command(backupConfig))
		b.refused(mib.NotWritable, mib.FailCauseBadRequest, command(backupConfig), num(mib.OpId, 7))
		b.refused(mib.NoCreation, mib.FailCauseBadRequest, command(backupConfig), num(mib.ServerPort, 7, 5))
		b.refused(mib.InconsistentValue, mib.FailCauseBadRequest, command(backupConfig), num(mib.ReqRetries, 1), num(mib.ReqRetries, 2))
		for _, other := range []mib.Varbind{num(mib.NotifyStep, 0), num(mib.OpId, 1)} {
			if err := b.set(other); err == nil {
				t.Error("accepted")
			}
			b.want(mib.ReqRefusal, int64(mib.FailCauseBadRequest))
			b.wantText(mib.ReqRefusalText, "iadUpgReqRetries: two values in one SET")
		}
		tx, err := b.tree().Set(mib.Caller{}, []mib.Varbind{command(backupConfig), text(mib.ServerPassword, "x", 1)})
		if err == nil {
			tx.Done()
			t.Fatal("a password without privacy is accepted")
		}
		synctest.Wait()
		b.want(mib.ReqRefusal, int64(mib.FailCauseNotPermitted))
		b.want(mib.OpId, 1) // nothing was started
	})
}

// Leaving the decision to the device counts also if the same SET starts an operation.
func TestConfirmModeWithCommand(t *testing.T) {
	onBench(t, nil, func(b *bench) {
		b.must(num(mib.ConfirmMode, int64(mib.ConfirmModeManager)), num(mib.ConfirmWindow, 30))
		b.upgrade(1)
		b.want(mib.BankState, int64(mib.BankStateTrial), 2)
		b.must(num(mib.ConfirmMode, int64(mib.ConfirmModeAutomatic)), command(backupConfig))
		b.want(mib.BankState, int64(mib.BankStateGood), 2)
		b.succeeded()
		time.Sleep(time.Hour)
		b.wantText(mib.SoftwareVersion, "2.0.0")
	})
}

// A window written during the trial moves its end, also over a power cut.
func TestConfirmWindowDuringTrial(t *testing.T) {
	onBench(t, nil, func(b *bench) {
		b.must(num(mib.ConfirmMode, int64(mib.ConfirmModeManager)), num(mib.ConfirmWindow, 30))
		b.upgrade(1)
		before := b.num(mib.ConfirmTimeLeft)
		b.must(num(mib.ConfirmWindow, 3600))
		if left := b.num(mib.ConfirmTimeLeft); left != before+3570 {
			t.Errorf("%d s are left, before it were %d", left, before)
		}
		b.powerCut()
		time.Sleep(time.Minute)
		b.wantText(mib.SoftwareVersion, "2.0.0")
		before = b.num(mib.ConfirmTimeLeft)
		b.must(num(mib.ConfirmWindow, 600))
		if left := b.num(mib.ConfirmTimeLeft); left != before-3000 {
			t.Errorf("%d s are left, before it were %d", left, before)
		}
		time.Sleep(10 * time.Minute)
		b.wantText(mib.SoftwareVersion, "1.0.0")
		b.wantText(mib.BankErrorText, "not confirmed within 600 s", 2)
	})
}

// iadUpgReqVersion holds for the software to go back to as well.
func TestRestoreVersion(t *testing.T) {
	onBench(t, nil, func(b *bench) {
		b.upgrade(1)
		b.must(command(restoreOldSoftware), text(mib.ReqVersion, "0.9.0"))
		b.failed(mib.FailCauseVersionMismatch)
		b.wantText(mib.SoftwareVersion, "2.0.0")
		b.must(command(restoreOldSoftware), text(mib.ReqVersion, "1.0.0"))
		b.succeeded()
		b.wantText(mib.SoftwareVersion, "1.0.0")
	})
}

// iadUpgFileLastSize counts what came, not what the file would have had.
func TestFileLastSizeOfLooks(t *testing.T) {
	onBench(t, nil, func(b *bench) {
		b.server()
		b.image("2.0.0", 1)
		b.must(command(downloadSoftware))
		b.succeeded()
		whole := b.num(mib.FileLastSize, 1)
		if whole != b.num(mib.OpBytesDone) || whole == 0 {
			t.Errorf("%d bytes of the file, %d of the operation", whole, b.num(mib.OpBytesDone))
		}
		for _, look := range [][]mib.Varbind{{command(downloadSoftware)}, {command(downloadSoftware), options(force, checkOnly)}} {
			b.must(look...)
			b.succeeded()
			if size := b.num(mib.FileLastSize, 1); size >= whole || size == 0 {
				t.Errorf("%d bytes of %d", size, whole)
			}
		}
	})
}

// A download that gets no answer was connecting.
func TestPhaseWithoutAnswer(t *testing.T) {
	onBench(t, nil, func(b *bench) {
		b.server()
		b.must(command(downloadSoftware), num(mib.ReqRetries, 0)) // there is no such file
		b.failed(mib.FailCauseFileNotFound)
		b.want(mib.OpPhase, int64(mib.OperationPhaseConnecting))
		b.want(mib.HistPhase, int64(mib.OperationPhaseConnecting), 1)
	})
}
