package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.com/iad/manager/device"
	"example.com/iad/mib"
)

// A bank that is not where it was seen before gets no software, is not made and does
// not keep the other one from running.
func TestAbsentBank(t *testing.T) {
	contents := func(t *testing.T, dir string) string {
		list, err := os.ReadDir(dir)
		if err != nil {
			return "missing"
		}
		var names []string
		for _, e := range list {
			names = append(names, e.Name())
		}
		return strings.Join(names, " ")
	}
	for name, c := range map[string]struct {
		// before makes bank 2 in root, absent takes it away and returns the directory
		// that must stay as it is.
		before func(root string) error
		absent func(d *unit) (string, error)
		says   string
	}{
		"a link that became a directory": {
			before: func(root string) error { return os.Symlink(t.TempDir(), filepath.Join(root, "bank2")) },
			absent: func(d *unit) (string, error) {
				bank := filepath.Join(d.root, "bank2")
				if err := os.Remove(bank); err != nil {
					return "", err
				}
				return bank, os.Mkdir(bank, 0o755)
			},
			says: "was a symbolic link",
		},
		"a link to nothing": {
			before: func(root string) error { return os.Symlink(t.TempDir(), filepath.Join(root, "bank2")) },
			absent: func(d *unit) (string, error) {
				to, err := os.Readlink(filepath.Join(d.root, "bank2"))
				if err != nil {
					return "", err
				}
				return to, os.RemoveAll(to)
			},
			says: "leads to",
		},
		"a missing path of the settings": {
			absent: func(d *unit) (string, error) {
				bank := filepath.Join(t.TempDir(), "mnt", "bank2")
				d.edit(func(s string) string { return strings.Replace(s, "[paths]", "[paths]\nbank2 = '"+bank+"'\n", 1) })
				return filepath.Dir(bank), nil
			},
			says: "does not exist",
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDevice(t)
			root := filepath.Join(t.TempDir(), "root")
			if err := os.Mkdir(root, 0o755); err != nil {
				t.Fatal(err)
			}
			if c.before != nil {
				if err := c.before(root); err != nil {
					t.Fatal(err)
				}
			}
			d.init(root)
			d.start()
			d.stop()
			dir, err := c.absent(d)
			if err != nil {
				t.Fatal(err)
			}
			was := contents(t, dir)
			d.start()
			if op := d.download(t, d.image("2.0.0", 1000)); op.State != mib.OperationStateFailed || op.Cause != mib.FailCauseBankUnavailable {
				t.Errorf("%v, %v: %s", op.State, op.Cause, op.Text)
			}
			if banks, err := d.client().Banks(t.Context()); err != nil || banks[1].Error != mib.FailCauseBankUnavailable {
				t.Errorf("bank 2: %+v, %v", banks[1], err)
			}
			if got := contents(t, dir); got != was {
				t.Errorf("%s: now %q, before %q", dir, got, was)
			}
			d.stop()
			out, err := command("status", "--root", d.root).CombinedOutput()
			if err != nil || !strings.Contains(string(out), c.says) {
				t.Errorf("status: %v: %s", err, out)
			}
			if contents(t, dir) != was {
				t.Error("status made something")
			}
			if name != "a link that became a directory" {
				return
			}
			if out, err := command("settings", "accept", "--root", d.root).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			d.start()
			if op := d.download(t, d.image("2.0.0", 1000)); op.State != mib.OperationStateSucceeded {
				t.Errorf("accepted: %v, %v: %s", op.State, op.Cause, op.Text)
			}
		})
	}
}

// Partitions that are mounted in each other's place, as after a change of fstab, are used
// where they are: the device runs what it ran and keeps what it can fall back on.
func TestSwappedBanks(t *testing.T) {
	d := newDevice(t)
	d.start()
	swap := func() {
		d.stop()
		one, two, aside := filepath.Join(d.root, "bank1"), filepath.Join(d.root, "bank2"), filepath.Join(d.root, "aside")
		if err := errors.Join(os.Rename(one, aside), os.Rename(two, one), os.Rename(aside, two)); err != nil {
			t.Fatal(err)
		}
		d.start()
	}
	expect := func(version string, states ...mib.BankStateEnum) {
		t.Helper()
		c := d.client()
		dev, err := c.Device(t.Context())
		banks, bankErr := c.Banks(t.Context())
		if err := errors.Join(err, bankErr); err != nil {
			t.Fatal(err)
		}
		if dev.Version != version || banks[0].State != states[0] || banks[1].State != states[1] {
			t.Errorf("runs %s, want %s; banks %+v", dev.Version, version, banks)
		}
	}
	swap() // bank 2 is empty
	expect("1.0.0", mib.BankStateGood, mib.BankStateEmpty)
	if op := d.download(t, d.image("2.0.0", 1000), device.ThenActivate, device.ThenReset); op.State != mib.OperationStateSucceeded {
		t.Fatalf("%v: %s", op.Cause, op.Text)
	}
	expect("2.0.0", mib.BankStateGood, mib.BankStateGood)
	out, err := command("status", "--root", d.root).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "have changed places") {
		t.Errorf("status: %v: %s", err, out)
	}
	swap() // as they were at first
	expect("2.0.0", mib.BankStateGood, mib.BankStateGood)
	swap()
	expect("2.0.0", mib.BankStateGood, mib.BankStateGood)
	if op := d.carryOut(t, d.client(), device.Request{Kind: mib.OperationKindRestoreOldSoftware}); op.State != mib.OperationStateSucceeded {
		t.Errorf("%v: %s", op.Cause, op.Text)
	}
	expect("1.0.0", mib.BankStateGood, mib.BankStateGood)
}

// Two banks in one directory are not both written.
func TestBanksInOnePlace(t *testing.T) {
	d := newDevice(t)
	one, two := filepath.Join(d.root, "bank1"), filepath.Join(d.root, "bank2")
	if err := errors.Join(os.Remove(two), os.Symlink(one, two)); err != nil {
		t.Fatal(err)
	}
	d.start()
	if op := d.download(t, d.image("2.0.0", 1000)); op.State != mib.OperationStateFailed || op.Cause != mib.FailCauseBankUnavailable {
		t.Errorf("%v, %v: %s", op.State, op.Cause, op.Text)
	}
	d.stop()
	d.start()
	if dev, err := d.client().Device(t.Context()); err != nil || dev.Version != "1.0.0" {
		t.Errorf("%+v, %v", dev, err)
	}
}
