package snmp

import (
	"net/netip"

	"example.com/iad/mib"
)

// View is a set of subtrees. An object is in the view if the longest subtree
// that holds it is not excluded (RFC 3415 section 3.2, without masks). The
// zero value holds nothing.
type View []Subtree

// Subtree is a part of a View.
type Subtree struct {
	OID      mib.OID
	Excluded bool
}

// Everything returns the view of all objects.
func Everything() View { return View{{OID: mib.OID{1}}} }

// Contains reports whether the object is in the view.
func (v View) Contains(oid mib.OID) bool {
	longest, in := -1, false
	for _, s := range v {
		if len(s.OID) > longest && oid.HasPrefix(s.OID) {
			longest, in = len(s.OID), !s.Excluded
		}
	}
	return in
}

// boundary returns the first name after oid at which what is in the view may
// change; ok is false if there is none.
func (v View) boundary(oid mib.OID) (next mib.OID, ok bool) {
	consider := func(b mib.OID) {
		if b.Compare(oid) > 0 && (!ok || b.Compare(next) < 0) {
			next, ok = b, true
		}
	}
	for _, s := range v {
		consider(s.OID)
		if end := successor(s.OID); end != nil {
			consider(end)
		}
	}
	return next, ok
}

// successor returns the first name after the subtree, nil if there is none.
func successor(oid mib.OID) mib.OID {
	for n := len(oid); n > 0; n-- {
		if oid[n-1] != ^uint32(0) {
			end := oid[:n].Append()
			end[n-1]++
			return end
		}
	}
	return nil
}

// Access is what a user may do at a security level from certain addresses
// (RFC 3415 section 3).
type Access struct {
	// Level is the lowest security level at which the rule holds. Of several
	// rules that hold for a message, the one of the highest level counts,
	// and the first among equals.
	Level Level
	// Sources are the addresses for which the rule holds; none means all. A
	// notification has no source.
	Sources []netip.Prefix
	// Read, Write and Notify are the objects that may be read, that may be
	// set, and that may be sent in notifications.
	Read, Write, Notify View
}

// accessFor returns the rule for a message; nil means that nothing is
// allowed. An invalid src stands for the device itself.
func accessFor(rules []Access, level Level, src netip.Addr) *Access {
	var best *Access
	for i := range rules {
		r := &rules[i]
		if r.Level <= level && (!src.IsValid() || fromAny(r.Sources, src)) && (best == nil || r.Level > best.Level) {
			best = r
		}
	}
	return best
}

// fromAny reports whether src is in one of the prefixes, or there are none.
func fromAny(prefixes []netip.Prefix, src netip.Addr) bool {
	if len(prefixes) == 0 {
		return true
	}
	for _, p := range prefixes {
		if p.Contains(src) {
			return true
		}
	}
	return false
}
