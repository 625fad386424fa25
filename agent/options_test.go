package agent_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"testing"
	"time"

	"example.com/iad/agent/config"
	"example.com/iad/agent/procedure"
	"example.com/iad/bank/image"
	"example.com/iad/mib"
	"example.com/iad/sim"
)

// Bits of iadUpgReqOptions.
const (
	force = iota
	allowDowngrade
	thenActivate
	thenReset
	convertFirst
	checkOnly
)

const (
	backupConfig       = mib.OperationKindBackupConfig
	downloadSoftware   = mib.OperationKindDownloadSoftware
	activate           = mib.OperationKindActivate
	reset              = mib.OperationKindReset
	restoreOldSoftware = mib.OperationKindRestoreOldSoftware
	recoverConfig      = mib.OperationKindRecoverConfig
	convertConfig      = mib.OperationKindConvertConfig
	abort              = mib.OperationKindAbort
	confirm            = mib.OperationKindConfirm
)

func options(n ...int) mib.Varbind { return bits(mib.ReqOptions, n...) }

// upgrade brings the device to version 2.0.0 of the given format.
func (b *bench) upgrade(format uint32) {
	b.t.Helper()
	b.server()
	b.image("2.0.0", format)
	b.must(command(downloadSoftware), options(thenActivate, thenReset))
	b.succeeded()
	b.wantText(mib.SoftwareVersion, "2.0.0")
}

// downloadSoftware stores software and changes nothing that runs; activate
// makes it next; reset starts it; the device confirms it.
func TestStepByStep(t *testing.T) {
	onBench(t, nil, func(b *bench) {
		b.server()
		b.image("2.0.0", 1)
		b.must(command(downloadSoftware))
		b.succeeded()
		b.want(mib.BankState, int64(mib.BankStateReady), 2)
		b.wantText(mib.BankVersion, "2.0.0", 2)
		b.wantText(mib.SoftwareVersion, "1.0.0")
		b.want(mib.ResetRequired, int64(mib.TruthValueFalse))
		b.want(mib.OpBank, 2)
		b.want(mib.HistBank, 2, 1)
		b.wantText(mib.HistOldVersion, "1.0.0", 1)
		b.wantText(mib.HistNewVersion, "2.0.0", 1)
		b.must(command(activate))
		b.succeeded()
		b.want(mib.BankState, int64(mib.BankStateTrial), 2)
		b.want(mib.ResetRequired, int64(mib.TruthValueTrue))
		b.wantText(mib.BankRoles, "\x40", 2) // nextBoot
		b.wantText(mib.BankRoles, "\xa0", 1) // running, fallback
		b.want(mib.RestartCount, 1)
		b.must(command(reset))
		b.succeeded()
		b.wantText(mib.SoftwareVersion, "2.0.0")
		b.want(mib.RestartCount, 2)
		b.want(mib.RestartReason, int64(mib.RestartReasonCommanded))
		b.want(mib.BankState, int64(mib.BankStateGood), 2)
		b.want(mib.BankTriesLeft, 0, 2)
		b.want(mib.OpId, 3)
	})
}

// thenActivate and thenReset do all of it in one operation, which carries the
// verdict over the restart.
func TestOptionThenActivateThenReset(t *testing.T) {
	onBench(t, nil, func(b *bench) {
		b.upgrade(1)
		b.want(mib.OpId, 1)
		b.want(mib.OpKind, int64(downloadSoftware))
		b.want(mib.OpPercent, 100)
		b.want(mib.RestartReason, int64(mib.RestartReasonActivation))
		b.want(mib.RestartCount, 2)
		b.wantText(mib.BankRoles, "\xc0", 2) // running, nextBoot
		b.wantText(mib.BankRoles, "\x20", 1) // fallback
		b.want(mib.ResetRequired, int64(mib.TruthValueFalse))
	})
}

// thenActivate alone leaves the restart to somebody else.
func TestOptionThenActivate(t *testing.T) {
	onBench(t, nil, func(b *bench) {
		b.server()
		b.image("2.0.0", 1)
		b.must(command(downloadSoftware), options(thenActivate))
		b.succeeded()
		b.want(mib.RestartCount, 1)
		b.want(mib.ResetRequired, int64(mib.TruthValueTrue))
	})
}

// force: also if the version is already there.
func TestOptionForceDownload(t *testing.T) {
	onBench(t, nil, func(b *bench) {
		b.server()
		b.upload("software", factory())
		b.must(command(downloadSoftware))
		b.failed(mib.FailCauseAlreadyInstalled)
		b.must(command(downloadSoftware), options(force))
		b.succeeded()
		b.wantText(mib.BankVersion, "1.0.0", 2)
		written := b.text(mib.BankWritten, 2)
		time.Sleep(time.Minute)
		b.image("2.0.0", 1)
		for range 2 {
			b.must(command(downloadSoftware))
			b.succeeded()
		}
		second := b.text(mib.BankWritten, 2)
		if second == written {
			t.Error("version 2.0.0 was not written")
		}
		time.Sleep(time.Minute)
		b.must(command(downloadSoftware))
		b.succeeded()
		b.want(mib.OpBank, 2)
		b.wantText(mib.BankWritten, second, 2)
		b.must(command(downloadSoftware), options(force))
		b.succeeded()
	})
}

// force: also if calls are in progress; without it the SET fails.
func TestOptionForceCalls(t *testing.T) {
	onBench(t, nil, func(b *bench) {
		b.device.SetCalls(2)
		for _, k := range []mib.OperationKind{reset} {
			b.refused(mib.ResourceUnavailable, mib.FailCauseServiceInUse, command(k))
		}
		b.want(mib.RestartCount, 1)
		b.must(command(reset), options(force))
		b.succeeded()
		b.want(mib.RestartCount, 2)
		b.device.SetCalls(0)
		b.must(command(reset))
		b.succeeded()
	})
}

// allowDowngrade accepts an older version, but never one below the floor.
func TestOptionAllowDowngrade(t *testing.T) {
	onBench(t, nil, func(b *bench) {
		b.server()
		b.image("0.9.0", 1)
		b.must(command(downloadSoftware))
		b.failed(mib.FailCauseDowngradeRefused)
		b.want(mib.OpAdvice, int64(mib.RetryAdviceFixFirst))
		b.must(command(downloadSoftware), options(allowDowngrade))
		b.succeeded()
		b.must(command(activate))
		b.failed(mib.FailCauseDowngradeRefused)
		b.must(command(activate), options(allowDowngrade, checkOnly))
		b.succeeded()

		b.image("2.0.0", 1, func(m *image.Manifest) { m.Floor = "1.5.0" })
		b.must(command(downloadSoftware), options(thenActivate, thenReset))
		b.succeeded()
		b.image("1.4.0", 1)
		b.must(command(downloadSoftware), options(allowDowngrade, force))
		b.failed(mib.FailCauseDowngradeRefused)
		b.image("1.6.0", 1)
		b.must(command(downloadSoftware), options(allowDowngrade))
		b.succeeded()
	})
}

// convertFirst with recoverConfig runs the conversion program if the format
// differs; without it the files are refused.
func TestOptionConvertFirst(t *testing.T) {
	onBench(t, nil, func(b *bench) {
		b.server()
		b.must(command(backupConfig))
		b.succeeded()
		b.image("2.0.0", 2)
		b.must(command(downloadSoftware), options(thenActivate, thenReset))
		b.succeeded()
		b.want(mib.ConfigFormat, 2)
		b.want(mib.ConfigGeneration, 0)
		b.must(command(recoverConfig))
		b.failed(mib.FailCauseConfigFormatMismatch)
		b.want(mib.FileLastFormat, 1, uint32(mib.FileTypeUserData))
		b.want(mib.ConfigGeneration, 0)
		b.must(command(recoverConfig), options(convertFirst))
		b.succeeded()
		if b.num(mib.ConfigGeneration) == 0 {
			t.Error("nothing in force")
		}
		b.wantText(mib.ConfigDigest, string(settings(2, "name").Digest()))
	})
}

// checkOnly checks what can be checked and changes nothing.
func TestOptionCheckOnly(t *testing.T) {
	onBench(t, nil, func(b *bench) {
		b.server()
		b.image("2.0.0", 1)
		for _, k := range []mib.OperationKind{backupConfig, downloadSoftware, reset} {
			b.must(command(k), options(checkOnly))
			b.succeeded()
		}
		b.want(mib.BankState, int64(mib.BankStateEmpty), 2)
		b.want(mib.RestartCount, 1)
		if b.puts != 0 {
			t.Errorf("%d files were sent", b.puts)
		}
		b.must(command(backupConfig))
		generation := b.num(mib.ConfigGeneration)
		b.must(command(recoverConfig), options(checkOnly, thenReset))
		b.succeeded()
		b.want(mib.ConfigGeneration, generation)
		b.image("2.0.0", 1, func(m *image.Manifest) { m.Hardware = []string{"OTHER"} })
		b.must(command(downloadSoftware), options(checkOnly))
		b.failed(mib.FailCauseIncompatibleHardware)
		b.refused(mib.InconsistentValue, mib.FailCausePreconditionMissing, command(activate), options(checkOnly))
	})
}

// An option that means nothing to the kind is a badRequest.
func TestOptionOfAnotherKind(t *testing.T) {
	onBench(t, nil, func(b *bench) {
		b.server()
		for k, n := range map[mib.OperationKind]int{backupConfig: thenReset, reset: convertFirst, convertConfig: force, recoverConfig: thenActivate} {
			b.refused(mib.InconsistentValue, mib.FailCauseBadRequest, command(k), options(n))
		}
		b.want(mib.OpId, 0)
	})
}

// The version asked for: another one in the file is a versionMismatch, one that
// is there needs no server.
func TestReqVersion(t *testing.T) {
	onBench(t, nil, func(b *bench) {
		b.server()
		b.image("2.0.0", 1)
		b.must(command(downloadSoftware), text(mib.ReqVersion, "2.0.1"))
		b.failed(mib.FailCauseVersionMismatch)
		b.want(mib.BankState, int64(mib.BankStateEmpty), 2)
		b.must(command(downloadSoftware), text(mib.ReqVersion, "2.0.0"))
		b.succeeded()
		b.broken = &procedure.Failure{Code: mib.FailCauseServerUnreachable, Text: "nobody there"}
		b.must(command(downloadSoftware), text(mib.ReqVersion, "2.0.0"))
		b.succeeded()
		b.want(mib.OpBank, 2)
		b.must(command(downloadSoftware), text(mib.ReqVersion, "1.0.0"))
		b.failed(mib.FailCauseAlreadyInstalled)
	})
}

// Naming the running bank is refused, and downloadSoftware while software is on
// trial.
func TestReqBank(t *testing.T) {
	onBench(t, nil, func(b *bench) {
		b.server()
		b.image("2.0.0", 1)
		b.refused(mib.InconsistentValue, mib.FailCauseBankUnavailable, command(downloadSoftware), num(mib.ReqBank, 1))
		b.must(command(downloadSoftware), num(mib.ReqBank, 2), options(thenActivate, thenReset), num(mib.ConfirmMode, int64(mib.ConfirmModeManager)))
		b.succeeded()
		b.want(mib.BankState, int64(mib.BankStateTrial), 2)
		b.refused(mib.InconsistentValue, mib.FailCauseBankUnavailable, command(downloadSoftware))
		b.must(command(confirm))
		b.must(command(downloadSoftware), num(mib.ReqBank, 1), options(force))
		b.succeeded()
	})
}

// A fetched file must have the size and the digest that were announced.
func TestExpectSizeAndDigest(t *testing.T) {
	onBench(t, nil, func(b *bench) {
		b.server()
		b.image("2.0.0", 1)
		right := sha256.Sum256(b.files["software"])
		size := int64(len(b.files["software"]))
		b.must(num(mib.FileExpectSize, size+1, 1))
		b.must(command(downloadSoftware), num(mib.ReqRetries, 0))
		b.failed(mib.FailCauseSizeMismatch)
		b.want(mib.FileLastResult, int64(mib.FailCauseSizeMismatch), 1)
		b.must(num(mib.FileExpectSize, size, 1), vb(mib.FileExpectDigest, mib.Octets(bytes.Repeat([]byte{1}, 32)), 1))
		b.must(command(downloadSoftware), num(mib.ReqRetries, 0))
		b.failed(mib.FailCauseDigestMismatch)
		b.wantText(mib.FileLastDigest, string(right[:]), 1)
		b.must(vb(mib.FileExpectDigest, mib.Octets(right[:]), 1))
		b.must(command(downloadSoftware))
		b.succeeded()
		b.want(mib.FileLastResult, int64(mib.FailCauseNone), 1)
		b.want(mib.FileLastSize, size, 1)
		b.wantText(mib.FileLastDigest, string(right[:]), 1)
		b.want(mib.FileLastOpId, 3, 1)
	})
}

// A backup is what is in force; recovered, it is in force again.
func TestBackupAndRecover(t *testing.T) {
	onBench(t, nil, func(b *bench) {
		b.server()
		b.must(command(backupConfig))
		b.succeeded()
		want := settings(1, "name")
		for _, k := range config.Kinds() {
			if !bytes.Equal(b.files[k.String()], want[k]) {
				t.Errorf("%s: %q", k, b.files[k.String()])
			}
			sum := sha256.Sum256(want[k])
			b.wantText(mib.FileLastDigest, string(sum[:]), uint32(k))
			b.want(mib.FileLastFormat, 1, uint32(k))
		}
		before := b.text(mib.ConfigDigest)
		b.upload("portData", config.WithHeader(mib.FileTypePortData, 1, []byte("line = 3\n")))
		b.must(command(recoverConfig), bits(mib.ReqFiles, int(mib.FileTypePortData)-1))
		b.succeeded()
		if b.text(mib.ConfigDigest) == before {
			t.Error("the digest is the old one")
		}
		b.want(mib.ConfigGeneration, 2)
		b.want(mib.FileLastOpId, 2, uint32(mib.FileTypePortData))
		b.want(mib.FileLastOpId, 1, uint32(mib.FileTypeUserData))
		b.upload("portData", []byte("nonsense"))
		b.must(command(recoverConfig))
		b.failed(mib.FailCauseConfigParseError)
		b.want(mib.ConfigGeneration, 2)
	})
}

// Going back to the old software brings its configuration data back.
func TestRestoreOldSoftware(t *testing.T) {
	onBench(t, nil, func(b *bench) {
		old := b.text(mib.ConfigDigest)
		b.upgrade(2)
		b.wantText(mib.ConfigDigest, "")
		b.must(command(restoreOldSoftware))
		b.succeeded()
		b.wantText(mib.SoftwareVersion, "1.0.0")
		b.wantText(mib.ConfigDigest, old)
		b.want(mib.ConfigGeneration, 1)
		b.want(mib.RestartReason, int64(mib.RestartReasonRollback))
		b.must(command(restoreOldSoftware)) // runs already
		b.succeeded()
		b.want(mib.RestartCount, 3)
	})
}

// convertConfig puts data in force that are on the device in another format.
func TestConvertConfig(t *testing.T) {
	onBench(t, nil, func(b *bench) {
		b.refused(mib.InconsistentValue, mib.FailCausePreconditionMissing, command(convertConfig))
		b.upgrade(2)
		b.must(command(convertConfig))
		b.succeeded()
		b.wantText(mib.ConfigDigest, string(settings(2, "name").Digest()))
	})
	onBench(t, func(c *sim.Config) { c.Hooks.Convert = nil }, func(b *bench) {
		b.upgrade(2)
		b.must(command(convertConfig))
		b.failed(mib.FailCauseConvertToolMissing)
	})
}

// Configuration data that the device refuses while they are applied leave what
// was in force before, also if that were the defaults.
func TestConfigurationIsRefused(t *testing.T) {
	var inUse []uint32
	refuse := false
	hooks := func(c *sim.Config) {
		c.Hooks.Apply = func(g config.Generation, _ config.Set) (bool, error) {
			inUse = append(inUse, g.Number)
			if refuse && len(inUse)%2 == 0 {
				return false, errors.New("port 3 does not exist")
			}
			return false, nil
		}
	}
	onBench(t, hooks, func(b *bench) {
		b.server()
		b.must(command(backupConfig))
		b.succeeded()
		refuse = true
		b.must(command(recoverConfig))
		b.failed(mib.FailCauseConfigApplyError)
		b.wantText(mib.OpFailText, "port 3 does not exist")
		b.want(mib.ConfigGeneration, 1)
		if last := inUse[len(inUse)-1]; last != 1 {
			t.Errorf("generation %d is in use", last)
		}
		b.powerCut()
		b.want(mib.ConfigGeneration, 1)
		refuse = false
		b.upgrade(2) // starts on its defaults
		b.want(mib.ConfigGeneration, 0)
		for k, data := range settings(2, "name") {
			b.upload(k.String(), data)
		}
		refuse, inUse = true, inUse[:1]
		b.must(command(recoverConfig))
		b.failed(mib.FailCauseConfigApplyError)
		b.want(mib.ConfigGeneration, 0)
		b.wantText(mib.ConfigDigest, "")
		refuse = false
		b.must(command(recoverConfig))
		b.succeeded()
		if b.num(mib.ConfigGeneration) == 0 {
			t.Error("not in force")
		}
	})
}
