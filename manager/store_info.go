package manager

import (
	"io/fs"
	"time"
)

// virtualInfo describes a published image or a folder above one.
type virtualInfo struct {
	name string
	size int64
	dir  bool
}

var _ fs.FileInfo = virtualInfo{}

func (i virtualInfo) Name() string       { return i.name }
func (i virtualInfo) Size() int64        { return i.size }
func (i virtualInfo) ModTime() time.Time { return time.Time{} }
func (i virtualInfo) IsDir() bool        { return i.dir }
func (i virtualInfo) Sys() any           { return nil }

func (i virtualInfo) Mode() fs.FileMode {
	if i.dir {
		return fs.ModeDir | 0o500
	}
	return 0o400
}
