package snmp

import (
	"encoding/binary"

	"example.com/iad/internal/snmp"
)

// maxReplays is how many SETs are remembered, in 2 MB at most: 200 a second.
const maxReplays = 1 << 16

// replays remembers the digests of SETs for as long as the time window would
// let them in again. RFC 3414 leaves replays within the window to the
// application; but a SET that is executed twice may do harm. Managers that
// repeat a request give it a new msgID, so nothing of theirs is lost.
type replays struct {
	known map[uint64]struct{} // the beginnings of digests
	queue []replay            // a ring, the oldest at head
	head  int
	// floor is the latest time of a SET that had to be forgotten early: up to
	// it nothing is let in any more.
	floor int32
}

type replay struct {
	mac  uint64
	time int32
}

func (r *replays) init() {
	r.known = make(map[uint64]struct{})
	r.floor = -1
}

// tooOld reports whether a SET of that engineTime might have been forgotten.
func (r *replays) tooOld(time int32) bool { return time <= r.floor }

// add remembers an authentic SET, with 8 bytes or more of digest; it returns
// false if it was there before.
func (r *replays) add(mac []byte, time, now int32) bool {
	key := binary.BigEndian.Uint64(mac)
	if _, known := r.known[key]; known {
		return false
	}
	for r.head < len(r.queue) && r.queue[r.head].time < now-snmp.TimeWindow {
		r.forget()
	}
	if len(r.known) >= maxReplays {
		r.floor = max(r.floor, r.queue[r.head].time)
		r.forget()
	}
	if r.head > len(r.queue)/2 {
		r.queue = r.queue[:copy(r.queue, r.queue[r.head:])]
		r.head = 0
	}
	r.known[key] = struct{}{}
	r.queue = append(r.queue, replay{key, time})
	return true
}

func (r *replays) forget() {
	delete(r.known, r.queue[r.head].mac)
	r.head++
}
