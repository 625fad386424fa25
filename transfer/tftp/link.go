package tftp

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"syscall"
	"time"
)

// How a transfer ends early, besides an [*ErrorPacket] and the end of its context.
var (
	ErrNoAnswer       = errors.New("no answer")
	ErrGone           = errors.New("nobody listens at the other end any more")
	ErrNothingThrough = errors.New("no data came through") // not even the first block
	ErrSilent         = errors.New("nothing arrived in time")
	ErrUnconfirmed    = errors.New("the whole file was sent, but the last acknowledgement did not arrive; the server may have all of it")
	ErrBlockTooLong   = errors.New("a block is longer than agreed")
)

// ErrorPacket is an ERROR packet from the other end.
type ErrorPacket struct {
	Code    ErrorCode
	Message string // as received, it may hold any bytes
}

func (e *ErrorPacket) Error() string { return fmt.Sprintf("TFTP error %d: %s", e.Code, e.Message) }

// Conn is a transfer's own socket (its transfer ID); a connected net.UDPConn is one.
type Conn interface {
	Read(b []byte) (int, error)
	Write(b []byte) (int, error)
	SetReadDeadline(t time.Time) error
	Close() error
}

// endpoint is a Conn without its reading.
type endpoint interface {
	Write(b []byte) (int, error)
	SetReadDeadline(t time.Time) error
	Close() error
}

const (
	// refusals in a row (ICMP port unreachable) after which a client takes it that nobody
	// is there any more: one may be left over from something else.
	refusals = 3
	// lastWords is for a packet that arrived before the refusals.
	lastWords = 10 * time.Millisecond
)

// Link is one end of a transfer: packets over its socket, with what is known about
// the other end.
type Link struct {
	// FirstPatience is how long to wait for the first block, or for its
	// acknowledgement; Patience is how long to wait for each further one.
	FirstPatience, Patience time.Duration
	RoundTrip               RoundTrip
	OnHeard                 func() // called when the first packet arrives, if not nil
	Octets                  int64  // of the file, acknowledged by the other end or taken by the sink

	ctx     context.Context
	cancel  context.CancelCauseFunc
	forget  func() bool
	conn    endpoint
	client  *socket                // conn, if this end is the client
	read    func() ([]byte, error) // the next datagram, good until the next call
	armed   time.Time              // the read deadline of conn
	arrived time.Time              // when the last datagram was read from the system
	buf     []byte
	out     []byte
	heard   bool
	single  bool  // several datagrams in one call did not work
	refused int   // in a row
	gone    error // the last of them
}

// NewClient makes the link of a client, which closes conn: packets go to the server's port
// until it has answered from the one that it uses for this transfer. The link ends with the
// context.
func NewClient(ctx context.Context, conn PacketConn, server netip.AddrPort, blockSize int) *Link {
	s := &socket{conn: conn, server: server}
	l := newLink(ctx, s, blockSize)
	l.client = s
	l.read = func() ([]byte, error) { return s.read(l.buf) }
	return l
}

// NewLink makes the link of a server from a socket that is connected to the client, as
// Dial returns it. The link ends with the context.
func NewLink(ctx context.Context, conn Conn, blockSize int) *Link {
	l := newLink(ctx, conn, blockSize)
	l.read = func() ([]byte, error) {
		n, err := conn.Read(l.buf)
		return l.buf[:n], err
	}
	return l
}

func newLink(ctx context.Context, conn endpoint, blockSize int) *Link {
	l := &Link{conn: conn, buf: make([]byte, datagramSize(blockSize))}
	l.ctx, l.cancel = context.WithCancelCause(ctx)
	l.forget = context.AfterFunc(l.ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	return l
}

// datagramSize is room for any packet of the other end, and for one byte more, by which a
// block that is too long is noticed.
func datagramSize(blockSize int) int { return max(maxRequest, DataHeader+blockSize+1) }

// Cancel makes the present and every later wait of this end return err.
func (l *Link) Cancel(err error) { l.cancel(err) }

// Close frees the socket.
func (l *Link) Close() {
	l.forget()
	l.cancel(nil)
	_ = l.conn.Close() // a UDP socket keeps nothing that could be lost
}

// connected reports whether the other end's transfer ID is known.
func (l *Link) connected() bool { return l.client == nil || l.client.locked }

// send sends one datagram. One that does not get out is as good as lost on the way; only a
// client has no other device to serve, and says at once what is wrong with its network.
func (l *Link) send(b []byte) error {
	_, err := l.conn.Write(b)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		l.refusal(err) // judged in receive: an ERROR packet may have come before
		return nil
	case l.client == nil, passing(err):
		return nil
	}
	return err
}

// segmenter is a Conn that sends several datagrams in one call.
type segmenter interface {
	WriteSegments(b []byte, size int) error
}

// together reports whether several datagrams may go out in one call.
func (l *Link) together() bool {
	_, ok := l.conn.(segmenter)
	return ok && !l.single
}

// sendSegments sends datagrams of size bytes, of which the last may be shorter: in one call
// where the system and the path permit it.
func (l *Link) sendSegments(b []byte, size int) error {
	if len(b) > size && l.together() {
		err := l.conn.(segmenter).WriteSegments(b, size)
		if err == nil || errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ENOBUFS) {
			if err != nil && !passing(err) {
				l.refusal(err) // judged in receive, as in send
			}
			return nil
		}
		l.single = true // an old kernel, or blocks that do not fit the path
	}
	for len(b) > 0 {
		n := min(size, len(b))
		if err := l.send(b[:n]); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// passing reports errors that the next datagram need not meet.
func passing(err error) bool {
	return errors.Is(err, syscall.EMSGSIZE) || errors.Is(err, syscall.ENOBUFS)
}

// refusal counts an ICMP port unreachable.
func (l *Link) refusal(err error) {
	if l.client != nil && l.client.forgiven > 0 {
		l.client.forgiven--
		return
	}
	l.refused++
	if l.gone = err; l.connected() {
		l.gone = fmt.Errorf("%w: %w", ErrGone, err)
	}
}

// refusedForGood reports whether nobody listens any more: a server's socket is connected, so
// that each refusal is for its packets.
func (l *Link) refusedForGood() bool {
	return l.refused >= refusals || l.refused > 0 && l.client == nil
}

func (l *Link) ack(block int64) error {
	l.out = AppendAck(l.out[:0], uint16(block))
	return l.send(l.out)
}

// Abort sends the other end an error: the transfer ends here. Nothing is expected back.
func (l *Link) Abort(code ErrorCode, message string) {
	if l.connected() {
		_ = l.send(AppendError(nil, code, message)) // whoever misses it runs into a time-out
	}
}

// receive waits for the next packet of the other end until the deadline; then the
// error is os.ErrDeadlineExceeded. An ERROR packet is returned as *ErrorPacket.
// Data in the packet is good until the next receive.
func (l *Link) receive(deadline time.Time) (Packet, error) {
	last := false // only what has arrived already
	for {
		if l.refusedForGood() && !last {
			last = true
			deadline = time.Now().Add(lastWords)
			l.arm(deadline)
		}
		fresh := !l.waiting()
		// To put a deadline off costs a timer each time: the old one is left until it is reached.
		if fresh && (l.armed.IsZero() || deadline.Before(l.armed)) {
			l.arm(deadline)
		}
		if l.ctx.Err() != nil {
			return Packet{}, context.Cause(l.ctx)
		}
		b, err := l.read()
		if fresh {
			l.arrived = time.Now()
		}
		switch {
		case err == nil:
		case l.ctx.Err() != nil:
			return Packet{}, context.Cause(l.ctx)
		case errors.Is(err, syscall.ECONNREFUSED):
			l.refusal(err)
			continue
		case passing(err):
			continue
		case errors.Is(err, os.ErrDeadlineExceeded) && l.arrived.Before(deadline):
			l.arm(deadline)
			continue
		case last && errors.Is(err, os.ErrDeadlineExceeded):
			return Packet{}, l.gone
		default:
			return Packet{}, err
		}
		p, err := Parse(b)
		if err != nil {
			if l.client != nil && IsOptionAck(b) {
				l.client.lock()
				return Packet{}, err
			}
			continue // noise: a transfer does not end by one bad datagram
		}
		l.refused = 0
		if p.Op == OpError {
			return Packet{}, &ErrorPacket{p.Code, p.Message}
		}
		if !l.heard {
			l.heard = true
			if l.OnHeard != nil {
				l.OnHeard()
			}
		}
		return p, nil
	}
}

// arm sets the deadline for reading.
func (l *Link) arm(deadline time.Time) {
	l.armed = deadline
	_ = l.conn.SetReadDeadline(deadline)
}

// waiting reports whether the next datagram has been read from the system already.
func (l *Link) waiting() bool { return l.client != nil && l.client.waiting() }

// Ask sends a client's request, first again after half a second, until the server answers it, or for Patience, and makes
// the one who does the other end.
func (l *Link) Ask(request []byte) (Packet, error) {
	giveUp := time.Now().Add(l.Patience)
	for first := true; ; first = false {
		sent := time.Now()
		if !sent.Before(giveUp) {
			return Packet{}, ErrNoAnswer
		}
		if err := l.send(request); err != nil {
			return Packet{}, err
		}
		p, err := l.receive(earlier(sent.Add(min(l.RoundTrip.Timeout()/2, l.Patience/3)), giveUp))
		switch {
		case err == nil:
			l.client.lock()
			if first {
				l.RoundTrip.sample(time.Since(sent))
			}
			l.RoundTrip.answered()
			return p, nil
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return p, err
		}
		l.RoundTrip.silent()
	}
}

// giveUp is when to stop waiting for the other end, which moved last at some time;
// why says what that means.
func (l *Link) giveUp(moved time.Time, begun bool) (at time.Time, why error) {
	if begun {
		return moved.Add(l.Patience), ErrSilent
	}
	return moved.Add(l.FirstPatience), ErrNothingThrough
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
