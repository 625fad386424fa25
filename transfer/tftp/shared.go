package tftp

import (
	"net"
	"net/netip"
	"os"
	"sync"
	"time"
)

// perDatagram is what a waiting datagram costs beyond its bytes.
const perDatagram = 64

// Shared is a server's socket when all its transfers use its own port, as firewalls and
// address translation between server and clients may require. The server's reader hands in
// what arrives with Deliver. It is safe for concurrent use.
type Shared struct {
	conn *net.UDPConn

	mu   sync.Mutex
	ends map[netip.AddrPort]*sharedConn
}

// Share makes conn the socket of all transfers. It does not close conn.
func Share(conn *net.UDPConn) *Shared {
	allowFragments(conn)
	setReceiveBuffer(conn)
	return &Shared{conn: conn, ends: map[netip.AddrPort]*sharedConn{}}
}

// Dial is like the function Dial, but the transfer uses the server's port. It replaces an
// earlier one with the same client. receiveBuffer limits what waits to be read, in bytes.
func (s *Shared) Dial(local netip.Addr, client netip.AddrPort, receiveBuffer int) Conn {
	c := &sharedConn{shared: s, client: client, room: receiveBuffer}
	c.arrived.L = &c.mu
	if local.IsValid() && !local.IsUnspecified() {
		c.source = source(local)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ends[client] = c
	return c
}

// Deliver hands a datagram to the transfer with the client. It keeps a copy of b. Without
// such a transfer, or without room, the datagram is lost.
func (s *Shared) Deliver(client netip.AddrPort, b []byte) {
	s.mu.Lock()
	c := s.ends[client]
	s.mu.Unlock()
	if c != nil {
		c.deliver(b)
	}
}

// sharedConn is one transfer's end of a Shared. Like a socket it returns
// os.ErrDeadlineExceeded after its deadline even if there is something to read.
type sharedConn struct {
	shared *Shared
	client netip.AddrPort
	source []byte // control message with the address to send from, nil: the system chooses

	mu       sync.Mutex
	arrived  sync.Cond // also: deadline, closed
	packets  [][]byte
	room     int
	deadline time.Time
	timer    *time.Timer
	closed   bool
}

func (c *sharedConn) deliver(b []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if cost := len(b) + perDatagram; !c.closed && cost <= c.room {
		c.room -= cost
		c.packets = append(c.packets, append([]byte(nil), b...))
		c.arrived.Broadcast()
	}
}

func (c *sharedConn) Read(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		switch {
		case c.closed:
			return 0, net.ErrClosed
		case !c.deadline.IsZero() && !time.Now().Before(c.deadline):
			return 0, os.ErrDeadlineExceeded
		case len(c.packets) > 0:
			p := c.packets[0]
			c.packets[0], c.packets = nil, c.packets[1:]
			c.room += len(p) + perDatagram
			return copy(b, p), nil
		}
		c.arrived.Wait()
	}
}

func (c *sharedConn) Write(b []byte) (int, error) {
	n, _, err := c.shared.conn.WriteMsgUDPAddrPort(b, c.source, c.client)
	return n, err
}

func (c *sharedConn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	c.deadline = t
	switch {
	case c.timer == nil:
		c.timer = time.AfterFunc(time.Until(t), c.wake)
	default:
		c.timer.Reset(time.Until(t))
	}
	c.arrived.Broadcast()
	return nil
}

func (c *sharedConn) wake() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.arrived.Broadcast()
}

func (c *sharedConn) Close() error {
	c.mu.Lock()
	c.closed, c.packets = true, nil
	if c.timer != nil {
		c.timer.Stop()
	}
	c.arrived.Broadcast()
	c.mu.Unlock()
	c.shared.mu.Lock()
	defer c.shared.mu.Unlock()
	if c.shared.ends[c.client] == c {
		delete(c.shared.ends, c.client)
	}
	return nil
}
