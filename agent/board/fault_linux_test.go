package board_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.com/iad/agent"
	"example.com/iad/agent/board"
	"example.com/iad/agent/config"
	"example.com/iad/mib"
)

// cause is the failure cause that an error carries, 0 for none.
func cause(err error) mib.FailCause {
	return mib.CauseOf(err, 0)
}

// What the board cannot do is not the software's fault.
func TestFaultOfTheBoard(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, for programs of another user")
	}
	p := platform(t)
	p.As = &board.User{UID: 65534, GID: 65534}
	test := agent.SelfTest{Program: payload(t, p, 1, "selftest", "exit 0")}
	root := filepath.Dir(p.Banks[0])
	open := func(mode os.FileMode) {
		t.Helper()
		for dir := root; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
			if err := os.Chmod(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Chmod(root, mode); err != nil {
			t.Fatal(err)
		}
	}
	open(0o700)
	if err := p.SelfTest(t.Context(), test); cause(err) != mib.FailCauseInternalError {
		t.Errorf("a root that others may not enter: %v", err)
	}
	found := strings.Join(p.Unreachable(), "\n")
	if strings.Count(found, "\n") != 0 || !strings.Contains(found, root+" (mode 0700)") || !strings.Contains(found, "65534") {
		t.Errorf("findings: %s", found)
	}
	open(0o711)
	if err := p.SelfTest(t.Context(), test); err != nil {
		t.Errorf("a root that others may pass through: %v", err)
	}
	if found := p.Unreachable(); len(found) != 0 {
		t.Errorf("findings: %q", found)
	}
	if err := os.Chmod(filepath.Join(p.Banks[0], "selftest"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := p.SelfTest(t.Context(), test); err == nil || cause(err) != 0 {
		t.Errorf("a self-test that the image keeps from others: %v", err)
	}
	// The board's own programs are the board's all the more.
	p.As, p.SelfTestProgram, p.CheckProgram = nil, "/nowhere/selftest", "/nowhere/check"
	if err := p.SelfTest(t.Context(), agent.SelfTest{Program: agent.Program{Bank: 1}}); cause(err) != mib.FailCauseInternalError {
		t.Errorf("no self-test of the board's: %v", err)
	}
	if err := p.CheckConfig(settings(1)); cause(err) != mib.FailCauseInternalError {
		t.Errorf("no check of the board's: %v", err)
	}
}

// Whatever the state of the system's temporary directory, programs have theirs
// in Work.
func TestTemporaryDirectoryInWork(t *testing.T) {
	p := platform(t)
	t.Setenv("TMPDIR", "/nowhere")
	test := agent.SelfTest{Program: payload(t, p, 1, "selftest", `case $TMPDIR in "`+p.Work+`"/?*) ;; *) exit 1;; esac`)}
	if err := p.SelfTest(t.Context(), test); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(p.Work); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestTidy(t *testing.T) {
	p := platform(t)
	for _, name := range []string{"iad-run-1", "check-2", "convert-ABC", "else"} {
		if err := os.MkdirAll(filepath.Join(p.Work, name, "x"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Tidy(); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(p.Work); err != nil || len(left) != 1 || left[0].Name() != "else" {
		t.Errorf("left behind: %v, %v", left, err)
	}
	p.Work = filepath.Join(p.Work, "none")
	if err := p.Tidy(); err == nil {
		t.Error("a missing directory is not reported")
	}
}

// The software reads the configuration files in force and does not change them.
func TestAppliedFilesAreReadOnly(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, for programs of another user")
	}
	p := platform(t)
	for dir := filepath.Dir(p.Applied); dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	p.As = &board.User{UID: 65534, GID: 65533}
	if _, err := p.ApplyConfig(t.Context(), config.Generation{Number: 1}, settings(1)); err != nil {
		t.Fatal(err)
	}
	test := agent.SelfTest{Generation: 1, Program: payload(t, p, 1, "selftest", `cd "$IAD_CONFIG" && cat userData || exit 1
		exec 2>/dev/null
		echo x >>userData && echo "wrote a file"
		rm -f portData && echo "removed a file"
		touch new && echo "made a file"
		exit 0`)}
	if err := p.SelfTest(t.Context(), test); err != nil {
		t.Errorf("reading: %v", err)
	}
	left, err := os.ReadDir(p.Applied)
	data, rerr := os.ReadFile(filepath.Join(p.Applied, "userData"))
	if err != nil || rerr != nil || len(left) != 2 || string(data) != string(settings(1)[mib.FileTypeUserData]) {
		t.Errorf("%v, %q: %v, %v", left, data, err, rerr)
	}
}
