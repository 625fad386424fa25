package peers_test

import (
	"fmt"
	"net"
	"os"
	"testing"

	"example.com/iad/internal/peers"
)

// The port is one that the system does not give to those who ask for any.
func TestFreePort(t *testing.T) {
	data, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		t.Skip(err)
	}
	var first, last int
	if _, err := fmt.Sscan(string(data), &first, &last); err != nil {
		t.Fatal(err)
	}
	for _, network := range []string{"udp", "tcp"} {
		port, err := peers.FreePort(network)
		if err != nil {
			t.Fatal(err)
		}
		if port >= first && port <= last {
			t.Errorf("%s port %d is among those that the system gives away, %d to %d", network, port, first, last)
		}
		address := fmt.Sprintf("127.0.0.1:%d", port)
		if network == "udp" {
			c, err := net.ListenPacket("udp4", address)
			if err != nil {
				t.Fatal(err)
			}
			c.Close()
		} else {
			l, err := net.Listen("tcp4", address)
			if err != nil {
				t.Fatal(err)
			}
			l.Close()
		}
	}
}
