//go:build !linux

package snmp

import "net"

func newSocket(conn net.PacketConn, size int) (socket, error) {
	return &plainSocket{PacketConn: conn, buf: make([]byte, size)}, nil
}
