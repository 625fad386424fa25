package files_test

import (
	"bytes"
	"math/rand"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// line says what a relay does to datagrams, in each direction.
type line struct {
	delay                    time.Duration // one way
	loss, duplicate, reorder float64       // shares
	seed                     int64
}

// relayTFTP relays TFTP to a server on 127.0.0.1 over a bad line and returns its port.
// To a client it is one address for the server's port and for its transfer IDs, as a
// client's socket is used for one transfer at a time.
func relayTFTP(t testing.TB, server int, l line) (port int) {
	t.Helper()
	open := func() *net.UDPConn {
		c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Error(err)
			return nil
		}
		_ = c.SetReadBuffer(4 << 20)
		return c
	}
	front := open()
	if front == nil {
		t.FailNow()
	}
	r := &relay{line: l, random: rand.New(rand.NewSource(l.seed)), moving: make(chan datagram, 1<<14), done: make(chan struct{})}
	backs := map[netip.AddrPort]*net.UDPConn{}
	request := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(server))
	r.tasks.Go(r.move)
	r.tasks.Go(func() {
		tids := map[netip.AddrPort]*atomic.Pointer[netip.AddrPort]{}
		r.read(front, func(b []byte, from netip.AddrPort) {
			if backs[from] == nil {
				back, tid := open(), &atomic.Pointer[netip.AddrPort]{}
				if back == nil {
					return
				}
				backs[from], tids[from] = back, tid
				r.tasks.Go(func() {
					r.read(back, func(b []byte, from2 netip.AddrPort) {
						tid.Store(&from2)
						r.pass(b, front, from)
					})
				})
			}
			to := request
			if known := tids[from].Load(); known != nil && b[1] > 2 { // no request
				to = *known
			}
			r.pass(b, backs[from], to)
		})
		for _, back := range backs {
			back.Close()
		}
	})
	t.Cleanup(func() {
		close(r.done)
		front.Close()
		r.tasks.Wait()
	})
	return front.LocalAddr().(*net.UDPAddr).Port
}

type relay struct {
	line
	tasks  sync.WaitGroup
	moving chan datagram
	done   chan struct{}
	mu     sync.Mutex
	random *rand.Rand
}

type datagram struct {
	due   time.Time
	b     []byte
	via   *net.UDPConn
	to    netip.AddrPort
	twice bool
}

func (r *relay) read(c *net.UDPConn, f func([]byte, netip.AddrPort)) {
	buf := make([]byte, 1<<16)
	for {
		n, from, err := c.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		f(bytes.Clone(buf[:n]), from)
	}
}

func (r *relay) pass(b []byte, via *net.UDPConn, to netip.AddrPort) {
	r.mu.Lock()
	lost, twice, late := r.random.Float64() < r.loss, r.random.Float64() < r.duplicate, r.random.Float64() < r.reorder
	r.mu.Unlock()
	if lost {
		return
	}
	d := datagram{time.Now().Add(r.delay), b, via, to, twice}
	if late {
		time.AfterFunc(r.delay+3*time.Millisecond, d.send)
		return
	}
	select {
	case r.moving <- d:
	case <-r.done:
	}
}

// move keeps datagrams in order and for as long as the line is.
func (r *relay) move() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-r.done:
			return
		case d := <-r.moving:
			timer.Reset(time.Until(d.due))
			select {
			case <-timer.C:
				d.send()
			case <-r.done:
				return
			}
		}
	}
}

func (d datagram) send() {
	_, _ = d.via.WriteToUDPAddrPort(d.b, d.to) // closed at the test's end
	if d.twice {
		_, _ = d.via.WriteToUDPAddrPort(d.b, d.to)
	}
}
