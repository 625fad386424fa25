package snmp

import (
	"container/list"
	"net/netip"
	"time"

	"golang.org/x/time/rate"
)

// Limits of what strangers may make the engine do.
const (
	// A source may fail to authenticate that often at once, and that often a
	// second in the long run. Beyond it its messages are not looked at, which
	// makes guessing pass phrases hopeless.
	failureBurst = 100
	failureRate  = 20
	// Reports that a source is sent: each command of a manager that keeps
	// nothing begins with one, but the address may be forged, and then a
	// victim gets them, some 12 kB a second at most.
	reportBurst = 200
	reportRate  = 100
	// Sources that are remembered, and peers that authenticated.
	maxSources = 1024
	maxPeers   = 64
	// peerTime is how long a peer stays known after its last message.
	peerTime = 10 * time.Minute
)

// guard limits failed authentications and Reports by source. It belongs to
// the goroutine that reads requests.
//
// An attacker who forges a manager's address could use up the manager's
// share. So an address with its port that did authenticate is not subject to
// the limit of failures for a while; one who cannot see the manager's
// messages does not know the port.
type guard struct {
	failures buckets
	reports  buckets
	warnings *rate.Limiter
	peers    map[netip.AddrPort]time.Time
}

func (g *guard) init() {
	g.failures.init(failureRate, failureBurst)
	g.reports.init(reportRate, reportBurst)
	g.warnings = rate.NewLimiter(1, 10)
	g.peers = make(map[netip.AddrPort]time.Time)
}

// mayTry tells whether a message from src may be judged.
func (g *guard) mayTry(src netip.AddrPort, now time.Time) bool {
	if last, ok := g.peers[src]; ok && now.Sub(last) < peerTime {
		return true
	}
	return g.failures.of(src.Addr()).TokensAt(now) >= 1
}

// failed notes a failure; it tells whether to log it.
func (g *guard) failed(src netip.AddrPort, now time.Time) bool {
	g.failures.of(src.Addr()).AllowN(now, 1)
	return g.warnings.AllowN(now, 1)
}

// succeeded notes that a message from src was authentic.
func (g *guard) succeeded(src netip.AddrPort, now time.Time) {
	if _, known := g.peers[src]; !known && len(g.peers) >= maxPeers {
		var oldest netip.AddrPort
		for p, t := range g.peers {
			if !oldest.IsValid() || t.Before(g.peers[oldest]) {
				oldest = p
			}
		}
		delete(g.peers, oldest)
	}
	g.peers[src] = now
}

// mayReport tells whether src may be sent a Report, and counts it.
func (g *guard) mayReport(src netip.AddrPort, now time.Time) bool {
	return g.reports.of(src.Addr()).AllowN(now, 1)
}

// buckets are token buckets, one for each source. The least recently used is
// forgotten when there are too many.
type buckets struct {
	limit rate.Limit
	burst int
	order *list.List // of *bucket, the most recently used first
	byKey map[netip.Prefix]*list.Element
}

type bucket struct {
	key     netip.Prefix
	limiter *rate.Limiter
}

func (b *buckets) init(limit rate.Limit, burst int) {
	b.limit, b.burst = limit, burst
	b.order, b.byKey = list.New(), make(map[netip.Prefix]*list.Element)
}

// of returns the bucket of an address. One host may have all of an IPv6 /64.
func (b *buckets) of(addr netip.Addr) *rate.Limiter {
	bits := 32
	if addr.Is6() {
		bits = 64
	}
	key, _ := addr.Prefix(bits)
	if e, ok := b.byKey[key]; ok {
		b.order.MoveToFront(e)
		return e.Value.(*bucket).limiter
	}
	if len(b.byKey) >= maxSources {
		oldest := b.order.Back()
		delete(b.byKey, oldest.Value.(*bucket).key)
		b.order.Remove(oldest)
	}
	l := rate.NewLimiter(b.limit, b.burst)
	b.byKey[key] = b.order.PushFront(&bucket{key, l})
	return l
}
