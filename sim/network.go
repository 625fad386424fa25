package sim

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"sync"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"

	"example.com/iad/agent/snmp"
)

// Network gives each of many devices an address of its own on one UDP socket.
type Network struct {
	addresses netip.Prefix
	port      uint16
	socket    *socket
	done      chan struct{} // closed when no more datagrams are received

	mu       sync.RWMutex
	stations map[netip.Addr]*station
}

// OpenNetwork opens a socket for the addresses of a range. They must be addresses of this
// machine: those of 127.0.0.0/8 are on Linux, others become so by
// "ip route add local RANGE dev lo". With port 0 the system chooses one for all devices.
func OpenNetwork(addresses netip.Prefix, port uint16) (*Network, error) {
	addresses = addresses.Masked()
	network, all := "udp4", netip.IPv4Unspecified()
	if addresses.Addr().Is6() {
		network, all = "udp6", netip.IPv6Unspecified()
	}
	listener := net.ListenConfig{Control: controlShared}
	conn, err := listener.ListenPacket(context.Background(), network, netip.AddrPortFrom(all, port).String())
	if err != nil {
		return nil, fmt.Errorf("sim: UDP port %d of all addresses: %w; choose another port", port, err)
	}
	n := &Network{addresses: addresses, socket: newSocket(conn), done: make(chan struct{}), stations: map[netip.Addr]*station{}}
	n.port = n.socket.local().Port()
	go n.receive()
	return n, nil
}

// Close closes the socket.
func (n *Network) Close() error {
	err := n.socket.Close()
	<-n.done
	return err
}

// Port is the UDP port of the devices.
func (n *Network) Port() uint16 { return n.port }

// Size is how many devices have room.
func (n *Network) Size() int { return Room(n.addresses) }

// Room is how many devices have room in a range, of which the first address and, with IPv4,
// the last one are not for devices.
func Room(addresses netip.Prefix) int {
	bits := addresses.Addr().BitLen() - addresses.Bits()
	if bits > 30 {
		return 1 << 30
	}
	size := 1<<bits - skipped(addresses)
	if addresses.Addr().Is4() {
		size -= skipped(addresses)
	}
	return size
}

// skipped is 1 if the first address of a range is not for a device: of two or one all are.
func skipped(addresses netip.Prefix) int {
	if addresses.Addr().BitLen()-addresses.Bits() > 1 {
		return 1
	}
	return 0
}

// Address is that of device i, counted from 0; it must be less than Size.
func (n *Network) Address(i int) netip.Addr {
	base := n.addresses.Addr().AsSlice()
	sum := new(big.Int).SetBytes(base)
	sum.Add(sum, big.NewInt(int64(i+skipped(n.addresses))))
	a, _ := netip.AddrFromSlice(sum.FillBytes(base))
	return a
}

// receive hands datagrams to the stations.
func (n *Network) receive() {
	defer close(n.done)
	buf := make([]byte, 64<<10)
	for {
		size, to, from, err := n.socket.read(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // what one datagram meets does not concern the next
		}
		n.mu.RLock()
		s := n.stations[to]
		n.mu.RUnlock()
		if s != nil {
			s.deliver(from, to, buf[:size])
		}
	}
}

// attach gives a device an address.
func (n *Network) attach(a netip.Addr, handle handler, transmit func([]byte, func([]byte))) (*station, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case !n.addresses.Contains(a):
		return nil, fmt.Errorf("sim: address %s is not in %s", a, n.addresses)
	case n.stations[a] != nil:
		return nil, fmt.Errorf("sim: two devices have the address %s", a)
	}
	s := &station{socket: n.socket, local: netip.AddrPortFrom(a, n.port), own: a, handle: handle, transmit: transmit}
	s.detach = func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.stations, a)
	}
	n.stations[a] = s
	return s, nil
}

// listen gives a device a socket of its own; address is as for snmp.Listen.
func listen(address string, handle handler, transmit func([]byte, func([]byte))) (*station, error) {
	conn, err := snmp.Listen(address)
	if err != nil {
		return nil, err
	}
	s := &station{socket: newSocket(conn), handle: handle, transmit: transmit}
	s.local = s.socket.local()
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, maxDatagram+1)
		for {
			size, to, from, err := s.socket.read(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				s.deliver(from, to, buf[:size])
			}
		}
	}()
	s.detach = func() {
		_ = conn.Close() // a UDP socket keeps nothing that could be lost
		<-done
	}
	return s, nil
}

// maxDatagram is the longest message of the SNMP engine, unless it is configured.
const maxDatagram = 8192

// socket sends from the address of choice, and reports the address that a datagram was
// sent to, where the operating system can.
type socket struct {
	net.PacketConn
	v4 *ipv4.PacketConn // one of the two
	v6 *ipv6.PacketConn
}

func newSocket(conn net.PacketConn) *socket {
	s := &socket{PacketConn: conn}
	if s.local().Addr().Is4() {
		s.v4 = ipv4.NewPacketConn(conn)
		_ = s.v4.SetControlMessage(ipv4.FlagDst, true)
	} else {
		s.v6 = ipv6.NewPacketConn(conn)
		_ = s.v6.SetControlMessage(ipv6.FlagDst, true)
	}
	return s
}

func (s *socket) local() netip.AddrPort {
	a, _ := s.LocalAddr().(*net.UDPAddr)
	return unmap(a.AddrPort())
}

func unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// read returns the size of a datagram and its addresses; to is invalid if it is not known.
func (s *socket) read(buf []byte) (size int, to netip.Addr, from netip.AddrPort, err error) {
	var source net.Addr
	var dst net.IP
	if s.v4 != nil {
		var c *ipv4.ControlMessage
		if size, c, source, err = s.v4.ReadFrom(buf); c != nil {
			dst = c.Dst
		}
	} else {
		var c *ipv6.ControlMessage
		if size, c, source, err = s.v6.ReadFrom(buf); c != nil {
			dst = c.Dst
		}
	}
	to, _ = netip.AddrFromSlice(dst)
	if a, ok := source.(*net.UDPAddr); ok {
		from = a.AddrPort()
	}
	return size, to.Unmap(), from, err
}

// write sends a datagram from an address, which the system chooses if it is invalid.
func (s *socket) write(msg []byte, from netip.Addr, to netip.AddrPort) error {
	var err error
	dst := net.UDPAddrFromAddrPort(to)
	switch {
	case !from.IsValid():
		_, err = s.WriteTo(msg, dst)
	case s.v4 != nil:
		_, err = s.v4.WriteTo(msg, &ipv4.ControlMessage{Src: from.AsSlice()}, dst)
	default:
		a := from.As16()
		_, err = s.v6.WriteTo(msg, &ipv6.ControlMessage{Src: a[:]}, dst)
	}
	return err
}
