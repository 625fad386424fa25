package peers

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
)

// FreePort returns a port of 127.0.0.1 that nobody uses, for a server that has to be given
// one; network is tcp or udp. It is not a port that the system gives to those who ask for
// any: hundreds of sockets of a test would take it before the server does.
func FreePort(network string) (int, error) {
	first, beyond := 10_000, 32_768
	if data, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range"); err == nil {
		if _, err := fmt.Sscan(string(data), &beyond); err != nil {
			return 0, fmt.Errorf("ports that the system gives away: %w", err)
		}
	}
	if beyond < 2*first { // few are left below
		first = 1024
	}
	last := errors.New("none is left")
	for range 100 {
		if beyond <= first {
			break
		}
		port := first + rand.IntN(beyond-first)
		if last = tryPort(network, port); last == nil {
			return port, nil
		}
	}
	return 0, fmt.Errorf("no free %s port below %d, where the system gives ports away: %w", network, beyond, last)
}

// tryPort uses a port for a moment.
func tryPort(network string, port int) (err error) {
	var c io.Closer
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	if network == "udp" {
		c, err = net.ListenPacket("udp4", address)
	} else {
		c, err = net.Listen("tcp4", address)
	}
	if err != nil {
		return err
	}
	return c.Close()
}
