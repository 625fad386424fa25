package crashfs

import (
	"io"
	"os"
	"path"
	"slices"
	"syscall"

	"github.com/spf13/afero"
)

// openFile is a file or directory that a program has open.
type openFile struct {
	fs     *fileSystem
	i      *inode
	name   string
	flag   int
	at     int64
	listed int // entries of a directory that Readdir has returned
	closed bool
}

var _ afero.File = (*openFile)(nil)

// Name is the name that the file was opened by.
func (o *openFile) Name() string { return o.name }

func (o *openFile) writes() bool { return o.flag&(os.O_WRONLY|os.O_RDWR) != 0 }

func (o *openFile) locked(op string, call func() error) error {
	return o.fs.locked(op, o.name, func() error {
		if o.closed {
			return os.ErrClosed
		}
		return call()
	})
}

// Read reads from the present position.
func (o *openFile) Read(p []byte) (n int, err error) {
	n, err = o.ReadAt(p, o.at)
	o.at += int64(n)
	if n > 0 && err == io.EOF {
		err = nil // the next Read returns it
	}
	return n, err
}

// ReadAt reads from an offset.
func (o *openFile) ReadAt(p []byte, off int64) (n int, err error) {
	end := false
	err = o.locked("read", func() error {
		switch {
		case o.i.names != nil:
			return syscall.EISDIR
		case o.flag&os.O_WRONLY != 0:
			return syscall.EBADF
		case off < 0:
			return syscall.EINVAL
		}
		if err := o.fs.m.fault(OpRead, o.fs.part, clean(o.name)); err != nil {
			return err
		}
		data := o.i.content.data
		n = copy(p, data[min(off, int64(len(data))):])
		end = n < len(p)
		return nil
	})
	if err == nil && end {
		err = io.EOF
	}
	return n, err
}

// Seek sets the position.
func (o *openFile) Seek(offset int64, whence int) (at int64, err error) {
	err = o.locked("seek", func() error {
		switch whence {
		case io.SeekCurrent:
			offset += o.at
		case io.SeekEnd:
			offset += int64(len(o.i.content.data))
		}
		if offset < 0 {
			return syscall.EINVAL
		}
		o.at = offset
		return nil
	})
	return o.at, err
}

// Write writes at the present position, or at the end with O_APPEND.
func (o *openFile) Write(p []byte) (n int, err error) {
	err = o.locked("write", func() error {
		if o.flag&os.O_APPEND != 0 {
			o.at = int64(len(o.i.content.data))
		}
		n, err = o.write(p, o.at)
		o.at += int64(n)
		return err
	})
	return n, err
}

// WriteAt writes at an offset.
func (o *openFile) WriteAt(p []byte, off int64) (n int, err error) {
	err = o.locked("write", func() error {
		n, err = o.write(p, off)
		return err
	})
	return n, err
}

// WriteString is Write.
func (o *openFile) WriteString(s string) (int, error) { return o.Write([]byte(s)) }

func (o *openFile) write(p []byte, off int64) (int, error) {
	switch {
	case !o.writes():
		return 0, syscall.EBADF
	case off < 0:
		return 0, syscall.EINVAL
	case len(p) == 0:
		return 0, nil
	}
	m := o.fs.m
	if err := m.room(o.fs.part, off+int64(len(p))-int64(len(o.i.content.data))); err != nil {
		return 0, err
	}
	data := slices.Clone(p)
	op := o.fs.op(OpWrite, o.name)
	op.Size = len(p)
	half := func() *change {
		return &change{file: o.i, data: data[:(len(data)+1)/2], off: off, junk: len(data) / 2}
	}
	err := m.do(op, effect{change: &change{file: o.i, data: data, off: off}, half: half})
	if short(err) {
		c := half()
		c.junk = 0
		m.apply(c)
		return len(c.data), err
	}
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

// Truncate sets the size.
func (o *openFile) Truncate(size int64) error {
	return o.locked("truncate", func() error {
		switch {
		case !o.writes():
			return syscall.EBADF
		case size < 0:
			return syscall.EINVAL
		case size == int64(len(o.i.content.data)):
			return nil
		}
		if err := o.fs.m.room(o.fs.part, size-int64(len(o.i.content.data))); err != nil {
			return err
		}
		return o.fs.m.do(o.fs.op(OpTruncate, o.name), effect{change: &change{file: o.i, size: &size}})
	})
}

// Sync makes the content of a file, or the names in a directory, last.
func (o *openFile) Sync() error {
	return o.locked("sync", func() error {
		return o.fs.m.do(o.fs.op(OpSync, o.name), effect{sync: o.i})
	})
}

// Close closes the file and makes nothing last.
func (o *openFile) Close() error {
	return o.locked("close", func() error {
		o.closed = true
		if !o.writes() {
			return nil
		}
		return o.fs.m.do(o.fs.op(OpClose, o.name), effect{})
	})
}

// Stat describes the file.
func (o *openFile) Stat() (info os.FileInfo, err error) {
	err = o.locked("stat", func() error {
		info = o.i.info(path.Base("/" + clean(o.name)))
		return nil
	})
	return info, err
}

// Readdir lists the next entries of a directory, sorted by name.
func (o *openFile) Readdir(count int) (infos []os.FileInfo, err error) {
	err = o.locked("readdir", func() error {
		if o.i.names == nil {
			return syscall.ENOTDIR
		}
		var names []string
		for name := range o.i.names {
			names = append(names, name)
		}
		slices.Sort(names)
		names = names[min(o.listed, len(names)):]
		if count > 0 {
			names = names[:min(count, len(names))]
		}
		for _, name := range names {
			infos = append(infos, o.i.names[name].info(name))
		}
		o.listed += len(names)
		return nil
	})
	if err == nil && count > 0 && len(infos) == 0 {
		err = io.EOF
	}
	return infos, err
}

// Readdirnames lists the names of the next entries of a directory.
func (o *openFile) Readdirnames(count int) (names []string, err error) {
	infos, err := o.Readdir(count)
	for _, i := range infos {
		names = append(names, i.Name())
	}
	return names, err
}
