package board_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"example.com/iad/agent/board"
	"example.com/iad/internal/peers"
)

// TestCheckpoint: after it, a file that was only synced is found by a program that reads
// ext4 without its journal, as U-Boot does.
func TestCheckpoint(t *testing.T) {
	peers.NeedRoot(t)
	dir := t.TempDir()
	image, bank := filepath.Join(dir, "image"), filepath.Join(dir, "bank")
	for _, args := range [][]string{
		{"truncate", "-s", "16M", image}, {"mke2fs", "-q", "-t", "ext4", image}, {"mkdir", bank}, {"mount", "-o", "loop", image, bank},
	} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Skipf("%q: %v: %s", args, err, out)
		}
	}
	t.Cleanup(func() {
		if err := unix.Unmount(bank, 0); err != nil {
			t.Error(err)
		}
	})
	content := bytes.Repeat([]byte("kernel"), 20_000)
	file, err := os.Create(filepath.Join(bank, "kernel"))
	if err == nil {
		_, err = file.Write(content)
	}
	if err == nil {
		err = file.Sync()
	}
	if err != nil {
		t.Fatal(err)
	}
	file.Close()
	read := func() []byte {
		// debugfs does not replay the journal either, and reads past the mount.
		out, _ := exec.Command("debugfs", "-R", "cat /kernel", image).Output()
		return out
	}
	if bytes.Equal(read(), content) {
		t.Fatal("the file is there without a checkpoint: this system cannot show the difference")
	}
	p := &board.Platform{Banks: [2]string{dir, bank}, Work: dir, State: dir, Data: dir, Applied: dir}
	if err := p.Checkpoint(2); err != nil {
		t.Fatal(err)
	}
	if got := read(); !bytes.Equal(got, content) {
		t.Errorf("read %d bytes without the journal, want %d", len(got), len(content))
	}
	// Without the privilege it is said at the start, and with the remedy.
	done := make(chan struct{})
	go func() {
		defer close(done)
		withoutAdmin(t)
		if f := p.NoCheckpoint(); len(f) != 1 || !strings.Contains(f[0], "bank 2") || !strings.Contains(f[0], "CAP_SYS_ADMIN") {
			t.Errorf("%q", f)
		}
		if err := p.Checkpoint(2); !errors.Is(err, unix.EPERM) || !strings.Contains(err.Error(), "CAP_SYS_ADMIN") {
			t.Error(err)
		}
	}()
	<-done
	if f := p.NoCheckpoint(); len(f) > 0 {
		t.Errorf("%q", f)
	}
	// The bank can be written again, and a part that shares its file system is never frozen.
	if err := os.WriteFile(filepath.Join(bank, "more"), nil, 0o600); err != nil {
		t.Error(err)
	}
	if err := p.Checkpoint(1); err != nil {
		t.Error(err)
	}
}

// TestCheckpointNotNeeded: on a file system without a journal, or with one that boot loaders read such as UBIFS, nothing is to
// be done, and no privilege is missing.
func TestCheckpointNotNeeded(t *testing.T) {
	peers.NeedRoot(t)
	dir, bank := t.TempDir(), os.Getenv("IAD_TEST_BANK") // on UBIFS
	if bank == "" {
		bank = t.TempDir()
		if err := unix.Mount("tmpfs", bank, "tmpfs", 0, "size=1m"); err != nil {
			t.Skip(err)
		}
		t.Cleanup(func() {
			if err := unix.Unmount(bank, 0); err != nil {
				t.Error(err)
			}
		})
	}
	p := &board.Platform{Banks: [2]string{dir, bank}, Work: dir, State: dir, Data: dir, Applied: dir}
	done := make(chan struct{})
	go func() {
		defer close(done)
		withoutAdmin(t)
		if err := p.Checkpoint(2); err != nil {
			t.Error(err)
		}
		if f := p.NoCheckpoint(); len(f) > 0 {
			t.Errorf("%q", f)
		}
	}()
	<-done
}

// withoutAdmin takes CAP_SYS_ADMIN from the thread of this goroutine, which ends with it.
func withoutAdmin(t *testing.T) {
	runtime.LockOSThread()
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	err := unix.Capget(&header, &data[0])
	data[0].Effective &^= 1 << unix.CAP_SYS_ADMIN
	if err = errors.Join(err, unix.Capset(&header, &data[0])); err != nil {
		t.Error(err)
	}
}
