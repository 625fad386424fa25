package transfer

import "time"

// Bounds of the retransmission time-out. Below the floor the scheduling of a
// busy host would look like loss.
const (
	firstTimeout = time.Second
	leastTimeout = 60 * time.Millisecond
	mostTimeout  = 5 * time.Second
)

// roundTrip estimates the round-trip time (RFC 6298) and derives how long to
// wait before something is repeated.
type roundTrip struct {
	smoothed time.Duration // 0 before the first sample
	variance time.Duration
	doubled  int // repetitions in a row without an answer
}

// sample takes a measured round trip; never one of something sent twice.
func (r *roundTrip) sample(d time.Duration) {
	if d <= 0 {
		d = time.Microsecond
	}
	if r.smoothed == 0 {
		r.smoothed, r.variance = d, d/2
		return
	}
	diff := r.smoothed - d
	if diff < 0 {
		diff = -diff
	}
	r.variance += (diff - r.variance) / 4
	r.smoothed += (d - r.smoothed) / 8
}

// answered ends the doubling.
func (r *roundTrip) answered() { r.doubled = 0 }

// silent doubles the time-out.
func (r *roundTrip) silent() { r.doubled++ }

// timeout is at least twice the smoothed round trip.
func (r *roundTrip) timeout() time.Duration {
	d := firstTimeout
	if r.smoothed > 0 {
		d = max(2*r.smoothed, r.smoothed+4*r.variance, leastTimeout)
	}
	for i := 0; i < r.doubled && d < mostTimeout; i++ {
		d *= 2
	}
	return min(d, mostTimeout)
}

// share returns a fraction of the round trip, but not less than least.
func (r *roundTrip) share(num, den int64, least time.Duration) time.Duration {
	return max(r.smoothed*time.Duration(num)/time.Duration(den), least)
}
