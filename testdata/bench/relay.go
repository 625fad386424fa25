package main

import (
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"
)

// line says what happens to datagrams, in each direction.
type line struct {
	delay time.Duration
	loss  float64 // share of the datagrams
}

// relay carries one TFTP transfer between a client and a server over a line. The client meets the server at one port for the
// request and at another for the transfer, as without a relay.
type relay struct {
	line
	front, face, back *net.UDPConn // for requests, for the transfer, towards the server
	server            netip.AddrPort
	running           sync.WaitGroup

	mu     sync.Mutex
	random *rand.Rand
	client netip.AddrPort
	peer   netip.AddrPort // the server's end of the transfer
}

// startRelay starts a relay to a server on 127.0.0.1. The seed decides which datagrams are lost.
func startRelay(server int, way line, seed uint64) (*relay, error) {
	r := &relay{line: way, server: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(server)), random: rand.New(rand.NewPCG(seed, 0))}
	for _, c := range []**net.UDPConn{&r.front, &r.face, &r.back} {
		conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			return nil, err
		}
		_ = conn.SetReadBuffer(4 << 20) // the kernel may allow less
		*c = conn
	}
	r.running.Go(func() {
		r.carry(r.front, r.back, func(from netip.AddrPort) netip.AddrPort {
			r.client = from
			return r.server
		})
	})
	r.running.Go(func() {
		r.carry(r.face, r.back, func(netip.AddrPort) netip.AddrPort { return r.peer })
	})
	r.running.Go(func() {
		r.carry(r.back, r.face, func(from netip.AddrPort) netip.AddrPort {
			r.peer = from
			return r.client
		})
	})
	return r, nil
}

func (r *relay) port() int { return r.front.LocalAddr().(*net.UDPAddr).Port }

// close ends the relay; datagrams on the line are lost.
func (r *relay) close() {
	for _, c := range []*net.UDPConn{r.front, r.face, r.back} {
		c.Close()
	}
	r.running.Wait()
}

// datagram is one on its way.
type datagram struct {
	data []byte
	to   netip.AddrPort
	at   time.Time // when it arrives
}

// carry moves what arrives at a socket to another one, after the delay. route is called under the lock.
func (r *relay) carry(in, out *net.UDPConn, route func(from netip.AddrPort) netip.AddrPort) {
	way := make(chan datagram, 1<<14)
	defer close(way)
	r.running.Go(func() {
		for d := range way {
			time.Sleep(time.Until(d.at))
			if _, err := out.WriteToUDPAddrPort(d.data, d.to); errors.Is(err, net.ErrClosed) {
				return
			}
		}
	})
	buf := make([]byte, 1<<16)
	for {
		n, from, err := in.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		} else if err != nil {
			continue // a port unreachable of one that has ended
		}
		r.mu.Lock()
		to, lost := route(from), r.random.Float64() < r.loss
		r.mu.Unlock()
		if lost || !to.IsValid() {
			continue
		}
		select {
		case way <- datagram{append([]byte(nil), buf[:n]...), to, time.Now().Add(r.delay)}:
		default: // the line is full
		}
	}
}
