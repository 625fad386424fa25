package files

import (
	"context"
	"net/netip"
	"sync"
)

// How many devices may use the embedded servers at the same time: less
// than the servers take, so that a device finds a slot even if others linger and
// strangers send requests.
const (
	maxSlots        = maxTFTPTransfers * 3 / 4
	maxSlotsPerHost = maxTFTPPerHost * 3 / 4
)

// slots are given out in the order of the requests, except that a host which has all that
// it may have does not delay other hosts.
type slots struct {
	mu      sync.Mutex
	taken   int
	hosts   map[string]int
	waiting []*slotRequest
}

type slotRequest struct {
	host  string
	ready chan struct{}
}

func newSlots() *slots { return &slots{hosts: make(map[string]int)} }

func (p *slots) room(host string) bool {
	return p.taken < maxSlots && p.hosts[host] < maxSlotsPerHost
}

// take waits for a slot and returns a function that gives it back. It calls waits first
// if none is free.
func (p *slots) take(ctx context.Context, host string, waits func()) (release func(), err error) {
	release = sync.OnceFunc(func() { p.release(host) })
	r := &slotRequest{host: host, ready: make(chan struct{})}
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

func (p *slots) release(host string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.giveBack(host)
}

func (p *slots) giveBack(host string) {
	p.taken--
	if p.hosts[host]--; p.hosts[host] == 0 {
		delete(p.hosts, host)
	}
	p.grant()
}

// grant gives free slots to whoever waited longest.
func (p *slots) grant() {
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

// SlotTaker is a session of a server with a limited number of slots.
type SlotTaker interface {
	// TakeSlot waits until the device may use the server, and calls waits if it may not yet.
	// release gives the slot back and may be called twice.
	TakeSlot(ctx context.Context, waits func()) (release func(), err error)
}

// hostOf is what counts as one host: an IPv4 address, or the /64 of an IPv6 address,
// because every host has as many addresses of its /64 as it likes.
func hostOf(a netip.Addr) netip.Prefix {
	a = a.Unmap().WithZone("")
	bits := 64
	if a.Is4() {
		bits = 32
	}
	p, _ := a.Prefix(bits) // fails for an invalid address only: then all of these are one host
	return p
}
