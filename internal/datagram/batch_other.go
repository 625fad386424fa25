//go:build !linux

package datagram

import (
	"errors"
	"net"
	"net/netip"
)

// Batch does not exist here: every datagram is a call of its own.
type Batch struct{}

// New returns nil.
func New(*net.UDPConn, int, int, int) *Batch { return nil }

// The methods of a Batch on Linux.

func (*Batch) Waiting() bool        { return false }
func (*Batch) Next() error          { return errors.ErrUnsupported }
func (*Batch) Data() []byte         { return nil }
func (*Batch) Control() []byte      { return nil }
func (*Batch) From() netip.AddrPort { return netip.AddrPort{} }
func (*Batch) Answer(_, _ []byte)   {}
func (*Batch) Flush() error         { return errors.ErrUnsupported }
