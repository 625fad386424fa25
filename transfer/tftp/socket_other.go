//go:build !linux

package tftp

import (
	"net"
	"net/netip"
)

func tuneClient(*net.UDPConn) {}

func allowFragments(*net.UDPConn) {}

// TellDestination does nothing: answers come from the address that the system chooses.
func TellDestination(*net.UDPConn) {}

// Destination does not know.
func Destination([]byte) netip.Addr { return netip.Addr{} }
