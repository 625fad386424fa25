package sim

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"example.com/iad/transfer/tftp"
)

// handler answers a request, if there is an answer; done, if any, is called after it was
// sent.
type handler func(from netip.AddrPort, msg []byte) (reply []byte, done func())

// station is a device's place in the network.
type station struct {
	socket *socket
	local  netip.AddrPort // where it answers
	own    netip.Addr     // that everything leaves from; invalid where the system chooses
	handle handler
	detach func()
	// transmit calls write when an answer leaves: once, more often or never.
	transmit func(msg []byte, write func([]byte))

	mu      sync.Mutex
	waiting []datagram
	working bool // a goroutine answers what waits
	closed  bool
	work    sync.WaitGroup
}

type datagram struct {
	from netip.AddrPort
	to   netip.Addr // the answer leaves from it; invalid where the system chooses
	msg  []byte
}

// maxWaiting is how many requests wait for one device, as in the buffer of a socket.
const maxWaiting = 64

// deliver takes a request, of which the caller keeps the buffer.
func (s *station) deliver(from netip.AddrPort, to netip.Addr, msg []byte) {
	if to.IsMulticast() || !s.own.IsValid() && !s.local.Addr().IsUnspecified() {
		to = netip.Addr{}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || len(s.waiting) >= maxWaiting {
		return
	}
	s.waiting = append(s.waiting, datagram{from, to, bytes.Clone(msg)})
	if !s.working {
		s.working = true
		s.work.Go(s.answer)
	}
}

// answer answers what waits, one after another.
func (s *station) answer() {
	for {
		s.mu.Lock()
		if len(s.waiting) == 0 {
			s.waiting, s.working = nil, false
			s.mu.Unlock()
			return
		}
		d := s.waiting[0]
		s.waiting = s.waiting[1:]
		s.mu.Unlock()
		reply, done := s.handle(d.from, d.msg)
		if reply != nil {
			s.transmit(reply, func(msg []byte) { _ = s.socket.write(msg, d.to, d.from) }) // who asked asks again
		}
		if done != nil {
			done()
		}
	}
}

// close ends everything that the station does.
func (s *station) close() {
	s.mu.Lock()
	s.closed, s.waiting = true, nil
	s.mu.Unlock()
	s.detach()
	s.work.Wait()
}

// Dial opens a connection from the device's address, for transfer.Network.
func (s *station) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	var d net.Dialer
	if s.own.IsValid() {
		d.Control = controlOwn
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(s.own, 0))
		if network == "udp" {
			d.LocalAddr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(s.own, 0))
		}
	}
	return d.DialContext(ctx, network, address)
}

// ListenUDP opens a socket of the device's address, for transfer.Network. One of the other
// address family has an address that the system chooses.
func (s *station) ListenUDP(network string) (tftp.PacketConn, error) {
	if !s.own.IsValid() || s.own.Is6() != (network == "udp6") {
		return tftp.ListenUDP(network)
	}
	listener := net.ListenConfig{Control: controlOwn}
	conn, err := listener.ListenPacket(context.Background(), network, netip.AddrPortFrom(s.own, 0).String())
	if err != nil {
		return nil, err
	}
	udp := conn.(*net.UDPConn)
	tftp.TuneClient(udp)
	return udp, nil
}

// dialTraps opens the way to a receiver of notifications that does not answer: many devices
// use their common socket.
func (s *station) dialTraps(_ context.Context, _, address string) (net.Conn, error) {
	network := "udp6"
	if s.own.Is4() {
		network = "udp4"
	}
	to, err := net.ResolveUDPAddr(network, address)
	if err != nil {
		return nil, err
	}
	return &trapConn{s, unmap(to.AddrPort())}, nil
}

// trapConn sends to one receiver.
type trapConn struct {
	station *station
	to      netip.AddrPort
}

var errOneWay = errors.New("sim: a socket for traps receives nothing")

func (c *trapConn) Write(msg []byte) (int, error) {
	if err := c.station.socket.write(msg, c.station.own, c.to); err != nil {
		return 0, err
	}
	return len(msg), nil
}

func (c *trapConn) Read([]byte) (int, error)         { return 0, errOneWay }
func (c *trapConn) Close() error                     { return nil }
func (c *trapConn) LocalAddr() net.Addr              { return net.UDPAddrFromAddrPort(c.station.local) }
func (c *trapConn) RemoteAddr() net.Addr             { return net.UDPAddrFromAddrPort(c.to) }
func (c *trapConn) SetDeadline(time.Time) error      { return nil }
func (c *trapConn) SetReadDeadline(time.Time) error  { return nil }
func (c *trapConn) SetWriteDeadline(time.Time) error { return nil }
