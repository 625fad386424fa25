package bank

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/spf13/afero"

	"example.com/iad/internal/crashfs"
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
		want   Cause
		state  State // of bank 2 afterwards
	}{
		{"no such bank", nil, 0, CauseBadRequest, StateReady},
		{"running bank", nil, 1, CauseBankUnavailable, StateReady},
		{"flipped bit", func(t *testing.T, opt *Options, b *Banks) { spoil(t, opt.Banks[1], "app") }, 2, CauseDigestMismatch, StateCorrupt},
		{"flipped bit in the manifest", func(t *testing.T, opt *Options, b *Banks) { spoil(t, opt.Banks[1], ManifestName) }, 2, CauseDigestMismatch, StateCorrupt},
		{"missing payload", func(t *testing.T, opt *Options, b *Banks) {
			if err := opt.Banks[1].Remove("selftest"); err != nil {
				t.Fatal(err)
			}
		}, 2, CauseDigestMismatch, StateCorrupt},
		{"flipped bit in the signature", func(t *testing.T, opt *Options, b *Banks) {
			data, err := afero.ReadFile(opt.Banks[1], SignatureName)
			if err == nil {
				data = bytes.Replace(data, []byte("version:2"), []byte("version:3"), 1)
				err = afero.WriteFile(opt.Banks[1], SignatureName, data, 0o644)
			}
			if err != nil {
				t.Fatal(err)
			}
		}, 2, CauseSignatureInvalid, StateReady},
		{"key no longer trusted", func(t *testing.T, opt *Options, b *Banks) { b.opt.Trust = nil }, 2, CauseSignerUntrusted, StateReady},
		{"other hardware", func(t *testing.T, opt *Options, b *Banks) { b.opt.Hardware = "IAD-2FXS" }, 2, CauseIncompatibleHardware, StateReady},
		{"below the floor", func(t *testing.T, opt *Options, b *Banks) {
			if err := b.SetFloor("2.0.1"); err != nil {
				t.Fatal(err)
			}
		}, 2, CauseDowngradeRefused, StateReady},
		{"state not writable", func(t *testing.T, opt *Options, b *Banks) { b.store = nil }, 2, CauseBootFlagError, StateReady},
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
			if b, report := boot(t, opt); report.Bank != 1 || report.RolledBack != 0 || b.Status().Banks[1].State != test.state && test.want != CauseBootFlagError {
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
	if err := b.Activate(1); causeOf(err) != CauseBankUnavailable {
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
	spoil(t, opt.Banks[0], SignatureName)
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
		if _, err := b.Restore(); causeOf(err) != CauseNoFallback {
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
		if b, report := boot(t, opt); report.Bank != 1 || b.Status().Banks[1].State != StateReady {
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
		if _, err := b.Restore(); causeOf(err) != CauseNoFallback {
			t.Error(err)
		}
		if s := b.Status(); s.Banks[0].State != StateCorrupt || s.Fallback != 0 || s.Next != 2 {
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
		if s := b.Status(); s.Banks[1].State != StateFailed || s.Banks[1].Text == "" {
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
		if s := b.Status(); s.Next != 1 || s.Banks[1].State != StateReady || s.Banks[1].TriesLeft != 0 {
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
	if s := b.Status(); s.Banks[1].State != StateTrial {
		t.Errorf("%+v", s)
	}
	if err := b.Unselect(); err != nil {
		t.Fatal(err)
	}
	if s := b.Status(); s.Banks[1].State != StateGood {
		t.Errorf("%+v", s)
	}
}

func TestGiveUp(t *testing.T) {
	opt, b := readyDevice(t)
	if err := b.GiveUp(uint8(CauseBootFailed), "x"); causeOf(err) != CausePreconditionMissing {
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
	if info.State != StateFailed || info.Cause != 62 || len(info.Text) != 128 {
		t.Errorf("%+v", info)
	}
	b, report := boot(t, opt)
	if report.Bank != 1 || report.RolledBack != 0 {
		t.Errorf("%+v", report)
	}
	if err := b.Activate(2); causeOf(err) != CauseBankUnavailable {
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
	if report.Bank != 2 || len(report.Findings) != 1 {
		t.Fatalf("%+v", report)
	}
	if err := b.GiveUp(62, "x"); causeOf(err) != CauseNoFallback {
		t.Error(err)
	}
	b, report = boot(t, opt)
	if report.Bank != 2 || report.Trial || b.Status().Banks[1].State != StateFailed {
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
	m := manifest("2.0.0")
	m.Floor = "1.5.0"
	src := serve("fw.iad", tarImage(t, m))
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
	_, err := b.Install(t.Context(), serve("fw.iad", tarImage(t, manifest("1.4.9"))), "fw.iad", InstallOptions{AllowDowngrade: true, Force: true})
	if causeOf(err) != CauseDowngradeRefused {
		t.Error(err)
	}
	if err := b.SetFloor("nonsense"); causeOf(err) != CauseBadRequest {
		t.Error(err)
	}
	if err := b.SetFloor(""); err != nil {
		t.Error(err)
	}
	if b, _ = boot(t, opt); b.Status().Floor != "" {
		t.Error("the floor is back")
	}
	for _, test := range [][3]string{{"", "1.0.0", "1.0.0"}, {"2.0.0", "1.0.0", "2.0.0"}, {"1.0.0", "2.0.0", "2.0.0"}, {"1.0.0", "", "1.0.0"}} {
		if got := higher(test[0], test[1]); got != test[2] {
			t.Errorf("higher of %q and %q is %q", test[0], test[1], got)
		}
	}
}

func TestTakeOver(t *testing.T) {
	opt, b := readyDevice(t)
	if err := b.TakeOver(2); causeOf(err) != CauseBankUnavailable {
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
	if s := b.Status(); s.Running != 1 || s.Next != 1 || s.Banks[1].State != StateFailed {
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
	if err := b.SetGeneration(3, 41); causeOf(err) != CauseBadRequest {
		t.Error(err)
	}
	if b, _ = boot(t, opt); b.Status().Banks[0].Generation != 41 {
		t.Errorf("%+v", b.Status())
	}
}

// TestRecordLost: whatever happens to the record, the best complete bank starts.
func TestRecordLost(t *testing.T) {
	for name, lose := range map[string]func(d *crashfs.Disk) *crashfs.Disk{
		"removed": func(d *crashfs.Disk) *crashfs.Disk { return d.Remove("state", "boot.a").Remove("state", "boot.b") },
		"flipped": func(d *crashfs.Disk) *crashfs.Disk {
			return d.Flip("state", "boot.a", 200).Flip("state", "boot.b", 200)
		},
		"emptied": func(d *crashfs.Disk) *crashfs.Disk {
			return d.Write("state", "boot.a", nil).Write("state", "boot.b", nil)
		},
		"nonsense": func(d *crashfs.Disk) *crashfs.Disk { return nonsense(d) },
	} {
		t.Run(name, func(t *testing.T) {
			opt := mount(lose(upgraded(t, "2.0.0")).Start(), nil)
			b, report := boot(t, opt)
			if report.Bank != 2 || !report.Trial || !report.Rebuilt || len(report.Findings) == 0 {
				t.Errorf("%+v", report)
			}
			if err := b.Confirm(); err != nil {
				t.Error(err)
			}
			if b, report = boot(t, opt); report.Bank != 2 || report.Trial || report.Rebuilt || b.Status().Fallback != 1 {
				t.Errorf("%+v", report)
			}
		})
	}
}

// nonsense is a whole frame around what is no record of ours.
func nonsense(d *crashfs.Disk) *crashfs.Disk {
	for _, copy := range []string{"boot.a", "boot.b"} {
		d = d.Write("state", copy, framed([]byte(`{"next":7}`)))
	}
	return d
}

// TestOneCopyLost: with either copy damaged the device starts what it should.
func TestOneCopyLost(t *testing.T) {
	disk := onTrial(t)
	for _, name := range []string{"boot.a", "boot.b"} {
		data, _ := disk.Read("state", name)
		for bit := int64(0); bit < int64(len(data))*8; bit += 37 {
			b, report := boot(t, mount(disk.Flip("state", name, bit).Start(), nil))
			if report.Rebuilt || len(report.Findings) != 1 || b.Status().Banks[0].Version != "1.0.0" {
				t.Fatalf("%s bit %d: %+v", name, bit, report)
			}
		}
	}
}

func TestNoSoftware(t *testing.T) {
	if _, _, err := Boot(mount(blank().Start(), nil)); !errors.Is(err, ErrNoSoftware) {
		t.Error(err)
	}
}

// TestStateUnusable: a state partition that is full, read-only or gone stops neither
// starting nor the fallback.
func TestStateUnusable(t *testing.T) {
	for name, spoil := range map[string]func(m *crashfs.Machine){
		"full":        func(m *crashfs.Machine) { m.Limit("state", 0) },
		"read-only":   func(m *crashfs.Machine) { m.ReadOnly("state") },
		"sync errors": func(m *crashfs.Machine) { m.Fail(crashfs.Fault{Part: "state", Op: crashfs.OpSync, Err: syscall.EIO}) },
	} {
		t.Run(name, func(t *testing.T) {
			m := upgraded(t, "2.0.0").Start()
			spoil(m)
			if b, report := boot(t, mount(m, nil)); report.Bank != 2 || version(b) != "2.0.0" {
				t.Errorf("good software: %+v", report)
			}
			m = onTrial(t).Start()
			spoil(m)
			b, report := boot(t, mount(m, nil))
			// Software on trial starts only where the try can be counted.
			counted := name == "full" // the copies have their blocks
			if counted != report.Trial || !counted && (report.Bank != 1 || report.RolledBack != 2 || len(report.Findings) == 0) {
				t.Errorf("on trial: %+v %+v", report, b.Status())
			}
		})
	}
	m := upgraded(t, "2.0.0").Start()
	m.Fail(crashfs.Fault{Part: "state", Err: syscall.EIO})
	if _, report := boot(t, mount(m, nil)); report.Bank != 1 || !report.Rebuilt || Cause(report.Cause) != CauseBootFlagError {
		t.Errorf("no state at all: %+v", report)
	}
}

func TestPeek(t *testing.T) {
	m := onTrial(t).Start()
	opt := mount(m, nil)
	s, findings := Peek(opt)
	if len(m.Ops()) != 0 || len(findings) != 0 || s.Running != 1 || s.Next != 2 || s.Fallback != 1 ||
		s.Banks[1].State != StateTrial || s.Banks[1].Version != "2.0.0" || !s.Bank(1).Running {
		t.Errorf("%+v %v %v", s, findings, m.Ops())
	}
	if s, findings := Peek(mount(blank().Start(), nil)); s.Next != 0 || len(findings) != 0 || s.Banks[0].State != StateEmpty {
		t.Errorf("%+v %v", s, findings)
	}
	if _, findings := Peek(mount(nonsense(onTrial(t)).Start(), nil)); len(findings) != 1 {
		t.Errorf("%v", findings)
	}
}

func TestProvisionRefuses(t *testing.T) {
	image := tarImage(t, manifest("1.0.0"))
	m := manifest("1.0.0")
	m.Hardware = []string{"other"}
	flipped := bytes.Clone(image)
	flipped[20_000] ^= 1
	for name, test := range map[string]struct {
		image []byte
		opt   func(o *Options)
		want  Cause
	}{
		"other hardware": {tarImage(t, m), nil, CauseIncompatibleHardware},
		"untrusted":      {image, func(o *Options) { o.Trust = nil }, CauseSignerUntrusted},
		"too large":      {image, func(o *Options) { o.Capacity = func(int) int64 { return 1 } }, CauseFileTooLarge},
		"damaged":        {flipped, nil, CauseDigestMismatch},
		"cut":            {image[:30_000], nil, CauseSizeMismatch},
		"split form":     {[]byte("{}"), nil, CauseBadFormat},
	} {
		t.Run(name, func(t *testing.T) {
			opt := mount(blank().Start(), nil)
			if test.opt != nil {
				test.opt(&opt)
			}
			if err := Provision(opt, bytes.NewReader(test.image)); err == nil {
				t.Error("provisioned")
			} else if got := causeOf(err); got != test.want && name != "split form" {
				t.Error(err)
			}
			if _, _, err := Boot(opt); !errors.Is(err, ErrNoSoftware) {
				t.Error(err)
			}
		})
	}
	opt := device(t)
	if err := Provision(opt, bytes.NewReader(image)); causeOf(err) != CauseBankUnavailable {
		t.Errorf("provisioned twice: %v", err)
	}
}

func TestOpenAndManifest(t *testing.T) {
	_, b := readyDevice(t)
	if m, err := b.Manifest(2); err != nil || m.Version != "2.0.0" {
		t.Error(m, err)
	}
	if _, err := b.Manifest(3); causeOf(err) != CauseBankUnavailable {
		t.Error(err)
	}
	for _, name := range []string{"none", "../state/boot.a", ManifestName} {
		if _, err := b.Open(2, name); causeOf(err) != CauseBadRequest {
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
	image := tarImage(t, manifest("2.0.0"))
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			for n := range 5 {
				_, _ = b.Install(t.Context(), serve("fw.iad", image), "fw.iad", InstallOptions{})
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

func TestStateNames(t *testing.T) {
	if got := fmt.Sprint(StateEmpty, StateCorrupt, State(0), State(9)); got != "empty corrupt state(0) state(9)" {
		t.Error(got)
	}
}
