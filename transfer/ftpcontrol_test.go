package transfer

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"
	"time"
)

type stubConn struct {
	net.Conn
	say *bytes.Reader
}

func (s *stubConn) Read(p []byte) (int, error)  { return s.say.Read(p) }
func (s *stubConn) Write(p []byte) (int, error) { return len(p), nil }
func (s *stubConn) SetDeadline(time.Time) error { return nil }

// FuzzControlReply: what a server says after one command is bounded, and its
// last code is a code or none.
func FuzzControlReply(f *testing.F) {
	f.Fuzz(func(t *testing.T, said []byte, times uint16) {
		all := bytes.Repeat(said, int(times%2000)+1)
		if len(all) > 1<<20 {
			return
		}
		g := newControlConn(&stubConn{say: bytes.NewReader(all)}, time.Second)
		if _, err := g.Write([]byte("SIZE file\r\n")); err != nil || g.lastVerb() != "SIZE" {
			t.Fatalf("command %q, %v", g.lastVerb(), err)
		}
		n, err := io.Copy(io.Discard, struct{ io.Reader }{g})
		if n > maxReply {
			t.Errorf("%d octets of a reply were let through", n)
		}
		if errors.Is(err, errReplyTooLong) != (len(all) >= maxReply) {
			t.Errorf("%d octets: error %v", len(all), err)
		}
		if code, _ := g.lastReply(); code != 0 && (code < 100 || code > 999) {
			t.Errorf("reply code %d", code)
		}
	})
}
