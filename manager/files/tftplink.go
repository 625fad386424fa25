package files

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"example.com/iad/transfer/tftp"
)

// What a client gets of the terms it asks for.
const (
	maxTFTPSendWindow = 4096    // blocks; far from where block numbers roll over
	maxTFTPSendOctets = 4 << 20 // in flight
	// An upload's window has to fit the receive buffer that a kernel gives.
	maxTFTPReceiveWindow = 64
	maxTFTPReceiveOctets = 256 << 10
	// maxTFTPTimeout is the longest time-out option accepted, in seconds.
	maxTFTPTimeout = 30
)

var (
	errTFTPMode   = errors.New("request not served")
	errTFTPSilent = errors.New("nothing arrived in time")
)

// tftpRefusal is an ERROR packet from the client.
type tftpRefusal struct {
	code tftp.ErrorCode
	text string
}

func (e *tftpRefusal) Error() string { return "the client gave up: " + printableTFTP(e.text) }

// printableTFTP cuts text from the network to what a log can take.
func printableTFTP(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s[:min(len(s), 128)])
}

// acceptTFTP returns which of the options asked for are accepted, and with what
// values: those of an option acknowledgement (RFC 2347).
func acceptTFTP(asked tftp.Options, maxWindow, maxOctets int) tftp.Options {
	o := tftp.Options{BlockSize: asked.BlockSize, HasSize: asked.HasSize, Size: asked.Size}
	if asked.Timeout <= maxTFTPTimeout {
		o.Timeout = asked.Timeout
	}
	if asked.Window > 0 {
		block := max(asked.BlockSize, tftp.MinBlockSize)
		if asked.BlockSize == 0 {
			block = tftp.DefaultBlockSize
		}
		o.Window = max(1, min(asked.Window, maxWindow, maxOctets/block))
	}
	return o
}

// tftpLink is a transfer's own socket (its transfer ID), connected to the client:
// the kernel keeps packets of others away and answers them with port unreachable.
type tftpLink struct {
	ctx      context.Context
	conn     net.Conn
	in       chan tftp.Packet
	ended    chan struct{} // the socket yields nothing more
	timer    *time.Timer
	out      []byte
	pace     tftpPace
	setState func(tftpState)
	heard    bool  // from the client, since its request
	octets   int64 // of the file, acknowledged or stored
	patience time.Duration
}

// newTFTPLink opens the link for what p requests.
func newTFTPLink(ctx context.Context, conn net.Conn, p tftp.Packet, setState func(tftpState)) *tftpLink {
	l := &tftpLink{
		ctx: ctx, conn: conn, in: make(chan tftp.Packet), ended: make(chan struct{}), timer: time.NewTimer(time.Hour),
		setState: setState, patience: tftpPatience, pace: tftpPace{most: mostTFTPTimeout},
	}
	if t := p.Options.Timeout; t > 0 && t <= maxTFTPTimeout {
		l.pace.most = time.Duration(t) * time.Second
		l.patience = max(tftpPatience, 5*l.pace.most)
	}
	size := 1024
	if p.Op == tftp.OpWriteRequest {
		size = max(size, p.Options.BlockSize+tftp.DataHeader+1)
	}
	go l.read(size)
	return l
}

// read hands packets over. Two buffers are enough: who takes a packet is done with
// the one before.
func (l *tftpLink) read(size int) {
	defer close(l.ended)
	buffers := [2][]byte{make([]byte, size), make([]byte, size)}
	for i := 0; ; i ^= 1 {
		n, err := l.conn.Read(buffers[i])
		if err != nil {
			return
		}
		p, err := tftp.Parse(buffers[i][:n])
		if err != nil {
			continue // noise: a transfer does not end by one bad datagram
		}
		select {
		case l.in <- p:
		case <-l.ctx.Done():
			return
		}
	}
}

// dialTFTP opens a transfer's socket, on the address that the request came to.
func dialTFTP(local netip.Addr, client netip.AddrPort) (net.Conn, error) {
	var from *net.UDPAddr
	if local.IsValid() && !local.IsUnspecified() {
		from = net.UDPAddrFromAddrPort(netip.AddrPortFrom(local, 0))
	}
	conn, err := net.DialUDP("udp", from, net.UDPAddrFromAddrPort(client))
	if err != nil {
		return nil, err
	}
	tuneTFTP(conn)
	_ = conn.SetReadBuffer(4 * maxTFTPReceiveOctets) // the kernel may allow less
	return conn, nil
}

func (l *tftpLink) close() {
	_ = l.conn.Close() // a UDP socket keeps nothing that could be lost
	l.timer.Stop()
	for { // the reader may wait with a packet in its hand
		select {
		case <-l.in:
		case <-l.ended:
			return
		}
	}
}

// receive waits for the client's next packet; errTFTPSilent when none came by then.
// Its data is good until the next receive.
func (l *tftpLink) receive(at time.Time) (tftp.Packet, error) {
	l.timer.Reset(time.Until(at))
	select {
	case p := <-l.in:
		if p.Op == tftp.OpError {
			return p, &tftpRefusal{p.Code, p.Message}
		}
		if !l.heard {
			l.heard = true
			l.setState(tftpRunning)
		}
		return p, nil
	case <-l.timer.C:
		return tftp.Packet{}, errTFTPSilent
	case <-l.ctx.Done():
		return tftp.Packet{}, l.stopped()
	case <-l.ended:
		if l.ctx.Err() != nil {
			return tftp.Packet{}, l.stopped()
		}
		return tftp.Packet{}, errClientGone
	}
}

// stopped tells why the context ended.
func (l *tftpLink) stopped() error {
	if cause := context.Cause(l.ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return errServerStops
}

// send sends one datagram. One that does not get out is as good as lost on the way,
// unless the client's host says that nobody listens there.
func (l *tftpLink) send(b []byte) error {
	_, err := l.conn.Write(b)
	if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, net.ErrClosed) {
		return errClientGone
	}
	return nil
}

func (l *tftpLink) ack(block int64) error {
	l.out = tftp.AppendAck(l.out[:0], uint16(block))
	return l.send(l.out)
}

// limit is how long nothing may go on before the client is given up.
func (l *tftpLink) limit() time.Duration {
	if !l.heard {
		return tftpFirstPatience
	}
	return l.patience
}

// refuse tells the client why there is no more. It is sent once: a client that does
// not get it runs into its time-out. One that had to make room gets nothing: if it is
// there after all, it repeats its request, while an error would make it give up.
func (l *tftpLink) refuse(err error) {
	var refusal *tftpRefusal
	if errors.As(err, &refusal) || errors.Is(err, errClientGone) || errors.Is(err, errSuperseded) || errors.Is(err, errCrowded) {
		return
	}
	code, text := tftpError(err)
	_ = l.send(tftp.AppendError(nil, code, text)) // there is nobody left to tell
}

// tftpError returns what a client is told (RFC 1350, appendix). Paths of this
// machine are not for it.
func tftpError(err error) (tftp.ErrorCode, string) {
	text := plainError(err).Error()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return tftp.ErrFileNotFound, text
	case errors.Is(err, fs.ErrPermission), errors.Is(err, errFileName), errors.Is(err, errNoUpload):
		return tftp.ErrAccessViolation, text
	case errors.Is(err, errTooLarge), errors.Is(err, errFull):
		return tftp.ErrDiskFull, text
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return tftp.ErrDiskFull, "disk full"
	case errors.Is(err, fs.ErrExist):
		return tftp.ErrFileExists, "file exists, and so do its earlier versions"
	case errors.Is(err, errTFTPMode):
		return tftp.ErrIllegal, err.Error()
	case errors.Is(err, errTFTPSize), errors.Is(err, errClientSilent), errors.Is(err, errServerStops):
		return tftp.ErrNotDefined, err.Error()
	}
	return tftp.ErrNotDefined, text
}
