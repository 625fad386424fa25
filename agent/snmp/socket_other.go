//go:build !linux

package snmp

import "net"

func newSocket(conn net.PacketConn) (socket, error) { return plainSocket{conn}, nil }
