package bank

import (
	"bytes"
	"errors"
	"maps"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/spf13/afero"

	"example.com/iad/bank/image"
	"example.com/iad/internal/imagetest"
	"example.com/iad/mib"
)

// readyDevice has 2.0.0 ready in bank 2.
func readyDevice(t *testing.T) (Options, *Banks) {
	t.Helper()
	opt := device(t)
	b, _ := boot(t, opt)
	install(t, b, "2.0.0")
	return opt, b
}

// spoil flips a bit of a file.
func spoil(t *testing.T, fs afero.Fs, name string) {
	t.Helper()
	data, err := afero.ReadFile(fs, name)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	if err := afero.WriteFile(fs, name, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestActivateRefusals(t *testing.T) {
	for _, test := range []struct {
		name   string
		before func(t *testing.T, opt *Options, b *Banks)
		bank   int
		want   mib.FailCause
		state  mib.BankStateEnum // of bank 2 afterwards
	}{
		{"no such bank", nil, 0, mib.FailCauseBadRequest, mib.BankStateReady},
		{"running bank", nil, 1, mib.FailCauseBankUnavailable, mib.BankStateReady},
		{"flipped bit", func(t *testing.T, opt *Options, b *Banks) { spoil(t, opt.Banks[1], "app") }, 2, mib.FailCauseDigestMismatch, mib.BankStateCorrupt},
		{"flipped bit in the manifest", func(t *testing.T, opt *Options, b *Banks) { spoil(t, opt.Banks[1], image.ManifestName) }, 2, mib.FailCauseDigestMismatch, mib.BankStateCorrupt},
		{"missing payload", func(t *testing.T, opt *Options, b *Banks) {
			if err := opt.Banks[1].Remove("selftest"); err != nil {
				t.Fatal(err)
			}
		}, 2, mib.FailCauseDigestMismatch, mib.BankStateCorrupt},
		{"flipped bit in the signature", func(t *testing.T, opt *Options, b *Banks) {
			data, err := afero.ReadFile(opt.Banks[1], image.SignatureName)
			if err == nil {
				data = bytes.Replace(data, []byte("version:2"), []byte("version:3"), 1)
				err = afero.WriteFile(opt.Banks[1], image.SignatureName, data, 0o644)
			}
			if err != nil {
				t.Fatal(err)
			}
		}, 2, mib.FailCauseSignatureInvalid, mib.BankStateReady},
		{"key no longer trusted", func(t *testing.T, opt *Options, b *Banks) { b.trust = image.TrustKeys() }, 2, mib.FailCauseSignerUntrusted, mib.BankStateReady},
		{"other hardware", func(t *testing.T, opt *Options, b *Banks) { b.opt.Hardware = "IAD-2FXS" }, 2, mib.FailCauseIncompatibleHardware, mib.BankStateReady},
		{"below the floor", func(t *testing.T, opt *Options, b *Banks) {
			if err := b.SetFloor("2.0.1"); err != nil {
				t.Fatal(err)
			}
		}, 2, mib.FailCauseDowngradeRefused, mib.BankStateReady},
		{"state not writable", func(t *testing.T, opt *Options, b *Banks) { b.store = nil }, 2, mib.FailCauseBootFlagError, mib.BankStateReady},
	} {
		t.Run(test.name, func(t *testing.T) {
			opt, b := readyDevice(t)
			if test.before != nil {
				test.before(t, &opt, b)
			}
			if err := b.Activate(test.bank); causeOf(err) != test.want || err == nil {
				t.Errorf("got %v, want cause %d", err, test.want)
			}
			if s := b.Status(); s.Next != 1 || s.Banks[1].State != test.state {
				t.Errorf("%+v", s)
			}
			if b, report := boot(t, opt); report.Bank != 1 || report.RolledBack != 0 || b.Status().Banks[1].State != test.state && test.want != mib.FailCauseBootFlagError {
				t.Errorf("%+v %+v", report, b.Status())
			}
		})
	}
}

func TestActivateWhileOnTrial(t *testing.T) {
	opt, b := readyDevice(t)
	if err := b.Activate(2); err != nil {
		t.Fatal(err)
	}
	b, _ = boot(t, opt)
	if err := b.Activate(1); causeOf(err) != mib.FailCauseBankUnavailable {
		t.Error(err)
	}
}

// TestNothingKeepsTheFallbackFromStarting takes away everything that is judged at
// download and activation.
func TestNothingKeepsTheFallbackFromStarting(t *testing.T) {
	opt, b := readyDevice(t)
	if err := b.Activate(2); err != nil {
		t.Fatal(err)
	}
	b, _ = boot(t, opt)
	if err := b.Confirm(); err != nil {
		t.Fatal(err)
	}
	if err := b.SetFloor("2.0.0"); err != nil {
		t.Fatal(err)
	}
	opt.Trust, opt.Hardware = nil, "something else"
	spoil(t, opt.Banks[0], image.SignatureName)
	b, report := boot(t, opt)
	if report.Bank != 2 || len(report.Findings) != 0 {
		t.Errorf("%+v", report)
	}
	if n, err := b.Restore(); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	if b, report = boot(t, opt); report.Bank != 1 || b.Status().Banks[0].Version != "1.0.0" {
		t.Errorf("%+v", report)
	}
}

func TestRestore(t *testing.T) {
	t.Run("none", func(t *testing.T) {
		b, _ := boot(t, device(t))
		if _, err := b.Restore(); causeOf(err) != mib.FailCauseNoFallback {
			t.Error(err)
		}
	})
	t.Run("takes back an activation", func(t *testing.T) {
		opt, b := readyDevice(t)
		if err := b.Activate(2); err != nil {
			t.Fatal(err)
		}
		if n, err := b.Restore(); n != 1 || err != nil {
			t.Error(n, err)
		}
		if b, report := boot(t, opt); report.Bank != 1 || b.Status().Banks[1].State != mib.BankStateReady {
			t.Errorf("%+v", report)
		}
	})
	t.Run("damaged", func(t *testing.T) {
		opt, b := readyDevice(t)
		if err := b.Activate(2); err != nil {
			t.Fatal(err)
		}
		b, _ = boot(t, opt)
		spoil(t, opt.Banks[0], "app")
		if _, err := b.Restore(); causeOf(err) != mib.FailCauseNoFallback {
			t.Error(err)
		}
		if s := b.Status(); s.Banks[0].State != mib.BankStateCorrupt || s.Fallback != 0 || s.Next != 2 {
			t.Errorf("%+v", s)
		}
	})
	t.Run("after the trial failed", func(t *testing.T) {
		opt, b := readyDevice(t)
		if err := b.Activate(2); err != nil {
			t.Fatal(err)
		}
		b, _ = boot(t, opt)
		if n, err := b.Restore(); n != 1 || err != nil {
			t.Error(n, err)
		}
		if s := b.Status(); s.Banks[1].State != mib.BankStateFailed || s.Banks[1].Text == "" {
			t.Errorf("%+v", s)
		}
	})
}

func TestUnselect(t *testing.T) {
	_, b := readyDevice(t)
	for range 2 {
		if err := b.Activate(2); err != nil {
			t.Fatal(err)
		}
		if err := b.Unselect(); err != nil {
			t.Fatal(err)
		}
		if s := b.Status(); s.Next != 1 || s.Banks[1].State != mib.BankStateReady || s.Banks[1].TriesLeft != 0 {
			t.Errorf("%+v", s)
		}
	}
	if err := b.Unselect(); err != nil {
		t.Error(err)
	}
}

// TestUnselectGood: software that was good is good again.
func TestUnselectGood(t *testing.T) {
	opt, b := readyDevice(t)
	if err := b.Activate(2); err != nil {
		t.Fatal(err)
	}
	b, _ = boot(t, opt)
	if err := b.Confirm(); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Restore(); err != nil {
		t.Fatal(err)
	}
	b, _ = boot(t, opt)
	if err := b.Activate(2); err != nil {
		t.Fatal(err)
	}
	if s := b.Status(); s.Banks[1].State != mib.BankStateTrial {
		t.Errorf("%+v", s)
	}
	if err := b.Unselect(); err != nil {
		t.Fatal(err)
	}
	if s := b.Status(); s.Banks[1].State != mib.BankStateGood {
		t.Errorf("%+v", s)
	}
}

func TestGiveUp(t *testing.T) {
	opt, b := readyDevice(t)
	if err := b.GiveUp(mib.FailCauseBootFailed, "x"); causeOf(err) != mib.FailCausePreconditionMissing {
		t.Errorf("nothing on trial: %v", err)
	}
	if err := b.Activate(2); err != nil {
		t.Fatal(err)
	}
	b, _ = boot(t, opt)
	if err := b.GiveUp(62, strings.Repeat("why ", 100)); err != nil {
		t.Fatal(err)
	}
	info := b.Status().Banks[1]
	if info.State != mib.BankStateFailed || info.Cause != 62 || len(info.Text) != 128 {
		t.Errorf("%+v", info)
	}
	b, report := boot(t, opt)
	if report.Bank != 1 || report.RolledBack != 0 {
		t.Errorf("%+v", report)
	}
	if err := b.Activate(2); causeOf(err) != mib.FailCauseBankUnavailable {
		t.Errorf("failed software was activated: %v", err)
	}
}

func TestGiveUpWithoutFallback(t *testing.T) {
	opt, b := readyDevice(t)
	if err := b.Activate(2); err != nil {
		t.Fatal(err)
	}
	spoil(t, opt.Banks[0], "app")
	b, report := boot(t, opt)
	if report.Bank != 2 || len(report.Findings) != 0 { // the fallback is not read yet
		t.Fatalf("%+v", report)
	}
	if err := b.GiveUp(62, "x"); causeOf(err) != mib.FailCauseNoFallback {
		t.Error(err)
	}
	b, report = Boot(opt)
	if report.Bank != 0 || b.Status().Banks[1].State != mib.BankStateFailed {
		t.Errorf("%+v", report)
	}
	// The remedy: new software over the corrupt bank.
	install(t, b, "3.0.0")
	if err := b.Activate(1); err != nil {
		t.Error(err)
	}
}

func TestFloor(t *testing.T) {
	opt := device(t)
	b, _ := boot(t, opt)
	m := imagetest.Manifest("2.0.0")
	m.Floor = "1.5.0"
	src := serve("fw.iad", imagetest.Build(t, m))
	if _, err := b.Install(t.Context(), src, "fw.iad", InstallOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := b.Activate(2); err != nil {
		t.Fatal(err)
	}
	b, _ = boot(t, opt)
	if f := b.Status().Floor; f != "" {
		t.Errorf("floor %q before the software is confirmed", f)
	}
	if err := b.Confirm(); err != nil {
		t.Fatal(err)
	}
	if f := b.Status().Floor; f != "1.5.0" {
		t.Errorf("floor %q", f)
	}
	_, err := b.Install(t.Context(), serve("fw.iad", imagetest.Build(t, imagetest.Manifest("1.4.9"))), "fw.iad", InstallOptions{AllowDowngrade: true, Force: true})
	if causeOf(err) != mib.FailCauseDowngradeRefused {
		t.Error(err)
	}
	if err := b.SetFloor("nonsense"); causeOf(err) != mib.FailCauseBadRequest {
		t.Error(err)
	}
	if err := b.SetFloor(""); err != nil {
		t.Error(err)
	}
	if b, _ = boot(t, opt); b.Status().Floor != "" {
		t.Error("the floor is back")
	}
	// A floor set by hand is not lowered by software with a lower one, or without.
	for _, own := range []string{"", "1.5.0"} {
		opt := device(t)
		b, _ := boot(t, opt)
		m := imagetest.Manifest("2.0.0")
		m.Floor = own
		if _, err := b.Install(t.Context(), serve("fw.iad", imagetest.Build(t, m)), "fw.iad", InstallOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(b.Activate(2), b.SetFloor("1.8.0")); err != nil {
			t.Fatal(err)
		}
		b, _ = boot(t, opt)
		if err := b.Confirm(); err != nil || b.Status().Floor != "1.8.0" {
			t.Errorf("own floor %q: floor %q, %v", own, b.Status().Floor, err)
		}
	}
	for _, test := range [][3]string{{"", "1.0.0", "1.0.0"}, {"2.0.0", "1.0.0", "2.0.0"}, {"1.0.0", "2.0.0", "2.0.0"}, {"1.0.0", "", "1.0.0"}} {
		if got := higher(test[0], test[1]); got != test[2] {
			t.Errorf("higher of %q and %q is %q", test[0], test[1], got)
		}
	}
}

func TestTakeOver(t *testing.T) {
	opt, b := readyDevice(t)
	if err := b.TakeOver(2); causeOf(err) != mib.FailCauseBankUnavailable {
		t.Error(err)
	}
	if err := b.Activate(2); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := b.TakeOver(2); err != nil {
			t.Fatal(err)
		}
		if s := b.Status(); s.Running != 2 || s.Banks[1].TriesLeft != Tries-1 {
			t.Errorf("%+v", s)
		}
	}
	if err := b.GiveUp(62, "unhealthy"); err != nil {
		t.Fatal(err)
	}
	if err := b.TakeOver(1); err != nil {
		t.Fatal(err)
	}
	if s := b.Status(); s.Running != 1 || s.Next != 1 || s.Banks[1].State != mib.BankStateFailed {
		t.Errorf("%+v", s)
	}
	if _, report := boot(t, opt); report.Bank != 1 {
		t.Errorf("%+v", report)
	}
}

func TestGeneration(t *testing.T) {
	opt := device(t)
	b, _ := boot(t, opt)
	if err := b.SetGeneration(1, 41); err != nil {
		t.Fatal(err)
	}
	if err := b.SetGeneration(3, 41); causeOf(err) != mib.FailCauseBadRequest {
		t.Error(err)
	}
	if b, _ = boot(t, opt); b.Status().Banks[0].Generation != 41 {
		t.Errorf("%+v", b.Status())
	}
}

func TestOpenAndManifest(t *testing.T) {
	_, b := readyDevice(t)
	if m, err := b.Manifest(2); err != nil || m.Version != "2.0.0" {
		t.Error(m, err)
	}
	if _, err := b.Manifest(3); causeOf(err) != mib.FailCauseBankUnavailable {
		t.Error(err)
	}
	for _, name := range []string{"none", "../state/boot.a", image.ManifestName} {
		if _, err := b.Open(2, name); causeOf(err) != mib.FailCauseBadRequest {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := b.Open(0, "app"); err == nil {
		t.Error("opened in no bank")
	}
	if err := b.Fs(1).Remove("app"); !errors.Is(err, os.ErrPermission) && !errors.Is(err, syscall.EPERM) {
		t.Errorf("removed from the running bank: %v", err)
	}
}

// TestConcurrentUse is for the race detector.
func TestConcurrentUse(t *testing.T) {
	b, _ := boot(t, device(t))
	img := imagetest.Build(t, imagetest.Manifest("2.0.0"))
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			for n := range 5 {
				_, _ = b.Install(t.Context(), serve("fw.iad", img), "fw.iad", InstallOptions{})
				_ = b.Activate(2)
				_ = b.Unselect()
				_ = b.SetGeneration(1, uint32(i*10+n))
				_, _ = b.Manifest(2)
				if s := b.Status(); s.Running != 1 {
					t.Errorf("%+v", s)
				}
			}
		})
	}
	all.Wait()
}

// TestCheck judges what Activate would, and changes nothing but the state of a
// damaged bank.
func TestCheck(t *testing.T) {
	opt, b := readyDevice(t)
	if _, err := b.CheckFallback(); err != nil {
		t.Errorf("the old software runs, which is what would be restored: %v", err)
	}
	was := snapshot(t, opt)
	if err := b.Check(2, false); err != nil {
		t.Error(err)
	}
	for name, test := range map[string]struct {
		bank   int
		change func()
		want   mib.FailCause
	}{
		"running bank":  {1, func() {}, mib.FailCauseBankUnavailable},
		"below floor":   {2, func() { b.rec.Floor = "2.0.1" }, mib.FailCauseDowngradeRefused},
		"other model":   {2, func() { b.opt.Hardware = "x" }, mib.FailCauseIncompatibleHardware},
		"untrusted key": {2, func() { b.trust = image.TrustKeys() }, mib.FailCauseSignerUntrusted},
	} {
		opt, rec, trust := b.opt, b.rec, b.trust
		test.change()
		if err := b.Check(test.bank, true); causeOf(err) != test.want {
			t.Errorf("%s: %v", name, err)
		}
		b.opt, b.rec, b.trust = opt, rec, trust
	}
	if !maps.Equal(snapshot(t, opt), was) {
		t.Error("something was changed")
	}
	spoil(t, opt.Banks[1], "app")
	if err := b.Check(2, false); causeOf(err) != mib.FailCauseDigestMismatch || b.Status().Banks[1].State != mib.BankStateCorrupt {
		t.Error(err, b.Status().Banks[1].State)
	}

	// Going on to 2.0.0, the old software is the fallback, and older.
	opt, b = readyDevice(t)
	if err := b.Activate(2); err != nil {
		t.Fatal(err)
	}
	b, _ = boot(t, opt)
	if n, err := b.CheckFallback(); n != 1 || err != nil {
		t.Error(n, err)
	}
	if err := b.Confirm(); err != nil {
		t.Fatal(err)
	}
	if err := b.Check(1, false); causeOf(err) != mib.FailCauseDowngradeRefused {
		t.Error(err)
	}
	if err := b.Check(1, true); err != nil {
		t.Error(err)
	}
	spoil(t, opt.Banks[0], "app")
	if _, err := b.CheckFallback(); causeOf(err) != mib.FailCauseNoFallback || b.Status().Banks[0].State != mib.BankStateCorrupt {
		t.Error(err, b.Status().Banks[0].State)
	}
	if err := b.Check(1, true); causeOf(err) != mib.FailCauseBankUnavailable {
		t.Error(err)
	}
}
