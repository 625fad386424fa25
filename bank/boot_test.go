package bank

import (
	"bytes"
	"syscall"
	"testing"

	"example.com/iad/internal/crashfs"
	"example.com/iad/internal/imagetest"
	"example.com/iad/mib"
)

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
	disk := onTrial(t, provisioned(t))
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
	m := blank().Start()
	b, report := Boot(mount(m, nil))
	if s := b.Status(); report.Bank != 0 || report.Rebuilt || s.Running != 0 || s.Next != 0 || len(m.Ops()) != 0 {
		t.Errorf("%+v %+v %v", report, s, m.Ops())
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
			m = onTrial(t, provisioned(t)).Start()
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
	if _, report := boot(t, mount(m, nil)); report.Bank != 1 || !report.Rebuilt || report.Cause != mib.FailCauseBootFlagError {
		t.Errorf("no state at all: %+v", report)
	}
}

func TestPeek(t *testing.T) {
	m := onTrial(t, provisioned(t)).Start()
	opt := mount(m, nil)
	s, findings := Peek(opt)
	if len(m.Ops()) != 0 || len(findings) != 0 || s.Running != 1 || s.Next != 2 || s.Fallback != 1 ||
		s.Banks[1].State != mib.BankStateTrial || s.Banks[1].Version != "2.0.0" || !s.Bank(1).Running {
		t.Errorf("%+v %v %v", s, findings, m.Ops())
	}
	if s, findings := Peek(mount(blank().Start(), nil)); s.Next != 0 || len(findings) != 0 || s.Banks[0].State != mib.BankStateEmpty {
		t.Errorf("%+v %v", s, findings)
	}
	if _, findings := Peek(mount(nonsense(onTrial(t, provisioned(t))).Start(), nil)); len(findings) != 2 { // one for each copy
		t.Errorf("%v", findings)
	}
}

func TestProvisionRefuses(t *testing.T) {
	image := imagetest.Build(t, imagetest.Manifest("1.0.0"))
	m := imagetest.Manifest("1.0.0")
	m.Hardware = []string{"other"}
	flipped := bytes.Clone(image)
	flipped[20_000] ^= 1
	for name, test := range map[string]struct {
		image []byte
		opt   func(o *Options)
		want  mib.FailCause
	}{
		"other hardware": {imagetest.Build(t, m), nil, mib.FailCauseIncompatibleHardware},
		"untrusted":      {image, func(o *Options) { o.Trust = nil }, mib.FailCauseSignerUntrusted},
		"too large":      {image, func(o *Options) { o.Capacity = func(int) int64 { return 1 } }, mib.FailCauseFileTooLarge},
		"damaged":        {flipped, nil, mib.FailCauseDigestMismatch},
		"cut":            {image[:30_000], nil, mib.FailCauseSizeMismatch},
		"split form":     {[]byte("{}"), nil, mib.FailCauseBadFormat},
	} {
		t.Run(name, func(t *testing.T) {
			opt := mount(blank().Start(), nil)
			if test.opt != nil {
				test.opt(&opt)
			}
			if err := Provision(opt, bytes.NewReader(test.image), nil); err == nil {
				t.Error("provisioned")
			} else if got := causeOf(err); got != test.want && name != "split form" {
				t.Error(err)
			}
			if _, report := Boot(opt); report.Bank != 0 {
				t.Errorf("%+v", report)
			}
		})
	}
	opt := device(t)
	if err := Provision(opt, bytes.NewReader(image), nil); err != nil {
		t.Errorf("provisioned twice before the first start: %v", err)
	}
	boot(t, opt)
	if err := Provision(opt, bytes.NewReader(image), nil); causeOf(err) != mib.FailCauseBankUnavailable {
		t.Errorf("provisioned twice: %v", err)
	}
	// Without software the remedy is to provision it again.
	spoil(t, opt.Banks[0], "app")
	if _, report := Boot(opt); report.Bank != 0 {
		t.Errorf("%+v", report)
	}
	if err := Provision(opt, bytes.NewReader(image), nil); err != nil {
		t.Errorf("the remedy for lost software: %v", err)
	}
	if _, report := boot(t, opt); report.Bank != 1 {
		t.Errorf("%+v", report)
	}
}
