package crashfs

import (
	"os"
	"path"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/afero"
)

// fileSystem is one partition as a program sees it.
type fileSystem struct {
	m    *Machine
	part string
}

var _ afero.Fs = (*fileSystem)(nil)

// Name names the partition.
func (f *fileSystem) Name() string { return "crashfs:" + f.part }

func fail(op, name string, err error) error {
	if err == nil {
		return nil
	}
	return &os.PathError{Op: op, Path: name, Err: err}
}

func (f *fileSystem) op(k Kind, name string) Op { return Op{Kind: k, Part: f.part, Path: clean(name)} }

// find returns the inode of a name. m.mu must be held.
func (f *fileSystem) find(name string) (*inode, error) {
	i := f.m.roots[f.part]
	if clean(name) == "" {
		return i, nil
	}
	for _, e := range strings.Split(clean(name), "/") {
		if i.names == nil {
			return nil, syscall.ENOTDIR
		}
		if i = i.names[e]; i == nil {
			return nil, syscall.ENOENT
		}
	}
	return i, nil
}

// directory returns the directory that holds a name, and the name in it.
func (f *fileSystem) directory(name string) (*inode, string, error) {
	dir, base := path.Split(clean(name))
	if base == "" {
		return nil, "", syscall.EINVAL
	}
	i, err := f.find(dir)
	if err != nil {
		return nil, "", err
	}
	if i.names == nil {
		return nil, "", syscall.ENOTDIR
	}
	return i, base, nil
}

// locked runs a call with the machine's lock held, and fails it without power.
func (f *fileSystem) locked(op, name string, call func() error) error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if f.m.down {
		return fail(op, name, ErrPowerLost)
	}
	return fail(op, name, call())
}

// Create makes or empties a file.
func (f *fileSystem) Create(name string) (afero.File, error) {
	return f.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o666)
}

// Open opens a file or directory for reading.
func (f *fileSystem) Open(name string) (afero.File, error) {
	return f.OpenFile(name, os.O_RDONLY, 0)
}

// OpenFile opens a file as os.OpenFile does.
func (f *fileSystem) OpenFile(name string, flag int, perm os.FileMode) (file afero.File, err error) {
	err = f.locked("open", name, func() error {
		i, err := f.find(name)
		writes := flag&(os.O_WRONLY|os.O_RDWR) != 0
		switch {
		case err == syscall.ENOENT && flag&os.O_CREATE != 0:
			i, err = f.create(name, perm)
		case err == nil && flag&(os.O_CREATE|os.O_EXCL) == os.O_CREATE|os.O_EXCL:
			err = syscall.EEXIST
		case err == nil && writes && i.names != nil:
			err = syscall.EISDIR
		case err == nil && writes && f.m.readOnly[f.part]:
			err = syscall.EROFS
		case err == nil:
			if err = f.m.fault(OpOpen, f.part, clean(name)); err == nil && writes && flag&os.O_TRUNC != 0 && len(i.content.data) > 0 {
				err = f.m.do(f.op(OpTruncate, name), effect{change: &change{file: i, size: new(int64)}})
			}
		}
		if err != nil {
			return err
		}
		file = &openFile{fs: f, i: i, name: name, flag: flag}
		return nil
	})
	return file, err
}

func (f *fileSystem) create(name string, perm os.FileMode) (*inode, error) {
	directory, base, err := f.directory(name)
	if err != nil {
		return nil, err
	}
	i := &inode{mode: perm.Perm(), content: nothing, onDisk: durable{mode: perm.Perm(), content: nothing}}
	c := &change{names: []rename{{directory, base, i}}}
	return i, f.m.do(f.op(OpCreate, name), effect{change: c})
}

// Mkdir makes a directory.
func (f *fileSystem) Mkdir(name string, perm os.FileMode) error {
	return f.locked("mkdir", name, func() error {
		if _, err := f.find(name); err == nil {
			return syscall.EEXIST
		}
		directory, base, err := f.directory(name)
		if err != nil {
			return err
		}
		mode := os.ModeDir | perm.Perm()
		i := &inode{mode: mode, content: nothing, names: make(map[string]*inode),
			onDisk: durable{mode: mode, content: nothing, names: make(map[string]*inode)}}
		c := &change{names: []rename{{directory, base, i}}}
		return f.m.do(f.op(OpMkdir, name), effect{change: c})
	})
}

// MkdirAll makes a directory and the missing ones above it, one operation each.
func (f *fileSystem) MkdirAll(name string, perm os.FileMode) error {
	so := ""
	for _, e := range strings.Split(clean(name), "/") {
		so = path.Join(so, e)
		if err := f.Mkdir(so, perm); err != nil && so != "" && !os.IsExist(err) {
			return err
		}
	}
	info, err := f.Stat(name)
	if err == nil && !info.IsDir() {
		err = fail("mkdir", name, syscall.ENOTDIR)
	}
	return err
}

// Remove removes a file or an empty directory.
func (f *fileSystem) Remove(name string) error {
	return f.locked("remove", name, func() error {
		i, err := f.find(name)
		if err != nil {
			return err
		}
		if len(i.names) > 0 {
			return syscall.ENOTEMPTY
		}
		directory, base, err := f.directory(name)
		if err != nil {
			return err
		}
		c := &change{names: []rename{{directory, base, nil}}}
		return f.m.do(f.op(OpRemove, name), effect{change: c})
	})
}

// RemoveAll removes a name and all below it, one operation each.
func (f *fileSystem) RemoveAll(name string) error {
	info, err := f.Stat(name)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.IsDir() {
		names, err := afero.ReadDir(f, name)
		if err != nil {
			return err
		}
		for _, n := range names {
			if err := f.RemoveAll(path.Join(name, n.Name())); err != nil {
				return err
			}
		}
	}
	return f.Remove(name)
}

// Rename renames a file or directory, replacing a file, at once.
func (f *fileSystem) Rename(from, to string) error {
	return f.locked("rename", from, func() error {
		i, err := f.find(from)
		if err != nil {
			return err
		}
		source, sourceName, err := f.directory(from)
		if err != nil {
			return err
		}
		target, targetName, err := f.directory(to)
		if err != nil {
			return err
		}
		old := target.names[targetName]
		switch {
		case old == i:
			return nil
		case i.names != nil && (clean(to)+"/" == clean(from)+"/" || strings.HasPrefix(clean(to), clean(from)+"/")):
			return syscall.EINVAL
		case old != nil && old.names != nil:
			return syscall.EEXIST // as os.Rename has it
		case old != nil && i.names != nil:
			return syscall.ENOTDIR
		}
		c := &change{names: []rename{{source, sourceName, nil}, {target, targetName, i}}}
		return f.m.do(f.op(OpRename, from), effect{change: c})
	})
}

// Stat describes a file or directory.
func (f *fileSystem) Stat(name string) (info os.FileInfo, err error) {
	err = f.locked("stat", name, func() error {
		i, err := f.find(name)
		if err == nil {
			info = i.info(path.Base("/" + clean(name)))
		}
		return err
	})
	return info, err
}

// Chmod changes the permission bits; they last once the file is synced.
func (f *fileSystem) Chmod(name string, mode os.FileMode) error {
	return f.locked("chmod", name, func() error {
		i, err := f.find(name)
		if err != nil {
			return err
		}
		mode = i.mode&^os.ModePerm | mode.Perm()
		if mode == i.mode {
			return nil
		}
		return f.m.do(f.op(OpChmod, name), effect{change: &change{file: i, mode: &mode}})
	})
}

// Chown does nothing: the model knows no owners.
func (f *fileSystem) Chown(name string, _, _ int) error {
	_, err := f.Stat(name)
	return err
}

// Chtimes does nothing: the model knows no times.
func (f *fileSystem) Chtimes(name string, _, _ time.Time) error {
	_, err := f.Stat(name)
	return err
}

// info describes an inode under a name.
func (i *inode) info(name string) os.FileInfo {
	return fileInfo{name: name, size: int64(len(i.content.data)), mode: i.mode}
}

type fileInfo struct {
	name string
	size int64
	mode os.FileMode
}

func (i fileInfo) Name() string       { return i.name }
func (i fileInfo) Size() int64        { return i.size }
func (i fileInfo) Mode() os.FileMode  { return i.mode }
func (i fileInfo) ModTime() time.Time { return modTime }
func (i fileInfo) IsDir() bool        { return i.mode.IsDir() }
func (i fileInfo) Sys() any           { return nil }
