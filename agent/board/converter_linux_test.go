package board_test

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"example.com/iad/agent/board"
)

// owner is the user that a file, or a link itself, belongs to.
func owner(t *testing.T, name string) uint32 {
	t.Helper()
	info, err := os.Lstat(name)
	if err != nil {
		t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t).Uid
}

// The program's user gets what it converts only once nothing more is to be done in
// there, by way of no link; after the program nobody else gets at the results.
func TestConverterGivesBottomUp(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, for programs of another user")
	}
	top := t.TempDir()
	for dir := top; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	dir, foreign := filepath.Join(top, "convert"), filepath.Join(top, "foreign")
	in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
	script := filepath.Join(top, "script")
	for _, err := range []error{
		os.MkdirAll(filepath.Join(in, "sub"), 0o700), os.Mkdir(out, 0o700),
		os.WriteFile(foreign, nil, 0o600), os.WriteFile(filepath.Join(in, "sub", "file"), nil, 0o600),
		os.Symlink(foreign, filepath.Join(in, "link")), os.Link(foreign, filepath.Join(in, "name")),
		unix.Mkfifo(filepath.Join(in, "fifo"), 0o600),
		os.WriteFile(script, []byte("#!/bin/sh\nset -e\ntouch $3/new $4/result\ntest -O $3/sub/file\n"), 0o755),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	watcher, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(watcher)
	watched := map[int32]string{}
	for _, name := range []string{dir, in, out, filepath.Join(in, "sub"), filepath.Join(in, "sub", "file"), filepath.Join(in, "fifo")} {
		wd, err := unix.InotifyAddWatch(watcher, name, unix.IN_ATTRIB|unix.IN_OPEN)
		if err != nil {
			t.Fatal(err)
		}
		watched[int32(wd)] = strings.TrimPrefix(name, top)
	}
	c := board.Converter{Command: board.Command{Path: script, User: &board.User{UID: 65534, GID: 65534}}}
	if err := c.Convert(t.Context(), 1, 2, in, out); err != nil {
		t.Fatal(err)
	}
	given := []string{}
	buffer := make([]byte, 64<<10)
	n, err := unix.Read(watcher, buffer)
	if err != nil {
		t.Fatal(err)
	}
	for at := 0; at < n; {
		wd, mask, size := binary.NativeEndian.Uint32(buffer[at:]), binary.NativeEndian.Uint32(buffer[at+4:]), binary.NativeEndian.Uint32(buffer[at+12:])
		from := string(bytes.TrimRight(buffer[at+16:at+16+int(size)], "\x00"))
		name := watched[int32(wd)]
		if mask&unix.IN_OPEN != 0 && strings.HasSuffix(name, "fifo") {
			t.Error("a FIFO was opened")
		}
		if mask&unix.IN_ATTRIB != 0 && from == "" && !slices.Contains(given, name) {
			given = append(given, name)
		}
		at += 16 + int(size)
	}
	place := func(name string) int { return slices.Index(given, name) }
	if place("/convert/in/sub/file") < 0 || place("/convert/in/sub") < place("/convert/in/sub/file") ||
		place("/convert/in") < place("/convert/in/sub") || place("/convert") != len(given)-1 {
		t.Errorf("given in the order %q", given)
	}
	for name, want := range map[string]uint32{
		foreign: 0, filepath.Join(in, "link"): 0, filepath.Join(in, "sub", "file"): 65534, dir: 0, in: 0, out: 0,
	} {
		if got := owner(t, name); got != want {
			t.Errorf("%s belongs to %d, want %d", name, got, want)
		}
	}
}
