package bench_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"example.com/iad/conformance/bench"
	"example.com/iad/internal/peers"
)

// lockedBuffer is a file that is written and read at the same time.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// TestCapture: of the packets on loopback, those from and to the device are recorded, each once, with the names of tests.
func TestCapture(t *testing.T) {
	peers.NeedRoot(t)
	for _, c := range []struct{ own, device, other string }{{"127.0.0.1", "127.0.0.77", "127.0.0.78"}, {"::1", "::1", "127.0.0.1"}} {
		t.Run(c.device, func(t *testing.T) {
			listen := func(address string) net.PacketConn {
				t.Helper()
				conn, err := net.ListenPacket("udp", net.JoinHostPort(address, "0"))
				if err != nil {
					t.Skipf("no address %s: %v", address, err)
				}
				t.Cleanup(func() { conn.Close() })
				return conn
			}
			device, other, manager := listen(c.device), listen(c.other), listen(c.own)
			// What others send while it opens is not recorded.
			ctx, cancel := context.WithCancel(t.Context())
			var noise sync.WaitGroup
			noise.Go(func() {
				for ctx.Err() == nil {
					if _, err := other.WriteTo([]byte("noise"), other.LocalAddr()); err != nil {
						t.Error(err)
						return
					}
				}
			})
			var file lockedBuffer
			capture, err := bench.OpenCapture(&file, netip.MustParseAddr(c.own), netip.MustParseAddr(c.device))
			cancel()
			noise.Wait()
			if err != nil {
				t.Fatal(err)
			}
			if n := capture.Mark("first"); n != 0 {
				t.Errorf("%d packets at the beginning", n)
			}
			// exchange sends a text and waits until it has arrived.
			exchange := func(from, to net.PacketConn, text string) {
				t.Helper()
				if _, err := from.WriteTo([]byte(text), to.LocalAddr()); err != nil {
					t.Fatal(err)
				}
				if _, _, err := to.ReadFrom(make([]byte, 100)); err != nil {
					t.Fatal(err)
				}
			}
			exchange(manager, device, "get")
			exchange(other, other, "noise")
			exchange(device, manager, "response")
			// await sends what is not recorded until n packets are: they are read from another socket.
			await := func(n int) {
				t.Helper()
				for deadline := time.Now().Add(30 * time.Second); capture.Packets() < n; {
					if time.Now().After(deadline) {
						t.Fatalf("%d packets, want %d", capture.Packets(), n)
					}
					exchange(other, other, "noise")
				}
			}
			await(2)
			if n := capture.Mark("second"); n != 2 {
				t.Errorf("%d packets, want 2", n)
			}
			exchange(manager, device, "set")
			await(3)
			if err := capture.Close(); err != nil {
				t.Error(err)
			}

			r, err := pcapgo.NewNgReader(&file.b, pcapgo.DefaultNgReaderOptions)
			if err != nil {
				t.Fatal(err)
			}
			var got [][]string
			for {
				data, info, options, err := r.ReadPacketDataWithOptions()
				if errors.Is(err, io.EOF) {
					break
				} else if err != nil {
					t.Fatal(err)
				}
				packet := gopacket.NewPacket(data, layers.LayerTypeEthernet, gopacket.Default)
				udp, ok := packet.Layer(layers.LayerTypeUDP).(*layers.UDP)
				if !ok || info.Timestamp.IsZero() {
					t.Fatalf("not a packet of the test: %s", packet)
				}
				got = append(got, append([]string{string(udp.Payload)}, options.Comments...))
			}
			if diff := cmp.Diff([][]string{{"get", "first"}, {"response"}, {"set", "second"}}, got); diff != "" {
				t.Errorf("packets (-want +got):\n%s", diff)
			}
		})
	}
}

func TestCaptureNeedsAnInterface(t *testing.T) {
	if _, err := bench.OpenCapture(io.Discard, netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")); err == nil {
		t.Error("packets of an address of another machine are recorded")
	}
}
