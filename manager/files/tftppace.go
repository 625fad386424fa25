package files

import "time"

// Bounds of the TFTP server's retransmission time-out. Below the least one the
// scheduling of a busy host would look like loss.
const (
	firstTFTPTimeout = time.Second
	leastTFTPTimeout = 60 * time.Millisecond
	mostTFTPTimeout  = 5 * time.Second
)

// tftpPace estimates the round trip to a client (RFC 6298) and says how long to wait
// before something is repeated.
type tftpPace struct {
	most     time.Duration // of a time-out: the client's own, if it names one (RFC 2349)
	smoothed time.Duration // 0 before the first sample
	variance time.Duration
	silences int // in a row
}

// sample takes a measured round trip, never one of something sent twice.
func (p *tftpPace) sample(d time.Duration) {
	d = max(d, time.Microsecond)
	if p.smoothed == 0 {
		p.smoothed, p.variance = d, d/2
		return
	}
	p.variance += ((p.smoothed - d).Abs() - p.variance) / 4
	p.smoothed += (d - p.smoothed) / 8
}

// timeout is at least twice the round trip, and twice as long after each silence.
func (p *tftpPace) timeout() time.Duration {
	d := firstTFTPTimeout
	if p.smoothed > 0 {
		d = max(2*p.smoothed, p.smoothed+4*p.variance, leastTFTPTimeout)
	}
	for range p.silences {
		if d *= 2; d >= p.most {
			break
		}
	}
	return min(d, p.most)
}
