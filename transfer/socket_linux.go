package transfer

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// unsentLimit is how much of an upload may wait unsent in the kernel: what lies
// there when the last byte was written must drain before the server replies,
// and on a slow line would look like a stall.
const unsentLimit = 64 << 10

// limitUnsent is best effort.
func limitUnsent(c net.Conn) {
	if sc, ok := c.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			_ = raw.Control(func(fd uintptr) {
				_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, unsentLimit)
			})
		}
	}
}
