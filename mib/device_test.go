package mib_test

import (
	"bytes"
	"maps"
	"slices"
	"testing"

	"example.com/iad/mib"
)

// device is an Instrumentation that holds a value for every instance that the
// module knows, and keeps account of how it is used.
type device struct {
	values  map[string]mib.Value // by descriptor and index
	rows    map[*mib.Object][]mib.OID
	refuse  error // what Test returns
	commit  error // what Commit returns
	undo    error // what Undo returns
	calls   []string
	changes []mib.Assignment // of the last Test
	views   int
	rowsOf  int // calls of Rows
}

// newDevice makes a device with the given number of history rows, whose
// indexes are 10, 20, 30 and so on, and an empty event table.
func newDevice(history int) *device {
	d := &device{values: map[string]mib.Value{}, rows: map[*mib.Object][]mib.OID{
		mib.BankEntry:   indexes(2, 1),
		mib.ServerEntry: indexes(4, 1),
		mib.FileEntry:   indexes(6, 1),
		mib.HistEntry:   indexes(history, 10),
	}}
	for _, o := range mib.Objects {
		switch {
		case o.Access != mib.ReadOnly && o.Access != mib.ReadWrite:
		case o.Kind == mib.Scalar:
			d.values[instance(o, mib.OID{0})] = sample(o)
		default:
			for _, index := range d.rows[o.Row] {
				d.values[instance(o, index)] = sample(o)
			}
		}
	}
	return d
}

func indexes(n int, step uint32) []mib.OID {
	rows := make([]mib.OID, n)
	for i := range rows {
		rows[i] = mib.OID{uint32(i+1) * step}
	}
	return rows
}

func instance(o *mib.Object, index mib.OID) string { return o.Name + "." + index.String() }

// sample is the DEFVAL, or else some value of the object's syntax.
func sample(o *mib.Object) mib.Value {
	switch {
	case o.Default != nil:
		return *o.Default
	case o.IsBits:
		return mib.Octets(mib.Bits(0))
	case o.Type == mib.OctetString:
		return mib.Octets(bytes.Repeat([]byte{'a'}, int(o.Ranges[0].Max)))
	case len(o.Enums) > 0:
		return mib.Int32(o.Enums[0].Number)
	}
	return mib.Value{Type: o.Type, Int: o.Ranges[0].Min}
}

// names are the names of all instances in lexicographic order, found without
// the tree's help.
func (d *device) names(m *mib.Module) []mib.OID {
	var all []mib.OID
	for _, o := range mib.Objects {
		candidates := []mib.OID{{0}}
		if o.Kind == mib.Column {
			candidates = d.rows[o.Row]
		}
		for _, index := range candidates {
			if _, ok := d.values[instance(o, index)]; ok {
				all = append(all, m.OID(o, index...))
			}
		}
	}
	slices.SortFunc(all, mib.OID.Compare)
	return all
}

func (d *device) View() mib.View {
	d.views++
	return &view{device: d, values: maps.Clone(d.values)}
}

func (d *device) Test(_ mib.Caller, changes []mib.Assignment) (mib.Transaction, error) {
	d.calls = append(d.calls, "test")
	d.changes = changes
	if d.refuse != nil {
		return nil, d.refuse
	}
	return &transaction{device: d, changes: changes}, nil
}

type view struct {
	device *device
	values map[string]mib.Value
}

func (v *view) Value(o *mib.Object, index mib.OID) (mib.Value, bool) {
	value, ok := v.values[instance(o, index)]
	return value, ok
}

func (v *view) Rows(o *mib.Object) []mib.OID {
	v.device.rowsOf++
	return v.device.rows[o]
}

type transaction struct {
	device  *device
	changes []mib.Assignment
	before  map[string]mib.Value
}

func (t *transaction) Commit() error {
	t.device.calls = append(t.device.calls, "commit")
	if t.device.commit != nil {
		return t.device.commit
	}
	t.before = maps.Clone(t.device.values)
	for _, c := range t.changes {
		t.device.values[instance(c.Object, c.Index)] = c.Value
	}
	return nil
}

func (t *transaction) Undo() error {
	t.device.calls = append(t.device.calls, "undo")
	if t.before != nil {
		t.device.values = t.before
	}
	return t.device.undo
}

func (t *transaction) Done() { t.device.calls = append(t.device.calls, "done") }

// serve returns the tree of a device below the default root.
func serve(d *device) (*mib.Module, *mib.Tree) {
	m := mib.NewModule(nil)
	return m, mib.NewTree(m, d)
}

// get reads one instance.
func get(t *testing.T, tree *mib.Tree, oid mib.OID) mib.Value {
	t.Helper()
	vbs := tree.Get([]mib.OID{oid})
	if len(vbs) != 1 || vbs[0].OID.Compare(oid) != 0 {
		t.Fatalf("Get(%v) = %v, want one varbind of that name", oid, vbs)
	}
	return vbs[0].Value
}
