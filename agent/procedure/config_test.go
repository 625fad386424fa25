package procedure_test

import (
	"crypto/sha256"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"example.com/iad/agent/procedure"
	"example.com/iad/mib"
)

// Each mistake in configuration files has its own cause, and nothing is applied.
func TestConfigurationFailures(t *testing.T) {
	portData := func(f func(*procedure.File)) func(*lab) {
		return func(l *lab) { l.settings(func(s *procedure.Settings) { f(&s.Files[mib.FileTypePortData-1]) }) }
	}
	fails := func(step string, err error) func(*lab) { return func(l *lab) { l.failing(step, err) } }
	for _, c := range []struct {
		name    string
		kind    mib.OperationKind
		options procedure.Options
		prepare func(*lab)
		cause   mib.FailCause
		phase   mib.OperationPhase
	}{
		{"too short", mib.OperationKindRecoverConfig, 0, portData(func(f *procedure.File) { f.Size = 5000 }), mib.FailCauseSizeMismatch, mib.OperationPhaseTransferring},
		{"other digest", mib.OperationKindRecoverConfig, 0, portData(func(f *procedure.File) { f.Digest = make([]byte, 32) }), mib.FailCauseDigestMismatch, mib.OperationPhaseTransferring},
		{"too long", mib.OperationKindRecoverConfig, 0, func(l *lab) { l.remote["portData"] = make([]byte, 10001) }, mib.FailCauseFileTooLarge, mib.OperationPhaseTransferring},
		{"too long, not announced", mib.OperationKindRecoverConfig, 0, func(l *lab) { l.remote["portData"], l.sizes = make([]byte, 10001), false }, mib.FailCauseFileTooLarge, mib.OperationPhaseTransferring},
		{"other kind", mib.OperationKindRecoverConfig, 0, func(l *lab) { l.remote["portData"] = l.remote["userData"] }, mib.FailCauseConfigParseError, mib.OperationPhaseVerifying},
		{"other format", mib.OperationKindRecoverConfig, 0, func(l *lab) { l.config.Format = 2 }, mib.FailCauseConfigFormatMismatch, mib.OperationPhaseVerifying},
		{"conversion", mib.OperationKindRecoverConfig, procedure.ConvertFirst, func(l *lab) {
			l.config.Format = 2
			l.failing("convert", coded(mib.FailCauseConvertFailed))
		}, mib.FailCauseConvertFailed, mib.OperationPhaseConverting},
		{"refused by the device", mib.OperationKindRecoverConfig, 0, fails("check config", coded(mib.FailCauseConfigApplyError)), mib.FailCauseConfigApplyError, mib.OperationPhaseApplying},
		{"refused when applied", mib.OperationKindRecoverConfig, 0, fails("apply", coded(mib.FailCauseConfigSaveError)), mib.FailCauseConfigSaveError, mib.OperationPhaseApplying},
		{"unknown error", mib.OperationKindConvertConfig, 0, fails("other", errors.New("odd")), mib.FailCauseInternalError, mib.OperationPhaseChecking},
		{"gone since", mib.OperationKindConvertConfig, 0, func(l *lab) { l.hold("other") }, mib.FailCausePreconditionMissing, mib.OperationPhaseChecking},
		{"cannot be collected", mib.OperationKindBackupConfig, 0, fails("collect", coded(mib.FailCauseConfigReadError)), mib.FailCauseConfigReadError, mib.OperationPhaseCollecting},
		{"cannot be stored", mib.OperationKindBackupConfig, 0, fails("put", coded(mib.FailCauseRemoteStorageFull)), mib.FailCauseRemoteStorageFull, mib.OperationPhaseTransferring},
	} {
		t.Run(c.name, func(t *testing.T) {
			run(t, func(l *lab) {
				l.other = true
				c.prepare(l)
				if err := l.request(c.kind, func(p *procedure.Params) { p.Options, p.Retries = c.options, 0 }); err != nil {
					t.Fatal(err)
				}
				if c.name == "gone since" {
					l.set(func() { l.other = false })
					l.release("other")
				}
				op := l.expect(mib.OperationStateFailed, c.phase, c.cause)
				if op.Text == "" || op.Advice() != c.cause.Advice() {
					t.Errorf("text %q, advice %s", op.Text, op.Advice())
				}
				if g := l.now().Config.Generation; g != 1 {
					t.Errorf("generation %d", g)
				}
				if r := l.now().Files[mib.FileTypePortData-1]; c.phase == mib.OperationPhaseTransferring && c.kind == mib.OperationKindRecoverConfig && r.Result != c.cause {
					t.Errorf("result of the file: %s", r.Result)
				}
			})
		})
	}
}

// The digest and the size that were announced let the right file pass.
func TestExpectedFile(t *testing.T) {
	run(t, func(l *lab) {
		sum := sha256.Sum256(l.remote["portData"])
		l.settings(func(s *procedure.Settings) {
			s.Files[mib.FileTypePortData-1].Digest = sum[:]
			s.Files[mib.FileTypePortData-1].Size = uint32(len(l.remote["portData"]))
		})
		l.begin(mib.OperationKindRecoverConfig, 0)
		l.expect(mib.OperationStateSucceeded, mib.OperationPhaseApplying, mib.FailCauseNone)
	})
}

// A backup is read back; a server that does not let it is trusted, one that
// returns something else is not.
func TestBackupIsReadBack(t *testing.T) {
	for cause, want := range map[mib.FailCause]mib.OperationState{
		mib.FailCauseFileNotFound: mib.OperationStateSucceeded, mib.FailCauseAccessDenied: mib.OperationStateSucceeded,
		mib.FailCauseProtocolError: mib.OperationStateWaiting, // to try again
	} {
		run(t, func(l *lab) {
			l.failing("get", coded(cause))
			l.begin(mib.OperationKindBackupConfig, 0)
			if op := l.now().Op; op.State != want {
				t.Errorf("%s: %s", cause, op.State)
			}
			l.begin(mib.OperationKindAbort, 0)
		})
	}
	for _, other := range []string{"something else", strings.Repeat("longer", 100)} {
		run(t, func(l *lab) {
			l.hold("get")
			if err := l.request(mib.OperationKindBackupConfig, func(p *procedure.Params) { p.Retries = 0 }); err != nil {
				t.Fatal(err)
			}
			l.set(func() { l.remote["userData"] = []byte(other) })
			l.release("get")
			l.expect(mib.OperationStateFailed, mib.OperationPhaseVerifying, mib.FailCauseDigestMismatch)
			if r := l.now().Files[mib.FileTypeUserData-1].Result; r != mib.FailCauseDigestMismatch {
				t.Errorf("result of the file: %s", r)
			}
		})
	}
}

// Only the kinds asked for are put in force by convertConfig.
func TestConvertSomeKinds(t *testing.T) {
	run(t, func(l *lab) {
		l.other = true
		l.begin(mib.OperationKindConvertConfig, 0)
		if g := l.now().Config.Generation; g != 1+2 { // the fake counts files
			t.Errorf("%d files were applied", g-1)
		}
		if err := l.request(mib.OperationKindConvertConfig, func(p *procedure.Params) { p.Files = procedure.SetOf(mib.FileTypePortData) }); err != nil {
			t.Fatal(err)
		}
		if g := l.now().Config.Generation; g != 3+1 {
			t.Errorf("%d files were applied", g-3)
		}
	})
}

// Data that wait for a restart show in iadUpgResetRequired until it comes.
func TestConfigNeedsReset(t *testing.T) {
	run(t, func(l *lab) {
		l.set(func() { l.fails["needs reset"] = []error{} })
		l.begin(mib.OperationKindRecoverConfig, 0)
		s := l.now()
		if !s.ResetRequired() || !s.Events[len(s.Events)-1].ResetRequired {
			t.Error("no reset required")
		}
		l.begin(mib.OperationKindReset, 0)
		l.restart(nil)
		if l.now().ResetRequired() {
			t.Error("reset required after the reset")
		}
	})
}

// Texts fit the MIB: printable, UTF-8, 128 bytes.
func TestTextsFit(t *testing.T) {
	for _, text := range []string{strings.Repeat("é", 100), strings.Repeat("a", 127) + "é", "line 1\nline 2\x00\xff", strings.Repeat("x", 128)} {
		run(t, func(l *lab) {
			l.failing("collect", errors.New(text))
			l.begin(mib.OperationKindBackupConfig, 0)
			got := l.now().Op.Text
			if len(got) > 128 || !utf8.ValidString(got) || strings.ContainsAny(got, "\n\x00") || len(text) == 128 && got != text && !strings.HasPrefix(got, "collecting") {
				t.Errorf("text %q for %q", got, text)
			}
		})
	}
}

// Every cause has a name and advice; the numbers that the module does not have
// count as other.
func TestCauses(t *testing.T) {
	for _, c := range mib.FailCauses() {
		if c.String() == "" || c.Advice() < mib.RetryAdviceNotApplicable || c.Advice().String() == "" {
			t.Errorf("cause %d is %q, advice %s", c, c, c.Advice())
		}
	}
	// What an option or another parameter cures is not for ever.
	for _, c := range []mib.FailCause{mib.FailCauseDowngradeRefused, mib.FailCauseAlreadyInstalled, mib.FailCauseVersionMismatch} {
		if a := c.Advice(); a != mib.RetryAdviceFixFirst {
			t.Errorf("%s: advice %s", c, a)
		}
	}
	if mib.FailCause(200).Advice() != mib.FailCauseOther.Advice() {
		t.Error("an unknown cause has its own advice")
	}
}

// The digest of what came whole is reported although it is not what was expected; of a
// part there is none.
func TestDigestOfAFailedTransfer(t *testing.T) {
	want := sha256.Sum256(configFile(mib.FileTypeUserData, 1))
	for _, c := range []struct {
		cause   mib.FailCause
		prepare func(*lab)
		digest  string
	}{
		{mib.FailCauseDigestMismatch, func(l *lab) {
			l.settings(func(s *procedure.Settings) { s.Files[mib.FileTypeUserData-1].Digest = make([]byte, 32) })
		}, string(want[:])},
		{mib.FailCauseSizeMismatch, func(l *lab) {
			l.settings(func(s *procedure.Settings) { s.Files[mib.FileTypeUserData-1].Size = 5000 })
		}, string(want[:])},
		{mib.FailCauseConnectionLost, func(l *lab) { l.failing("read", nil, nil, coded(mib.FailCauseConnectionLost)) }, ""},
	} {
		run(t, func(l *lab) {
			c.prepare(l)
			if err := l.request(mib.OperationKindRecoverConfig, func(p *procedure.Params) { p.Retries = 0 }); err != nil {
				t.Fatal(err)
			}
			l.expect(mib.OperationStateFailed, mib.OperationPhaseTransferring, c.cause)
			r := l.now().Files[mib.FileTypeUserData-1]
			if r.OpID != 1 || r.Result != c.cause || r.Size == 0 || string(r.Digest) != c.digest {
				t.Errorf("%s: file %+v", c.cause, r)
			}
		})
	}
	run(t, func(l *lab) {
		l.failing("verify", coded(mib.FailCauseSignatureInvalid))
		l.begin(mib.OperationKindDownloadSoftware, 0)
		if r := l.now().Files[0]; r.Result != mib.FailCauseSignatureInvalid || len(r.Digest) != 32 {
			t.Errorf("software: %+v", r)
		}
	})
}
