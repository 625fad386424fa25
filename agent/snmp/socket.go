package snmp

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
)

// Listen opens a UDP socket for Config.Conn. address is HOST:PORT; no host
// means all addresses of IPv4 and IPv6, port 0 any free port.
func Listen(address string) (net.PacketConn, error) {
	failed := func(err error, remedy string) error {
		return fmt.Errorf("snmp: cannot listen on UDP address %q: %w; %s", address, err, remedy)
	}
	addr, err := net.ResolveUDPAddr("udp", address)
	if err != nil {
		var bad *net.AddrError
		if errors.As(err, &bad) {
			err = errors.New(bad.Err)
		}
		return nil, failed(err, "give HOST:PORT, such as 127.0.0.1:1161, or :161 for all addresses of the device")
	}
	conn, err := net.ListenUDP("udp", addr)
	if err == nil {
		return conn, nil
	}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		err = errno // without the address, which failed adds
	}
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, failed(err, "stop the program that uses it, or choose another address")
	case errors.Is(err, syscall.EACCES):
		return nil, failed(err, "ports below 1024 need root or the capability CAP_NET_BIND_SERVICE")
	}
	return nil, failed(err, "choose an address of this device")
}

// socket reads requests and answers them.
type socket interface {
	// next waits for a request and takes it. What the other methods say of it is good
	// until flush.
	next() error
	// waiting reports whether next returns at once, because requests came together.
	waiting() bool
	request() (msg []byte, src netip.AddrPort)
	// answer answers the request taken last, at the latest when flush is called.
	answer(msg []byte) error
	flush() error
}

// batchSize is how many requests are read and answered together: most of what there is to
// gain, and the first of them does not wait long for the answer.
const batchSize = 8

// plainSocket leaves it to the system which address an answer comes from.
type plainSocket struct {
	net.PacketConn
	buf []byte
	n   int
	src net.Addr
}

func (s *plainSocket) next() (err error) {
	s.n, s.src, err = s.ReadFrom(s.buf)
	return err
}

func (s *plainSocket) waiting() bool                     { return false }
func (s *plainSocket) request() ([]byte, netip.AddrPort) { return s.buf[:s.n], addrPort(s.src) }
func (s *plainSocket) flush() error                      { return nil }

func (s *plainSocket) answer(msg []byte) error {
	_, err := s.WriteTo(msg, s.src)
	return err
}

// addrPort is a UDP address with IPv4 in its own form.
func addrPort(addr net.Addr) netip.AddrPort {
	udp, ok := addr.(*net.UDPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	p := udp.AddrPort()
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
}
