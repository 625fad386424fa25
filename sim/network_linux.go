package sim

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// sharedBuffer is the receive buffer in bytes of a socket for many devices: a manager may
// ask all of them at once.
const sharedBuffer = 32 << 20

// controlShared prepares the socket of a Network.
func controlShared(network, address string, c syscall.RawConn) error {
	return errorOf(c, func(fd int) error {
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, sharedBuffer) != nil {
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, sharedBuffer) // the kernel allows less
		}
		return freebind(fd)
	})
}

// controlOwn prepares a socket with a device's own address.
func controlOwn(network, address string, c syscall.RawConn) error {
	return errorOf(c, freebind)
}

// freebind permits addresses that are the machine's by a route only, which IPv6 demands.
func freebind(fd int) error {
	if family, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN); err != nil || family != unix.AF_INET6 {
		return err
	}
	return unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_FREEBIND, 1)
}

func errorOf(c syscall.RawConn, f func(fd int) error) error {
	var err error
	if e := c.Control(func(fd uintptr) { err = f(int(fd)) }); e != nil {
		return e
	}
	return err
}
