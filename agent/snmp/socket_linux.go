package snmp

import (
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"

	"example.com/iad/internal/datagram"
)

// udpSocket answers from the address that a request was sent to. A socket that
// listens on all addresses would otherwise answer from the one that the route
// suggests, and a manager that talks to another would not recognize it.
type udpSocket struct{ *datagram.Batch }

func newSocket(conn net.PacketConn, size int) (socket, error) {
	udp, ok := conn.(*net.UDPConn)
	if !ok {
		return &plainSocket{PacketConn: conn, buf: make([]byte, size)}, nil
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
	return udpSocket{datagram.New(udp, batchSize, size, 128)}, err
}

func (s udpSocket) next() error                       { return s.Next() }
func (s udpSocket) waiting() bool                     { return s.Waiting() }
func (s udpSocket) request() ([]byte, netip.AddrPort) { return s.Data(), s.From() }
func (s udpSocket) flush() error                      { return s.Flush() }

func (s udpSocket) answer(msg []byte) error {
	s.Answer(msg, answerControl(s.Control()))
	return nil
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
