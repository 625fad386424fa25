package board_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"example.com/iad/agent/board"
)

// shell is a command of the shell's; args are its $1, $2 ...
func shell(script string, args ...string) board.Command {
	return board.Command{Path: "/bin/sh", Args: append([]string{"-c", script, "sh"}, args...), Limit: time.Minute}
}

// program writes an executable script and returns its path.
func program(t *testing.T, script string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestMinimalEnvironment(t *testing.T) {
	t.Setenv("SECRET", "x")
	c := shell(`pwd; env | sort; ls -d "$TMPDIR"; cat`)
	c.Env = []string{"IAD_CONFIG=none"}
	out, err := board.Run(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	temp := lines[0]
	for _, line := range lines[1:] {
		name, value, _ := strings.Cut(line, "=")
		want := map[string]string{"HOME": temp, "TMPDIR": temp, "PWD": temp, "IAD_CONFIG": "none", "LC_ALL": "C",
			"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", temp: "", "_": value, "SHLVL": value, "OLDPWD": value}
		if w, ok := want[name]; !ok || w != value {
			t.Errorf("%q in the program's environment", line)
		}
	}
	if _, err := os.Stat(temp); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("temporary directory after the end: %v", err)
	}
}

func TestWorkingDirectory(t *testing.T) {
	dir, temp := t.TempDir(), t.TempDir()
	c := shell(`pwd; echo "$TMPDIR"`)
	c.Dir, c.Temp = dir, temp
	out, err := board.Run(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	pwd, tmp, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	if pwd != dir || filepath.Dir(tmp) != temp {
		t.Errorf("runs in %s with temporary directory %s, want %s and one in %s", pwd, tmp, dir, temp)
	}
}

func TestExit(t *testing.T) {
	for name, c := range map[string]struct {
		script string
		status int
		text   string
	}{
		"status": {"echo all well; echo port 3 dead >&2; exit 7", 7, "/bin/sh: exit status 7: port 3 dead"},
		"signal": {"kill -TERM $$", -1, "/bin/sh: signal: terminated"},
		"output": {`printf 'one\ntwo\001\377\n\n'; exit 1`, 1, "/bin/sh: exit status 1: two ?"},
		"long":   {`printf '%0200d' 0; exit 1`, 1, "/bin/sh: exit status 1: " + strings.Repeat("0", 77) + "..."},
	} {
		_, err := board.Run(t.Context(), shell(c.script))
		var exit *board.ExitError
		if !errors.As(err, &exit) || exit.Status != c.status || err.Error() != c.text {
			t.Errorf("%s: %v, want %s", name, err, c.text)
		}
	}
}

func TestMissingProgram(t *testing.T) {
	_, err := board.Run(t.Context(), board.Command{Path: "/nowhere/selftest"})
	if !errors.Is(err, fs.ErrNotExist) || strings.Count(err.Error(), "selftest") != 1 {
		t.Errorf("missing program: %v", err)
	}
	if _, err := board.Run(t.Context(), board.Command{Path: "sh"}); err == nil {
		t.Error("a relative path was run")
	}
}

// A board without room for a temporary directory runs its programs all the same.
func TestNoTemporaryDirectory(t *testing.T) {
	c := shell(`pwd; echo "$HOME ${TMPDIR-none}"`)
	c.Temp = "/nowhere"
	if out, err := board.Run(t.Context(), c); err != nil || string(out) != "/\n/ none\n" {
		t.Errorf("%q, %v", out, err)
	}
}

// A program does not outlive the agent that started it, however that ended.
func TestKilledAgentTakesProgramAlong(t *testing.T) {
	alive, dead := watch(t)
	begun := filepath.Join(t.TempDir(), "begun")
	if err := unix.Mkfifo(begun, 0o666); err != nil {
		t.Fatal(err)
	}
	cmd := helper(t, "run", program(t, `exec 3>'`+alive+`'; : >'`+begun+`'; exec sleep 300`))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.ReadFile(begun); err != nil { // until the program has opened and closed it
		t.Error(err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait()
	gone(t, dead)
}

func TestOutputIsBounded(t *testing.T) {
	out, err := board.Run(t.Context(), shell(`i=0; while [ $i -lt 300 ]; do printf '%01000d\n' $i; i=$((i+1)); done; echo end`))
	if err != nil {
		t.Fatal(err)
	}
	if len(out) != board.MaxOutput || !strings.HasSuffix(string(out), "299\nend\n") {
		t.Errorf("%d bytes ending in %q", len(out), out[max(0, len(out)-10):])
	}
}

// watch makes a fifo and returns its path and a channel that is closed when
// everybody who has it open for writing is dead.
func watch(t *testing.T) (path string, dead <-chan struct{}) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "alive")
	if err := unix.Mkfifo(path, 0o666); err != nil {
		t.Fatal(err)
	}
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		f, err := os.Open(path)
		if err != nil {
			t.Error(err)
			return
		}
		defer f.Close()
		_, _ = io.Copy(io.Discard, f)
	}()
	return path, closed
}

func gone(t *testing.T, dead <-chan struct{}) {
	t.Helper()
	select {
	case <-dead:
	case <-time.After(30 * time.Second):
		t.Fatal("a process of the group is still alive")
	}
}

func TestTimeLimitKillsGroup(t *testing.T) {
	alive, dead := watch(t)
	c := shell(`exec 3>"$1"; echo begun; trap "" TERM INT; sleep 300 & sleep 300`, alive)
	c.Limit = 300 * time.Millisecond
	out, err := board.Run(t.Context(), c)
	if !errors.Is(err, board.ErrTimeout) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, want ErrTimeout", err)
	}
	if string(out) != "begun\n" || !strings.Contains(err.Error(), "begun") {
		t.Errorf("output %q, error %v", out, err)
	}
	gone(t, dead)
}

func TestCancelKillsGroup(t *testing.T) {
	alive, dead := watch(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	aborted := errors.New("aborted by the manager")
	ready := filepath.Join(t.TempDir(), "ready")
	if err := unix.Mkfifo(ready, 0o666); err != nil {
		t.Fatal(err)
	}
	go func() {
		_, _ = os.ReadFile(ready) // until the program has opened and closed it
		cancel(aborted)
	}()
	_, err := board.Run(ctx, shell(`exec 3>"$1"; : >"$2"; sleep 300`, alive, ready))
	if !errors.Is(err, aborted) {
		t.Errorf("%v, want the cause of the cancellation", err)
	}
	gone(t, dead)
}

func TestEndKillsGroup(t *testing.T) {
	alive, dead := watch(t)
	if _, err := board.Run(t.Context(), shell(`exec 3>"$1"; sleep 300 >/dev/null 2>&1 & exit 0`, alive)); err != nil {
		t.Fatal(err)
	}
	gone(t, dead)
}

// A process that leaves the group and holds the output open delays the end only
// for a moment.
func TestOutputHeldOpen(t *testing.T) {
	if _, err := exec.LookPath("setsid"); err != nil {
		t.Skip("setsid not found: install util-linux")
	}
	away := filepath.Join(t.TempDir(), "away")
	if err := unix.Mkfifo(away, 0o666); err != nil {
		t.Fatal(err)
	}
	out, err := board.Run(t.Context(), shell(`setsid sh -c 'echo $$; : >"$1"; exec sleep 60' sh "$1" & read x <"$1"; exit 0`, away))
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Sscan(string(out), &pid); err != nil {
		t.Fatalf("output %q: %v", out, err)
	}
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Errorf("the process left behind: %v", err)
	}
}

func TestOtherUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	c := shell(`id -u; id -g; id -G; touch "$TMPDIR/x" && echo writes; touch "$1/x" 2>/dev/null || echo confined`, t.TempDir())
	c.User = &board.User{UID: 65534, GID: 65533}
	out, err := board.Run(t.Context(), c)
	if want := "65534\n65533\n65533\nwrites\nconfined\n"; err != nil || string(out) != want {
		t.Errorf("%q, %v; want %q", out, err, want)
	}
}

func TestOtherUserWithoutRoot(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("root may do it")
	}
	c := shell(`exit 0`)
	c.User = &board.User{UID: 1, GID: 1}
	if _, err := board.Run(t.Context(), c); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("%v, want a refusal", err)
	}
}

func TestNoDescriptorsInherited(t *testing.T) {
	secret, err := os.Create(filepath.Join(t.TempDir(), "secret"))
	if err != nil {
		t.Fatal(err)
	}
	defer secret.Close()
	// The helper inherits descriptor 3, and runs a command in its turn.
	cmd := helper(t, "run", program(t, `ls -l /proc/$$/fd`))
	cmd.ExtraFiles = []*os.File{secret}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), " 1 -> ") || strings.Contains(string(out), "secret") {
		t.Errorf("%v, descriptors of the program:\n%s", err, out)
	}
}
