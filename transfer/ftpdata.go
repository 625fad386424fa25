package transfer

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"time"
)

// tlsRecord is the most that one record carries (RFC 8446 section 5.1).
const tlsRecord = 16 << 10

// securedConn is a connection with TLS: a *tls.Conn.
type securedConn interface {
	net.Conn
	Handshake() error
	HandshakeContext(context.Context) error
	CloseWrite() error
}

// dataConn is a data connection on which each read and write has the stall
// time-out.
type dataConn struct {
	net.Conn
	raw     net.Conn // below TLS, or the same
	timeout time.Duration
	sends   bool // it is used for an upload
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
	d.sends = true
	most := len(p)
	if _, secured := d.Conn.(securedConn); secured {
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

// Handshake is called by the library when a file of no bytes is stored: a
// server that expects TLS waits for it.
func (d *dataConn) Handshake() error {
	t, ok := d.Conn.(securedConn)
	if !ok {
		return nil
	}
	d.sends = true
	if err := d.SetDeadline(time.Now().Add(d.timeout)); err != nil {
		return err
	}
	return t.Handshake()
}

// Close ends an upload over TLS in one direction only. The server's session tickets
// and its own end are still to come or unread, and a socket that is closed before
// they were read is reset: what the server has not read yet would be lost. They are
// read while the server's reply on the control connection is awaited; then the
// session closes the socket. A server that waits for our close gets it in time for
// its reply.
func (d *dataConn) Close() error {
	t, ok := d.Conn.(securedConn)
	if !ok || !d.sends {
		return d.Conn.Close()
	}
	err := d.SetDeadline(time.Now().Add(d.timeout))
	if err == nil {
		err = t.CloseWrite()
	}
	half, ok := d.raw.(interface{ CloseWrite() error })
	if err == nil && ok {
		err = half.CloseWrite()
	}
	if err == nil && ok {
		err = d.SetDeadline(time.Now().Add(d.timeout / 2))
	}
	if err != nil || !ok {
		return errors.Join(err, d.Conn.Close())
	}
	go func() {
		_, _ = io.Copy(io.Discard, t) // how it ends does not matter: the reply counts
		_ = d.raw.Close()
	}()
	return nil
}
