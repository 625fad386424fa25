package memdisk

import (
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"
	"time"
)

// file is an open file or directory.
type file struct {
	disk                   *Disk
	node                   *node
	name                   string
	reads, writes, appends bool
	closed                 bool
	offset                 int64
	listed                 int // entries that Readdir returned
}

// do calls f with the disk locked, for an open file.
func (f *file) do(op string, allowed bool, call func() error) error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	var err error
	switch {
	case f.closed:
		err = fs.ErrClosed
	case !allowed:
		err = syscall.EBADF
	default:
		err = call()
	}
	if err == io.EOF {
		return err
	}
	return failed(op, f.name, err)
}

func (f *file) Close() error {
	return f.do("close", true, func() error {
		f.closed = true
		f.node.content.settle()
		return nil
	})
}

func (f *file) Name() string { return f.name }

// Sync does nothing: there is no other medium.
func (f *file) Sync() error { return f.do("sync", true, func() error { return nil }) }

func (f *file) readAt(p []byte, offset int64) (int, error) {
	if f.node.mode.IsDir() {
		return 0, syscall.EISDIR
	}
	if len(p) == 0 {
		return 0, nil
	}
	n := f.node.content.readAt(p, offset)
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

func (f *file) Read(p []byte) (n int, err error) {
	err = f.do("read", f.reads, func() error {
		n, err = f.readAt(p, f.offset)
		f.offset += int64(n)
		return err
	})
	return n, err
}

func (f *file) ReadAt(p []byte, offset int64) (n int, err error) {
	err = f.do("read", f.reads, func() error {
		if offset < 0 {
			return fs.ErrInvalid
		}
		if n, err = f.readAt(p, offset); err == nil && n < len(p) {
			err = io.EOF
		}
		return err
	})
	return n, err
}

func (f *file) Seek(offset int64, whence int) (at int64, err error) {
	err = f.do("seek", true, func() error {
		switch whence {
		case io.SeekCurrent:
			offset += f.offset
		case io.SeekEnd:
			offset += f.node.content.size()
		}
		if offset < 0 {
			return syscall.EINVAL
		}
		f.offset, at = offset, offset
		return nil
	})
	return at, err
}

func (f *file) writeAt(p []byte, offset int64) {
	f.node.content.writeAt(p, offset)
	f.node.changed = time.Now().UnixNano()
}

func (f *file) Write(p []byte) (int, error) {
	err := f.do("write", f.writes, func() error {
		if f.appends {
			f.offset = f.node.content.size()
		}
		f.writeAt(p, f.offset)
		f.offset += int64(len(p))
		return nil
	})
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

func (f *file) WriteString(s string) (int, error) { return f.Write([]byte(s)) }

func (f *file) WriteAt(p []byte, offset int64) (int, error) {
	err := f.do("write", f.writes, func() error {
		if offset < 0 || f.appends {
			return fs.ErrInvalid
		}
		f.writeAt(p, offset)
		return nil
	})
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

func (f *file) Truncate(size int64) error {
	return f.do("truncate", true, func() error {
		if !f.writes || size < 0 {
			return syscall.EINVAL
		}
		f.node.content.truncate(size)
		f.node.changed = time.Now().UnixNano()
		return nil
	})
}

func (f *file) Stat() (info os.FileInfo, err error) {
	err = f.do("stat", true, func() error {
		info = f.node.info(f.name)
		return nil
	})
	return info, err
}

func (f *file) Readdir(count int) (list []os.FileInfo, err error) {
	err = f.do("readdir", true, func() error {
		if !f.node.mode.IsDir() {
			return syscall.ENOTDIR
		}
		dir := clean(f.name)
		from, to := f.disk.below(dir)
		for _, e := range f.disk.files[from:to] {
			name := strings.TrimPrefix(strings.TrimPrefix(e.name.Value(), dir), "/")
			if !strings.Contains(name, "/") {
				list = append(list, e.node.info(name))
			}
		}
		list = list[min(f.listed, len(list)):]
		if count > 0 {
			if len(list) == 0 {
				return io.EOF
			}
			list = list[:min(count, len(list))]
		}
		f.listed += len(list)
		return nil
	})
	return list, err
}

func (f *file) Readdirnames(count int) (names []string, err error) {
	list, err := f.Readdir(count)
	for _, info := range list {
		names = append(names, info.Name())
	}
	return names, err
}

// info describes a file as it was.
type info struct {
	name    string
	size    int64
	mode    fs.FileMode
	changed time.Time
}

func (n *node) info(name string) info {
	base := path.Base(clean(name))
	if base == "." {
		base = path.Base(name)
	}
	return info{base, n.content.size(), n.mode, time.Unix(0, n.changed)}
}

func (i info) Name() string       { return i.name }
func (i info) Size() int64        { return i.size }
func (i info) Mode() fs.FileMode  { return i.mode }
func (i info) ModTime() time.Time { return i.changed }
func (i info) IsDir() bool        { return i.mode.IsDir() }
func (i info) Sys() any           { return nil }
