package tftp

import (
	"net"
	"net/netip"
	"time"

	"example.com/iad/internal/datagram"
)

const (
	// receiveBuffer holds the bursts that windows are.
	receiveBuffer = 4 << 20
	// strangers is the number of errors that one transfer sends to strangers (RFC 1350
	// section 4, code 5).
	strangers = 8
)

// Dial opens a server's socket for one transfer, connected to the client: the kernel keeps
// packets of others away and answers them with port unreachable. It sends from the address
// to which the request came, if that is known.
func Dial(local netip.Addr, client netip.AddrPort, receiveBuffer int) (Conn, error) {
	var from *net.UDPAddr
	if local.IsValid() && !local.IsUnspecified() {
		from = net.UDPAddrFromAddrPort(netip.AddrPortFrom(local, 0))
	}
	conn, err := net.DialUDP("udp", from, net.UDPAddrFromAddrPort(client))
	if err != nil {
		return nil, err
	}
	allowFragments(conn)
	_ = conn.SetReadBuffer(receiveBuffer) // the kernel may allow less
	return segmenting(conn), nil
}

// PacketConn is the UDP socket of a client; a [*net.UDPConn] is one.
type PacketConn interface {
	ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error)
	WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error)
	SetReadDeadline(t time.Time) error
	Close() error
}

// socket is a client's: a port of its own and, once the server answered, the server's
// address and port.
type socket struct {
	conn     PacketConn
	server   netip.AddrPort // where requests go
	peer     netip.AddrPort // the server's transfer ID, once locked
	from     netip.AddrPort // the sender of the last datagram
	locked   bool
	forgiven int             // refusals to expect from strangers
	rejected int             // errors sent to strangers
	ahead    *datagram.Batch // datagrams are read several at once; nil: one by one
}

// ListenUDP opens the socket of a client on a free port; network is udp4 or udp6.
func ListenUDP(network string) (*net.UDPConn, error) {
	conn, err := net.ListenUDP(network, nil)
	if err != nil {
		return nil, err
	}
	TuneClient(conn)
	return conn, nil
}

// TuneClient prepares a socket, which ListenUDP did not open, for a client: for bursts
// and for large datagrams.
func TuneClient(conn *net.UDPConn) {
	tuneClient(conn)
}

// lock makes the sender of the last datagram the other end.
func (s *socket) lock() { s.peer, s.locked = s.from, true }

// Write sends to the other end, or to the server before there is one.
func (s *socket) Write(b []byte) (int, error) {
	to := s.server
	if s.locked {
		to = s.peer
	}
	return s.conn.WriteToUDPAddrPort(b, to)
}

// aheadSize bounds the memory for datagrams that are read together, and aheadMost their
// number: most of what there is to gain.
const (
	aheadSize = 64 << 10
	aheadMost = 32
)

// readAhead makes the socket read the datagrams of a window several at once, where the
// system can do that.
func (s *socket) readAhead(window, size int) {
	if conn, ok := s.conn.(*net.UDPConn); ok {
		if n := min(window, aheadSize/size, aheadMost); n > 1 {
			s.ahead = datagram.New(conn, n, size, 0)
		}
	}
}

// waiting reports whether read returns without asking the system.
func (s *socket) waiting() bool { return s.ahead != nil && s.ahead.Waiting() }

// read returns the next datagram from the other end, or from the server's host: in buf, or
// in memory that is good until the next call.
func (s *socket) read(buf []byte) ([]byte, error) {
	for {
		b, from, err := buf, netip.AddrPort{}, error(nil)
		if s.ahead != nil {
			if err = s.ahead.Next(); err == nil {
				b, from = s.ahead.Data(), s.ahead.From()
			}
		} else {
			var n int
			n, from, err = s.conn.ReadFromUDPAddrPort(buf)
			b = buf[:n]
		}
		if err != nil {
			return nil, err
		}
		ip := from.Addr().Unmap().WithZone("")
		s.from = netip.AddrPortFrom(ip.WithZone(s.server.Addr().Zone()), from.Port())
		switch {
		case ip != s.server.Addr().WithZone(""):
		case s.locked && s.from != s.peer:
			s.stranger(b)
		default:
			return b, nil
		}
	}
}

// stranger answers another sender on the server's host that its packet has come to
// the wrong place: for instance a second answer to a request that was repeated.
func (s *socket) stranger(b []byte) {
	if p, _ := Parse(b); p.Op == OpError || s.rejected >= strangers {
		return
	}
	s.rejected++
	s.forgiven++
	_, _ = s.conn.WriteToUDPAddrPort(AppendError(nil, ErrUnknownID, "unknown transfer ID"), s.from)
}

func (s *socket) SetReadDeadline(t time.Time) error { return s.conn.SetReadDeadline(t) }
func (s *socket) Close() error                      { return s.conn.Close() }
