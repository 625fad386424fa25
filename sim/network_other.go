//go:build !linux

package sim

import "syscall"

func controlShared(network, address string, c syscall.RawConn) error { return nil }

func controlOwn(network, address string, c syscall.RawConn) error { return nil }
