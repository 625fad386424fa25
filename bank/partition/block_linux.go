package partition

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// direct is the flag of open(2) for input and output past the cache.
const direct = unix.O_DIRECT

// sectorSize is the size of a sector of a block device in bytes.
func sectorSize(f *os.File) (int64, error) {
	n, err := unix.IoctlGetInt(int(f.Fd()), unix.BLKSSZGET)
	return int64(n), err
}

// forget makes the next reading of a synced file come from the medium.
func forget(f *os.File) error { return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED) }

// same reports whether two names stand for one device or file.
func same(a, b os.FileInfo) bool {
	x, okX := a.Sys().(*syscall.Stat_t)
	y, okY := b.Sys().(*syscall.Stat_t)
	if okX && okY && a.Mode()&os.ModeDevice != 0 && b.Mode()&os.ModeDevice != 0 {
		return a.Mode().Type() == b.Mode().Type() && x.Rdev == y.Rdev
	}
	return os.SameFile(a, b)
}
