package tftp

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"syscall"
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

// batch reads several datagrams in one call, recvmmsg(2): the blocks of a window arrive
// together. The standard library has no such call, and golang.org/x/net/ipv4 allocates an
// address for each datagram.
type batch struct {
	raw      syscall.RawConn
	receive  func(fd uintptr) (done bool)
	messages []message
	from     []unix.RawSockaddrInet6 // also holds an IPv4 address
	parts    []unix.Iovec
	at, got  int
	err      error
}

// message is struct mmsghdr.
type message struct {
	header unix.Msghdr
	length uint32
}

// newBatch makes room for n datagrams of a size.
func newBatch(conn *net.UDPConn, n, size int) *batch {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil // closed: the next read says so
	}
	b := &batch{raw: raw, messages: make([]message, n), from: make([]unix.RawSockaddrInet6, n), parts: make([]unix.Iovec, n)}
	store := make([]byte, n*size)
	for i := range n {
		b.parts[i].Base = &store[i*size]
		b.parts[i].SetLen(size)
		h := &b.messages[i].header
		h.Name, h.Iov = (*byte)(unsafe.Pointer(&b.from[i])), &b.parts[i]
		h.SetIovlen(1)
	}
	b.receive = b.tryReceive
	return b
}

func (b *batch) waiting() bool { return b.at < b.got }

// next returns a datagram, good until the next call, and its sender without a zone.
func (b *batch) next() ([]byte, netip.AddrPort, error) {
	if !b.waiting() {
		if err := b.raw.Read(b.receive); err != nil {
			return nil, netip.AddrPort{}, err
		}
		if b.err != nil {
			return nil, netip.AddrPort{}, b.err
		}
	}
	m := &b.messages[b.at]
	from := sender(&b.from[b.at])
	b.at++
	return unsafe.Slice(m.header.Iov.Base, int(m.length)), from, nil
}

// tryReceive reads what there is; done is false if that is nothing.
func (b *batch) tryReceive(fd uintptr) (done bool) {
	for i := range b.messages {
		b.messages[i].header.Namelen = unix.SizeofSockaddrInet6
	}
	for {
		n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&b.messages[0])), uintptr(len(b.messages)), unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			b.at, b.got, b.err = 0, int(n), nil
			return true
		case unix.EINTR:
		case unix.EAGAIN:
			return false
		default:
			b.at, b.got, b.err = 0, 0, os.NewSyscallError("recvmmsg", errno)
			return true
		}
	}
}

// sender reads a socket address.
func sender(a *unix.RawSockaddrInet6) netip.AddrPort {
	port := binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&a.Port))[:])
	if a.Family == unix.AF_INET {
		return netip.AddrPortFrom(netip.AddrFrom4((*unix.RawSockaddrInet4)(unsafe.Pointer(a)).Addr), port)
	}
	return netip.AddrPortFrom(netip.AddrFrom16(a.Addr), port)
}
