//go:build !linux

package board

import (
	"errors"
	"fmt"
	"net"
)

// ErrLocked says that another agent runs on the root.
var ErrLocked = errors.New("another agent runs on it")

// Lock is available on Linux only.
type Lock struct{}

// LockRoot is available on Linux only: without the lock two agents would write to
// one root.
func LockRoot(root string) (*Lock, error) {
	return nil, fmt.Errorf("lock %s: %w", root, errors.ErrUnsupported)
}

// Release does nothing.
func (*Lock) Release() error { return nil }

// Restart is available on Linux only.
func (*Lock) Restart(net.PacketConn, string) error {
	return fmt.Errorf("restart: %w", errors.ErrUnsupported)
}

// InheritedSocket returns nil: only Restart on Linux leaves a socket open.
func InheritedSocket(string) net.PacketConn { return nil }
