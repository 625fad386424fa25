//go:build !linux

package tftp

import (
	"net"
	"net/netip"
)

func tuneClient(c *net.UDPConn) { setReceiveBuffer(c) }

func setReceiveBuffer(c *net.UDPConn) { _ = c.SetReadBuffer(receiveBuffer) }

func allowFragments(*net.UDPConn) {}

// EnableDestination does nothing: answers come from the address that the system chooses.
func EnableDestination(*net.UDPConn) {}

// Destination does not know.
func Destination([]byte) netip.Addr { return netip.Addr{} }

// source has nothing to say.
func source(netip.Addr) []byte { return nil }

// segmenting returns conn: every datagram is a call of its own.
func segmenting(conn *net.UDPConn) Conn { return conn }
