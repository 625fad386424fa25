package main

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// disk is a small file system that only processes of its name space see. It outlives them.
type disk struct {
	t      *testing.T
	holder string // ID of the process that keeps the name space
	dir    string
}

// newDisk mounts a disk with a size such as 256m at a directory.
func newDisk(t *testing.T, dir, size string) *disk {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	c := exec.Command("unshare", "-Urm", "sh", "-c", `mount -t tmpfs -o size="$1" tmpfs "$0" && echo mounted && exec cat`, dir, size)
	var problem strings.Builder
	c.Stderr = &problem
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	line, _ := bufio.NewReader(out).ReadString('\n')
	t.Cleanup(func() { // it ends with its input
		_ = in.Close()
		_ = c.Wait()
	})
	if line != "mounted\n" {
		if os.Getenv("CI") == "true" {
			t.Fatalf("a small disk cannot be mounted: %s", problem.String())
		}
		t.Logf("no disk becomes full, because none can be mounted; permit user namespaces: %s", problem.String())
		return nil
	}
	return &disk{t, strconv.Itoa(c.Process.Pid), dir}
}

// command makes c one that sees the disk.
func (d *disk) command(c *exec.Cmd) *exec.Cmd {
	inside := exec.Command("nsenter", append([]string{"-t", d.holder, "-U", "-m", "--preserve-credentials", "--", c.Path}, c.Args[1:]...)...)
	inside.Env = c.Env
	return inside
}

// fill writes until there is no room, and returns how to make room again.
func (d *disk) fill() (free func()) {
	d.t.Helper()
	f, err := os.Create(filepath.Join("/proc", d.holder, "root", d.dir, "filler"))
	if err != nil {
		d.t.Fatal(err)
	}
	for size := 1 << 20; size > 0; {
		if n, err := f.Write(make([]byte, size)); err != nil && n == 0 {
			size /= 2
		}
	}
	return func() {
		if err := errors.Join(f.Close(), os.Remove(f.Name())); err != nil {
			d.t.Error(err)
		}
	}
}
