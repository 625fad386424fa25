package auth

import (
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// How many passwords and tokens may be wrong: guessBurst at once, then one each
// guessPause, for each address and for each user.
const (
	guessBurst = 10
	guessPause = 6 * time.Second
	// maxGuessers limits memory: beyond it, those who guessed are forgotten when their
	// tokens are full again.
	maxGuessers = 10_000
)

// guesses limits failures by key.
type guesses struct {
	mu    sync.Mutex
	byKey map[string]*rate.Limiter
	now   func() time.Time
}

func newGuesses(now func() time.Time) *guesses {
	return &guesses{byKey: make(map[string]*rate.Limiter), now: now}
}

// blocked reports whether one of the keys has failed too often.
func (g *guesses) blocked(keys ...string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, key := range keys {
		if l := g.byKey[key]; l != nil && l.TokensAt(g.now()) < 1 {
			return true
		}
	}
	return false
}

// failed counts a failure for each key.
func (g *guesses) failed(keys ...string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.now()
	if len(g.byKey) >= maxGuessers {
		for key, l := range g.byKey {
			if l.TokensAt(now) >= guessBurst {
				delete(g.byKey, key)
			}
		}
	}
	for _, key := range keys {
		l := g.byKey[key]
		if l == nil {
			if len(g.byKey) >= 2*maxGuessers {
				continue
			}
			l = rate.NewLimiter(rate.Every(guessPause), guessBurst)
			g.byKey[key] = l
		}
		l.AllowN(now, 1)
	}
}

// network is the key of an address: IPv6 addresses of one /64 belong to one guesser.
func network(from string) string {
	addr, err := netip.ParseAddr(from)
	if err != nil {
		return "address " + from
	}
	addr = addr.Unmap()
	if addr.Is6() {
		prefix, err := addr.Prefix(64)
		if err == nil {
			return "address " + prefix.String()
		}
	}
	return "address " + addr.String()
}

// Host returns the host of the address HOST:PORT of a client.
func Host(remote string) string {
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		return remote
	}
	return host
}
