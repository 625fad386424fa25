package snmp

import (
	"sort"

	"example.com/iad/mib"
)

// snapshot reads the device's tree and the engine's own objects for one
// request, in one state of the device, through a view.
type snapshot struct {
	engine *Engine
	view   View
	// authentic is false for what anybody may have sent: it does not see who the users are.
	authentic bool
	reader    *mib.Reader // nil until the tree is needed
}

func (s *snapshot) tree() *mib.Reader {
	if s.reader == nil {
		s.reader = s.engine.tree.Read()
	}
	return s.reader
}

// get reads one instance (RFC 3416 section 4.2.1).
func (s *snapshot) get(oid mib.OID) mib.Value {
	if !s.view.Contains(oid) {
		return mib.Value{Type: mib.NoSuchObject}
	}
	if oid.HasPrefix(s.engine.tree.Root()) {
		return s.tree().Get([]mib.OID{oid})[0].Value
	}
	if s.hidden(oid) {
		return mib.Value{Type: mib.NoSuchObject}
	}
	for _, t := range tables {
		if column, r, ok := t.find(s.engine, oid); r != nil {
			return r.column(column)
		} else if ok {
			return mib.Value{Type: mib.NoSuchInstance}
		}
	}
	for _, own := range s.engine.scalars() {
		object := own.oid[:len(own.oid)-1]
		switch {
		case oid.Compare(own.oid) == 0:
			return own.value(s.engine)
		case oid.HasPrefix(object):
			return mib.Value{Type: mib.NoSuchInstance}
		}
	}
	return mib.Value{Type: mib.NoSuchObject}
}

// next finds the first instance in the view after a name (RFC 3416 section
// 4.2.2); endOfMibView, named by start, if there is none.
func (s *snapshot) next(start mib.OID) mib.Varbind {
	from, inclusive := start, false
	for {
		vb, ok := s.following(from, inclusive)
		if !ok {
			break
		}
		if s.view.Contains(vb.OID) {
			return vb
		}
		// Nothing is in the view before the view's next boundary.
		if from, ok = s.view.boundary(vb.OID); !ok {
			break
		}
		inclusive = true
	}
	return mib.Varbind{OID: start, Value: mib.Value{Type: mib.EndOfMibView}}
}

// following finds the first instance after a name, in the view or not.
func (s *snapshot) following(from mib.OID, inclusive bool) (vb mib.Varbind, ok bool) {
	own := s.engine.scalars()
	if !s.authentic {
		own = own[:sort.Search(len(own), func(i int) bool { return own[i].oid.Compare(oidUsmUser) > 0 })]
	}
	i := sort.Search(len(own), func(i int) bool {
		c := own[i].oid.Compare(from)
		return c > 0 || inclusive && c == 0
	})
	if i < len(own) && own[i].oid.Compare(s.engine.tree.Root()) < 0 && own[i].oid.Compare(tables[0].entry) < 0 {
		return mib.Varbind{OID: own[i].oid, Value: own[i].value(s.engine)}, true
	}
	vb = s.tree().Next([]mib.Search{{Start: from, Inclusive: inclusive}})[0]
	ok = vb.Value.Type != mib.EndOfMibView
	if i < len(own) && (!ok || own[i].oid.Compare(vb.OID) < 0) {
		vb, ok = mib.Varbind{OID: own[i].oid, Value: own[i].value(s.engine)}, true
	}
	for _, t := range tables {
		if s.hidden(t.entry) || ok && vb.OID.Compare(t.entry) < 0 {
			continue
		}
		if other, found := t.next(s.engine, from, inclusive); found && (!ok || other.OID.Compare(vb.OID) < 0) {
			vb, ok = other, true
		}
	}
	return vb, ok
}

// hidden reports whether the object is nobody's business without authentication.
func (s *snapshot) hidden(oid mib.OID) bool { return !s.authentic && oid.HasPrefix(oidUsmUser) }
