package tftp

import (
	"bytes"
	"context"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"
)

// togetherConn counts the calls that send several datagrams, and fails them with err.
type togetherConn struct {
	Conn
	calls int
	err   error
}

func (c *togetherConn) WriteSegments(b []byte, size int) error {
	if c.calls++; c.err != nil {
		return c.err
	}
	if s, ok := c.Conn.(segmenter); ok {
		return s.WriteSegments(b, size)
	}
	for ; len(b) > 0; b = b[min(size, len(b)):] {
		if _, err := c.Write(b[:min(size, len(b))]); err != nil {
			return err
		}
	}
	return nil
}

// TestSegments: blocks that go out together arrive as they are, one datagram each, and
// where the system cannot do that they go out one by one.
func TestSegments(t *testing.T) {
	for name, c := range map[string]struct {
		err    error
		block  int
		unique bool // only the first window was tried together
	}{
		"together":        {nil, 512, false},
		"refused":         {syscall.EIO, 512, true},
		"larger than all": {nil, 40_000, false},
	} {
		t.Run(name, func(t *testing.T) {
			client, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			conn, err := Dial(netip.Addr{}, client.LocalAddr().(*net.UDPAddr).AddrPort(), 1<<16)
			if err != nil {
				t.Fatal(err)
			}
			window := min(16, 100_000/c.block) // fits the usual receive buffer
			counting := &togetherConn{Conn: conn, err: c.err}
			link := NewLink(context.Background(), counting, 0)
			defer link.Close()
			link.FirstPatience, link.Patience = 10*time.Second, 10*time.Second
			content := make([]byte, 5*64*c.block/8+100)
			for i := range content {
				content[i] = byte(i * i >> 8)
			}
			done := make(chan error, 1)
			go func() {
				s := NewSender(link, Options{BlockSize: c.block, Window: window}, nil)
				done <- s.SendFile(bytes.NewReader(content), int64(len(content)))
			}()
			var got []byte
			buf := make([]byte, 1<<16)
			_ = client.SetReadDeadline(time.Now().Add(30 * time.Second))
			for next, final := uint16(1), false; !final; {
				n, from, err := client.ReadFromUDPAddrPort(buf)
				if err != nil {
					t.Fatal(err)
				}
				p, err := Parse(buf[:n])
				if err != nil || p.Op != OpData {
					t.Fatalf("%+v, %v", p, err)
				}
				if p.Block != next {
					continue // sent again on a busy machine
				}
				got = append(got, p.Data...)
				if final = len(p.Data) < c.block; final || next%uint16(window) == 0 {
					if _, err := client.WriteToUDPAddrPort(AppendAck(nil, next), from); err != nil {
						t.Fatal(err)
					}
				}
				next++
			}
			if err := <-done; err != nil {
				t.Error(err)
			}
			if !bytes.Equal(got, content) {
				t.Errorf("%d bytes arrived of %d, or others", len(got), len(content))
			}
			if (counting.calls == 1) != c.unique || c.block < batchSize/2 && counting.calls == 0 {
				t.Errorf("%d calls for several datagrams", counting.calls)
			}
		})
	}
}
