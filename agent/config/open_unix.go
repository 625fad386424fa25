//go:build unix

package config

import (
	"os"
	"syscall"
)

// openPlain opens a file for reading, but follows no link and does not wait for
// the writer of a FIFO.
const openPlain = os.O_RDONLY | syscall.O_NOFOLLOW | syscall.O_NONBLOCK
