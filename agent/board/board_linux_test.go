package board_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/afero"
	"golang.org/x/sys/unix"

	"example.com/iad/agent"
	"example.com/iad/agent/board"
	"example.com/iad/agent/config"
	"example.com/iad/mib"
)

func TestLockRoot(t *testing.T) {
	root := t.TempDir()
	lock, err := board.LockRoot(root)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := board.LockRoot(root); !errors.Is(err, board.ErrLocked) || !strings.Contains(err.Error(), "process") {
		t.Errorf("second lock: %v", err)
	}
	if err := lock.Release(); err != nil {
		t.Fatal(err)
	}
	// Who can read a file can lock it.
	name := filepath.Join(root, "lock")
	if err := os.Chmod(name, 0o644); err != nil {
		t.Fatal(err)
	}
	if lock, err = board.LockRoot(root); err != nil {
		t.Fatal(err)
	}
	if err := lock.Release(); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the lock is open to others: %v, %v", info.Mode(), err)
	}
	if _, err := board.LockRoot(filepath.Join(root, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("lock of a missing root: %v", err)
	}
}

// An agent that was killed may still hold the lock for a moment.
func TestLockRootAfterKill(t *testing.T) {
	ended := exec.Command("true")
	if err := ended.Run(); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "lock")
	opened := func() (n int) {
		list, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && to == name {
				n++
			}
		}
		return n
	}
	for range 20 {
		if err := os.WriteFile(name, fmt.Appendln(nil, ended.Process.Pid), 0o600); err != nil {
			t.Fatal(err)
		}
		held, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := syscall.Flock(int(held.Fd()), syscall.LOCK_EX); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() {
			lock, err := board.LockRoot(filepath.Dir(name))
			if err == nil {
				err = lock.Release()
			}
			done <- err
		}()
		for opened() < 2 && len(done) == 0 {
			runtime.Gosched()
		}
		held.Close()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
}

// A device whose root has become read-only comes up, alone as ever.
func TestLockReadOnlyRoot(t *testing.T) {
	if out := inNamespace(t, "readonly"); out != "second lock refused: true\n" {
		t.Error(out)
	}
}

// inNamespace runs a helper that mounts something, and returns its output.
func inNamespace(t *testing.T, name string) string {
	t.Helper()
	cmd := helper(t, name, t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWNS | syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	switch {
	case errors.Is(err, fs.ErrPermission), strings.HasPrefix(string(out), "no mount:"):
		t.Skip("no mount namespace to be had", err, string(out))
	case err != nil:
		t.Fatalf("%s%v", out, err)
	}
	return string(out)
}

// Partitions that are not mounted are not mistaken for directories.
func TestRootOpenWithoutMounts(t *testing.T) {
	const want = `first: 0 findings, bank 1 true, bank 2 true, state true, data true; absent false, capacity true
meanwhile: true
without: 3 findings, bank 1 true, bank 2 false, state false, data false; absent true, capacity false
still without: 3 findings, bank 1 true, bank 2 false, state false, data false; absent true, capacity false
below: 0 <nil>
below: 0 <nil>
below: 0 <nil>
again: 0 findings, bank 1 true, bank 2 true, state true, data true; absent false, capacity true
accepted: 0 findings, bank 1 true, bank 2 true, state true, data true; absent false, capacity true
`
	if diff := cmp.Diff(want, inNamespace(t, "mounts")); diff != "" {
		t.Error(diff)
	}
}

func TestRestartKeepsLockSocketAndProcess(t *testing.T) {
	out, err := helper(t, "restart", t.TempDir()).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(lines) != 2 || lines[0] != lines[1] || !strings.Contains(lines[1], "left: false") {
		t.Errorf("%q: want the same line twice", lines)
	}
}

// A stale or foreign descriptor number in the environment must do no harm.
func TestLockRootIgnoresForeignDescriptor(t *testing.T) {
	for _, text := range []string{"", "x", "1", "-1", "99999"} {
		t.Setenv("IAD_LOCK_DESCRIPTOR", text)
		lock, err := board.LockRoot(t.TempDir())
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		lock.Release()
	}
}

// A socket is inherited for its own address only, and whatever else the variable
// says does no harm.
func TestInheritedSocket(t *testing.T) {
	open := func() (net.PacketConn, int) {
		conn, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		file, err := conn.(*net.UDPConn).File()
		if err != nil {
			t.Fatal(err)
		}
		fd, err := syscall.Dup(int(file.Fd())) // nothing else knows it
		if err != nil {
			t.Fatal(err)
		}
		file.Close()
		conn.Close()
		return conn, fd
	}
	before, fd := open()
	t.Setenv("IAD_SOCKET_DESCRIPTOR", fmt.Sprintf("%d :161", fd))
	conn := board.InheritedSocket(":161")
	if conn == nil || conn.LocalAddr().String() != before.LocalAddr().String() {
		t.Fatalf("%v, want that of %v", conn, before.LocalAddr())
	}
	conn.Close()

	before, fd = open()
	t.Setenv("IAD_SOCKET_DESCRIPTOR", fmt.Sprintf("%d :161", fd))
	if conn := board.InheritedSocket(":1161"); conn != nil {
		t.Errorf("a socket for another address: %v", conn.LocalAddr())
	}
	again, err := net.ListenPacket("udp", before.LocalAddr().String())
	if err != nil {
		t.Fatalf("the socket that was not wanted stays open: %v", err)
	}
	again.Close()

	file, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, text := range []string{"", "x", "1 :161", "-1 :161", "99999 :161", fmt.Sprintf("%d :161", file.Fd())} {
		t.Setenv("IAD_SOCKET_DESCRIPTOR", text)
		if conn := board.InheritedSocket(":161"); conn != nil {
			t.Errorf("%q: %v", text, conn.LocalAddr())
		}
	}
	if _, err := file.Stat(); err != nil {
		t.Errorf("a file that is no socket was closed: %v", err)
	}
}

// Parts that are not made yet count where they will lie; what is on another file
// system does not.
func TestOnBank(t *testing.T) {
	dir := t.TempDir()
	root, err := board.RootIn(dir)
	if err != nil {
		t.Fatal(err)
	}
	root.Work = "/proc" // another file system
	if got, want := root.OnBank(1), (agent.Parts{State: true, Data: true, Applied: true}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	root.Banks[1] = "/proc"
	if got, want := root.OnBank(2), (agent.Parts{Work: true}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestSpace(t *testing.T) {
	dir := t.TempDir()
	free, err := board.Free(dir)
	if err != nil {
		t.Fatal(err)
	}
	capacity, err := board.Capacity(dir)
	if err != nil || capacity <= 0 || free < 0 || free > capacity {
		t.Errorf("free %d of %d, %v", free, capacity, err)
	}
	if _, err := board.Free(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("space of a missing directory: %v", err)
	}
}

func TestDropCache(t *testing.T) {
	disk := afero.NewBasePathFs(afero.NewBasePathFs(afero.NewOsFs(), t.TempDir()), "/")
	for name, fs := range map[string]afero.Fs{"disk": disk, "memory": afero.NewMemMapFs()} {
		f, err := fs.Create("x")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString("content"); err != nil {
			t.Fatal(err)
		}
		if err := board.DropCache(f); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		got := make([]byte, 7)
		if _, err := f.ReadAt(got, 0); err != nil || string(got) != "content" {
			t.Errorf("%s: read back %q, %v", name, got, err)
		}
		f.Close()
		if err := board.DropCache(f); (err != nil) != (name == "disk") {
			t.Errorf("%s: closed file: %v", name, err)
		}
	}
}

// TestDropRange: what a file has and is not synced is written and leaves the cache, and can be read again.
func TestDropRange(t *testing.T) {
	const size = 4 << 20
	content := bytes.Repeat([]byte("0123456789abcdef"), size/16)
	f, err := afero.NewBasePathFs(afero.NewOsFs(), t.TempDir()).Create("x")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(content); err != nil {
		t.Fatal(err)
	}
	switch err := board.DropRange(f, 0, size/2); {
	case errors.Is(err, errors.ErrUnsupported):
		t.Skip(err)
	case err != nil:
		t.Fatal(err)
	}
	fd := f.(*afero.BasePathFile).File.(*os.File).Fd()
	cached := func(offset, n uint64) (s unix.Cachestat_t) {
		if err := unix.Cachestat(uint(fd), &unix.CachestatRange{Off: offset, Len: n}, &s, 0); err != nil {
			t.Skip("cachestat: ", err)
		}
		return s
	}
	if s := cached(0, size/2); s.Cache != 0 || s.Dirty != 0 || s.Writeback != 0 {
		t.Errorf("the dropped half: %+v", s)
	}
	if s := cached(size/2, size/2); s.Cache == 0 {
		t.Errorf("the other half: %+v", s)
	}
	got := make([]byte, size)
	if _, err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, content) {
		t.Errorf("the content has changed, or %v", err)
	}
	memory, err := afero.NewMemMapFs().Create("x")
	if err != nil {
		t.Fatal(err)
	}
	if err := board.DropRange(memory, 0, 1); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("a file in memory: %v", err)
	}
}

func TestWatchdog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "watchdog")
	if _, err := board.OpenWatchdog(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing device: %v", err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	w, err := board.OpenWatchdog(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []func() error{w.Kick, w.Kick, w.Stop} {
		if err := step(); err != nil {
			t.Error(err)
		}
	}
	if got, _ := os.ReadFile(path); string(got) != "kkV" {
		t.Errorf("device got %q", got)
	}
	if err := w.Kick(); err == nil {
		t.Error("kick after stop")
	}
	var none *board.Watchdog
	if err := errors.Join(none.Kick(), none.Stop()); err != nil {
		t.Errorf("no watchdog: %v", err)
	}
}

func TestConverter(t *testing.T) {
	script := program(t, `
[ "$1 $2" = "1 2" ] || { echo "cannot convert $1 to $2"; exit 3; }
for kind in userData portData; do
	sed "1s/.*/iad-config $kind $2/" "$3/$kind" >"$4/$kind" || exit 1
done`)
	command := board.Command{Path: script}
	if os.Getuid() == 0 {
		command.User = &board.User{UID: 65534, GID: 65534}
		if err := os.Chmod(script, 0o755); err != nil {
			t.Fatal(err)
		}
		for dir := filepath.Dir(script); dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
			if err := os.Chmod(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	old := func(k mib.FileType) []byte { return config.WithHeader(k, 1, []byte("a = b\n")) }
	set := config.Set{mib.FileTypeUserData: old(mib.FileTypeUserData), mib.FileTypePortData: old(mib.FileTypePortData)}
	convert := func(from, to uint32) (config.Set, error) {
		return config.Convert(t.Context(), board.Converter{Command: command}, afero.NewOsFs(), t.TempDir(), from, to, set, 0)
	}
	got, err := convert(1, 2)
	if err != nil {
		t.Fatal(err)
	}
	want := config.Set{}
	for k := range set {
		want[k] = config.WithHeader(k, 2, []byte("a = b\n"))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if _, err := convert(1, 3); mib.CauseOf(err, 0) != mib.FailCauseConvertFailed ||
		!strings.Contains(err.Error(), "cannot convert 1 to 3") {
		t.Errorf("failed conversion: %v", err)
	}
	command.Path = "/nowhere/convert"
	if _, err := convert(1, 2); mib.CauseOf(err, 0) != mib.FailCauseConvertToolMissing {
		t.Errorf("missing program: %v", err)
	}
	command = board.Command{Path: program(t, "exec sleep 300"), Limit: 1}
	if _, err := convert(1, 2); mib.CauseOf(err, 0) != mib.FailCauseConvertTimeout {
		t.Errorf("time limit: %v", err)
	}
}
