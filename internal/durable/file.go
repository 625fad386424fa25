package durable

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/afero"
)

// TempSuffix ends the name of the file that ReplaceFile writes before it renames.
const TempSuffix = ".tmp"

// SyncDir writes the names in directory dir to the medium.
func SyncDir(fs afero.Fs, dir string) error {
	d, err := fs.Open(dir)
	if err != nil {
		return fmt.Errorf("sync directory %s: %w", dir, err)
	}
	err = d.Sync()
	if cerr := d.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("sync directory %s: %w", dir, err)
	}
	return nil
}

// ReplaceFile atomically replaces the content of the file name by data: after a loss of
// power either the old or the new content is found, and after a nil return the new one.
// The file gets the mode perm, whatever the umask. After an error the old content is
// still there, unless only the last sync of the directory failed: then it may be
// either.
func ReplaceFile(fs afero.Fs, name string, data []byte, perm os.FileMode) error {
	temp := name + TempSuffix
	if err := writeSynced(fs, temp, data, perm); err != nil {
		// The leftover is harmless; removing it only gives its space back.
		_ = fs.Remove(temp)
		return fmt.Errorf("replace %s: %w", name, err)
	}
	if err := fs.Rename(temp, name); err != nil {
		_ = fs.Remove(temp)
		return fmt.Errorf("replace %s: %w", name, err)
	}
	return SyncDir(fs, filepath.Dir(name))
}

func writeSynced(fs afero.Fs, name string, data []byte, perm os.FileMode) error {
	const flag = os.O_WRONLY | os.O_CREATE | os.O_TRUNC
	f, err := fs.OpenFile(name, flag, perm)
	if info, serr := fs.Stat(name); err != nil && serr == nil && info.IsDir() {
		// No program creates a directory of that name; if it stayed, nothing could be
		// replaced any more.
		_ = fs.RemoveAll(name)
		f, err = fs.OpenFile(name, flag, perm)
	}
	if err != nil {
		return err
	}
	err = fs.Chmod(name, perm)
	if err == nil {
		err = whole(len(data))(f.Write(data))
	}
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// whole returns an error for a short write that returned none.
func whole(want int) func(n int, err error) error {
	return func(n int, err error) error {
		if err == nil && n != want {
			return io.ErrShortWrite
		}
		return err
	}
}

// MkdirAll creates the directory path and its missing parents, and syncs the
// directories that hold their names, even if they existed: a process that created them
// may have been killed before it synced them.
func MkdirAll(fs afero.Fs, path string, perm os.FileMode) error {
	path = filepath.Clean(path)
	parent := filepath.Dir(path)
	if parent == path {
		return nil // the root
	}
	if err := MkdirAll(fs, parent, perm); err != nil {
		return err
	}
	err := fs.Mkdir(path, perm)
	if errors.Is(err, os.ErrExist) {
		var info os.FileInfo
		if info, err = fs.Stat(path); err == nil && !info.IsDir() {
			err = errors.New("it is a file")
		}
	}
	if err != nil {
		return fmt.Errorf("create directory %s: %w", path, err)
	}
	return SyncDir(fs, parent)
}

// Remove removes the file or empty directory name and syncs the directory that held
// it. A name that does not exist is an error wrapping os.ErrNotExist.
func Remove(fs afero.Fs, name string) error {
	if err := fs.Remove(name); err != nil {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	return SyncDir(fs, filepath.Dir(name))
}

// RemoveAll removes name and everything below it and syncs the directory that held it.
// It is not an error if name does not exist.
func RemoveAll(fs afero.Fs, name string) error {
	if err := fs.RemoveAll(name); err != nil {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	return SyncDir(fs, filepath.Dir(name))
}

// Clear removes everything in directory dir for whose name keep returns false, and
// syncs the directory once. A nil keep keeps nothing.
func Clear(fs afero.Fs, dir string, keep func(name string) bool) error {
	names, err := list(fs, dir)
	if err != nil {
		return fmt.Errorf("clear directory %s: %w", dir, err)
	}
	for _, name := range names {
		if keep != nil && keep(name) {
			continue
		}
		if err := fs.RemoveAll(filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("clear directory %s: %w", dir, err)
		}
	}
	return SyncDir(fs, dir)
}

// Rename renames from to to, replacing a file of that name, and syncs the directories
// of both. A directory cannot replace another one: replace a pointer file instead.
func Rename(fs afero.Fs, from, to string) error {
	if err := fs.Rename(from, to); err != nil {
		return fmt.Errorf("rename %s to %s: %w", from, to, err)
	}
	// The new name first: if only the removal of the old one became durable, the file
	// would be gone.
	if err := SyncDir(fs, filepath.Dir(to)); err != nil {
		return err
	}
	if filepath.Dir(from) == filepath.Dir(to) {
		return nil
	}
	return SyncDir(fs, filepath.Dir(from))
}

func list(fs afero.Fs, dir string) ([]string, error) {
	d, err := fs.Open(dir)
	if err != nil {
		return nil, err
	}
	names, err := d.Readdirnames(-1)
	if cerr := d.Close(); err == nil {
		err = cerr
	}
	return names, err
}
