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

// What is wrong with configuration files is told apart, and nothing is applied.
func TestConfigurationFailures(t *testing.T) {
	portData := func(f func(*procedure.File)) func(*lab) {
		return func(l *lab) { l.settings(func(s *procedure.Settings) { f(&s.Files[procedure.PortData-1]) }) }
	}
	fails := func(step string, err error) func(*lab) { return func(l *lab) { l.failing(step, err) } }
	for _, c := range []struct {
		name    string
		kind    procedure.Kind
		options procedure.Options
		prepare func(*lab)
		cause   mib.FailCause
		phase   procedure.Phase
	}{
		{"too short", procedure.RecoverConfig, 0, portData(func(f *procedure.File) { f.Size = 5000 }), mib.FailCauseSizeMismatch, procedure.Transferring},
		{"other digest", procedure.RecoverConfig, 0, portData(func(f *procedure.File) { f.Digest = make([]byte, 32) }), mib.FailCauseDigestMismatch, procedure.Transferring},
		{"too long", procedure.RecoverConfig, 0, func(l *lab) { l.remote["portData"] = make([]byte, 10001) }, mib.FailCauseFileTooLarge, procedure.Transferring},
		{"too long, not announced", procedure.RecoverConfig, 0, func(l *lab) { l.remote["portData"], l.sizes = make([]byte, 10001), false }, mib.FailCauseFileTooLarge, procedure.Transferring},
		{"other kind", procedure.RecoverConfig, 0, func(l *lab) { l.remote["portData"] = l.remote["userData"] }, mib.FailCauseConfigParseError, procedure.Verifying},
		{"other format", procedure.RecoverConfig, 0, func(l *lab) { l.config.Format = 2 }, mib.FailCauseConfigFormatMismatch, procedure.Verifying},
		{"conversion", procedure.RecoverConfig, procedure.ConvertFirst, func(l *lab) {
			l.config.Format = 2
			l.failing("convert", coded(mib.FailCauseConvertFailed))
		}, mib.FailCauseConvertFailed, procedure.Converting},
		{"refused by the device", procedure.RecoverConfig, 0, fails("check config", coded(mib.FailCauseConfigApplyError)), mib.FailCauseConfigApplyError, procedure.Applying},
		{"refused when applied", procedure.RecoverConfig, 0, fails("apply", coded(mib.FailCauseConfigSaveError)), mib.FailCauseConfigSaveError, procedure.Applying},
		{"unknown error", procedure.ConvertConfig, 0, fails("other", errors.New("odd")), mib.FailCauseInternalError, procedure.Checking},
		{"gone since", procedure.ConvertConfig, 0, func(l *lab) { l.hold("other") }, mib.FailCausePreconditionMissing, procedure.Checking},
		{"cannot be collected", procedure.BackupConfig, 0, fails("collect", coded(mib.FailCauseConfigReadError)), mib.FailCauseConfigReadError, procedure.Collecting},
		{"cannot be stored", procedure.BackupConfig, 0, fails("put", coded(mib.FailCauseRemoteStorageFull)), mib.FailCauseRemoteStorageFull, procedure.Transferring},
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
				op := l.expect(procedure.Failed, c.phase, c.cause)
				if op.Text == "" || op.Advice() != c.cause.Advice() {
					t.Errorf("text %q, advice %s", op.Text, op.Advice())
				}
				if g := l.now().Config.Generation; g != 1 {
					t.Errorf("generation %d", g)
				}
				if r := l.now().Files[procedure.PortData-1]; c.phase == procedure.Transferring && c.kind == procedure.RecoverConfig && r.Result != c.cause {
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
			s.Files[procedure.PortData-1].Digest = sum[:]
			s.Files[procedure.PortData-1].Size = uint32(len(l.remote["portData"]))
		})
		l.begin(procedure.RecoverConfig, 0)
		l.expect(procedure.Succeeded, procedure.Applying, mib.FailCauseNone)
	})
}

// A backup is read back; a server that does not let it is trusted, one that
// returns something else is not.
func TestBackupIsReadBack(t *testing.T) {
	for cause, want := range map[mib.FailCause]procedure.State{
		mib.FailCauseFileNotFound: procedure.Succeeded, mib.FailCauseAccessDenied: procedure.Succeeded,
		mib.FailCauseProtocolError: procedure.Waiting, // to try again
	} {
		run(t, func(l *lab) {
			l.failing("get", coded(cause))
			l.begin(procedure.BackupConfig, 0)
			if op := l.now().Op; op.State != want {
				t.Errorf("%s: %s", cause, op.State)
			}
			l.begin(procedure.Abort, 0)
		})
	}
	for _, other := range []string{"something else", strings.Repeat("longer", 100)} {
		run(t, func(l *lab) {
			l.hold("get")
			if err := l.request(procedure.BackupConfig, func(p *procedure.Params) { p.Retries = 0 }); err != nil {
				t.Fatal(err)
			}
			l.set(func() { l.remote["userData"] = []byte(other) })
			l.release("get")
			l.expect(procedure.Failed, procedure.Verifying, mib.FailCauseDigestMismatch)
			if r := l.now().Files[procedure.UserData-1].Result; r != mib.FailCauseDigestMismatch {
				t.Errorf("result of the file: %s", r)
			}
		})
	}
}

// Only the kinds asked for are put in force by convertConfig.
func TestConvertSomeKinds(t *testing.T) {
	run(t, func(l *lab) {
		l.other = true
		l.begin(procedure.ConvertConfig, 0)
		if g := l.now().Config.Generation; g != 1+2 { // the fake counts files
			t.Errorf("%d files were applied", g-1)
		}
		if err := l.request(procedure.ConvertConfig, func(p *procedure.Params) { p.Files = procedure.SetOf(procedure.PortData) }); err != nil {
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
		l.begin(procedure.RecoverConfig, 0)
		s := l.now()
		if !s.ResetRequired() || !s.Events[len(s.Events)-1].ResetRequired {
			t.Error("no reset required")
		}
		l.begin(procedure.Reset, 0)
		l.restart(nil)
		if l.now().ResetRequired() {
			t.Error("reset required after the reset")
		}
	})
}

// Texts fit the MIB: printable, UTF-8, 128 octets.
func TestTextsFit(t *testing.T) {
	for _, text := range []string{strings.Repeat("é", 100), strings.Repeat("a", 127) + "é", "line 1\nline 2\x00\xff", strings.Repeat("x", 128)} {
		run(t, func(l *lab) {
			l.failing("collect", errors.New(text))
			l.begin(procedure.BackupConfig, 0)
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

// The digest of what came whole is told although it is not what was expected; of a
// part there is none.
func TestDigestOfAFailedTransfer(t *testing.T) {
	want := sha256.Sum256(configFile(procedure.UserData, 1))
	for _, c := range []struct {
		cause   mib.FailCause
		prepare func(*lab)
		digest  string
	}{
		{mib.FailCauseDigestMismatch, func(l *lab) {
			l.settings(func(s *procedure.Settings) { s.Files[procedure.UserData-1].Digest = make([]byte, 32) })
		}, string(want[:])},
		{mib.FailCauseSizeMismatch, func(l *lab) {
			l.settings(func(s *procedure.Settings) { s.Files[procedure.UserData-1].Size = 5000 })
		}, string(want[:])},
		{mib.FailCauseConnectionLost, func(l *lab) { l.failing("read", nil, nil, coded(mib.FailCauseConnectionLost)) }, ""},
	} {
		run(t, func(l *lab) {
			c.prepare(l)
			if err := l.request(procedure.RecoverConfig, func(p *procedure.Params) { p.Retries = 0 }); err != nil {
				t.Fatal(err)
			}
			l.expect(procedure.Failed, procedure.Transferring, c.cause)
			r := l.now().Files[procedure.UserData-1]
			if r.OpID != 1 || r.Result != c.cause || r.Size == 0 || string(r.Digest) != c.digest {
				t.Errorf("%s: file %+v", c.cause, r)
			}
		})
	}
	run(t, func(l *lab) {
		l.failing("verify", coded(mib.FailCauseSignatureInvalid))
		l.begin(procedure.DownloadSoftware, 0)
		if r := l.now().Files[0]; r.Result != mib.FailCauseSignatureInvalid || len(r.Digest) != 32 {
			t.Errorf("software: %+v", r)
		}
	})
}
