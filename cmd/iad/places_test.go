package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

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
		absent func(d *device) (string, error)
		says   string
	}{
		"a link that became a directory": {
			before: func(root string) error { return os.Symlink(t.TempDir(), filepath.Join(root, "bank2")) },
			absent: func(d *device) (string, error) {
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
			absent: func(d *device) (string, error) {
				to, err := os.Readlink(filepath.Join(d.root, "bank2"))
				if err != nil {
					return "", err
				}
				return to, os.RemoveAll(to)
			},
			says: "leads to",
		},
		"a missing path of the settings": {
			absent: func(d *device) (string, error) {
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
