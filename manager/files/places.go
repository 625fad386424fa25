package files

import (
	"context"
	"net"
	"net/netip"
	"sync"
)

// How many devices are commanded to use the embedded servers at the same time: less
// than the servers take, so that a device finds its place although others linger or
// strangers ask as well.
const (
	maxPlaces        = maxTFTPTransfers * 3 / 4
	maxPlacesPerHost = maxTFTPPerHost * 3 / 4
)

// places are handed out in the order in which they were asked for, but none that waits
// for its own host's delays another host.
type places struct {
	mu      sync.Mutex
	taken   int
	hosts   map[string]int
	waiting []*placeRequest
}

type placeRequest struct {
	host  string
	ready chan struct{}
}

func newPlaces() *places { return &places{hosts: make(map[string]int)} }

func (p *places) room(host string) bool {
	return p.taken < maxPlaces && p.hosts[host] < maxPlacesPerHost
}

// take waits for a place and returns what gives it back; waits is called before if
// there is none now.
func (p *places) take(ctx context.Context, host string, waits func()) (release func(), err error) {
	release = sync.OnceFunc(func() { p.release(host) })
	r := &placeRequest{host: host, ready: make(chan struct{})}
	p.mu.Lock()
	p.waiting = append(p.waiting, r)
	p.grant()
	p.mu.Unlock()
	select {
	case <-r.ready:
		return release, nil
	default:
		waits()
	}
	select {
	case <-r.ready:
		return release, nil
	case <-ctx.Done():
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, other := range p.waiting {
		if other == r {
			p.waiting = append(p.waiting[:i], p.waiting[i+1:]...)
			return nil, ctx.Err()
		}
	}
	p.giveBack(host) // granted at the same moment
	return nil, ctx.Err()
}

func (p *places) release(host string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.giveBack(host)
}

func (p *places) giveBack(host string) {
	p.taken--
	if p.hosts[host]--; p.hosts[host] == 0 {
		delete(p.hosts, host)
	}
	p.grant()
}

// grant gives free places to whoever waited longest.
func (p *places) grant() {
	left := p.waiting[:0]
	for _, r := range p.waiting {
		if !p.room(r.host) {
			left = append(left, r)
			continue
		}
		p.taken++
		p.hosts[r.host]++
		close(r.ready)
	}
	clear(p.waiting[len(left):])
	p.waiting = left
}

// Placed is a session whose server has only so many places.
type Placed interface {
	// takePlace waits until the device may use the server. waits is called if that is
	// not now. The place is given back by release, which may be called twice.
	TakePlace(ctx context.Context, waits func()) (release func(), err error)
}

var _ Placed = (*serverSession)(nil)

func (s *serverSession) TakePlace(ctx context.Context, waits func()) (release func(), err error) {
	host, _, err := net.SplitHostPort(s.target)
	if err != nil {
		host = s.target
	}
	if address, err := netip.ParseAddr(host); err == nil {
		host = hostOf(address).String()
	}
	return s.servers.places.take(ctx, host, waits)
}
