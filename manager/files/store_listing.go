package files

import (
	"io/fs"
	"os"
	"strings"
	"time"
)

// virtual returns what a directory shows although it need not be in the store, by name:
// published images, and the directories above them and above the session's own files.
func (a access) virtual(directory string) map[string]os.FileInfo {
	if directory != "" {
		directory += "/"
	}
	found := make(map[string]os.FileInfo)
	add := func(name string, info virtualInfo) {
		rest, inside := strings.CutPrefix(name, directory)
		if !inside || rest == "" {
			return
		}
		first, _, deeper := strings.Cut(rest, "/")
		info.name = first
		if deeper { // a directory is as new as the newest image below
			info.size, info.dir = 0, true
			if earlier, ok := found[first]; ok && earlier.ModTime().After(info.modified) {
				info.modified = earlier.ModTime()
			}
		}
		found[first] = info
	}
	a.store.mu.Lock()
	defer a.store.mu.Unlock()
	if a.grant != nil {
		if a.grant.closed {
			return found
		}
		add(a.grant.directory, virtualInfo{dir: true})
		add(a.grant.offered, virtualInfo{dir: true})
	}
	for name, image := range a.store.images {
		add(name, virtualInfo{size: image.size, modified: image.modified})
	}
	return found
}

// virtualInfo describes a published image or a directory.
type virtualInfo struct {
	name     string
	size     int64
	modified time.Time
	dir      bool
}

var _ fs.FileInfo = virtualInfo{}

func (i virtualInfo) Name() string { return i.name }
func (i virtualInfo) Size() int64  { return i.size }
func (i virtualInfo) IsDir() bool  { return i.dir }
func (i virtualInfo) Sys() any     { return nil }

// ModTime is 1970 if there is none: some clients cannot read the year 1.
func (i virtualInfo) ModTime() time.Time {
	if i.modified.IsZero() {
		return time.Unix(0, 0)
	}
	return i.modified
}

func (i virtualInfo) Mode() fs.FileMode {
	if i.dir {
		return fs.ModeDir | 0o500
	}
	return 0o400
}
