package transfer

import (
	"bytes"
	"errors"
	"net"
	"strconv"
	"strings"
	"time"
)

// maxReply bounds what a server may say after one command, over all lines, in bytes.
const maxReply = 64 << 10

// keptReply is how much of the end of a reply is kept.
const keptReply = 512

// errReplyTooLong is what reading fails with where maxReply is reached.
var errReplyTooLong = errors.New("reply of more than 64 KiB")

// controlConn is the FTP control connection (RFC 959) that jlaffaye/ftp reads and writes. The
// library has no time-outs of its own and takes in replies of any length: here
// the whole reply to a command must arrive within the time-out, and is bounded.
type controlConn struct {
	net.Conn
	timeout time.Duration
	pending []byte // to be read before anything else
	left    int    // bytes that the present reply may still have
	verb    string // of the last command
	tail    []byte // end of the present reply
	failed  error  // the first read or write that failed
}

// newControlConn makes a control connection on c, on which the greeting is expected.
func newControlConn(c net.Conn, timeout time.Duration) *controlConn {
	g := &controlConn{Conn: c, timeout: timeout}
	g.expect()
	return g
}

// prepend has said read before what comes from the server: the greeting, where it was
// read before the library came into play.
func (g *controlConn) prepend(said []byte) { g.pending = said }

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
		return 0, g.note(errReplyTooLong)
	}
	n, err := g.Conn.Read(p[:min(len(p), g.left)])
	g.left -= n
	g.tail = append(g.tail, p[:n]...)
	if drop := len(g.tail) - keptReply; drop > 0 {
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

// failure is the first read or write that failed: with one the connection is of no more
// use.
func (g *controlConn) failure() error { return g.failed }

// lastVerb is the last command, without what followed it.
func (g *controlConn) lastVerb() string { return g.verb }

// lastReply returns code and text of the last line that the server sent. The library
// drops the code of a refused user name.
func (g *controlConn) lastReply() (code int, text string) {
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
