package tftp

import (
	"net"

	"golang.org/x/sys/unix"
)

// tuneClient gets a receive buffer that holds large windows where the process may
// have one (the usual limit is 208 KiB), and lets ICMP errors come through: a server
// that is not there is known at once.
func tuneClient(c *net.UDPConn) {
	setOption(c, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer)
	setOption(c, unix.IPPROTO_IP, unix.IP_RECVERR, 1)
	setOption(c, unix.IPPROTO_IPV6, unix.IPV6_RECVERR, 1)
	allowFragments(c)
}

// allowFragments has large datagrams cut up on the way rather than dropped.
func allowFragments(c *net.UDPConn) {
	setOption(c, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DONT)
	setOption(c, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DONT)
}

// setOption is best effort: every option here is a refinement.
func setOption(c *net.UDPConn, level, name, value int) {
	if raw, err := c.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), level, name, value) })
	}
}
