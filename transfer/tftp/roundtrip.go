package tftp

import "time"

// Bounds of the retransmission time-out. Below the least one the scheduling of a
// busy host would look like loss.
const (
	firstTimeout = time.Second
	leastTimeout = 60 * time.Millisecond
	mostTimeout  = 5 * time.Second
)

// RoundTrip estimates the round-trip time (RFC 6298) and derives how long to
// wait before something is repeated.
type RoundTrip struct {
	// Most is the longest time-out, 0 for 5 s: a client may name its own (RFC 2349).
	Most time.Duration

	smoothed time.Duration // 0 before the first sample
	variance time.Duration
	silences int // in a row
}

// sample takes a measured round trip; never one of something sent twice.
func (r *RoundTrip) sample(d time.Duration) {
	d = max(d, time.Microsecond)
	if r.smoothed == 0 {
		r.smoothed, r.variance = d, d/2
		return
	}
	r.variance += (max(r.smoothed-d, d-r.smoothed) - r.variance) / 4
	r.smoothed += (d - r.smoothed) / 8
}

// answered ends the doubling.
func (r *RoundTrip) answered() { r.silences = 0 }

// silent doubles the time-out.
func (r *RoundTrip) silent() { r.silences++ }

// Timeout is at least twice the smoothed round trip, and twice as long after
// each silence.
func (r *RoundTrip) Timeout() time.Duration {
	d, most := firstTimeout, r.Most
	if r.smoothed > 0 {
		d = max(2*r.smoothed, r.smoothed+4*r.variance, leastTimeout)
	}
	if most == 0 {
		most = mostTimeout
	}
	for i := 0; i < r.silences && d < most; i++ {
		d *= 2
	}
	return min(d, most)
}

// share returns a fraction of the round trip, but not less than least.
func (r *RoundTrip) share(num, den int64, least time.Duration) time.Duration {
	return max(r.smoothed*time.Duration(num)/time.Duration(den), least)
}
