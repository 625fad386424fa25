package transfer_test

import (
	"container/heap"
	"math/rand"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"
)

// line says what a relay does to what passes it, in each direction.
type line struct {
	delay     time.Duration // one way
	loss      float64       // share of datagrams
	duplicate float64
	reorder   float64 // share that is held back for a while longer
	mtu       int     // larger datagrams vanish; 0 for no limit
	seed      int64
	passed    func(b []byte) // sees each datagram, if not nil
}

// relayUDP relays TFTP to a server over a bad line and returns its port. It
// gives each of the server's transfer IDs a port of its own, as a router that
// translates addresses does.
func relayUDP(t testing.TB, server netip.AddrPort, l line) (port int) {
	t.Helper()
	front, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	r := &udpRelay{line: l, server: server, random: rand.New(rand.NewSource(l.seed)), clients: map[netip.AddrPort]*udpClient{}}
	r.sockets = append(r.sockets, front)
	r.queue = newDelayLine()
	t.Cleanup(r.close)
	r.running.Add(1)
	go func() {
		defer r.running.Done()
		buf := make([]byte, 1<<16)
		for {
			n, from, err := front.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			if c := r.client(from, front); c != nil {
				r.pass(buf[:n], c.back, r.server)
			}
		}
	}()
	return front.LocalAddr().(*net.UDPAddr).Port
}

type udpRelay struct {
	line
	server  netip.AddrPort
	queue   *delayLine
	running sync.WaitGroup

	mu      sync.Mutex
	random  *rand.Rand
	clients map[netip.AddrPort]*udpClient
	sockets []*net.UDPConn
	closed  bool
}

// udpClient is one client's socket towards the server.
type udpClient struct {
	back  *net.UDPConn
	faces map[netip.AddrPort]*net.UDPConn // towards the client, by the server's transfer ID
}

func (r *udpRelay) close() {
	r.mu.Lock()
	r.closed = true
	for _, s := range r.sockets {
		s.Close()
	}
	r.mu.Unlock()
	r.queue.close()
	r.running.Wait()
}

func (r *udpRelay) open() *net.UDPConn {
	if r.closed {
		return nil
	}
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil
	}
	_ = c.SetReadBuffer(4 << 20)
	r.sockets = append(r.sockets, c)
	return c
}

func (r *udpRelay) client(from netip.AddrPort, front *net.UDPConn) *udpClient {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c := r.clients[from]; c != nil {
		return c
	}
	back := r.open()
	if back == nil {
		return nil
	}
	c := &udpClient{back: back, faces: map[netip.AddrPort]*net.UDPConn{}}
	r.clients[from] = c
	r.running.Add(1)
	go func() {
		defer r.running.Done()
		buf := make([]byte, 1<<16)
		for {
			n, tid, err := back.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			if face := r.face(c, tid); face != nil {
				r.pass(buf[:n], face, from)
			}
		}
	}()
	return c
}

// face returns the socket that stands for one of the server's transfer IDs.
func (r *udpRelay) face(c *udpClient, tid netip.AddrPort) *net.UDPConn {
	r.mu.Lock()
	defer r.mu.Unlock()
	if f := c.faces[tid]; f != nil {
		return f
	}
	f := r.open()
	if f == nil {
		return nil
	}
	c.faces[tid] = f
	r.running.Add(1)
	go func() {
		defer r.running.Done()
		buf := make([]byte, 1<<16)
		for {
			n, _, err := f.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			r.pass(buf[:n], c.back, tid)
		}
	}()
	return f
}

// pass sends a datagram on its way, or loses it.
func (r *udpRelay) pass(b []byte, via *net.UDPConn, to netip.AddrPort) {
	r.mu.Lock()
	lost := r.random.Float64() < r.loss
	twice := r.random.Float64() < r.duplicate
	late := r.random.Float64() < r.reorder
	r.mu.Unlock()
	if r.passed != nil {
		r.passed(b)
	}
	if lost || r.mtu > 0 && len(b)+28 > r.mtu {
		return
	}
	b = append([]byte(nil), b...)
	send := func() { _, _ = via.WriteToUDPAddrPort(b, to) }
	delay := r.delay
	if late {
		delay += 3 * time.Millisecond
	}
	r.queue.add(delay, send)
	if twice {
		r.queue.add(delay+time.Millisecond, send)
	}
}

// delayLine runs functions after a delay, in the order of their time.
type delayLine struct {
	mu    sync.Mutex
	queue delayQueue
	seq   int
	wake  chan struct{}
	done  chan struct{}
	ended chan struct{}
}

type delayed struct {
	at  time.Time
	seq int
	run func()
}

func newDelayLine() *delayLine {
	d := &delayLine{wake: make(chan struct{}, 1), done: make(chan struct{}), ended: make(chan struct{})}
	go d.loop()
	return d
}

func (d *delayLine) add(delay time.Duration, run func()) {
	d.mu.Lock()
	d.seq++
	heap.Push(&d.queue, delayed{time.Now().Add(delay), d.seq, run})
	d.mu.Unlock()
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

func (d *delayLine) close() {
	close(d.done)
	<-d.ended
}

func (d *delayLine) loop() {
	defer close(d.ended)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		wait := time.Hour
		d.mu.Lock()
		for len(d.queue) > 0 {
			if wait = time.Until(d.queue[0].at); wait > 0 {
				break
			}
			next := heap.Pop(&d.queue).(delayed)
			d.mu.Unlock()
			next.run()
			d.mu.Lock()
			wait = time.Hour
		}
		d.mu.Unlock()
		timer.Reset(wait)
		select {
		case <-timer.C:
		case <-d.wake:
		case <-d.done:
			return
		}
	}
}

type delayQueue []delayed

func (q delayQueue) Len() int { return len(q) }
func (q delayQueue) Less(i, j int) bool {
	if q[i].at.Equal(q[j].at) {
		return q[i].seq < q[j].seq
	}
	return q[i].at.Before(q[j].at)
}
func (q delayQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *delayQueue) Push(x any)   { *q = append(*q, x.(delayed)) }
func (q *delayQueue) Pop() any {
	old := *q
	x := old[len(old)-1]
	*q = old[:len(old)-1]
	return x
}
