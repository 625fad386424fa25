package sim

import (
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/afero"
)

// lifetime is the time from a start of the device to a restart or power cut.
type lifetime struct{ over atomic.Bool }

// faultyFs is a file system of a device, whose writes faults may meet. When the power has
// failed nothing is written any more.
type faultyFs struct {
	afero.Fs
	device *Device
	life   *lifetime
}

// use is called before each use of the disk, also for reading.
func (f *faultyFs) use() error {
	f.device.look()
	if f.life.over.Load() {
		return errPower
	}
	return nil
}

// write is called before each change of the disk. half says that the power fails in the
// middle of it.
func (f *faultyFs) write() (half bool, err error) {
	if err := f.use(); err != nil {
		return false, err
	}
	d := f.device
	if !d.faults.has(DiskFull, ReadOnly, DiskSlow, PowerCut) {
		return false, nil
	}
	if f, ok := d.occasion(DiskSlow); ok {
		t := d.cfg.Clock.NewTimer(f.delay())
		<-t.C()
	}
	if _, ok := d.occasion(ReadOnly); ok {
		return false, syscall.EROFS
	}
	if f, ok := d.happens(func(a *armed) bool {
		if a.Write > 0 {
			a.seen++
		}
		return a.Write > 0 && a.seen >= a.Write
	}, PowerCut); ok {
		d.failWith(f)
		return true, errPower
	}
	return false, nil
}

// grow is write for changes that take room.
func (f *faultyFs) grow() (half bool, err error) {
	if half, err = f.write(); err != nil {
		return half, err
	}
	if _, ok := f.device.occasion(DiskFull); ok {
		return false, syscall.ENOSPC
	}
	return false, nil
}

func (f *faultyFs) failed(op, name string, err error) error {
	return &os.PathError{Op: op, Path: name, Err: err}
}

func (f *faultyFs) Create(name string) (afero.File, error) {
	return f.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o666)
}

func (f *faultyFs) Open(name string) (afero.File, error) { return f.OpenFile(name, os.O_RDONLY, 0) }

func (f *faultyFs) OpenFile(name string, flag int, perm os.FileMode) (afero.File, error) {
	changes := flag&(os.O_WRONLY|os.O_RDWR|os.O_CREATE|os.O_TRUNC) != 0
	var err error
	if changes {
		_, err = f.write()
	} else {
		err = f.use()
	}
	if err != nil {
		return nil, f.failed("open", name, err)
	}
	file, err := f.Fs.OpenFile(name, flag, perm)
	if err != nil || !changes {
		return file, err
	}
	return &faultyFile{File: file, fs: f}, nil
}

func (f *faultyFs) Stat(name string) (os.FileInfo, error) {
	if err := f.use(); err != nil {
		return nil, f.failed("stat", name, err)
	}
	return f.Fs.Stat(name)
}

func (f *faultyFs) Mkdir(name string, perm os.FileMode) error {
	if _, err := f.grow(); err != nil {
		return f.failed("mkdir", name, err)
	}
	return f.Fs.Mkdir(name, perm)
}

func (f *faultyFs) MkdirAll(name string, perm os.FileMode) error {
	if _, err := f.grow(); err != nil {
		return f.failed("mkdir", name, err)
	}
	return f.Fs.MkdirAll(name, perm)
}

func (f *faultyFs) Remove(name string) error {
	if _, err := f.write(); err != nil {
		return f.failed("remove", name, err)
	}
	return f.Fs.Remove(name)
}

func (f *faultyFs) RemoveAll(name string) error {
	if _, err := f.write(); err != nil {
		return f.failed("remove", name, err)
	}
	return f.Fs.RemoveAll(name)
}

func (f *faultyFs) Rename(from, to string) error {
	if _, err := f.write(); err != nil {
		return f.failed("rename", from, err)
	}
	return f.Fs.Rename(from, to)
}

func (f *faultyFs) Chmod(name string, mode os.FileMode) error {
	if _, err := f.write(); err != nil {
		return f.failed("chmod", name, err)
	}
	return f.Fs.Chmod(name, mode)
}

func (f *faultyFs) Chtimes(name string, a, m time.Time) error {
	if _, err := f.write(); err != nil {
		return f.failed("chtimes", name, err)
	}
	return f.Fs.Chtimes(name, a, m)
}

// faultyFile is a file that was opened for writing.
type faultyFile struct {
	afero.File
	fs *faultyFs
}

func (f *faultyFile) Write(p []byte) (int, error) {
	half, err := f.fs.grow()
	if err == nil {
		return f.File.Write(p)
	}
	if half {
		_, _ = f.File.Write(p[:len(p)/2]) // the power fails in any case
	}
	return 0, f.fs.failed("write", f.Name(), err)
}

func (f *faultyFile) WriteString(s string) (int, error) { return f.Write([]byte(s)) }

func (f *faultyFile) WriteAt(p []byte, offset int64) (int, error) {
	half, err := f.fs.grow()
	if err == nil {
		return f.File.WriteAt(p, offset)
	}
	if half {
		_, _ = f.File.WriteAt(p[:len(p)/2], offset)
	}
	return 0, f.fs.failed("write", f.Name(), err)
}

func (f *faultyFile) Truncate(size int64) error {
	if _, err := f.fs.write(); err != nil {
		return f.fs.failed("truncate", f.Name(), err)
	}
	return f.File.Truncate(size)
}
