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

// reserve reserves n bytes and returns how long to wait before they may pass.
func reserve(l *rate.Limiter, n int) (wait time.Duration) {
	if l == nil {
		return 0
	}
	for now := time.Now(); n > 0; n -= l.Burst() {
		wait = l.ReserveN(now, min(n, l.Burst())).DelayFrom(now)
	}
	return wait
}

// throttle waits until n bytes may pass.
func throttle(ctx context.Context, l *rate.Limiter, n int) error {
	if l == nil {
		return ctx.Err()
	}
	for n > 0 {
		part := min(n, l.Burst())
		if err := l.WaitN(ctx, part); err != nil {
			return err
		}
		n -= part
	}
	return nil
}

// limitedReader reads at the limiter's rate, in pieces no larger than its burst.
type limitedReader struct {
	ctx context.Context
	r   io.Reader
	l   *rate.Limiter
}

func (r *limitedReader) Read(p []byte) (int, error) {
	if r.l != nil {
		p = p[:min(len(p), r.l.Burst())]
	}
	n, err := r.r.Read(p)
	if terr := throttle(r.ctx, r.l, n); terr != nil {
		return n, terr
	}
	return n, err
}
