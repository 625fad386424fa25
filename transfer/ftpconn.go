package transfer

import (
	"bytes"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// maxReply bounds what a server may say after one command, over all lines.
const maxReply = 64 << 10

// tlsRecord is the most that one record carries (RFC 8446 section 5.1).
const tlsRecord = 16 << 10

// lastReply is how much of the end of a reply is kept.
const lastReply = 512

var errReplyTooLong = errors.New("reply of more than 64 KiB")

// controlConn is the control connection that jlaffaye/ftp reads and writes. The
// library has no time-outs of its own and takes in replies of any length: here
// the whole reply to a command must arrive within the time-out, and is bounded.
type controlConn struct {
	net.Conn
	timeout time.Duration
	pending []byte // read before the library came into play: the greeting over FTPS
	left    int    // octets that the present reply may still have
	verb    string // of the last command
	tail    []byte // end of the present reply
	failed  error  // the first read or write that failed
}

func newControlConn(c net.Conn, timeout time.Duration) *controlConn {
	g := &controlConn{Conn: c, timeout: timeout}
	g.expect()
	return g
}

// expect starts the clock and the budget of a reply.
func (g *controlConn) expect() {
	g.left, g.tail = maxReply, g.tail[:0]
	// It fails on a closed connection only; the next read says so.
	_ = g.Conn.SetDeadline(time.Now().Add(g.timeout))
}

// SetDeadline is called by the library before it waits for the reply that ends
// a transfer. How long to wait is decided here.
func (g *controlConn) SetDeadline(time.Time) error {
	g.expect()
	return nil
}

func (g *controlConn) Write(p []byte) (int, error) {
	g.expect()
	verb, _, _ := bytes.Cut(bytes.TrimSpace(p[:min(len(p), 16)]), []byte{' '})
	g.verb = string(verb)
	n, err := g.Conn.Write(p)
	return n, g.note(err)
}

func (g *controlConn) Read(p []byte) (int, error) {
	if len(g.pending) > 0 {
		n := copy(p, g.pending)
		g.pending = g.pending[n:]
		return n, nil
	}
	if g.left <= 0 {
		return 0, g.note(&causeError{CauseProtocolError, errReplyTooLong})
	}
	n, err := g.Conn.Read(p[:min(len(p), g.left)])
	g.left -= n
	g.tail = append(g.tail, p[:n]...)
	if drop := len(g.tail) - lastReply; drop > 0 {
		g.tail = append(g.tail[:0], g.tail[drop:]...)
	}
	return n, g.note(err)
}

func (g *controlConn) note(err error) error {
	if g.failed == nil {
		g.failed = err
	}
	return err
}

// broken reports whether the connection is of no more use.
func (g *controlConn) broken() bool { return g.failed != nil }

// last returns code and text of the last line that the server sent. The library
// drops the code of a refused user name.
func (g *controlConn) last() (code int, text string) {
	line := strings.TrimRight(string(g.tail), "\r\n")
	if i := strings.LastIndexByte(line, '\n'); i >= 0 {
		line = line[i+1:]
	}
	if len(line) < 3 {
		return 0, line
	}
	code, err := strconv.Atoi(line[:3])
	if err != nil || code < 100 {
		return 0, line
	}
	return code, strings.TrimLeft(line[3:], " -")
}

// dataConn is a data connection on which each read and write has the stall
// time-out.
type dataConn struct {
	net.Conn
	timeout time.Duration
}

func (d *dataConn) Read(p []byte) (int, error) {
	// Both directions: a TLS handshake in here writes as well.
	if err := d.SetDeadline(time.Now().Add(d.timeout)); err != nil {
		return 0, err
	}
	return d.Conn.Read(p)
}

// Write takes as long as there is some progress within each time-out.
func (d *dataConn) Write(p []byte) (n int, err error) {
	most := len(p)
	if _, secured := d.Conn.(*tls.Conn); secured {
		most = tlsRecord // after half of a record there is no going on
	}
	for n < len(p) {
		if err := d.SetDeadline(time.Now().Add(d.timeout)); err != nil {
			return n, err
		}
		k, err := d.Conn.Write(p[n:min(n+most, len(p))])
		n += k
		if err != nil && (k == 0 || most == tlsRecord || !errors.Is(err, os.ErrDeadlineExceeded)) {
			return n, err
		}
	}
	return n, nil
}

// Handshake is called by the library when a file of no octets is stored: a
// server that expects TLS waits for it.
func (d *dataConn) Handshake() error {
	t, ok := d.Conn.(*tls.Conn)
	if !ok {
		return nil
	}
	if err := d.SetDeadline(time.Now().Add(d.timeout)); err != nil {
		return err
	}
	return t.Handshake()
}
