package manager

import (
	"context"
	"log/slog"
	"net"
	"sync"
)

// Bounds of the FTP server's control connections.
const (
	maxFTPConnections = 512
	maxFTPPerHost     = 128 // many devices may stand behind one address
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
