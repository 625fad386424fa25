package board

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path/filepath"
	"slices"

	"github.com/spf13/afero"
	"golang.org/x/sys/unix"

	"example.com/iad/agent"
)

// Free returns how many bytes may still be written to the partition that holds
// path.
func Free(path string) (int64, error) {
	s, err := statfs(path)
	return octets(s.Bavail, s.Bsize), err
}

// OnBank returns the parts of the device that lie on the file system of bank n.
func (r Root) OnBank(n int) agent.Parts {
	bank, ok := fileSystem(r.Banks[n-1])
	on := func(dir string) bool {
		if dir == "" || !ok {
			return false
		}
		dev, found := fileSystem(dir)
		return found && dev == bank
	}
	return agent.Parts{State: on(r.State), Data: on(r.Data), Work: on(r.Work), Applied: on(r.Applied)}
}

// fileSystem returns the number of the file system that path is on, or would be on
// once it is made.
func fileSystem(path string) (dev uint64, ok bool) {
	for {
		var s unix.Stat_t
		err := unix.Stat(path, &s)
		if err == nil {
			return uint64(s.Dev), true // 32 bits wide on some machines
		}
		up := filepath.Dir(path)
		if !errors.Is(err, fs.ErrNotExist) || up == path {
			return 0, false
		}
		path = up
	}
}

// deviceOf returns the number of the file system that dir is on, 0 if that is
// unknown.
func deviceOf(dir string) uint64 {
	var s unix.Stat_t
	if unix.Stat(dir, &s) != nil {
		return 0
	}
	return uint64(s.Dev)
}

// Capacity returns the size in bytes of the partition that holds path.
func Capacity(path string) (int64, error) {
	s, err := statfs(path)
	return octets(s.Blocks, s.Bsize), err
}

func statfs(path string) (unix.Statfs_t, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(path, &s); err != nil {
		return unix.Statfs_t{}, fmt.Errorf("space of %s: %w", path, err)
	}
	return s, nil
}

// bytes multiplies without overflow. The size of a block is 32 or 64 bits wide,
// depending on the machine.
func octets[T int32 | int64 | uint32](blocks uint64, size T) int64 {
	if size <= 0 {
		return 0
	}
	if blocks > math.MaxInt64/uint64(size) {
		return math.MaxInt64
	}
	return int64(blocks * uint64(size))
}

// DropCache makes the kernel forget what it keeps of a file, so that reading it
// next reads the medium. Content that is not synced is kept. A file that is no
// file of the operating system is left alone.
func DropCache(f afero.File) error {
	fd, ok := descriptor(f)
	if !ok {
		return nil
	}
	if err := unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED); err != nil {
		return fmt.Errorf("read %s past the cache: %w", f.Name(), err)
	}
	return nil
}

// descriptor returns that of a file, if it is one of the operating system.
func descriptor(f afero.File) (fd int, ok bool) {
	for {
		based, ok := f.(*afero.BasePathFile)
		if !ok {
			break
		}
		f = based.File
	}
	d, ok := f.(interface{ Fd() uintptr })
	if !ok {
		return 0, false
	}
	return int(d.Fd()), true
}

// DropRange waits until a part of a file, which need not be synced, has been written to the
// medium, and makes the kernel forget its copy, so that reading it next reads the medium. It
// returns an error wrapping errors.ErrUnsupported for a file system that does not do that
// part by part: UBIFS and JFFS2 have buffers of their own, overlayfs keeps the cache elsewhere.
func DropRange(f afero.File, offset, n int64) error {
	fd, ok := descriptor(f)
	if !ok {
		return fmt.Errorf("read %s past the cache: %w", f.Name(), errors.ErrUnsupported)
	}
	var s unix.Statfs_t
	err := unix.Fstatfs(fd, &s)
	if err == nil && !slices.Contains(droppable, uint32(s.Type)) {
		err = errors.ErrUnsupported
	}
	if err == nil {
		err = unix.SyncFileRange(fd, offset, n, unix.SYNC_FILE_RANGE_WAIT_BEFORE|unix.SYNC_FILE_RANGE_WRITE|unix.SYNC_FILE_RANGE_WAIT_AFTER)
	}
	if err == nil {
		err = unix.Fadvise(fd, offset, n, unix.FADV_DONTNEED)
	}
	if err != nil {
		return fmt.Errorf("read %s past the cache: %w", f.Name(), err)
	}
	return nil
}

// droppable are the types of the file systems on which DropRange works.
var droppable = []uint32{unix.EXT4_SUPER_MAGIC, unix.F2FS_SUPER_MAGIC, unix.XFS_SUPER_MAGIC} // that of ext4 is that of ext2 and ext3
