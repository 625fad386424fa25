package manager_test

import (
	"slices"
	"sync"
	"testing"
	"time"

	"example.com/iad/internal/clock"
	"example.com/iad/manager"
	"example.com/iad/manager/device"
)

// pacedClock remembers the pauses that are asked for.
type pacedClock struct {
	fastClock
	mu     sync.Mutex
	pauses []time.Duration
}

func (c *pacedClock) note(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pauses = append(c.pauses, d)
}

func (c *pacedClock) NewTimer(d time.Duration) clock.Timer {
	c.note(d)
	return pacedTimer{c.fastClock.NewTimer(d), c}
}

type pacedTimer struct {
	clock.Timer
	clock *pacedClock
}

func (t pacedTimer) Reset(d time.Duration) bool {
	t.clock.note(d)
	return t.Timer.Reset(d)
}

// Without notifications the device is looked at soon, then less and less often.
func TestPauses(t *testing.T) {
	l := newLab(t, labOptions{noNotifications: true})
	plan := l.plan(nil)
	clk := &pacedClock{fastClock: fastClock{10}}
	plan.Listener, plan.Clock, plan.Poll, plan.Limits.Backup = nil, clk, 2*time.Second, 10*time.Second
	plan.Files = &detour{Servers: l.servers, wrong: map[int]device.FileServerAddress{1: silent(t)}}
	if _, err := manager.Backup(l.ctx, plan, &scripted{t: t, answers: answer(manager.GiveUp)(l)}, l.observe); err == nil {
		t.Error("a silent server took a backup")
	}
	clk.pauses = slices.DeleteFunc(clk.pauses, func(d time.Duration) bool { return d > 2*time.Second }) // the time limit
	want := []time.Duration{250 * time.Millisecond, 500 * time.Millisecond, time.Second, 2 * time.Second, 2 * time.Second}
	if n := min(len(want), len(clk.pauses)); n < 4 || !slices.Equal(clk.pauses[:n], want[:n]) {
		t.Errorf("pauses of %v, want %v", clk.pauses, want)
	}
}
