package trap

import (
	"fmt"
	"hash/maphash"
	"net/netip"
	"time"

	"example.com/iad/mib"
)

// remembered is how many event numbers of a device are kept to distinguish a duplicate
// from a late event.
const remembered = 64

// sequence follows iadUpgEventSeq of one device. Events are sent at least once, over UDP:
// they may arrive twice, late and out of order. A device that lost its state starts
// counting again: its numbers return with other contents.
type sequence struct {
	known bool
	last  uint32
	seen  map[uint32]uint64 // fingerprints of the events' contents, by number
}

var fingerprints = maphash.MakeSeed()

// fingerprint is the same for an event that is sent again.
func (n *Notification) fingerprint() uint64 {
	content := *n
	content.From, content.Received, content.User, content.Inform, content.Missed = netip.AddrPort{}, time.Time{}, "", false, 0
	return maphash.String(fingerprints, fmt.Sprintf("%+v", content))
}

// judge reports whether an event is a duplicate, and how many events between the last one
// and this one are missing. Progress has the number of the last event, so it is never a
// duplicate, and if its number is ahead, the events up to that number are missing.
func (s *sequence) judge(n *Notification) (duplicate bool, missed uint32) {
	event := !n.Is(mib.NotifyOpProgress)
	if s.seen == nil {
		s.seen = make(map[uint32]uint64)
	}
	startsOver := !s.known
	content := n.fingerprint()
	if before, seen := s.seen[n.Seq]; event && seen {
		if before == content {
			return true, 0
		}
		startsOver = true
	}
	// Numbers wrap from 2^32-1 to 1; half the circle decides which is ahead.
	ahead := int32(n.Seq - s.last)
	if n.Seq < s.last && ahead > 0 {
		ahead-- // 0 is not used
	}
	switch {
	case startsOver || ahead < -remembered:
		// First contact, or a device that started counting again after it lost its state.
		s.known, s.last = true, n.Seq
		clear(s.seen)
	case ahead > 0:
		missed = uint32(ahead)
		if event {
			missed--
		}
		s.last = n.Seq
	}
	if event {
		s.seen[n.Seq] = content
		s.forget()
	}
	return false, missed
}

// forget drops old numbers to bound the memory.
func (s *sequence) forget() {
	if len(s.seen) <= 2*remembered {
		return
	}
	for seq := range s.seen {
		if s.last-seq > remembered {
			delete(s.seen, seq)
		}
	}
}
