package files

import (
	"context"
	"io"
	"time"

	"golang.org/x/time/rate"
)

// newLimiter returns a limiter, in bytes per second, that all transfers share, or nil for
// no limit. The burst of a twentieth of a second keeps progress smooth; it is at least
// one TFTP block.
func newLimiter(octets int) *rate.Limiter {
	if octets <= 0 {
		return nil
	}
	return rate.NewLimiter(rate.Limit(octets), max(octets/20, 2048))
}

// Limit is a limit of some transfers together, beside that of all; see Servers.OpenLimited.
type Limit struct {
	name    string
	limiter *rate.Limiter
}

// NewLimit returns a limit in bytes per second, which must be positive. The name, which is a part of
// the names of directories, is different from that of any other limit.
func NewLimit(name string, bytes int) *Limit { return &Limit{name, newLimiter(bytes)} }

// limits all apply to a transfer.
type limits []*rate.Limiter

// rate returns the lowest rate in bytes per second, 0 if there is no limit.
func (l limits) rate() (lowest float64) {
	for _, one := range l {
		if r := float64(one.Limit()); lowest == 0 || r < lowest {
			lowest = r
		}
	}
	return lowest
}

// burst returns the lowest burst in bytes, 0 if there is no limit.
func (l limits) burst() (lowest int) {
	for _, one := range l {
		if lowest == 0 || one.Burst() < lowest {
			lowest = one.Burst()
		}
	}
	return lowest
}

// reserve reserves n bytes and returns how long to wait before they may pass.
func (l limits) reserve(n int) (wait time.Duration) {
	now := time.Now()
	for _, one := range l {
		for rest := n; rest > 0; rest -= one.Burst() {
			wait = max(wait, one.ReserveN(now, min(rest, one.Burst())).DelayFrom(now))
		}
	}
	return wait
}

// throttle waits until n bytes may pass.
func (l limits) throttle(ctx context.Context, n int) error {
	for _, one := range l {
		for rest := n; rest > 0; {
			part := min(rest, one.Burst())
			if err := one.WaitN(ctx, part); err != nil {
				return err
			}
			rest -= part
		}
	}
	return ctx.Err()
}

// limitedReader reads at the rate of the limits, in pieces no larger than their burst.
type limitedReader struct {
	ctx context.Context
	r   io.Reader
	l   limits
}

func (r *limitedReader) Read(p []byte) (int, error) {
	if burst := r.l.burst(); burst > 0 {
		p = p[:min(len(p), burst)]
	}
	n, err := r.r.Read(p)
	if terr := r.l.throttle(r.ctx, n); terr != nil {
		return n, terr
	}
	return n, err
}
