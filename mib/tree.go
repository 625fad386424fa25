package mib

import (
	"slices"
	"sort"
	"sync"
)

// Tree serves the objects of a module for a device. It may be used by many
// goroutines as far as the Instrumentation may.
type Tree struct {
	module *Module
	inst   Instrumentation
}

// leaves returns the scalars and columns that can be read, in the order of their
// identifiers.
var leaves = sync.OnceValue(func() (list []*Object) {
	for _, o := range Objects {
		if o.hasInstances() {
			list = append(list, o)
		}
	}
	return list
})

// NewTree returns the tree of module m for a device.
func NewTree(m *Module, inst Instrumentation) *Tree { return &Tree{module: m, inst: inst} }

// Root returns the identifier below which the tree lies. Do not change it.
func (t *Tree) Root() OID { return t.module.Root() }

// Module returns the module that the tree serves.
func (t *Tree) Module() *Module { return t.module }

// Get reads instances, all in the same state of the device (RFC 3416 section
// 4.2.1). The answer has as many varbinds as oids, in their order. A name
// below no readable object gets noSuchObject, one below a readable object
// that is not there gets noSuchInstance.
func (t *Tree) Get(oids []OID) []Varbind { return t.Read().Get(oids) }

// Next searches for instances, all in the same state of the device; see
// Reader.Next.
func (t *Tree) Next(reqs []Search) []Varbind { return t.Read().Next(reqs) }

// Search asks for the first instance that follows a name in lexicographic
// order.
type Search struct {
	// Start is where the search starts.
	Start OID
	// Inclusive accepts an instance with the name Start itself (RFC 2741
	// section 5.2).
	Inclusive bool
	// End ends the search: the name found must precede it. Nil for none.
	End OID
}

// Reader reads the tree in one state of the device, that of the time when it
// was made. GETBULK needs one for its repetitions. It is for one goroutine.
type Reader struct {
	tree *Tree
	view View
	rows map[*Object][]OID
}

// Read returns a reader of the device's present state.
func (t *Tree) Read() *Reader { return &Reader{tree: t, view: t.inst.View()} }

// Get reads instances; see Tree.Get.
func (r *Reader) Get(oids []OID) []Varbind {
	vbs := make([]Varbind, len(oids))
	for i, oid := range oids {
		vbs[i] = Varbind{OID: oid, Value: r.get(oid)}
	}
	return vbs
}

func (r *Reader) get(oid OID) Value {
	o, index, ok := r.tree.module.Lookup(oid)
	if !ok || !o.hasInstances() {
		return Value{Type: NoSuchObject}
	}
	if v, ok := r.value(o, index); ok {
		return v
	}
	return Value{Type: NoSuchInstance}
}

// value asks the device for an instance.
func (r *Reader) value(o *Object, index OID) (Value, bool) {
	if !o.plausibleIndex(index) {
		return Value{}, false
	}
	v, ok := r.view.Value(o, index)
	if ok && o.IsBits {
		v.Bytes = o.pad(v.Bytes)
	}
	return v, ok
}

// Next searches for instances (RFC 3416 section 4.2.2). The answer has as
// many varbinds as reqs, in their order. Where nothing is found the varbind
// has the name Start and the value endOfMibView.
func (r *Reader) Next(reqs []Search) []Varbind {
	vbs := make([]Varbind, len(reqs))
	for i, req := range reqs {
		vbs[i] = r.next(req)
	}
	return vbs
}

func (r *Reader) next(req Search) Varbind {
	if oid, value, ok := r.find(req); ok {
		return Varbind{OID: oid, Value: value}
	}
	return Varbind{OID: req.Start, Value: Value{Type: EndOfMibView}}
}

// find does the search below the root, with names relative to it.
func (r *Reader) find(req Search) (oid OID, value Value, ok bool) {
	root := r.tree.module.root
	start, beyond := relative(req.Start, root)
	end, unlimited := relative(req.End, root)
	if beyond || req.End != nil && !unlimited && len(end) == 0 {
		return nil, Value{}, false
	}
	unlimited = unlimited || req.End == nil
	// The search begins at the last leaf that does not follow Start: its
	// instances may. If Start lies beyond all of them the next leaf is
	// taken, and from there on every instance qualifies.
	leaves := leaves()
	i := max(0, sort.Search(len(leaves), func(i int) bool { return leaves[i].Rel.Compare(start) > 0 })-1)
	for ; i < len(leaves); i++ {
		l := leaves[i]
		if !unlimited && l.Rel.Compare(end) >= 0 {
			break
		}
		var after OID
		inclusive := true
		switch {
		case start.HasPrefix(l.Rel):
			after, inclusive = start[len(l.Rel):], req.Inclusive
		case l.Rel.Compare(start) < 0:
			continue
		}
		index, value, ok := r.nextInstance(l, after, inclusive)
		if !ok {
			continue
		}
		oid := r.tree.module.OID(l, index...)
		return oid, value, unlimited || oid[len(root):].Compare(end) < 0
	}
	return nil, Value{}, false
}

// relative returns what follows the root in a name, nothing for a name that precedes
// everything below the root; beyond reports a name that everything below it precedes.
func relative(oid, root OID) (rel OID, beyond bool) {
	if oid.HasPrefix(root) {
		return oid[len(root):], false
	}
	return nil, oid.Compare(root) > 0
}

var scalarIndexes = []OID{{0}}

// nextInstance finds the first instance of o whose index follows after, or
// is after if inclusive.
func (r *Reader) nextInstance(o *Object, after OID, inclusive bool) (OID, Value, bool) {
	indexes := scalarIndexes
	if o.Kind == Column {
		indexes = r.rowsOf(o.Row)
	}
	i, found := slices.BinarySearchFunc(indexes, after, OID.Compare)
	if found && !inclusive {
		i++
	}
	for ; i < len(indexes); i++ {
		if v, ok := r.value(o, indexes[i]); ok {
			return indexes[i], v, true
		}
	}
	return nil, Value{}, false
}

func (r *Reader) rowsOf(row *Object) []OID {
	rows, ok := r.rows[row]
	if !ok {
		if r.rows == nil {
			r.rows = make(map[*Object][]OID)
		}
		rows = r.view.Rows(row)
		r.rows[row] = rows
	}
	return rows
}
