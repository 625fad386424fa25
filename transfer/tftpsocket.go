package transfer

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"example.com/iad/transfer/tftp"
)

const (
	// receiveBuffer holds the bursts that windows are.
	receiveBuffer = 4 << 20
	// refusals in a row (ICMP port unreachable) after which nobody is there any
	// more: one may be left over from something else.
	refusals = 3
	// lastWords is for a packet that arrived before the refusals.
	lastWords = 10 * time.Millisecond
	// strangers that are told so in one transfer (RFC 1350 section 4, code 5).
	strangers = 8
)

var errCancelled = errors.New("transfer cancelled")

// tftpSocket is one end of a transfer: a socket with a port of its own (our
// transfer ID) and, once the server answered, the server's address and port.
type tftpSocket struct {
	conn      *net.UDPConn
	server    netip.AddrPort // where requests go
	peer      netip.AddrPort // the server's transfer ID, once locked
	locked    bool
	buf       []byte
	out       []byte
	refused   int   // in a row
	gone      error // the last of them
	forgiven  int   // refusals to expect from strangers
	told      int   // strangers told
	cancelled atomic.Bool
	forget    func()
}

func openTFTP(ctx context.Context, server netip.AddrPort, blockSize int) (*tftpSocket, error) {
	network := "udp4"
	if server.Addr().Is6() {
		network = "udp6"
	}
	conn, err := net.ListenUDP(network, nil)
	if err != nil {
		return nil, err
	}
	_ = conn.SetReadBuffer(receiveBuffer) // the kernel may allow less
	tuneUDP(conn)
	s := &tftpSocket{conn: conn, server: server, buf: make([]byte, tftp.DataHeader+max(blockSize, tftp.DefaultBlockSize)+1)}
	s.forget = onEnd(ctx, s.cancel)
	return s, nil
}

// cancel makes the present and every later receive return errCancelled.
func (s *tftpSocket) cancel() {
	s.cancelled.Store(true)
	_ = s.conn.SetReadDeadline(time.Unix(1, 0))
}

func (s *tftpSocket) close() {
	s.forget()
	s.conn.Close()
}

// lock makes the sender of a packet the peer.
func (s *tftpSocket) lock(from netip.AddrPort) { s.peer, s.locked = from, true }

// send sends one datagram to the peer, or to the server before there is one. A
// datagram that does not get out is as good as lost on the way.
func (s *tftpSocket) send(b []byte) error {
	to := s.server
	if s.locked {
		to = s.peer
	}
	_, err := s.conn.WriteToUDPAddrPort(b, to)
	if passing(err) {
		return nil
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		s.refusal(err) // judged in receive: an ERROR packet may have come before
		return nil
	}
	return err
}

// passing reports errors that the next datagram need not meet.
func passing(err error) bool {
	return errors.Is(err, syscall.EMSGSIZE) || errors.Is(err, syscall.ENOBUFS)
}

// refusal counts an ICMP port unreachable.
func (s *tftpSocket) refusal(err error) {
	if s.forgiven > 0 {
		s.forgiven--
		return
	}
	s.refused++
	if s.gone = err; s.locked {
		s.gone = &causeError{CauseConnectionLost, err}
	}
}

func (s *tftpSocket) ack(block int64) error {
	s.out = tftp.AppendAck(s.out[:0], uint16(block))
	return s.send(s.out)
}

// abort tells the server that we end the transfer. Nothing is expected back.
func (s *tftpSocket) abort(code tftp.ErrorCode, message string) {
	if s.locked {
		_ = s.send(tftp.AppendError(nil, code, message))
	}
}

// receive waits for the next packet of the peer until the deadline; then the
// error is os.ErrDeadlineExceeded. An ERROR packet is returned as *replyError.
// Data in the packet is good until the next receive.
func (s *tftpSocket) receive(deadline time.Time) (tftp.Packet, netip.AddrPort, error) {
	_ = s.conn.SetReadDeadline(deadline)
	last := false // only what has arrived already
	for {
		if s.refused >= refusals && !last {
			last = true
			_ = s.conn.SetReadDeadline(time.Now().Add(lastWords))
		}
		if s.cancelled.Load() {
			return tftp.Packet{}, netip.AddrPort{}, errCancelled
		}
		n, from, err := s.conn.ReadFromUDPAddrPort(s.buf)
		switch {
		case err == nil:
		case s.cancelled.Load():
			return tftp.Packet{}, netip.AddrPort{}, errCancelled
		case errors.Is(err, syscall.ECONNREFUSED):
			s.refusal(err)
			continue
		case passing(err):
			continue
		case last && errors.Is(err, os.ErrDeadlineExceeded):
			return tftp.Packet{}, netip.AddrPort{}, s.gone
		default:
			return tftp.Packet{}, netip.AddrPort{}, err
		}
		from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
		if from.Addr().WithZone("") != s.server.Addr().WithZone("") {
			continue
		}
		p, err := tftp.Parse(s.buf[:n])
		if s.locked && from != s.peer {
			s.stranger(from, p)
			continue
		}
		if err != nil {
			if tftp.IsOptionAck(s.buf[:n]) {
				s.lock(from)
				return tftp.Packet{}, from, err
			}
			continue // noise: a transfer does not end by one bad datagram
		}
		s.refused = 0
		if p.Op == tftp.OpError {
			return tftp.Packet{}, from, &replyError{protocol: TFTP, code: int(p.Code), text: p.Message}
		}
		return p, from, nil
	}
}

// stranger tells another sender on the server's host that its packet has come to
// the wrong place: for instance a second answer to a request that was repeated.
func (s *tftpSocket) stranger(from netip.AddrPort, p tftp.Packet) {
	if p.Op == tftp.OpError || s.told >= strangers {
		return
	}
	s.told++
	s.forgiven++
	_, _ = s.conn.WriteToUDPAddrPort(tftp.AppendError(nil, tftp.ErrUnknownID, "unknown transfer ID"), from)
}
