package tftp

import (
	"encoding/binary"
	"net"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// tuneClient gets a receive buffer that holds large windows where the process may
// have one (the usual limit is 208 KiB), and lets ICMP errors come through: a server
// that is not there is known at once.
func tuneClient(c *net.UDPConn) {
	setReceiveBuffer(c)
	setOption(c, unix.IPPROTO_IP, unix.IP_RECVERR, 1)
	setOption(c, unix.IPPROTO_IPV6, unix.IPV6_RECVERR, 1)
	allowFragments(c)
}

// setReceiveBuffer asks for a buffer beyond the usual limit where the process may have one.
func setReceiveBuffer(c *net.UDPConn) {
	_ = c.SetReadBuffer(receiveBuffer) // the kernel may allow less
	setOption(c, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer)
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

// EnableDestination makes the kernel pass on to which of this machine's addresses each
// request came, because a client expects the answer from there.
func EnableDestination(c *net.UDPConn) {
	setOption(c, unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
	setOption(c, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
}

// Destination finds that address in a datagram's ancillary data.
func Destination(extra []byte) netip.Addr {
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

// source returns the control message that makes a datagram leave from an address of this
// machine.
func source(local netip.Addr) []byte {
	if local.Is4() {
		return unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: local.As4()})
	}
	info := unix.Inet6Pktinfo{Addr: local.As16()}
	if i, err := net.InterfaceByName(local.Zone()); err == nil {
		info.Ifindex = uint32(i.Index)
	}
	return unix.PktInfo6(&info)
}

// segmenting lets a window go out with few system calls, where the kernel has UDP_SEGMENT
// (4.18): it costs a fifth of a call for each block.
func segmenting(conn *net.UDPConn) Conn { return &segmentingConn{UDPConn: conn} }

type segmentingConn struct {
	*net.UDPConn
	extra [unix.SizeofCmsghdr + 8]byte // enough for the control message with its alignment
}

// WriteSegments sends b as datagrams of size bytes, of which the last may be shorter.
func (c *segmentingConn) WriteSegments(b []byte, size int) error {
	extra := c.extra[:unix.CmsgSpace(2)]
	h := (*unix.Cmsghdr)(unsafe.Pointer(&extra[0]))
	h.Level, h.Type = unix.SOL_UDP, unix.UDP_SEGMENT
	h.SetLen(unix.CmsgLen(2))
	binary.NativeEndian.PutUint16(extra[unix.CmsgLen(0):], uint16(size))
	_, _, err := c.WriteMsgUDPAddrPort(b, extra, netip.AddrPort{})
	return err
}
