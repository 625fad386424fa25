package manager

import (
	"context"
	"fmt"
	"time"

	"example.com/iad/manager/device"
	"example.com/iad/mib"
)

// eventLog records which of a device's events the manager has seen.
type eventLog struct {
	known bool
	last  uint32          // the newest number heard of
	heard map[uint32]bool // that came as notifications since the last catch-up
	// overdue are the numbers whose notifications were missing at the last catch-up. Those
	// still missing at the next one are lost.
	overdue map[uint32]bool
	// lossReported: the operator was warned that notifications are lost.
	lossReported bool
}

// hear records the number of an event and reports whether it is newer than the last
// catch-up.
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

// missing reports whether a notification of an event up to seq is missing.
func (l *eventLog) missing(seq uint32) bool {
	for n := l.last; n != seq; {
		if n++; n == 0 {
			continue // not used
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

// onTheWay is how long a notification may take, including answers to informs.
const onTheWay = 3 * time.Second

// owe compares what the device has recorded with what arrived: a missing notification is
// overdue at first, and lost if it was overdue before or its event is much older than the
// newest one.
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

// lostNotifications explains why notifications may not arrive; %d is their number.
const lostNotifications = "%d notifications of events have not arrived, so the device is only polled: the device or its snmpd does not send " +
	"them to %s, a firewall drops them, their user or passphrase is not configured here, or snmpd still sends to the engine ID " +
	"that another receiver had at this address; in that case restart snmpd"

// hearWaiting reads the notifications that arrived after the end of the operation was
// seen, if any are overdue.
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

// warnOfLost warns once that notifications are lost.
func (u *upgrade) warnOfLost(step Step, lost int) {
	if lost == 0 || u.events.lossReported || u.plan.Listener == nil {
		return
	}
	u.events.lossReported = true
	u.warn(step, fmt.Sprintf(lostNotifications, lost, u.plan.Listener.Addr()))
}

// catchUp reports events whose notifications did not arrive, from the event table of the
// device. It leaves out what the result of the operation says anyway.
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
		u.warnOfLost(step, u.events.owe(nil))
		u.events.reset(seq)
		return
	}
	events, err := u.plan.Client.Events(ctx)
	if err != nil {
		return
	}
	u.warnOfLost(step, u.events.owe(events))
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
		u.note(step, "event whose notification was lost: "+e.String())
	}
	u.events.reset(seq)
}
