package command

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"

	"example.com/iad/cmd/iadms/report"
	"example.com/iad/internal/agefile"
	"example.com/iad/manager/files"
	"example.com/iad/sim"
)

// The encrypted backup of a unit can be shown with the operator's key, compared, and given
// to the unit that replaces it; without the key, it cannot.
func TestEncryptedBackups(t *testing.T) {
	key, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	operator, err := agefile.ParseRecipient(key.Recipient().String())
	if err != nil {
		t.Fatal(err)
	}
	encrypts := func(id string) func(*sim.Config) {
		return func(c *sim.Config) { c.ID, c.Encryption.Recipients = id, []agefile.Recipient{operator} }
	}
	l, spare := newLab(t, encrypts("TEST-0001")), newLab(t, encrypts("TEST-0002"))
	serve := []string{"--listen", "127.0.0.1", "--notifications", "none"}
	run := func(want int, args ...string) string {
		t.Helper()
		out, status := l.plainly(args...)
		if status != want {
			t.Fatalf("iadms %v: exit status %d, want %d\n%s", args, status, want, out)
		}
		return out
	}
	run(exitOK, append([]string{"backup", l.address}, serve...)...)
	found, err := filepath.Glob(filepath.Join(l.dir, "store", "backup", "TEST-0001", "2*"))
	if err != nil || len(found) != 1 {
		t.Fatal(found, err)
	}
	backup := found[0]
	sealed, err := os.ReadFile(filepath.Join(backup, "userData.cfg"))
	if err != nil || strings.Contains(string(sealed), "iad-config") {
		t.Fatalf("the store has %q, %v", sealed, err)
	}
	identity := filepath.Join(l.dir, "operator.key")
	if err := os.WriteFile(identity, []byte("# operator\n"+key.String()+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	plain := filepath.Join(l.dir, "plain")
	if out := run(exitUsage, "config", "decrypt", backup, "--identity", identity, "-o", plain); !strings.Contains(out, "chmod 600") {
		t.Errorf("a key that others may read: %s", out)
	}
	if err := os.Chmod(identity, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, status := l.plainly("config", "decrypt", backup, "-o", plain); status == exitOK || !strings.Contains(out, "--identity") {
		t.Errorf("without a key: %d\n%s", status, out)
	}
	run(exitOK, "config", "decrypt", backup, "--identity", identity, "-o", plain)
	name := filepath.Join(plain, "userData.cfg")
	data, err := os.ReadFile(name)
	if err != nil || !strings.HasPrefix(string(data), "iad-config userData 1\n") {
		t.Fatalf("decrypted: %q, %v", data, err)
	}
	if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	run(exitUsage, "config", "decrypt", backup, "--identity", identity, "-o", plain)
	if err := os.WriteFile(name, append(data, "line.9 = new\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := run(exitOK, "config", "diff", backup, plain, "--identity", identity); !strings.Contains(out, "\n+line.9 = new\n") || strings.Count(out, "+++") != 1 {
		t.Errorf("diff:\n%s", out)
	}

	before := spare.configSHA256(spare.address)
	// The same data as the spare's own: it gets others first.
	edited := filepath.Join(filepath.Dir(backup), "edited")
	if err := os.CopyFS(edited, os.DirFS(plain)); err != nil {
		t.Fatal(err)
	}
	other := append([]string{"--other-device"}, serve...)
	run(exitOK, append([]string{"recover", spare.address, "--from", edited}, other...)...)
	if l.configSHA256(spare.address) == before {
		t.Error("the edited data are not in force")
	}
	if out, status := l.plainly(append([]string{"recover", spare.address, "--from", backup}, other...)...); status == exitOK || !strings.Contains(out, "--identity") {
		t.Errorf("the other unit's backup, without a key: %d\n%s", status, out)
	}
	run(exitOK, append([]string{"recover", spare.address, "--from", backup, "--identity", identity}, other...)...)
	if l.configSHA256(spare.address) != before {
		t.Error("the other unit's data are not in force")
	}

	// A copy of the files alone, as the archive of iadmsd has it, is read by their contents.
	copied := filepath.Join(filepath.Dir(backup), "copied")
	if err := os.Mkdir(copied, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, kind := range files.ConfigKinds {
		data, err := os.ReadFile(filepath.Join(backup, kind.String()+".cfg"))
		if err == nil {
			err = os.WriteFile(filepath.Join(copied, kind.String()+".cfg"), data, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if out, status := l.plainly("config", "decrypt", copied, "-o", filepath.Join(l.dir, "again")); status == exitOK || !strings.Contains(out, "--identity") {
		t.Errorf("a copy, without a key: %d\n%s", status, out)
	}
	run(exitOK, "config", "decrypt", copied, "--identity", identity, "-o", filepath.Join(l.dir, "again"))
	if again, err := os.ReadFile(filepath.Join(l.dir, "again", "userData.cfg")); err != nil || string(again) != string(data) {
		t.Errorf("decrypted from the copy: %q, %v", again, err)
	}
	run(exitOK, append([]string{"recover", spare.address, "--from", edited}, other...)...)
	run(exitOK, append([]string{"recover", spare.address, "--from", copied, "--identity", identity}, other...)...)
	if l.configSHA256(spare.address) != before {
		t.Error("the other unit's data are not in force after a recovery from a copy")
	}
}

// An operator's program can convert an encrypted backup only with the key: that is asked for
// before the new software is installed, and kept when the upgrade is resumed.
func TestConvertEncrypted(t *testing.T) {
	key, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	operator, err := agefile.ParseRecipient(key.Recipient().String())
	if err != nil {
		t.Fatal(err)
	}
	l := newLab(t, func(c *sim.Config) {
		noConversion(c)
		c.Encryption.Recipients = []agefile.Recipient{operator}
	})
	here := t.TempDir()
	if err := os.WriteFile(filepath.Join(here, "operator.key"), []byte(key.String()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	program := l.script("convert", `for f in "$3"/*.cfg; do sed "1s/ $1\$/ $2/" "$f" > "$4/${f##*/}"; echo "by = program" >> "$4/${f##*/}"; done`)
	img := l.image("2.0.0", 2)
	out, status := l.run(l.upgrade("--image", img, "--convert-with", program, "--on-fail", "give-up"))
	if status == exitOK || !strings.Contains(out, "--identity") || strings.Contains(out, `"step":130`) {
		t.Errorf("without a key: exit status %d\n%s", status, out)
	}
	if o := l.outcome(); o.Version != "1.0.0" {
		t.Errorf("%s runs", o.Version)
	}
	cmd := l.upgrade("--image", img, "--convert-with", program, "--identity", "operator.key")
	cmd.Dir = here
	l.killed(cmd, func(_ int, line report.Line) bool { return line.Kind == "begin" && line.Step == 140 }, 0)
	cmd = l.upgrade("--resume")
	cmd.Dir = t.TempDir()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if o := l.outcome(); o.Version != "2.0.0" || o.Digest == "" {
		t.Errorf("%+v", o)
	}
}
