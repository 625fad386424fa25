package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"example.com/iad/manager/device"
	"example.com/iad/mib"
)

// remounted runs a program with the state of its device on a mount in a namespace of
// its own, which is remounted as the lines of the standard input say.
const remounted = `set -e
mount --bind "$1" "$1"
while read -r how; do mount -o "remount,bind,$how" "$1" && echo "$how"; done <&3 2>/dev/null &
shift
exec "$@" 3<&- >/dev/null`

// mountable is a device whose state can become read-only; remount makes it so ("ro")
// or not ("rw").
func mountable(t *testing.T) (d *unit, remount func(how string)) {
	d = newDevice(t)
	namespace := &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWNS | syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
	state := filepath.Join(d.root, "state")
	try := exec.Command("sh", "-c", `mount --bind "$1" "$1" && mount -o remount,bind,ro "$1"`, "sh", state)
	try.SysProcAttr = namespace
	if out, err := try.CombinedOutput(); err != nil {
		t.Skipf("no mount namespace to be had: %v %s", err, out)
	}
	var in io.WriteCloser
	var out *bufio.Reader
	d.wrap = func(cmd *exec.Cmd) {
		if in != nil {
			in.Close()
		}
		cmd.Args = append([]string{"sh", "-c", remounted, "sh", state, cmd.Path}, cmd.Args[1:]...)
		sh, err := exec.LookPath("sh")
		if err != nil {
			t.Fatal(err)
		}
		cmd.Path, cmd.SysProcAttr = sh, namespace
		read, write, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { read.Close(); write.Close() })
		cmd.ExtraFiles, in = []*os.File{read}, write
		said, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		out = bufio.NewReader(said)
	}
	return d, func(how string) {
		t.Helper()
		if _, err := fmt.Fprintln(in, how); err != nil {
			t.Fatal(err)
		}
		if line, err := out.ReadString('\n'); err != nil || line != how+"\n" {
			t.Fatalf("remount: %q %v", line, err)
		}
	}
}

// With a state partition that has become read-only, a device can be reset and taken
// back to its old software, and iadms says what a power cut takes back. When the
// partition can be written again, it is recorded.
func TestReadOnlyState(t *testing.T) {
	d, remount := mountable(t)
	iadms := filepath.Join(t.TempDir(), "iadms")
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", iadms, "../iadms")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	store := t.TempDir()
	// run runs iadms, which must succeed and print what is wanted, or not what follows "!".
	run := func(command string, want ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), iadms, command, d.addr, "--store", store)
		if command != "status" && command != "history" {
			cmd.Args = append(cmd.Args, "--notifications", "none")
		}
		cmd.Env = append(os.Environ(), "IADMS_WRITE_COMMUNITY=private")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("iadms %s: %v\n%s", command, err, out)
		}
		for _, w := range want {
			if text, not := strings.CutPrefix(w, "!"); strings.Contains(string(out), text) == not {
				t.Errorf("iadms %s prints without %q:\n%s", command, w, out)
			}
		}
	}
	runs := func(want string) {
		t.Helper()
		info, err := d.client().Device(t.Context())
		if err != nil || info.Version != want {
			t.Fatalf("%q runs, %v; want %s", info.Version, err, want)
		}
	}
	const forgets, back = "a power cut would undo this", "after a power cut, bank 2 would start"
	d.start()
	op := d.download(t, d.image("2.0.0", 50_000), device.ThenActivate, device.ThenReset)
	if op.State != mib.OperationStateSucceeded {
		t.Fatalf("%s: %s", op.State, op.Text)
	}

	remount("ro")
	run("reset", "OK: reset", forgets)
	runs("2.0.0")
	run("rollback", "2.0.0 -> 1.0.0", back)
	runs("1.0.0")
	run("status", back)
	run("history", "restoreOldSoftware", back)
	run("reset", "OK: reset", back)
	runs("1.0.0")
	d.stop() // as a power cut does
	d.start()
	runs("2.0.0")

	remount("ro")
	run("rollback", "2.0.0 -> 1.0.0", back)
	remount("rw")
	run("reset", "OK: reset", "!power cut")
	d.stop()
	d.start()
	runs("1.0.0")
	run("history", "restoreOldSoftware")
}
