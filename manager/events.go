package manager

import (
	"context"
	"fmt"
	"time"

	"example.com/iad/manager/device"
	"example.com/iad/mib"
)

// eventLog is what the manager knows of a device's events.
type eventLog struct {
	known bool
	last  uint32          // the newest number heard of
	heard map[uint32]bool // that came as notifications since the last catch-up
	// overdue are the numbers that had not come as notifications at the last catch-up:
	// those that have not at the next one are lost.
	overdue map[uint32]bool
	told    bool // that notifications are lost
}

// hear takes in the number of an event and reports whether it is newer than the
// last catch-up.
func (l *eventLog) hear(seq uint32) bool {
	delete(l.overdue, seq)
	if l.known && int32(seq-l.last) <= 0 {
		return false
	}
	if l.heard == nil {
		l.heard = make(map[uint32]bool)
	}
	l.heard[seq] = true
	return true
}

// missing reports whether an event up to seq was not heard of.
func (l *eventLog) missing(seq uint32) bool {
	for n := l.last; n != seq; {
		if n++; n == 0 {
			continue // no number
		}
		if !l.heard[n] {
			return true
		}
		if len(l.heard) < int(n-l.last) {
			return true
		}
	}
	return false
}

// reset starts counting after the event seq.
func (l *eventLog) reset(seq uint32) {
	l.known, l.last = true, seq
	clear(l.heard)
}

// onTheWay is how long a notification may take, answers to informs included.
const onTheWay = 3 * time.Second

// owe judges what the device has recorded: a notification that has not come is overdue,
// and lost if it was overdue before or its event is much older than the newest.
func (l *eventLog) owe(events []device.EventEntry) (lost int) {
	lost = len(l.overdue)
	l.overdue = make(map[uint32]bool)
	for _, e := range events {
		switch {
		case int32(e.Seq-l.last) <= 0 || l.heard[e.Seq]:
		case !e.Time.IsZero() && events[len(events)-1].Time.Sub(e.Time) > onTheWay:
			lost++
		default:
			l.overdue[e.Seq] = true
		}
	}
	return lost
}

// lostNotifications says why notifications do not come; %d is how many.
const lostNotifications = "%d notifications of events have not arrived, and the device is only looked at: either it, or the snmpd before it, does not send " +
	"them to %s, or a firewall keeps them, or their user or password is not one of those configured here, or snmpd still sends to the engine ID " +
	"that another receiver had at this address: then restart snmpd"

// hearWaiting takes in what came after the operation was seen to have ended, if
// something is overdue.
func (u *upgrade) hearWaiting() {
	for u.sub != nil && len(u.events.overdue) > 0 {
		select {
		case n, ok := <-u.sub.C():
			if !ok {
				return
			}
			if !n.Is(mib.NotifyOpProgress) {
				u.events.hear(n.Seq)
			}
		default:
			return
		}
	}
}

// tellLost says once that notifications are lost.
func (u *upgrade) tellLost(step Step, lost int) {
	if lost == 0 || u.events.told || u.plan.Listener == nil {
		return
	}
	u.events.told = true
	u.warn(step, fmt.Sprintf(lostNotifications, lost, u.plan.Listener.Addr()))
}

// catchUp tells of events whose notifications did not come, from the table
// that the device keeps of them. What the verdict on the operation tells
// anyway is left out.
func (u *upgrade) catchUp(ctx context.Context, step Step) {
	seq, err := u.plan.Client.EventSeq(ctx)
	if err != nil {
		return // the table is a convenience
	}
	if !u.events.known {
		u.events.reset(seq)
		return
	}
	u.hearWaiting()
	if !u.events.missing(seq) {
		u.tellLost(step, u.events.owe(nil))
		u.events.reset(seq)
		return
	}
	events, err := u.plan.Client.Events(ctx)
	if err != nil {
		return
	}
	u.tellLost(step, u.events.owe(events))
	for _, e := range events {
		switch e.Type {
		case mib.EventTypeStarted, mib.EventTypeCompleted, mib.EventTypeFailed:
			continue
		}
		if int32(e.Seq-u.events.last) <= 0 || u.events.heard[e.Seq] {
			continue
		}
		if u.plan.Listener == nil { // nothing was lost
			u.plan.Log.Debug("event", "device", u.device.ID, "event", e.String())
			continue
		}
		u.note(step, "event without notification: "+e.String())
	}
	u.events.reset(seq)
}
