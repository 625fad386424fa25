package snmp

import (
	"container/list"
	"net/netip"
	"time"

	"golang.org/x/time/rate"
)

// Limits of what strangers may make the engine do, for a port and for an
// address with all its ports: events a second in the long run, and at once.
// Whoever forges a manager's address competes with the manager for the
// address's share, but not for that of the manager's port, which is unknown
// to those who cannot see its messages. So the first may be small and the
// second must be large.
const (
	// Failed authentications. Beyond it messages are not looked at, which
	// slows down guessing.
	portFailureRate, portFailureBurst = 20, 100
	addrFailureRate, addrFailureBurst = 2000, 4000
	// Reports, and refusals to nobody in particular. They are about as long
	// as what they answer, so beyond it nothing is gained by having them sent
	// to somebody else.
	portReportRate, portReportBurst = 20, 100
	addrReportRate, addrReportBurst = 1000, 2000
)

const (
	// maxSources is how many ports, and addresses, are remembered.
	maxSources = 512
	// maxPeers is how many ports are remembered that authenticated, and
	// peerTime for how long after their last message.
	maxPeers = 64
	peerTime = 10 * time.Minute
)

// guard limits failed authentications and Reports by source. It belongs to
// the goroutine that reads requests.
type guard struct {
	failures limits
	reports  limits
	warnings *rate.Limiter
	// peers authenticated: the limit of failures does not hold for them.
	peers map[netip.AddrPort]time.Time
}

func (g *guard) init() {
	g.failures = limits{newBuckets(portFailureRate, portFailureBurst), newBuckets(addrFailureRate, addrFailureBurst)}
	g.reports = limits{newBuckets(portReportRate, portReportBurst), newBuckets(addrReportRate, addrReportBurst)}
	g.warnings = rate.NewLimiter(1, 10)
	g.peers = make(map[netip.AddrPort]time.Time)
}

// mayTry reports whether a message from src may be judged.
func (g *guard) mayTry(src netip.AddrPort, now time.Time) bool {
	if last, ok := g.peers[src]; ok && now.Sub(last) < peerTime {
		return true
	}
	return g.failures.left(src, now)
}

// failed notes a failure; it reports whether to log it.
func (g *guard) failed(src netip.AddrPort, now time.Time) bool {
	g.failures.take(src, now)
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

// mayReport reports whether src may be sent a Report, and counts it.
func (g *guard) mayReport(src netip.AddrPort, now time.Time) bool {
	if !g.reports.left(src, now) {
		return false
	}
	g.reports.take(src, now)
	return true
}

// limits are those of a source's port and of its address.
type limits struct{ port, addr *buckets }

// address is what the ports of a host have in common. One host may have all
// of an IPv6 /64.
func address(src netip.AddrPort) netip.AddrPort {
	bits := 32
	if src.Addr().Is6() {
		bits = 64
	}
	prefix, _ := src.Addr().Prefix(bits)
	return netip.AddrPortFrom(prefix.Addr(), 0)
}

func (l *limits) left(src netip.AddrPort, now time.Time) bool {
	return l.port.of(src).TokensAt(now) >= 1 && l.addr.of(address(src)).TokensAt(now) >= 1
}

func (l *limits) take(src netip.AddrPort, now time.Time) {
	l.port.of(src).AllowN(now, 1)
	l.addr.of(address(src)).AllowN(now, 1)
}

// buckets are token buckets, one for each source. The least recently used is
// forgotten when there are too many.
type buckets struct {
	limit rate.Limit
	burst int
	order *list.List // of *bucket, the most recently used first
	byKey map[netip.AddrPort]*list.Element
}

type bucket struct {
	key     netip.AddrPort
	limiter *rate.Limiter
}

func newBuckets(limit rate.Limit, burst int) *buckets {
	return &buckets{limit: limit, burst: burst, order: list.New(), byKey: make(map[netip.AddrPort]*list.Element)}
}

func (b *buckets) of(key netip.AddrPort) *rate.Limiter {
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
