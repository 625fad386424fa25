package durable

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/afero"
)

// writeOut is the number of bytes after which an Appender has the kernel begin to write: while more comes from the
// network, the medium works, and a board with little memory does not fill it with data to be written.
const writeOut = 2 << 20

// An Appender writes a file from front to end, perhaps with interruptions. The
// file's name is durable from the start, its content once Close has returned nil;
// after a loss of power in between, any part of the content may be missing or wrong,
// so the reader must know its hash.
type Appender struct {
	f    afero.File
	name string
	size int64
	out  int64 // bytes that the kernel was asked to write
	err  error
}

// OpenAppender opens the file name for writing at its end. It creates the file, with
// mode perm, if it does not exist.
func OpenAppender(fs afero.Fs, name string, perm os.FileMode) (*Appender, error) {
	f, err := fs.OpenFile(name, os.O_RDWR|os.O_CREATE, perm)
	if err != nil {
		return nil, fmt.Errorf("write %s: %w", name, err)
	}
	a := &Appender{f: f, name: name}
	if err = fs.Chmod(name, perm); err == nil {
		err = SyncDir(fs, filepath.Dir(name))
	}
	if err == nil {
		a.size, err = f.Seek(0, io.SeekEnd)
		a.out = a.size
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("write %s: %w", name, err)
	}
	return a, nil
}

// Size returns the number of bytes in the file.
func (a *Appender) Size() int64 { return a.size }

// Write appends p. After an error every further Write returns it again.
func (a *Appender) Write(p []byte) (int, error) {
	if a.err != nil {
		return 0, a.err
	}
	n, err := a.f.Write(p)
	a.size += int64(n)
	if err := whole(len(p))(n, err); err != nil {
		a.err = fmt.Errorf("write %s: %w", a.name, err)
	}
	if a.size-a.out >= writeOut {
		startWriteOut(a.f, a.out, a.size-a.out)
		a.out = a.size
	}
	return n, a.err
}

// Close syncs and closes the file. It returns the first error since OpenAppender.
func (a *Appender) Close() error {
	if err := a.f.Sync(); err != nil && a.err == nil {
		a.err = fmt.Errorf("sync %s: %w", a.name, err)
	}
	if err := a.f.Close(); err != nil && a.err == nil {
		a.err = fmt.Errorf("close %s: %w", a.name, err)
	}
	return a.err
}
