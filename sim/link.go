package sim

import (
	"context"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"example.com/iad/transfer"
	"example.com/iad/transfer/tftp"
)

// link is a device's line to the network: what passes it may be late, lost or doubled.
type link struct {
	device *Device

	mu   sync.Mutex
	free time.Time // when the line has carried what was given to it, with LinkRate
}

var linkFaults = []FaultKind{LinkDelay, LinkLoss, LinkDup, LinkRate, Reset}

// queueLimit is how long a datagram waits for the line at most; a longer queue loses it.
const queueLimit = 2 * time.Second

// pass says how often a datagram of a size arrives, and how late.
func (l *link) pass(size int) (copies int, late time.Duration) {
	d := l.device
	if !d.faults.has(linkFaults...) {
		return 1, 0
	}
	if l.chance(LinkLoss) {
		return 0, 0
	}
	copies = 1
	if l.chance(LinkDup) {
		copies = 2
	}
	wait := l.carry(size)
	if wait > queueLimit {
		return 0, 0
	}
	return copies, wait + l.delay()
}

// chance reports whether a fault that has a percentage happens.
func (l *link) chance(kind FaultKind) bool {
	if !l.device.faults.has(kind) {
		return false
	}
	l.device.count(kind)
	_, ok := l.device.happens(func(a *armed) bool { return rand.IntN(100) < a.percent() }, kind)
	return ok
}

// delay is how late something arrives.
func (l *link) delay() time.Duration {
	f, ok := l.device.occasion(LinkDelay)
	if !ok {
		return 0
	}
	late := f.delay()
	if f.Jitter > 0 {
		late += rand.N(2*f.Jitter) - f.Jitter
	}
	return max(0, late)
}

// carry is how long the line needs for a number of bytes, after those before them.
func (l *link) carry(size int) time.Duration {
	f, ok := l.device.occasion(LinkRate)
	if !ok {
		return 0
	}
	now := l.device.cfg.Clock.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.free.Before(now) {
		l.free = now
	}
	wait := l.free.Sub(now) + time.Duration(size)*time.Second/time.Duration(f.rate())
	if wait <= queueLimit {
		l.free = now.Add(wait)
	}
	return wait
}

// send sends a datagram by write, which may be called later and from another goroutine.
func (l *link) send(msg []byte, write func([]byte)) {
	copies, late := l.pass(len(msg))
	if late == 0 {
		for range copies {
			write(msg)
		}
		return
	}
	msg = slices.Clone(msg)
	go func() {
		l.device.pause(late)
		for range copies {
			write(msg)
		}
	}()
}

// linkNetwork opens the sockets of transfers.
type linkNetwork struct {
	transfer.Network
	link *link
}

func (n *linkNetwork) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := n.Network.Dial(ctx, network, address)
	if tcp, ok := conn.(*net.TCPConn); ok {
		return &linkTCP{TCPConn: tcp, link: n.link}, err
	}
	return conn, err
}

func (n *linkNetwork) ListenUDP(network string) (tftp.PacketConn, error) {
	conn, err := n.Network.ListenUDP(network)
	if err != nil {
		return nil, err
	}
	return &linkUDP{PacketConn: conn, link: n.link, changed: make(chan struct{})}, nil
}

// linkTCP is a connection to a file server. What comes after a pause is late, and a rate
// is kept, as if the packets had been.
type linkTCP struct {
	*net.TCPConn
	link            *link
	lastIn, lastOut time.Time
}

// wait delays what passes in one direction.
func (c *linkTCP) wait(last *time.Time, size int) {
	d := c.link.device
	now := d.cfg.Clock.Now()
	late := c.link.carry(size)
	if delay := c.link.delay(); now.Sub(*last) > delay {
		late += delay
	}
	if late > 0 {
		d.pause(late)
	}
	*last = d.cfg.Clock.Now()
}

// reset resets the connection if a fault wants it.
func (c *linkTCP) reset() error {
	if _, ok := c.link.device.occasion(Reset); !ok {
		return nil
	}
	_ = c.SetLinger(0)
	_ = c.Close()
	return &net.OpError{Op: "read", Net: "tcp", Addr: c.RemoteAddr(), Err: os.NewSyscallError("read", syscall.ECONNRESET)}
}

func (c *linkTCP) Read(p []byte) (int, error) {
	if !c.link.device.faults.has(linkFaults...) {
		return c.TCPConn.Read(p)
	}
	if err := c.reset(); err != nil {
		return 0, err
	}
	n, err := c.TCPConn.Read(p)
	c.wait(&c.lastIn, n)
	return n, err
}

func (c *linkTCP) Write(p []byte) (int, error) {
	if c.link.device.faults.has(linkFaults...) {
		c.wait(&c.lastOut, len(p))
	}
	return c.TCPConn.Write(p)
}

// ReadFrom and WriteTo hide those of the TCP connection, which use neither Read nor Write.
func (c *linkTCP) ReadFrom(r io.Reader) (int64, error) {
	return io.Copy(struct{ io.Writer }{c}, r)
}

// WriteTo is like ReadFrom.
func (c *linkTCP) WriteTo(w io.Writer) (int64, error) {
	return io.Copy(w, struct{ io.Reader }{c})
}

// linkUDP is a socket of a TFTP client.
type linkUDP struct {
	tftp.PacketConn
	link *link

	mu       sync.Mutex
	started  bool // receive runs; before, reads are those of PacketConn
	arrived  []arrival
	failed   error
	deadline time.Time
	changed  chan struct{} // closed and replaced when one of these changes
}

// arrival is a datagram that can be read from a time on.
type arrival struct {
	at   time.Time
	from netip.AddrPort
	msg  []byte
}

// maxArrived is how many datagrams wait to be read, as in the buffer of a socket.
const maxArrived = 4096

func (c *linkUDP) change(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
	close(c.changed)
	c.changed = make(chan struct{})
}

// receive reads datagrams and lets them arrive when the link says.
func (c *linkUDP) receive() {
	buf := make([]byte, 64<<10)
	for {
		n, from, err := c.PacketConn.ReadFromUDPAddrPort(buf)
		if err != nil {
			c.change(func() { c.failed = err })
			return
		}
		copies, late := c.link.pass(n)
		a := arrival{time.Now().Add(late), from, slices.Clone(buf[:n])}
		c.change(func() {
			for range min(copies, maxArrived-len(c.arrived)) {
				at := len(c.arrived)
				for at > 0 && c.arrived[at-1].at.After(a.at) {
					at--
				}
				c.arrived = slices.Insert(c.arrived, at, a)
			}
		})
	}
}

// start starts receive once there are faults, and reports whether it runs.
func (c *linkUDP) start() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.started && c.link.device.faults.has(linkFaults...) {
		c.started = true
		_ = c.PacketConn.SetReadDeadline(time.Time{}) // from here on reads from here keep it
		go c.receive()
	}
	return c.started
}

func (c *linkUDP) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	c.deadline = t
	started := c.started
	if !started {
		defer c.mu.Unlock()
		return c.PacketConn.SetReadDeadline(t)
	}
	c.mu.Unlock()
	c.change(func() {})
	return nil
}

func (c *linkUDP) ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error) {
	if !c.start() {
		return c.PacketConn.ReadFromUDPAddrPort(b)
	}
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		c.mu.Lock()
		changed, now := c.changed, time.Now()
		next := time.Time{}
		switch {
		case !c.deadline.IsZero() && !now.Before(c.deadline):
			c.mu.Unlock()
			return 0, netip.AddrPort{}, os.ErrDeadlineExceeded
		case len(c.arrived) > 0 && !now.Before(c.arrived[0].at):
			a := c.arrived[0]
			c.arrived = c.arrived[1:]
			c.mu.Unlock()
			return copy(b, a.msg), a.from, nil
		case len(c.arrived) > 0:
			next = c.arrived[0].at
		case c.failed != nil:
			err := c.failed
			c.mu.Unlock()
			return 0, netip.AddrPort{}, err
		}
		if !c.deadline.IsZero() && (next.IsZero() || c.deadline.Before(next)) {
			next = c.deadline
		}
		c.mu.Unlock()
		if next.IsZero() {
			next = now.Add(time.Hour)
		}
		timer.Reset(time.Until(next))
		select {
		case <-changed:
		case <-timer.C:
		}
	}
}

func (c *linkUDP) WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error) {
	if !c.link.device.faults.has(linkFaults...) {
		return c.PacketConn.WriteToUDPAddrPort(b, to)
	}
	c.link.send(b, func(msg []byte) {
		_, _ = c.PacketConn.WriteToUDPAddrPort(msg, to) // as if it were lost on the way
	})
	return len(b), nil
}

// linkTraps sends notifications.
type linkTraps struct {
	net.Conn
	link *link
}

func (c *linkTraps) Write(msg []byte) (int, error) {
	if !c.link.device.faults.has(linkFaults...) {
		return c.Conn.Write(msg)
	}
	c.link.send(msg, func(msg []byte) {
		_, _ = c.Conn.Write(msg)
	})
	return len(msg), nil
}
