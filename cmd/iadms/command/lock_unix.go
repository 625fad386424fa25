//go:build unix

package command

import (
	"os"

	"golang.org/x/sys/unix"
)

// lockFile locks an open file, or fails if another process has locked it. The lock
// ends when the file is closed.
func lockFile(f *os.File) error {
	return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
}
