package tftp

import (
	"bytes"
	"context"
	"encoding/binary"
	"net"
	"testing"
)

// memorySink has room for any file.
type memorySink struct{ bytes.Buffer }

func (*memorySink) Room(int) (<-chan struct{}, error) { return nil, nil }
func (*memorySink) End() error                        { return nil }

// FuzzReceive: an honest server's blocks arrive in any order, any number of
// times; what is read is the file's beginning, never anything else. Each pair of
// bytes in the input picks a block relative to the one that is due.
func FuzzReceive(f *testing.F) {
	server, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		f.Fatal(err)
	}
	defer server.Close()
	to := server.LocalAddr().(*net.UDPAddr).AddrPort()
	f.Fuzz(func(t *testing.T, window uint8, last uint8, picks []byte) {
		const size = 8
		if len(picks) > 1000 {
			return
		}
		conn, err := ListenUDP("udp4")
		if err != nil {
			t.Fatal(err)
		}
		link := NewClient(context.Background(), conn, to, size)
		defer link.Close()
		link.client.from = to
		link.client.lock()
		got := &memorySink{}
		r := NewReceiver(link, got, Options{BlockSize: size, Window: int(window%100) + 1}, nil)
		r.KeepEarly = window%2 == 0
		payload := func(n int64) []byte {
			b := binary.BigEndian.AppendUint64(nil, uint64(n))
			if n == int64(last)+1 {
				b = b[:3]
			}
			return b
		}
		for _, pick := range picks {
			n := max(r.next+int64(int8(pick)), 0)
			if n > int64(last)+1 || r.final {
				continue
			}
			if err := r.take(Packet{Op: OpData, Block: uint16(n), Data: payload(n)}); err != nil {
				t.Fatal(err)
			}
		}
		var want []byte
		for n := int64(1); n < r.next; n++ {
			want = append(want, payload(n)...)
		}
		if !bytes.Equal(got.Bytes(), want) {
			t.Errorf("read %x, want %x", got.Bytes(), want)
		}
	})
}
