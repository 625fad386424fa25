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
	read(buf []byte) (int, netip.AddrPort, error)
	// write answers the request read last.
	write(msg []byte, dst netip.AddrPort) error
}

// plainSocket leaves it to the system which address an answer comes from.
type plainSocket struct{ net.PacketConn }

func (s plainSocket) read(buf []byte) (int, netip.AddrPort, error) {
	n, src, err := s.ReadFrom(buf)
	return n, addrPort(src), err
}

func (s plainSocket) write(msg []byte, dst netip.AddrPort) error {
	_, err := s.WriteTo(msg, net.UDPAddrFromAddrPort(dst))
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
