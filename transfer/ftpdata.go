package transfer

import (
	"crypto/tls"
	"errors"
	"net"
	"os"
	"time"
)

// tlsRecord is the most that one record carries (RFC 8446 section 5.1).
const tlsRecord = 16 << 10

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
