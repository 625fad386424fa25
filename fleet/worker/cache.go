package worker

import (
	"os"

	"github.com/spf13/afero"
)

// cacheFs is a disk on which nothing has to survive a loss of power: images and backups are
// in the engine before anything depends on them, and what is read here is compared with its
// digest. So nothing is synced.
type cacheFs struct{ afero.Fs }

var _ afero.Fs = cacheFs{}

// Create implements afero.Fs.
func (c cacheFs) Create(name string) (afero.File, error) { return unsynced(c.Fs.Create(name)) }

// Open implements afero.Fs.
func (c cacheFs) Open(name string) (afero.File, error) { return unsynced(c.Fs.Open(name)) }

// OpenFile implements afero.Fs.
func (c cacheFs) OpenFile(name string, flag int, perm os.FileMode) (afero.File, error) {
	return unsynced(c.Fs.OpenFile(name, flag, perm))
}

func unsynced(f afero.File, err error) (afero.File, error) {
	if err != nil {
		return nil, err
	}
	return cacheFile{f}, nil
}

type cacheFile struct{ afero.File }

// Sync implements afero.File.
func (cacheFile) Sync() error { return nil }
