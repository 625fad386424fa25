package bank

import (
	"os"
	"testing"

	"github.com/spf13/afero"

	"example.com/iad/internal/crashfs"
)

// careless is a file system whose Sync does nothing for files, directories or both.
type careless struct {
	afero.Fs
	files, directories bool
}

func (c careless) wrap(f afero.File, err error) (afero.File, error) {
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.IsDir() && c.directories || !info.IsDir() && c.files {
		return unsynced{f}, nil
	}
	return f, nil
}

func (c careless) Open(name string) (afero.File, error) { return c.wrap(c.Fs.Open(name)) }

func (c careless) Create(name string) (afero.File, error) { return c.wrap(c.Fs.Create(name)) }

func (c careless) OpenFile(name string, flag int, perm os.FileMode) (afero.File, error) {
	return c.wrap(c.Fs.OpenFile(name, flag, perm))
}

type unsynced struct{ afero.File }

// TestBrokenWriters shows that the sweep finds what it is there to find.
func TestBrokenWriters(t *testing.T) {
	everywhere := func(c careless) func(string, afero.Fs) afero.Fs {
		return func(_ string, fs afero.Fs) afero.Fs { return careless{fs, c.files, c.directories} }
	}
	for _, broken := range []struct {
		name string
		fs   func(part string, fs afero.Fs) afero.Fs
	}{
		{"no file sync", everywhere(careless{files: true})},
		{"no directory sync", everywhere(careless{directories: true})},
		{"switch before the image is synced", func(part string, fs afero.Fs) afero.Fs {
			if part == "state" {
				return fs
			}
			return careless{Fs: fs, files: true, directories: true}
		}},
		{"in-place write of the record", func(part string, fs afero.Fs) afero.Fs {
			if part != "state" {
				return fs
			}
			return careless{Fs: oneCopy{fs, os.O_TRUNC}, files: true, directories: true}
		}},
		{"single-copy record", func(part string, fs afero.Fs) afero.Fs {
			if part != "state" {
				return fs
			}
			return oneCopy{fs, 0}
		}},
	} {
		t.Run(broken.name, func(t *testing.T) {
			result, err := crashfs.Sweep[reported]{
				Start: provisioned(t),
				Life:  func(m *crashfs.Machine, w *reported) error { return upgrade(mount(m, broken.fs), "2.0.0", w) },
			}.Run()
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%s: %s", broken.name, result)
			if result.Bad == 0 {
				t.Error("the sweep did not notice")
			}
		})
	}
}

// oneCopy makes both copies of the record one file, which is overwritten in place;
// with os.O_TRUNC as afero.WriteFile does.
type oneCopy struct {
	afero.Fs
	flag int
}

func (o oneCopy) OpenFile(name string, flag int, perm os.FileMode) (afero.File, error) {
	if name == recordBase+".b" {
		name = recordBase + ".a"
	}
	if flag&os.O_CREATE != 0 {
		flag |= o.flag
	}
	return o.Fs.OpenFile(name, flag, perm)
}

func (o oneCopy) Open(name string) (afero.File, error) { return o.OpenFile(name, os.O_RDONLY, 0) }
