//go:build !linux

package partition

import (
	"errors"
	"os"
)

// direct means nothing here: block devices are used on Linux only.
const direct = 0

// sectorSize always fails.
func sectorSize(*os.File) (int64, error) {
	return 0, errors.New("block devices can be used on Linux only")
}

// forget does nothing.
func forget(*os.File) error { return nil }

// same reports whether two names stand for one file.
func same(a, b os.FileInfo) bool { return os.SameFile(a, b) }
