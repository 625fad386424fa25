// Package ftpcontrol bounds an FTP control connection (RFC 959): how long a client
// waits for the reply to a command, and how much the server may say in it.
package ftpcontrol

import (
	"bytes"
	"errors"
	"net"
	"strconv"
	"strings"
	"time"
)

// MaxReply bounds what a server may say after one command, over all lines, in octets.
const MaxReply = 64 << 10

// lastReply is how much of the end of a reply is kept.
const lastReply = 512

// ErrReplyTooLong is what reading fails with where MaxReply is reached.
var ErrReplyTooLong = errors.New("reply of more than 64 KiB")

// Conn is the control connection that jlaffaye/ftp reads and writes. The
// library has no time-outs of its own and takes in replies of any length: here
// the whole reply to a command must arrive within the time-out, and is bounded.
type Conn struct {
	net.Conn
	timeout time.Duration
	pending []byte // to be read before anything else
	left    int    // octets that the present reply may still have
	verb    string // of the last command
	tail    []byte // end of the present reply
	failed  error  // the first read or write that failed
}

// New makes a control connection on c, on which the greeting is expected.
func New(c net.Conn, timeout time.Duration) *Conn {
	g := &Conn{Conn: c, timeout: timeout}
	g.expect()
	return g
}

// Prepend has said read before what comes from the server: the greeting, where it was
// read before the library came into play.
func (g *Conn) Prepend(said []byte) { g.pending = said }

// expect starts the clock and the budget of a reply.
func (g *Conn) expect() {
	g.left, g.tail = MaxReply, g.tail[:0]
	// It fails on a closed connection only; the next read says so.
	_ = g.Conn.SetDeadline(time.Now().Add(g.timeout))
}

// SetDeadline is called by the library before it waits for the reply that ends
// a transfer. How long to wait is decided here.
func (g *Conn) SetDeadline(time.Time) error {
	g.expect()
	return nil
}

func (g *Conn) Write(p []byte) (int, error) {
	g.expect()
	verb, _, _ := bytes.Cut(bytes.TrimSpace(p[:min(len(p), 16)]), []byte{' '})
	g.verb = string(verb)
	n, err := g.Conn.Write(p)
	return n, g.note(err)
}

func (g *Conn) Read(p []byte) (int, error) {
	if len(g.pending) > 0 {
		n := copy(p, g.pending)
		g.pending = g.pending[n:]
		return n, nil
	}
	if g.left <= 0 {
		return 0, g.note(ErrReplyTooLong)
	}
	n, err := g.Conn.Read(p[:min(len(p), g.left)])
	g.left -= n
	g.tail = append(g.tail, p[:n]...)
	if drop := len(g.tail) - lastReply; drop > 0 {
		g.tail = append(g.tail[:0], g.tail[drop:]...)
	}
	return n, g.note(err)
}

func (g *Conn) note(err error) error {
	if g.failed == nil {
		g.failed = err
	}
	return err
}

// Failed is the first read or write that failed: with one the connection is of no more
// use.
func (g *Conn) Failed() error { return g.failed }

// Verb is the last command, without what followed it.
func (g *Conn) Verb() string { return g.verb }

// Last returns code and text of the last line that the server sent. The library
// drops the code of a refused user name.
func (g *Conn) Last() (code int, text string) {
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
