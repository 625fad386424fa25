package durable

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/afero"
)

// A Growing file is written from front to end, perhaps in several sittings. Its
// name lasts from the start, its content when Close has returned nil; after a
// loss of power in between any part of what was written may be missing or wrong,
// so the reader must know its hash.
type Growing struct {
	f    afero.File
	name string
	size int64
	err  error
}

// Grow opens the file name for writing at its end, making it, with mode perm,
// where it does not exist.
func Grow(fs afero.Fs, name string, perm os.FileMode) (*Growing, error) {
	f, err := fs.OpenFile(name, os.O_RDWR|os.O_CREATE, perm)
	if err != nil {
		return nil, fmt.Errorf("write %s: %w", name, err)
	}
	g := &Growing{f: f, name: name}
	if err = fs.Chmod(name, perm); err == nil {
		err = SyncDir(fs, filepath.Dir(name))
	}
	if err == nil {
		g.size, err = f.Seek(0, io.SeekEnd)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("write %s: %w", name, err)
	}
	return g, nil
}

// Size is the number of octets in the file.
func (g *Growing) Size() int64 { return g.size }

// Write appends p. After an error every further Write returns it again.
func (g *Growing) Write(p []byte) (int, error) {
	if g.err != nil {
		return 0, g.err
	}
	n, err := g.f.Write(p)
	g.size += int64(n)
	if err := whole(len(p))(n, err); err != nil {
		g.err = fmt.Errorf("write %s: %w", g.name, err)
	}
	return n, g.err
}

// Close syncs and closes the file. It returns the first error of the sitting.
func (g *Growing) Close() error {
	if err := g.f.Sync(); err != nil && g.err == nil {
		g.err = fmt.Errorf("sync %s: %w", g.name, err)
	}
	if err := g.f.Close(); err != nil && g.err == nil {
		g.err = fmt.Errorf("close %s: %w", g.name, err)
	}
	return g.err
}
