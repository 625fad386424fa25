package transfer

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// unsentLimit is how much of an upload may wait unsent in the kernel: what lies
// there when the last octet was written must drain before the server replies,
// and on a slow line would look like a stall.
const unsentLimit = 64 << 10

func limitUnsent(c net.Conn) {
	setOption(c, unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, unsentLimit)
}

// tuneUDP gets a receive buffer that holds large windows where the process may
// have one (the usual limit is 208 KiB), lets ICMP errors come through (a server
// that is not there is known at once) and lets large datagrams be cut up on the
// way rather than be dropped.
func tuneUDP(c *net.UDPConn) {
	setOption(c, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer)
	setOption(c, unix.IPPROTO_IP, unix.IP_RECVERR, 1)
	setOption(c, unix.IPPROTO_IPV6, unix.IPV6_RECVERR, 1)
	setOption(c, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DONT)
	setOption(c, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DONT)
}

// setOption is best effort: every option here is a refinement.
func setOption(c net.Conn, level, name, value int) {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), level, name, value) })
}
