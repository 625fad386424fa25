package memdisk

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
	"unique"

	"github.com/spf13/afero"
)

// Disk is a file system in memory; New makes one. It may be used by many goroutines.
type Disk struct {
	mu    sync.Mutex
	files []entry // in the order of their names; the root is not among them
	root  *node
}

// entry is the name of a file or directory: its whole path, without a slash at its ends.
type entry struct {
	name unique.Handle[string]
	node *node
}

// node is a file or directory. The disk's lock protects it.
type node struct {
	mode    fs.FileMode // with fs.ModeDir
	changed int64       // nanoseconds since 1970
	content content
}

var _ afero.Fs = (*Disk)(nil)

// New returns an empty disk.
func New() *Disk { return &Disk{root: newNode(fs.ModeDir | 0o755)} }

func newNode(mode fs.FileMode) *node { return &node{mode: mode, changed: time.Now().UnixNano()} }

// Clone returns a disk with the same files, which share their contents until they change.
// No file may be open for writing.
func (d *Disk) Clone() *Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := &Disk{root: d.root.clone(), files: make([]entry, len(d.files))}
	for i, e := range d.files {
		c.files[i] = entry{e.name, e.node.clone()}
	}
	return c
}

func (n *node) clone() *node {
	c := *n
	c.content = n.content.clone()
	return &c
}

// Name is that of the kind of file system.
func (d *Disk) Name() string { return "memdisk" }

// clean returns the path as entries have it; "" is the root.
func clean(name string) string { return path.Clean("/" + strings.ReplaceAll(name, `\`, "/"))[1:] }

// search finds the place of a name among the entries.
func (d *Disk) search(name string) (int, bool) {
	return slices.BinarySearchFunc(d.files, name, func(e entry, name string) int { return strings.Compare(e.name.Value(), name) })
}

// find returns what has a name.
func (d *Disk) find(name string) (*node, error) {
	if name == "" {
		return d.root, nil
	}
	if i, ok := d.search(name); ok {
		return d.files[i].node, nil
	}
	// A file is not a directory, also on the way to what does not exist.
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		if i, ok := d.search(dir); ok && !d.files[i].node.mode.IsDir() {
			return nil, syscall.ENOTDIR
		}
	}
	return nil, fs.ErrNotExist
}

// parent checks that the directory exists in which a name is to be.
func (d *Disk) parent(name string) error {
	dir := path.Dir(name)
	if dir == "." {
		return nil
	}
	n, err := d.find(dir)
	if err == nil && !n.mode.IsDir() {
		err = syscall.ENOTDIR
	}
	return err
}

func (d *Disk) add(name string, n *node) {
	i, _ := d.search(name)
	d.files = slices.Insert(d.files, i, entry{unique.Make(name), n})
}

// below returns the range of the entries in a directory, at any depth.
func (d *Disk) below(dir string) (from, to int) {
	if dir == "" {
		return 0, len(d.files)
	}
	from, _ = d.search(dir + "/")
	to, _ = d.search(dir + "0") // the character after the slash
	return from, to
}

func failed(op, name string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: op, Path: name, Err: err}
}

// Create makes an empty file, or empties one.
func (d *Disk) Create(name string) (afero.File, error) {
	return d.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o666)
}

// Open opens a file or directory for reading.
func (d *Disk) Open(name string) (afero.File, error) { return d.OpenFile(name, os.O_RDONLY, 0) }

// OpenFile opens a file with the flags of package os.
func (d *Disk) OpenFile(name string, flag int, perm os.FileMode) (afero.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	key := clean(name)
	n, err := d.find(key)
	writes := flag&(os.O_WRONLY|os.O_RDWR) != 0
	switch {
	case err == nil && flag&(os.O_CREATE|os.O_EXCL) == os.O_CREATE|os.O_EXCL:
		err = fs.ErrExist
	case err == nil && n.mode.IsDir() && (writes || flag&os.O_CREATE != 0):
		err = syscall.EISDIR
	case errors.Is(err, fs.ErrNotExist) && flag&os.O_CREATE != 0:
		if err = d.parent(key); err == nil {
			n = newNode(perm.Perm())
			d.add(key, n)
			d.touch(key)
		}
	}
	if err != nil {
		return nil, failed("open", name, err)
	}
	if flag&os.O_TRUNC != 0 && writes {
		n.content.truncate(0)
		n.changed = time.Now().UnixNano()
	}
	return &file{disk: d, node: n, name: name, reads: flag&os.O_WRONLY == 0, writes: writes, appends: flag&os.O_APPEND != 0}, nil
}

// touch notes that the directory of a name was changed.
func (d *Disk) touch(name string) {
	if n, err := d.find(strings.TrimPrefix(path.Dir(name), ".")); err == nil {
		n.changed = time.Now().UnixNano()
	}
}

// Mkdir makes a directory.
func (d *Disk) Mkdir(name string, perm os.FileMode) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return failed("mkdir", name, d.mkdir(clean(name), perm))
}

func (d *Disk) mkdir(key string, perm os.FileMode) error {
	_, err := d.find(key)
	if err == nil {
		return fs.ErrExist
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := d.parent(key); err != nil {
		return err
	}
	d.add(key, newNode(fs.ModeDir|perm.Perm()))
	d.touch(key)
	return nil
}

// MkdirAll makes a directory and those above it that do not exist.
func (d *Disk) MkdirAll(name string, perm os.FileMode) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	key := clean(name)
	for i := 0; i <= len(key); i++ {
		if i < len(key) && key[i] != '/' {
			continue
		}
		n, err := d.find(key[:i])
		switch {
		case err == nil && !n.mode.IsDir():
			err = syscall.ENOTDIR
		case errors.Is(err, fs.ErrNotExist):
			err = d.mkdir(key[:i], perm)
		}
		if err != nil {
			return failed("mkdir", name, err)
		}
	}
	return nil
}

// Remove removes a file or an empty directory.
func (d *Disk) Remove(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	key := clean(name)
	n, err := d.find(key)
	if err == nil {
		if from, to := d.below(key); key == "" {
			err = fs.ErrInvalid
		} else if n.mode.IsDir() && from < to {
			err = syscall.ENOTEMPTY
		}
	}
	if err != nil {
		return failed("remove", name, err)
	}
	i, _ := d.search(key)
	d.files = slices.Delete(d.files, i, i+1)
	d.touch(key)
	return nil
}

// RemoveAll removes a file, or a directory and what is in it. What does not exist is no
// error.
func (d *Disk) RemoveAll(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	key := clean(name)
	if key == "" {
		return failed("removeall", name, fs.ErrInvalid)
	}
	if _, err := d.find(key); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return failed("removeall", name, err)
	}
	from, to := d.below(key)
	d.files = slices.Delete(d.files, from, to)
	if i, ok := d.search(key); ok {
		d.files = slices.Delete(d.files, i, i+1)
		d.touch(key)
	}
	return nil
}

// Rename gives a file or directory another name, in place of what has it already.
func (d *Disk) Rename(from, to string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.rename(clean(from), clean(to)); err != nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	return nil
}

func (d *Disk) rename(from, to string) error {
	n, err := d.find(from)
	if err != nil {
		return err
	}
	old, err := d.find(to)
	switch {
	case err == nil && old.mode.IsDir():
		return fs.ErrExist // as package os reports it, also if it is empty
	case from == "" || strings.HasPrefix(to, from+"/"):
		return syscall.EINVAL
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if err := d.parent(to); err != nil || from == to {
		return err
	}
	if old != nil {
		if n.mode.IsDir() {
			return syscall.ENOTDIR
		}
		i, _ := d.search(to)
		d.files = slices.Delete(d.files, i, i+1)
	}
	begin, end := d.below(from)
	moved := slices.Clone(d.files[begin:end])
	d.files = slices.Delete(d.files, begin, end)
	i, _ := d.search(from)
	d.files = slices.Delete(d.files, i, i+1)
	d.add(to, n)
	for _, e := range moved {
		d.add(to+e.name.Value()[len(from):], e.node)
	}
	d.touch(from)
	d.touch(to)
	return nil
}

// Stat describes a file or directory.
func (d *Disk) Stat(name string) (os.FileInfo, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, err := d.find(clean(name))
	if err != nil {
		return nil, failed("stat", name, err)
	}
	return n.info(name), nil
}

// change changes the attributes of a file or directory.
func (d *Disk) change(op, name string, f func(*node)) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, err := d.find(clean(name))
	if err == nil {
		f(n)
	}
	return failed(op, name, err)
}

// Chmod sets the permissions.
func (d *Disk) Chmod(name string, mode os.FileMode) error {
	return d.change("chmod", name, func(n *node) { n.mode = n.mode&fs.ModeDir | mode.Perm() })
}

// Chown does nothing: a disk has no owners.
func (d *Disk) Chown(name string, _, _ int) error { return d.change("chown", name, func(*node) {}) }

// Chtimes sets the time of the last change.
func (d *Disk) Chtimes(name string, _, changed time.Time) error {
	return d.change("chtimes", name, func(n *node) { n.changed = changed.UnixNano() })
}
