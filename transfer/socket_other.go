//go:build !linux

package transfer

import "net"

func limitUnsent(net.Conn) {}

func tuneUDP(*net.UDPConn) {}
