package command

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"

	"example.com/iad/sim"
)

// configSHA256 is the digest of the configuration data that a device has in force.
func (l *lab) configSHA256(address string) string {
	l.t.Helper()
	out, status := l.plainly("status", address, "--json")
	var r statusReport
	if err := json.Unmarshal([]byte(out), &r); err != nil || status != exitOK {
		l.t.Fatalf("status: %d, %v\n%s", status, err, out)
	}
	return r.ConfigSHA256
}

// A path given with --from is honoured as it is or refused, and never replaced by the
// device's own backup; a replacement unit can be given the old unit's data on purpose.
func TestRecoverFromPath(t *testing.T) {
	l := newLab(t, nil)
	spare := newLab(t, func(c *sim.Config) { c.ID = "TEST-0002" })
	serve := []string{"--listen", "127.0.0.1", "--notifications", "none"}
	for _, address := range []string{l.address, spare.address} {
		if out, status := l.plainly(append([]string{"backup", address}, serve...)...); status != exitOK {
			t.Fatalf("exit status %d\n%s", status, out)
		}
	}
	store := filepath.Join(l.dir, "store")
	one := func(device string) string {
		found, err := filepath.Glob(filepath.Join(store, "backup", device, "2*"))
		if err != nil || len(found) != 1 {
			t.Fatalf("%v, %v", found, err)
		}
		return found[0]
	}
	old, own := one("TEST-0001"), one("TEST-0002")
	edited := filepath.Join(filepath.Dir(old), "edited")
	if err := os.CopyFS(edited, os.DirFS(old)); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(edited, ".complete")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(edited, "userData.cfg"), []byte("iad-config userData 1\nname = old unit\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	outside := filepath.Join(l.dir, filepath.Base(own))
	if err := os.CopyFS(outside, os.DirFS(own)); err != nil {
		t.Fatal(err)
	}
	before := l.configSHA256(spare.address)
	for _, c := range []struct {
		from   string
		args   []string
		status int
	}{
		{"/nowhere/at/all/" + filepath.Base(own), nil, exitUsage},
		{outside, nil, exitUsage},
		{filepath.Join(store, "backup"), nil, exitUsage},
		{filepath.Dir(own), nil, exitUsage},
		{filepath.Join(store, "tls"), nil, exitUsage},
		{"../TEST-0001/edited", nil, exitUsage},
		{"..", nil, exitUsage},
		{edited, nil, exitIdentity},
		{"backup/TEST-0001/edited", nil, exitIdentity},
		{"", []string{"--other-device"}, exitUsage},
		{own, nil, exitOK},
		{filepath.Base(own), nil, exitOK},
		{"backup/TEST-0002/" + filepath.Base(own) + "/", nil, exitOK},
	} {
		args := append(append([]string{"recover", spare.address, "--from", c.from}, serve...), c.args...)
		if out, status := l.plainly(args...); status != c.status {
			t.Errorf("--from %s %v: exit status %d, want %d\n%s", c.from, c.args, status, c.status, out)
		}
		if now := l.configSHA256(spare.address); now != before {
			t.Fatalf("--from %s: other data are in force", c.from)
		}
	}
	for _, protocol := range []string{"tftp", "ftp"} {
		args := append([]string{"recover", spare.address, "--from", edited, "--other-device", "--protocol", protocol}, serve...)
		out, status := l.plainly(args...)
		if status != exitOK || !strings.Contains(out, `belongs to device "TEST-0001"`) {
			t.Errorf("%s: exit status %d\n%s", protocol, status, out)
		}
	}
	if l.configSHA256(spare.address) == before {
		t.Error("the old unit's data are not in force")
	}
}

// Two targets with the same device ID are both named, and one of them is not touched.
func TestFleetNamesUnitsWithOneIdentity(t *testing.T) {
	l := newLab(t, nil)
	clone := newLab(t, nil)
	cmd := l.command("upgrade", l.address, clone.address, "--listen", "127.0.0.1", "--notifications", "none", "--image", l.image("2.0.0", 1), "--check", "--parallel", "1", "--json")
	out, status := l.run(cmd)
	if status == exitOK || !strings.Contains(out, l.address) || !strings.Contains(out, clone.address) || !strings.Contains(out, "have the same device ID") {
		t.Errorf("exit status %d\n%s", status, out)
	}
}

// The trusted comment of a signature that nobody verified does not reach the terminal as
// it is.
func TestInspectHostileImage(t *testing.T) {
	l := newLab(t, nil)
	name := l.image("2.0.0", 1)
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	i := bytes.Index(data, []byte("\ntrusted comment: ")) + 1
	j := bytes.Index(data[i:], []byte("\n"))
	hostile := "\x1b[2J\u202e"
	if i == 0 || j < len("trusted comment: ")+len(hostile) {
		t.Fatalf("no trusted comment at %d, %d", i, j)
	}
	copy(data[i+len("trusted comment: ")+1:], hostile)
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, format := range [][]string{nil, {"--json"}} {
		out, status := l.plainly(append([]string{"image", "inspect", name}, format...)...)
		if status != exitOK || strings.ContainsFunc(out, func(r rune) bool { return !unicode.IsPrint(r) && r != '\n' }) || !strings.ContainsRune(out, unicode.ReplacementChar) {
			t.Errorf("exit status %d\n%q", status, out)
		}
	}
}
