package manager

import "example.com/iad/mib"

// remembered is how many event numbers of a device are kept to tell a
// duplicate from a late one.
const remembered = 64

// sequence follows iadUpgEventSeq of one device. Events are sent at least
// once, over UDP: they may come twice, late and out of order.
type sequence struct {
	known bool
	last  uint32
	seen  map[uint32]bool
}

// judge tells whether an event is a duplicate, and how many events between
// the last one and this one are missing. Progress carries the number of the
// last event and uses none: it is never a duplicate, and if its number is
// ahead then events up to that number are missing.
func (s *sequence) judge(n *Notification) (duplicate bool, missed uint32) {
	event := !n.Is(mib.NotifyOpProgress)
	if s.seen == nil {
		s.seen = make(map[uint32]bool)
	}
	if event && s.seen[n.Seq] {
		return true, 0
	}
	// Numbers wrap from 2^32-1 to 1; half the circle decides which is ahead.
	ahead := int32(n.Seq - s.last)
	if n.Seq < s.last && ahead > 0 {
		ahead-- // 0 is no number
	}
	switch {
	case !s.known || ahead < -remembered:
		// First contact, or a device that counts anew after a loss of state.
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
		s.seen[n.Seq] = true
		s.forget()
	}
	return false, missed
}

// forget drops numbers far behind, so that memory stays bounded.
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
