package manager

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"time"
)

// Bounds of the FTP server's control connections.
const (
	maxFTPConnections = 512
	maxFTPPerHost     = 128 // many devices may stand behind one address
	// ftpDataStall is how long nothing may move on a data connection.
	ftpDataStall = time.Minute
)

// closingListener closes what it accepted when ctx ends. ftpserverlib's own
// way to close a connection from outside races with its work on it.
type closingListener struct {
	net.Listener
	ctx context.Context
}

func (l closingListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(l.ctx, func() { _ = conn.Close() }) // ends reads and writes; nobody hears of it
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

// patientListener gives up data connections on which nothing moves; ftpserverlib waits
// for ever.
type patientListener struct{ net.Listener }

func (l patientListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &patientConn{conn, ftpDataStall}, nil
}

// patientConn waits for so long at every read and write.
type patientConn struct {
	net.Conn
	stall time.Duration
}

func (c *patientConn) Read(p []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(c.stall)); err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}

func (c *patientConn) Write(p []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(c.stall)); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

// crowdedListener closes at once what one host, or all of them, have too many of.
type crowdedListener struct {
	net.Listener
	log *slog.Logger

	mu    sync.Mutex
	all   int
	hosts map[string]int
}

func (l *crowdedListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		host, _, err := net.SplitHostPort(conn.RemoteAddr().String())
		if err == nil && l.enter(host) {
			return &countedConn{Conn: conn, leave: sync.OnceFunc(func() { l.leave(host) })}, nil
		}
		l.log.Debug("FTP connection not served: too many", "client", conn.RemoteAddr())
		_ = conn.Close() // nothing was sent
	}
}

func (l *crowdedListener) enter(host string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all >= maxFTPConnections || l.hosts[host] >= maxFTPPerHost {
		return false
	}
	l.all++
	l.hosts[host]++
	return true
}

func (l *crowdedListener) leave(host string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all--
	if l.hosts[host]--; l.hosts[host] == 0 {
		delete(l.hosts, host)
	}
}

type countedConn struct {
	net.Conn
	leave func()
}

func (c *countedConn) Close() error {
	c.leave()
	return c.Conn.Close()
}
