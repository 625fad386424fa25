package snmp

import (
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// udpSocket answers from the address that a request was sent to. A socket that
// listens on all addresses would otherwise answer from the one that the route
// suggests, and a manager that talks to another would not recognize it.
type udpSocket struct {
	*net.UDPConn
	control []byte // of the request read last
	buf     [128]byte
}

func newSocket(conn net.PacketConn) (socket, error) {
	udp, ok := conn.(*net.UDPConn)
	if !ok {
		return plainSocket{conn}, nil
	}
	raw, err := udp.SyscallConn()
	if err != nil {
		return nil, err
	}
	err = raw.Control(func(fd uintptr) {
		// A socket of both families takes both options, one of IPv4 the first.
		// Without them the system chooses the address.
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
	})
	return &udpSocket{UDPConn: udp}, err
}

func (s *udpSocket) read(buf []byte) (int, netip.AddrPort, error) {
	n, controls, _, src, err := s.ReadMsgUDPAddrPort(buf, s.buf[:])
	s.control = nil
	if err == nil {
		s.control = answerControl(s.buf[:controls])
	}
	return n, src, err
}

func (s *udpSocket) write(msg []byte, dst netip.AddrPort) error {
	_, _, err := s.WriteMsgUDPAddrPort(msg, s.control, dst)
	return err
}

// answerControl turns the destination of a request into the source of its
// answer; the route decides on the interface.
func answerControl(received []byte) []byte {
	messages, err := syscall.ParseSocketControlMessage(received)
	if err != nil {
		return nil
	}
	for _, m := range messages {
		switch {
		case m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_PKTINFO && len(m.Data) >= unix.SizeofInet4Pktinfo:
			// struct in_pktinfo: ifindex, local address, destination.
			var info unix.Inet4Pktinfo
			copy(info.Spec_dst[:], m.Data[8:12])
			if netip.AddrFrom4(info.Spec_dst).IsMulticast() {
				return nil
			}
			return unix.PktInfo4(&info)
		case m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_PKTINFO && len(m.Data) >= unix.SizeofInet6Pktinfo:
			// struct in6_pktinfo: destination, ifindex.
			var info unix.Inet6Pktinfo
			copy(info.Addr[:], m.Data[:16])
			if netip.AddrFrom16(info.Addr).Unmap().IsMulticast() {
				return nil
			}
			return unix.PktInfo6(&info)
		}
	}
	return nil
}
