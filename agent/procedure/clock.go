package procedure

import "time"

// Clock is the time. A test gives one of its own.
type Clock interface {
	// Now returns the wall time with a monotonic reading, as time.Now does.
	Now() time.Time
	NewTimer(d time.Duration) Timer
}

// Timer is what the engine needs of time.Timer.
type Timer interface {
	C() <-chan time.Time
	Stop() bool
	Reset(d time.Duration) bool
}

// SystemClock is the clock of the operating system.
type SystemClock struct{}

// Now is time.Now.
func (SystemClock) Now() time.Time { return time.Now() }

// NewTimer is time.NewTimer.
func (SystemClock) NewTimer(d time.Duration) Timer { return systemTimer{time.NewTimer(d)} }

type systemTimer struct{ *time.Timer }

func (t systemTimer) C() <-chan time.Time { return t.Timer.C }

// wall returns t for a record, or the zero time while the device does not know
// the time: boards without a clock chip start in 1970.
func wall(t time.Time) time.Time {
	if t.Year() < 2020 {
		return time.Time{}
	}
	return t.UTC().Round(0)
}
