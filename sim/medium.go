package sim

import (
	"errors"
	"hash/fnv"
	"io/fs"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"github.com/spf13/afero"

	"example.com/iad/internal/crashfs"
)

// medium is the disk of a device. While a power cut is due that is to lose what was not
// synced, its contents are on file systems that know what that is, those of a
// crashfs.Machine; what a power cut leaves goes back to the disk.
type medium struct {
	parts [parts]mediumFs

	mu      sync.Mutex
	machine *crashfs.Machine // nil: the disk itself is used
	wanted  bool             // a machine, as soon as no file of the disk is open for writing
	writers int              // files of the disk that are open for writing
	cuts    uint64
}

// parts are the parts of a Disk.
const parts = 5

// partNames are their names on a crashfs.Machine.
var partNames = [parts]string{"bank1", "bank2", "state", "data", "work"}

func newMedium(d *Disk) *medium {
	m := &medium{}
	for i, fs := range [parts]afero.Fs{d.Banks[0], d.Banks[1], d.State, d.Data, d.Work} {
		m.parts[i] = mediumFs{base: fs, m: m, part: i}
	}
	return m
}

// disk is the disk as the device uses it.
func (m *medium) disk(d *Disk) Disk {
	part := func(i int) afero.Fs {
		if m.parts[i].base == nil {
			return nil
		}
		return &m.parts[i]
	}
	return Disk{Banks: [2]afero.Fs{part(0), part(1)}, State: part(2), Data: part(3), Work: part(4), root: d.root}
}

// distinguish says whether a power cut is due that is to lose what was not synced.
func (m *medium) distinguish(wanted bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.wanted = wanted
	return m.load()
}

// load starts the machine if it is wanted and can be.
func (m *medium) load() error {
	if !m.wanted || m.machine != nil || m.writers > 0 {
		return nil
	}
	empty := crashfs.NewDisk(partNames[:]...).Start()
	for i := range m.parts {
		if m.parts[i].base == nil {
			continue
		}
		if err := copyTree(empty.Fs(partNames[i]), m.parts[i].base); err != nil {
			return err
		}
	}
	m.machine = empty.Settled().Start()
	return nil
}

// cut is what a power cut does to the disk, if it was distinguished what was synced: of the
// rest it leaves nothing (UnsyncedLost), any mixture (UnsyncedMixed), drawn by the device and
// the number of the cut, or else everything. The agent must have ended.
func (m *medium) cut(device, unsynced string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cuts++
	m.writers = 0
	if m.machine == nil {
		return nil
	}
	m.machine.Cut()
	left := m.machine.Settled()
	if unsynced == UnsyncedLost || unsynced == UnsyncedMixed {
		h := fnv.New64a()
		h.Write([]byte(device))
		rng := rand.New(rand.NewPCG(h.Sum64(), m.cuts))
		found := m.machine.Disks(mixtures, rng.Uint64())
		left = found[0].Disk // with nothing of it
		if unsynced == UnsyncedMixed {
			left = found[rng.IntN(len(found))].Disk
		}
	}
	m.machine = nil
	on := left.Start()
	for i := range m.parts {
		base := m.parts[i].base
		if base == nil {
			continue
		}
		list, err := afero.ReadDir(base, ".")
		if err != nil {
			return err
		}
		for _, info := range list {
			if err := base.RemoveAll(info.Name()); err != nil {
				return err
			}
		}
		if err := copyTree(base, on.Fs(partNames[i])); err != nil {
			return err
		}
	}
	return nil
}

// mixtures is how many random ones there are to draw from, besides those that are special.
const mixtures = 8

// copyTree copies all files.
func copyTree(to, from afero.Fs) error {
	return afero.Walk(from, ".", func(name string, info fs.FileInfo, err error) error {
		if err != nil || name == "." {
			return err
		}
		if info.IsDir() {
			return to.MkdirAll(name, info.Mode().Perm())
		}
		return copyFile(to, name, from, name, info.Mode().Perm())
	})
}

// mediumFs is a part of the disk.
type mediumFs struct {
	base afero.Fs
	m    *medium
	part int
}

var _ afero.Fs = (*mediumFs)(nil)

// now is the file system that has the contents.
func (f *mediumFs) now() afero.Fs {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	return f.nowLocked()
}

func (f *mediumFs) nowLocked() afero.Fs {
	if f.m.machine != nil {
		return f.m.machine.Fs(partNames[f.part])
	}
	return f.base
}

func (f *mediumFs) Name() string { return f.base.Name() }

func (f *mediumFs) Create(name string) (afero.File, error) {
	return f.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o666)
}

func (f *mediumFs) Open(name string) (afero.File, error) { return f.now().Open(name) }

func (f *mediumFs) OpenFile(name string, flag int, perm os.FileMode) (afero.File, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	file, err := f.nowLocked().OpenFile(name, flag, perm)
	if err != nil || flag&(os.O_WRONLY|os.O_RDWR) == 0 || f.m.machine != nil {
		return file, err
	}
	f.m.writers++
	return &mediumFile{File: file, m: f.m}, nil
}

func (f *mediumFs) Mkdir(name string, perm os.FileMode) error    { return f.now().Mkdir(name, perm) }
func (f *mediumFs) MkdirAll(name string, perm os.FileMode) error { return f.now().MkdirAll(name, perm) }
func (f *mediumFs) Remove(name string) error                     { return f.now().Remove(name) }
func (f *mediumFs) RemoveAll(name string) error                  { return f.now().RemoveAll(name) }
func (f *mediumFs) Rename(from, to string) error                 { return f.now().Rename(from, to) }
func (f *mediumFs) Stat(name string) (os.FileInfo, error)        { return f.now().Stat(name) }
func (f *mediumFs) Chmod(name string, mode os.FileMode) error    { return f.now().Chmod(name, mode) }
func (f *mediumFs) Chown(name string, uid, gid int) error        { return f.now().Chown(name, uid, gid) }
func (f *mediumFs) Chtimes(name string, a, t time.Time) error    { return f.now().Chtimes(name, a, t) }

// mediumFile is a file of the disk itself that is open for writing.
type mediumFile struct {
	afero.File
	m    *medium
	once sync.Once
}

func (f *mediumFile) Close() error {
	err := f.File.Close()
	f.once.Do(func() {
		f.m.mu.Lock()
		defer f.m.mu.Unlock()
		f.m.writers = max(0, f.m.writers-1)
		err = errors.Join(err, f.m.load())
	})
	return err
}
