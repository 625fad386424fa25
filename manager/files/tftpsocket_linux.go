package files

import (
	"encoding/binary"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// tellDestination makes the kernel tell to which of this machine's addresses each
// request came, because a client expects the answer from there.
func tellDestination(c *net.UDPConn) {
	setSocketOption(c, unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
	setSocketOption(c, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
}

// destination finds that address in a datagram's ancillary data.
func destination(extra []byte) netip.Addr {
	messages, err := unix.ParseSocketControlMessage(extra)
	if err != nil {
		return netip.Addr{}
	}
	for _, m := range messages {
		switch {
		case m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_PKTINFO && len(m.Data) >= unix.SizeofInet4Pktinfo:
			return netip.AddrFrom4([4]byte(m.Data[4:8])) // ipi_spec_dst
		case m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_PKTINFO && len(m.Data) >= unix.SizeofInet6Pktinfo:
			if a := netip.AddrFrom16([16]byte(m.Data[:16])).Unmap(); !a.IsLinkLocalUnicast() || a.Is4() {
				return a
			}
			index := binary.NativeEndian.Uint32(m.Data[16:20])
			if i, err := net.InterfaceByIndex(int(index)); err == nil {
				return netip.AddrFrom16([16]byte(m.Data[:16])).WithZone(i.Name)
			}
		}
	}
	return netip.Addr{}
}

// tuneTFTP has large datagrams cut up on the way rather than dropped.
func tuneTFTP(c *net.UDPConn) {
	setSocketOption(c, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DONT)
	setSocketOption(c, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DONT)
}

// setSocketOption is best effort: every option here is a refinement.
func setSocketOption(c syscall.Conn, level, name, value int) {
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), level, name, value) })
}
