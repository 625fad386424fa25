package agentx

import (
	"sync"
	"testing"
	"time"

	"example.com/iad/internal/clock"
)

// fakeClock is a Clock that stands still until a test fires a timer.
type fakeClock struct {
	mu      sync.Mutex
	now     time.Time
	timers  map[*fakeTimer]bool // those that run
	changed chan struct{}       // closed at the next change
}

func newFakeClock() *fakeClock {
	return &fakeClock{
		now:    time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		timers: map[*fakeTimer]bool{}, changed: make(chan struct{}),
	}
}

func (c *fakeClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *fakeClock) NewTimer(d time.Duration) clock.Timer {
	t := &fakeTimer{clock: c, c: make(chan time.Time, 1)}
	t.Reset(d)
	return t
}

func (c *fakeClock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// fire waits until a timer runs that was set to between least and most, and
// makes that time pass for it alone. It returns what it was set to.
func (c *fakeClock) fire(t testing.TB, least, most time.Duration) time.Duration {
	t.Helper()
	limit := time.After(20 * time.Second)
	for {
		c.mu.Lock()
		for timer := range c.timers {
			if timer.d >= least && timer.d <= most {
				delete(c.timers, timer)
				d := timer.d
				c.now = c.now.Add(d)
				timer.c <- c.now
				c.mu.Unlock()
				return d
			}
		}
		changed := c.changed
		c.mu.Unlock()
		select {
		case <-changed:
		case <-limit:
			t.Fatalf("no timer of %v to %v was started", least, most)
		}
	}
}

type fakeTimer struct {
	clock *fakeClock
	c     chan time.Time
	d     time.Duration
}

func (t *fakeTimer) C() <-chan time.Time { return t.c }

func (t *fakeTimer) Stop() bool {
	t.clock.mu.Lock()
	defer t.clock.mu.Unlock()
	ran := t.clock.timers[t]
	delete(t.clock.timers, t)
	return ran
}

func (t *fakeTimer) Reset(d time.Duration) bool {
	t.clock.mu.Lock()
	defer t.clock.mu.Unlock()
	ran := t.clock.timers[t]
	t.d = d
	t.clock.timers[t] = true
	close(t.clock.changed)
	t.clock.changed = make(chan struct{})
	return ran
}
