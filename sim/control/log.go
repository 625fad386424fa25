package control

import (
	"context"
	"sync"

	"example.com/iad/sim"
)

// maxEvents is how many events a Log keeps.
const maxEvents = 10000

// Log keeps the last events. The zero value is empty.
type Log struct {
	mu      sync.Mutex
	events  []Event
	last    uint64
	changed chan struct{} // closed at the next event
}

// Add adds an event and returns it with its number.
func (l *Log) Add(e sim.Event) Event {
	out := Event{Time: e.Time, Device: e.Device, Event: string(e.Kind), Fault: e.Fault, Power: e.Power}
	if e.Operation != 0 {
		out.Operation, out.Phase = e.Operation.String(), e.Phase.String()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last++
	out.Number = l.last
	if len(l.events) == maxEvents {
		l.events = append(l.events[:0], l.events[maxEvents/10:]...)
	}
	l.events = append(l.events, out)
	if l.changed != nil {
		close(l.changed)
		l.changed = nil
	}
	return out
}

// After returns the events after a number that are still kept.
func (l *Log) After(number uint64) []Event {
	events, _ := l.after(number)
	return events
}

func (l *Log) after(number uint64) (events []Event, changed <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.events {
		if e.Number > number {
			events = append(events, e)
		}
	}
	if l.changed == nil {
		l.changed = make(chan struct{})
	}
	return events, l.changed
}

// Follow calls f with each event after a number, also with those to come, until ctx ends or
// f fails.
func (l *Log) Follow(ctx context.Context, number uint64, f func(Event) error) error {
	for {
		events, changed := l.after(number)
		for _, e := range events {
			if err := f(e); err != nil {
				return err
			}
			number = e.Number
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}
