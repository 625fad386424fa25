package main

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// initrd makes the first file system of the board's kernel: busybox, modules and init.
func (b *build) initrd(version string) ([]byte, error) {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	a := &archive{w: z}
	for _, dir := range []string{"bin", "dev", "etc", "mnt", "modules", "proc", "state", "sys", "tmp"} {
		a.add(dir, modeDir|0o755, nil, 0, 0)
	}
	a.add("dev/console", modeChar|0o600, nil, 5, 1) // where init writes until devtmpfs is there
	files := map[string]string{
		"bin/busybox": b.system("busybox"),
		"init":        filepath.Join(b.top, "testdata", "boards", "init"),
	}
	found, err := b.modules()
	if err != nil {
		return nil, err
	}
	for _, m := range b.kind.modules {
		files["modules/"+m+".ko"] = found[m]
	}
	for name, from := range files {
		data, err := os.ReadFile(from)
		if err != nil {
			return nil, err
		}
		a.add(name, modeFile|0o755, data, 0, 0)
	}
	a.add("modules/order", modeFile|0o644, []byte(strings.Join(b.kind.modules, "\n")+"\n"), 0, 0)
	a.add("board", modeFile|0o644, []byte("disk="+b.kind.disk+"\n"+b.kind.init), 0, 0)
	a.add("release", modeFile|0o644, []byte("software "+version+"\n"), 0, 0)
	a.add("TRAILER!!!", 0, nil, 0, 0)
	if err := z.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), a.err
}

// modules finds the unpacked modules by name.
func (b *build) modules() (map[string]string, error) {
	found := map[string]string{}
	err := filepath.WalkDir(b.system("lib"), func(path string, _ fs.DirEntry, err error) error {
		if name, ok := strings.CutSuffix(filepath.Base(path), ".ko"); ok {
			found[name] = path
		}
		return err
	})
	for _, m := range b.kind.modules {
		if err == nil && found[m] == "" {
			err = fmt.Errorf("the kernel's package has no module %s", m)
		}
	}
	return found, err
}

// Kinds of files, in st_mode.
const (
	modeFile = 0o100000
	modeDir  = 0o040000
	modeChar = 0o020000
)

// An archive is written in the format "newc" of cpio, which can hold device files although who writes it may not make
// any.
type archive struct {
	w     interface{ Write([]byte) (int, error) }
	inode int
	err   error
}

func (a *archive) add(name string, mode int, data []byte, major, minor int) {
	a.inode++
	// Magic, inode, mode, user, group, links, time, size, device of the file system, device, length of the name, sum.
	head := fmt.Sprintf("070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
		a.inode, mode, 0, 0, 1, 0, len(data), 0, 0, major, minor, len(name)+1, 0, name)
	for _, part := range []string{head, string(data)} {
		if a.err == nil {
			_, a.err = a.w.Write([]byte(part + strings.Repeat("\x00", -len(part)&3)))
		}
	}
}
