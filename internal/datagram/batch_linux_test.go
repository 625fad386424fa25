package datagram_test

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"example.com/iad/internal/datagram"
)

func listen(t *testing.T, network, address string) *net.UDPConn {
	t.Helper()
	c, err := net.ListenPacket(network, address)
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c.(*net.UDPConn)
}

// Datagrams that wait together come in their order, with their senders, and so do the
// answers. One that cannot be sent is lost alone.
func TestBatch(t *testing.T) {
	for name, c := range map[string]struct{ network, address string }{
		"IPv4": {"udp4", "127.0.0.1:0"}, "IPv6": {"udp6", "[::1]:0"}, "both": {"udp", "127.0.0.1:0"},
	} {
		t.Run(name, func(t *testing.T) {
			server := listen(t, c.network, c.address)
			const most, size, rounds = 4, 100, 3
			b := datagram.New(server, most, size, 0)
			to := server.LocalAddr().(*net.UDPAddr).AddrPort()
			clients := []*net.UDPConn{listen(t, c.network, c.address), listen(t, c.network, c.address)}
			var addresses []netip.AddrPort
			for _, client := range clients {
				addresses = append(addresses, client.LocalAddr().(*net.UDPAddr).AddrPort())
			}
			atOnce := 0 // how many came together at most
			for round := range rounds {
				const count = 9
				for i := range count {
					if _, err := clients[i%2].WriteToUDPAddrPort(fmt.Appendf(nil, "request %d/%d", round, i), to); err != nil {
						t.Fatal(err)
					}
				}
				together := 0
				for i := range count {
					if err := b.Next(); err != nil {
						t.Fatal(err)
					}
					together++
					if want := fmt.Sprintf("request %d/%d", round, i); string(b.Data()) != want || b.From() != addresses[i%2] {
						t.Fatalf("got %q from %v, want %q from %v", b.Data(), b.From(), want, addresses[i%2])
					}
					answer := fmt.Appendf(nil, "answer %d/%d", round, i)
					if i == 3 {
						answer = make([]byte, 1<<17) // too long for UDP
					}
					b.Answer(answer, nil)
					if !b.Waiting() {
						atOnce, together = max(atOnce, together), 0
						if err := b.Flush(); err != nil && i < 3 {
							t.Fatal(err)
						}
					}
				}
				buf := make([]byte, 200)
				for i := range count {
					if i == 3 {
						continue
					}
					n, _, err := clients[i%2].ReadFromUDPAddrPort(buf)
					if want := fmt.Sprintf("answer %d/%d", round, i); err != nil || string(buf[:n]) != want {
						t.Fatalf("got %q, %v, want %q", buf[:n], err, want)
					}
				}
			}
			if atOnce != most {
				t.Errorf("%d datagrams came together at most, want %d", atOnce, most)
			}
		})
	}
}

// A datagram longer than there is room for is cut off, and does not run into the next.
func TestCutOff(t *testing.T) {
	server, client := listen(t, "udp4", "127.0.0.1:0"), listen(t, "udp4", "127.0.0.1:0")
	b := datagram.New(server, 4, 10, 64)
	for _, text := range []string{"0123456789abcdef", "next"} {
		if _, err := client.WriteTo([]byte(text), server.LocalAddr()); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{"0123456789", "next"} {
		if err := b.Next(); err != nil || string(b.Data()) != want {
			t.Errorf("got %q, %v, want %q", b.Data(), err, want)
		}
	}
}

// Ancillary data are those of each datagram.
func TestControl(t *testing.T) {
	server, client := listen(t, "udp4", "127.0.0.1:0"), listen(t, "udp4", "127.0.0.1:0")
	raw, err := server.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1) }); err != nil {
		t.Fatal(err)
	}
	b := datagram.New(server, 4, 10, 64)
	for range 2 {
		if _, err := client.WriteTo([]byte("x"), server.LocalAddr()); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if err := b.Next(); err != nil {
			t.Fatal(err)
		}
		messages, err := unix.ParseSocketControlMessage(b.Control())
		if err != nil || len(messages) != 1 || !bytes.Contains(messages[0].Data, []byte{127, 0, 0, 1}) {
			t.Errorf("ancillary data %v, %v", messages, err)
		}
	}
}

// Closing the connection, or its deadline, ends the wait.
func TestEnd(t *testing.T) {
	server := listen(t, "udp4", "127.0.0.1:0")
	b := datagram.New(server, 4, 10, 0)
	if err := server.SetReadDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if err := b.Next(); err == nil {
		t.Error("the deadline has passed, and there was no error")
	}
	server.Close()
	if err := b.Next(); err == nil {
		t.Error("the connection is closed, and there was no error")
	}
}
