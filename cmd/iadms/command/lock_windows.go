package command

import (
	"os"

	"golang.org/x/sys/windows"
)

// lockFile locks an open file, or fails if another process has locked it. The lock
// ends when the file is closed.
func lockFile(f *os.File) error {
	const flags = windows.LOCKFILE_EXCLUSIVE_LOCK | windows.LOCKFILE_FAIL_IMMEDIATELY
	return windows.LockFileEx(windows.Handle(f.Fd()), flags, 0, 1, 0, new(windows.Overlapped))
}
