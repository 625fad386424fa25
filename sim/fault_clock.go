package sim

import (
	"time"

	"example.com/iad/internal/clock"
)

// wrongClock shows another time than the clock below. It is wrong by the same all the time,
// so that no more time passes by it than passes.
type wrongClock struct {
	clock.Clock
	by time.Duration
}

// newWrongClock returns a clock that is ahead by a time, or begins in 1970 if that is 0.
func newWrongClock(c clock.Clock, by time.Duration) *wrongClock {
	if by == 0 {
		by = time.Unix(0, 0).Sub(c.Now())
	}
	return &wrongClock{c, by}
}

func (c *wrongClock) Now() time.Time { return c.Clock.Now().Add(c.by) }
