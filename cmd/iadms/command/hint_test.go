package command

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"example.com/iad/agent/snmp"
	"example.com/iad/cmd/iadms/report"
	"example.com/iad/sim"
)

// hinted is the command after a text in the output.
func hinted(t *testing.T, out, text string) string {
	t.Helper()
	_, after, found := strings.Cut(out, text)
	if !found {
		t.Fatalf("%q is not in\n%s", text, out)
	}
	line, _, _ := strings.Cut(after, "\n")
	return line
}

// pasted is a line in a shell that has nothing of this test's environment.
func (l *lab) pasted(line string) (output string, status int) {
	program, err := filepath.Abs(os.Args[0])
	if err != nil {
		l.t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", `iadms() { "$PROGRAM" "$@"; }; `+line)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + l.t.TempDir(), "PROGRAM=" + program, asCommand + "=1"}
	return l.run(cmd)
}

// The commands that a summary names do what they promise when they are pasted: with the
// access, the store and the options of the call, and without its passwords.
func TestHintsCanBePasted(t *testing.T) {
	const community = "write words"
	change := func(id string) func(*sim.Config) {
		return func(c *sim.Config) {
			c.ID = id
			c.SNMP.Communities = []snmp.Community{{Name: "read words"}, {Name: community, Write: true}}
		}
	}
	l := newLab(t, change("TEST-0001"))
	other := newLabOf(t, change("TEST-0002"), l.key)
	dir := filepath.Join(t.TempDir(), "it's here")
	store, credentials, repaired := filepath.Join(dir, "my store"), filepath.Join(dir, "access; x.toml"), filepath.Join(dir, "$HOME repaired")
	image := filepath.Join(dir, "fw-2.0.0.iad")
	if err := errors.Join(os.Mkdir(dir, 0o700), os.WriteFile(image, l.build("2.0.0", 1), 0o600), os.WriteFile(credentials,
		fmt.Appendf(nil, "community = \"read words\"\nwrite_community = %q\n[devices.\"branch office\"]\naddress = %q\n", community, other.address), 0o600)); err != nil {
		t.Fatal(err)
	}
	upgrade := func(args ...string) *exec.Cmd {
		cmd := l.command(append([]string{"upgrade", "--image", image, "--listen", "127.0.0.1", "--poll", "100ms", "--yes", "--on-fail", "advice,restore",
			"--verify-with", `[ $IADMS_DEVICE = TEST-0001 ] || test -e ` + shellQuote(repaired)}, args...)...)
		// What the environment names counts in the pasted line too.
		cmd.Env = append(cmd.Env, "IADMS_CREDENTIALS="+credentials, "IADMS_STORE="+store, "IADMS_TRAP_LISTEN=none")
		return cmd
	}
	out, status := l.run(upgrade(l.address, "branch office"))
	line := hinted(t, out, "to retry them: ")
	if status == exitOK || strings.Contains(line, l.address) || !strings.Contains(line, "'branch office'") || strings.Contains(line, community) {
		t.Fatalf("exit status %d\n%s", status, out)
	}
	one, status := l.run(upgrade("branch office"))
	if status == exitOK {
		t.Fatalf("exit status %d\n%s", status, one)
	}
	resume := hinted(t, one, "to resume: ")
	if resume != line {
		t.Errorf("one device: %s\nseveral: %s", resume, line)
	}
	if err := os.WriteFile(repaired, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	out, status = l.pasted(line)
	if status != exitOK || !strings.Contains(out, "OK: TEST-0002 upgraded 1.0.0 -> 2.0.0") {
		t.Errorf("%s\nexit status %d\n%s", line, status, out)
	}
	if list, err := os.ReadDir(filepath.Join(store, "backup")); err != nil || len(list) != 2 {
		t.Errorf("the store has backups of %v, %v", list, err)
	}

	// Of many devices the file is named.
	targets := filepath.Join(dir, "targets")
	text := l.address + "\n"
	for i := range report.MaxNamed + 1 {
		text += fmt.Sprintf("127.0.0.1:none%d\n", i)
	}
	if err := os.WriteFile(targets, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	out, _ = l.run(upgrade("--targets", targets))
	if line := hinted(t, out, "to retry them: "); !strings.HasPrefix(line, "iadms upgrade --resume --targets "+shellQuote(targets)+" ") {
		t.Error(line)
	}
}
