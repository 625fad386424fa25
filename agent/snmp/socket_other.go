//go:build !linux

package snmp

import (
	"net"
	"net/netip"
)

// socket answers requests; the system chooses the source address.
type socket struct{ *net.UDPConn }

func newSocket(conn *net.UDPConn) (*socket, error) { return &socket{conn}, nil }

func (s *socket) read(buf []byte) (int, netip.AddrPort, error) {
	return s.ReadFromUDPAddrPort(buf)
}

func (s *socket) write(msg []byte, dst netip.AddrPort) error {
	_, err := s.WriteToUDPAddrPort(msg, dst)
	return err
}
