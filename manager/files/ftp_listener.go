package files

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"
)

// Limits of the FTP server's control connections.
const (
	maxFTPConnections = 512
	maxFTPPerHost     = 128 // many devices may stand behind one address
	// ftpLoginTime is the maximum time to log in, including TLS.
	ftpLoginTime = 20 * time.Second
	// maxFTPRefusals is how many wrong passwords one connection may try.
	maxFTPRefusals = 3
	// ftpDataStall is how long a data connection may be idle.
	ftpDataStall = time.Minute
)

// closingListener closes the connections that it has accepted when ctx ends.
// ftpserverlib's own way to close a connection races with its work on it.
type closingListener struct {
	net.Listener
	ctx context.Context
}

func (l closingListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(l.ctx, func() { _ = conn.Close() }) // ends reads and writes
	return closingConn{conn, stop}, nil
}

type closingConn struct {
	net.Conn
	stop func() bool
}

func (c closingConn) Close() error {
	c.stop()
	return c.Conn.Close()
}

// zoneless is an address without a zone in its text: ftpserverlib parses none with a
// zone, and compares addresses of control and data connections as text.
type zoneless struct{ netip.AddrPort }

func (zoneless) Network() string { return "tcp" }

func (z zoneless) String() string {
	return netip.AddrPortFrom(z.Addr().WithZone(""), z.Port()).String()
}

func withoutZone(a net.Addr) net.Addr {
	if full, err := netip.ParseAddrPort(a.String()); err == nil {
		return zoneless{full}
	}
	return a
}

// timeoutListener closes data connections that are idle; ftpserverlib would wait forever.
type timeoutListener struct{ net.Listener }

func (l timeoutListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &timeoutConn{conn, ftpDataStall}, nil
}

// timeoutConn has a deadline for every read and write.
type timeoutConn struct {
	net.Conn
	stall time.Duration
}

func (c *timeoutConn) RemoteAddr() net.Addr { return withoutZone(c.Conn.RemoteAddr()) }

func (c *timeoutConn) Read(p []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(c.stall)); err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}

func (c *timeoutConn) Write(p []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(c.stall)); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

// busyReply is the reply to a client for which there is no room (RFC 959, section 5.4): a
// device reports serverBusy and is commanded again later.
const busyReply = "421 Too many connections; try again later.\r\n"

// limitListener limits the control connections of one host and of all hosts. A client
// that has not logged in makes room for a new one and has limited time to log in, so
// nobody without a password can block others.
type limitListener struct {
	net.Listener
	log *slog.Logger

	mu      sync.Mutex
	clients map[netip.AddrPort]*ftpClient
	hosts   map[netip.Prefix]int // see hostOf
}

func newLimitListener(l net.Listener, log *slog.Logger) *limitListener {
	return &limitListener{Listener: l, log: log, clients: make(map[netip.AddrPort]*ftpClient), hosts: make(map[netip.Prefix]int)}
}

// ftpClient is a control connection. The listener's lock protects its fields.
type ftpClient struct {
	net.Conn
	listener        *limitListener
	address         netip.AddrPort
	host            netip.Prefix
	begun           time.Time
	deadline        *time.Timer
	loggedIn        bool
	refused         int  // log-ins
	closeAfterReply bool // closed after the next reply
	removed         bool
}

func (l *limitListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		address, err := netip.ParseAddrPort(conn.RemoteAddr().String())
		if err == nil {
			if c := l.admit(conn, address); c != nil {
				return c, nil
			}
		}
		l.log.Debug("FTP connection refused: too many connections", "client", conn.RemoteAddr())
		_ = conn.SetWriteDeadline(time.Now().Add(time.Second))
		_, _ = io.WriteString(conn, busyReply) // fits the buffer of a new connection
		_ = conn.Close()
	}
}

// admit accepts a connection if there is room, else it returns nil.
func (l *limitListener) admit(conn net.Conn, address netip.AddrPort) *ftpClient {
	c := &ftpClient{Conn: conn, listener: l, address: address, host: hostOf(address.Addr()), begun: time.Now()}
	l.mu.Lock()
	var evicted *ftpClient
	room := true
	switch {
	case l.hosts[c.host] >= maxFTPPerHost:
		evicted, room = l.evict(c.host)
	case len(l.clients) >= maxFTPConnections:
		evicted, room = l.evict(netip.Prefix{})
	}
	if room {
		l.clients[address] = c
		l.hosts[c.host]++
		c.deadline = time.AfterFunc(ftpLoginTime, func() { _ = c.Close() }) // an error does not matter
	}
	l.mu.Unlock()
	if evicted != nil {
		_ = evicted.Conn.Close()
	}
	if !room {
		return nil
	}
	return c
}

// evict removes the oldest client that has not logged in: one of the host, or if host is
// not valid, of the host that has most of them.
func (l *limitListener) evict(host netip.Prefix) (evicted *ftpClient, found bool) {
	strangers := make(map[netip.Prefix]int)
	for _, c := range l.clients {
		if !c.loggedIn {
			strangers[c.host]++
		}
	}
	for _, c := range l.clients {
		if c.loggedIn || host.IsValid() && c.host != host {
			continue
		}
		if evicted == nil || strangers[c.host] > strangers[evicted.host] ||
			strangers[c.host] == strangers[evicted.host] && c.begun.Before(evicted.begun) {
			evicted = c
		}
	}
	if evicted == nil {
		return nil, false
	}
	l.forget(evicted)
	return evicted, true
}

// forget removes a client, once.
func (l *limitListener) forget(c *ftpClient) {
	if c.removed {
		return
	}
	c.removed = true
	c.deadline.Stop()
	if l.clients[c.address] == c {
		delete(l.clients, c.address)
	}
	if l.hosts[c.host]--; l.hosts[c.host] == 0 {
		delete(l.hosts, c.host)
	}
}

// recordLogin records the result of a log-in from an address.
func (l *limitListener) recordLogin(from net.Addr, good bool) {
	address, ok := from.(zoneless)
	if !ok {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.clients[address.AddrPort]
	switch {
	case c == nil:
	case good:
		c.loggedIn = true
		c.deadline.Stop()
	default:
		c.refused++
		c.closeAfterReply = c.refused >= maxFTPRefusals
	}
}

func (c *ftpClient) RemoteAddr() net.Addr { return zoneless{c.address} }

// Write closes the connection after the reply to the last permitted log-in.
func (c *ftpClient) Write(p []byte) (int, error) {
	if string(p) == refusedActive {
		_, err := io.WriteString(c.Conn, activeReply)
		return len(p), err
	}
	n, err := c.Conn.Write(p)
	c.listener.mu.Lock()
	closeAfterReply := c.closeAfterReply
	c.listener.mu.Unlock()
	if closeAfterReply {
		_ = c.Close()
	}
	return n, err
}

func (c *ftpClient) Close() error {
	c.listener.mu.Lock()
	c.listener.forget(c)
	c.listener.mu.Unlock()
	return c.Conn.Close()
}
