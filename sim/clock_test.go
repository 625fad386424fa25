package sim

import (
	"sync"
	"time"

	"example.com/iad/internal/clock"
)

// hastyClock is the system's clock until it jumps; timers that are due then go off. A
// device that lost its power has a new one.
type hastyClock struct {
	mu     sync.Mutex
	ahead  time.Duration
	timers map[*hastyTimer]struct{}
}

func (c *hastyClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.ahead)
}

func (c *hastyClock) NewTimer(d time.Duration) clock.Timer {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := &hastyTimer{Timer: time.NewTimer(d), clock: c, due: time.Now().Add(d)}
	if c.timers == nil {
		c.timers = make(map[*hastyTimer]struct{})
	}
	c.timers[t] = struct{}{}
	return t
}

func (c *hastyClock) jump(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ahead += d
	for t := range c.timers {
		if time.Until(t.due) <= 0 { // it went off
			delete(c.timers, t)
			continue
		}
		t.due = t.due.Add(-d)
		t.Timer.Reset(max(0, time.Until(t.due)))
	}
}

type hastyTimer struct {
	*time.Timer
	clock *hastyClock
	due   time.Time
}

func (t *hastyTimer) C() <-chan time.Time { return t.Timer.C }

func (t *hastyTimer) Stop() bool {
	t.clock.mu.Lock()
	defer t.clock.mu.Unlock()
	delete(t.clock.timers, t)
	return t.Timer.Stop()
}

func (t *hastyTimer) Reset(d time.Duration) bool {
	t.clock.mu.Lock()
	defer t.clock.mu.Unlock()
	t.due = time.Now().Add(d)
	t.clock.timers[t] = struct{}{}
	return t.Timer.Reset(d)
}
