package durable

import (
	"github.com/spf13/afero"
	"golang.org/x/sys/unix"
)

// startWriteOut has the kernel write a part of a file to the medium now rather than at the next sync, and does not wait
// for that. Errors do not matter: the sync does the same and reports them.
func startWriteOut(f afero.File, offset, n int64) {
	if b, ok := f.(*afero.BasePathFile); ok {
		f = b.File
	}
	if f, ok := f.(interface{ Fd() uintptr }); ok {
		_ = unix.SyncFileRange(int(f.Fd()), offset, n, unix.SYNC_FILE_RANGE_WRITE)
	}
}
