package release

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.com/iad/internal/peers"
)

// agents returns the processes of "iad run --root ROOT".
func agents(t *testing.T, root string) (pids []int) {
	t.Helper()
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range lines {
		text, _ := os.ReadFile(name) // the process may have ended
		if strings.Contains(string(text), "\x00run\x00--root\x00"+root+"\x00") {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(name)))
			if err != nil {
				t.Fatal(err)
			}
			pids = append(pids, pid)
		}
	}
	return pids
}

// TestBusyBoxService runs S60iad with BusyBox: the first start, an agent that is killed, the end.
func TestBusyBoxService(t *testing.T) {
	busybox := peers.Find(t, "busybox")
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	dir := t.TempDir()
	root := filepath.Join(dir, "device")
	run(t, exec.CommandContext(ctx, "go", "build", "-o", dir+"/", top+"/cmd/iad", top+"/cmd/iadms"))
	answers := func() {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); ; {
			out, err := exec.CommandContext(ctx, filepath.Join(dir, "iad"), "healthcheck", "--root", root).CombinedOutput()
			if err == nil {
				return
			} else if time.Now().After(deadline) {
				t.Fatalf("%v: %s", err, out)
			}
		}
	}
	for _, args := range [][]string{
		{"keygen", "--no-password", "-o", "maker"},
		{"build", "--version", "1.0.0", "--hardware", "IAD-4FXS", "--key", "maker.key", "-o", "first.iad", "iadms"},
	} {
		cmd := exec.CommandContext(ctx, "./iadms", append([]string{"image"}, args...)...)
		cmd.Dir = dir
		run(t, cmd)
	}
	for _, applet := range []string{"cat", "kill", "logger", "mkfifo", "rm", "sh", "sleep", "start-stop-daemon"} {
		if err := os.WriteFile(filepath.Join(dir, applet), []byte("#!/bin/sh\nexec "+busybox+" "+applet+" \"$@\"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := conn.LocalAddr().String()
	conn.Close()
	settings := fmt.Sprintf("IAD_IMAGE=%s/first.iad\nIAD_TRUST=%s/maker.pub\nIAD_HARDWARE=IAD-4FXS\nIAD_DEVICE_ID=IAD-0001\nIAD_SNMP=%s\nIAD_MANAGER=%s/credentials.toml\n", dir, dir, address, dir)
	if err := os.WriteFile(filepath.Join(dir, "init.conf"), []byte(settings), 0o600); err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer("#!/bin/sh", "#!"+filepath.Join(dir, "sh"), "-x /bin/sh", "-x "+filepath.Join(dir, "sh"), "/usr/bin/iad", filepath.Join(dir, "iad"),
		"/var/lib/iad", root, "/var/run", dir, "/etc/iad", dir).Replace(read(t, top+"/deploy/buildroot/package/iad/S60iad"))
	script := filepath.Join(dir, "S60iad")
	if err := os.WriteFile(script, []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
	service := func(action string) {
		t.Helper()
		cmd := exec.CommandContext(ctx, script, action)
		cmd.Env = append(os.Environ(), "PATH="+dir)
		run(t, cmd)
	}
	t.Cleanup(func() {
		for _, pid := range agents(t, root) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	})

	service("start")
	answers()
	first := agents(t, root)
	if len(first) != 1 {
		t.Fatalf("%d agents run, want 1", len(first))
	}
	if err := syscall.Kill(first[0], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	answers()
	if second := agents(t, root); len(second) != 1 || second[0] == first[0] {
		t.Errorf("agents %v after %v was killed, want another one", second, first)
	}
	service("stop")
	if left := agents(t, root); len(left) != 0 {
		t.Errorf("agents %v run after the end", left)
	}
	if _, err := os.Stat(filepath.Join(dir, "iad.pid")); err == nil {
		t.Error("the file with the process's number is left")
	}
	service("start")
	answers()
	service("stop")
}
