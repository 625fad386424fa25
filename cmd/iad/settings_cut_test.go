package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.com/iad/agent/settings"
)

// withUsers is a device with two SNMPv3 users, which has started once. It returns its
// settings.
func withUsers(t *testing.T) (d *unit, file string, text []byte) {
	t.Helper()
	d = newDevice(t, "--manager", filepath.Join(t.TempDir(), "credentials.toml"))
	file = filepath.Join(d.root, settings.Name)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	second := "[[snmp.users]]\nname = 'watcher'\nauth = 'SHA-256'\nauth_passphrase = 'something long'\npriv = 'none'\npriv_passphrase = ''\nwrite = false\n"
	marked, found := bytes.CutSuffix(text, []byte(settingsEnd+"\n"))
	if !found {
		t.Fatalf("iad init does not end the settings with %q", settingsEnd)
	}
	text = append(append(marked, second...), settingsEnd+"\n"...)
	overwrite(t, file, text)
	d.start()
	d.stop()
	return d, file, text
}

// settingsEnd is the last line of a complete settings file.
const settingsEnd = "# end"

func overwrite(t *testing.T, file string, text []byte) {
	t.Helper()
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// firstRelease makes the settings and their copy as the first release left them.
func firstRelease(t *testing.T, root string, text []byte) []byte {
	t.Helper()
	text = bytes.ReplaceAll(text, []byte(settingsEnd+"\n"), nil)
	overwrite(t, filepath.Join(root, settings.Name), text)
	overwrite(t, filepath.Join(root, settings.GoodName), text)
	if err := os.RemoveAll(filepath.Join(root, settings.GoodName+".sha256")); err != nil {
		t.Fatal(err)
	}
	return text
}

// A device comes up with the copy while its settings are cut off, missing or something
// else, and the copy stays what it is until somebody agrees.
func TestCopyOfSettings(t *testing.T) {
	d, file, whole := withUsers(t)
	copied := func() string {
		t.Helper()
		text, err := os.ReadFile(filepath.Join(d.root, settings.GoodName))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	lessOne := bytes.Replace(whole, whole[bytes.Index(whole, []byte("[[snmp.users]]\nname = 'watcher'")):bytes.LastIndex(whole, []byte(settingsEnd))], nil, 1)
	for name, put := range map[string]func() error{
		"no users": func() error { return os.WriteFile(file, whole[:bytes.Index(whole, []byte("[[snmp.users]]"))], 0o600) },
		"one user less": func() error {
			return os.WriteFile(file, bytes.ReplaceAll(lessOne, []byte(settingsEnd+"\n"), nil), 0o600)
		},
		"missing":         func() error { return nil },
		"a directory":     func() error { return os.Mkdir(file, 0o700) },
		"a dangling link": func() error { return os.Symlink(filepath.Join(t.TempDir(), "none"), file) },
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.RemoveAll(file); err != nil {
				t.Fatal(err)
			}
			if err := put(); err != nil {
				t.Fatal(err)
			}
			d.start()
			d.stop()
			if got := copied(); got != string(whole) {
				t.Errorf("the copy is now %q", got)
			}
			out, err := command("status", "--root", d.root).CombinedOutput()
			if err != nil || !strings.Contains(string(out), "settings of the last good start are used") {
				t.Errorf("status: %v: %s", err, out)
			}
			out, err = command("init", "--root", d.root, "--image", "x", "--trust", "x", "--hardware", "x", "--device-id", "x").CombinedOutput()
			if err == nil || !strings.Contains(string(out), "is already a device") {
				t.Errorf("init: %v: %s", err, out)
			}
		})
	}
	if err := os.RemoveAll(file); err != nil {
		t.Fatal(err)
	}

	// With its last line, a file with less counts.
	overwrite(t, file, lessOne)
	s, err := settings.LoadOrGood(d.root, file)
	if err != nil || len(s.SNMP.Users) != 1 || s.Finding() != "" {
		t.Errorf("a user that was removed: %+v, %v", s, err)
	}
	d.start()
	d.stop()
	if got := copied(); got != string(lessOne) {
		t.Errorf("the copy is %q", got)
	}

	// Without it, somebody must agree.
	less := bytes.ReplaceAll(lessOne, []byte(settingsEnd+"\n"), nil)
	less = less[:bytes.Index(less, []byte("[[snmp.users]]"))]
	overwrite(t, file, less)
	out, err := command("settings", "accept", "--root", d.root).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "no longer set: snmp.users") {
		t.Errorf("%v: %s", err, out)
	}
	if s, err := settings.LoadOrGood(d.root, file); err != nil || len(s.SNMP.Users) != 0 || s.Finding() != "" || copied() != string(less) {
		t.Errorf("accepted: %+v, %v; copy %q", s, err, copied())
	}
	overwrite(t, file, []byte("device_id = 'x'\n"))
	if out, err := command("settings", "accept", "--root", d.root).CombinedOutput(); err == nil || copied() != string(less) {
		t.Errorf("settings that nobody could reach the device with are accepted: %s", out)
	}
}

// Settings of the first release from which somebody took a user that is not the last
// count, and leave the copy as it is.
func TestUserRemovedWithoutMark(t *testing.T) {
	d, file, whole := withUsers(t)
	old := firstRelease(t, d.root, whole)
	from, to := bytes.Index(old, []byte("[[snmp.users]]")), bytes.LastIndex(old, []byte("[[snmp.users]]"))
	overwrite(t, file, append(old[:from:from], old[to:]...))
	d.start()
	d.stop()
	s, err := settings.LoadOrGood(d.root, file)
	if err != nil || len(s.SNMP.Users) != 1 || s.SNMP.Users[0].Name != "watcher" || !strings.Contains(s.Finding(), "settings accept") {
		t.Errorf("%+v, %v", s, err)
	}
	if text, err := os.ReadFile(filepath.Join(d.root, settings.GoodName)); err != nil || !bytes.Equal(text, old) {
		t.Errorf("the copy is %q, %v", text, err)
	}
}

// A copy that is damaged, lost or of another file does no harm to complete settings.
func TestDamagedCopyOfSettings(t *testing.T) {
	d, file, whole := withUsers(t)
	good := filepath.Join(d.root, settings.GoodName)
	for name, put := range map[string]func() error{
		"cut":       func() error { return os.WriteFile(good, whole[:len(whole)/2], 0o600) },
		"longer":    func() error { return os.WriteFile(good, append(whole[:len(whole):len(whole)], "\x00\x00"...), 0o600) },
		"missing":   func() error { return os.Remove(good) },
		"of others": func() error { return os.WriteFile(good, []byte("device_id = 'other'\n"), 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			if err := put(); err != nil {
				t.Fatal(err)
			}
			d.start()
			d.stop()
			if text, err := os.ReadFile(good); err != nil || !bytes.Equal(text, whole) {
				t.Errorf("the copy is %q, %v", text, err)
			}
		})
	}
	// Another file was never compared with it.
	other := filepath.Join(t.TempDir(), "other.toml")
	overwrite(t, other, whole[:bytes.Index(whole, []byte("[[snmp.users]]"))])
	if s, err := settings.LoadOrGood(d.root, other); err != nil || s.Finding() != "" {
		t.Errorf("another file: %+v, %v", s, err)
	}
	if _, err := settings.LoadOrGood(d.root, file+".none"); err == nil {
		t.Error("the copy stands for a file that was never there")
	}
}
