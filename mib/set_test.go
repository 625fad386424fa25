package mib_test

import (
	"bytes"
	"errors"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"

	"example.com/iad/mib"
)

// wire are the types that a SET may carry.
var wire = []mib.Type{mib.Integer, mib.OctetString, mib.Null, mib.ObjectIdentifier, mib.IPAddress, mib.Counter32,
	mib.Gauge32, mib.TimeTicks, mib.Opaque, mib.Counter64}

// valueCase is a value and what becomes of it.
type valueCase struct {
	name  string
	value mib.Value
	want  mib.Status
}

// valueCases derives the limits of an object from the module: all that is
// accepted at the edge and all that is refused one beyond.
func valueCases(o *mib.Object) []valueCase {
	var cases []valueCase
	add := func(name string, v mib.Value, want mib.Status) { cases = append(cases, valueCase{name, v, want}) }
	if o.Default != nil {
		add("DEFVAL", *o.Default, mib.NoError)
	}
	for _, typ := range wire {
		if typ != o.Type {
			add("another type: "+typ.String(), mib.Value{Type: typ, Int: 1, Bytes: []byte("a")}, mib.WrongType)
		}
	}
	switch {
	case o.IsBits:
		all := make([]int, len(o.Enums))
		for i, e := range o.Enums {
			all[i] = int(e.Number)
			add("bit "+e.Name, mib.Octets(mib.Bits(int(e.Number))), mib.NoError)
		}
		add("every bit", mib.Octets(mib.Bits(all...)), mib.NoError)
		add("no octet", mib.Octets(nil), mib.NoError)
		add("zero octets behind", mib.Octets(append(mib.Bits(all...), 0, 0)), mib.NoError)
		add("a bit too many", mib.Octets(mib.Bits(len(all))), mib.WrongValue)
		add("a bit far behind", mib.Octets(mib.Bits(0, 100)), mib.WrongValue)
	case len(o.Enums) > 0:
		for _, e := range o.Enums {
			add(e.Name, mib.Int32(e.Number), mib.NoError)
			if next := e.Number + 1; !slices.ContainsFunc(o.Enums, func(e mib.Named) bool { return e.Number == next }) {
				add("behind "+e.Name, mib.Int32(next), mib.WrongValue)
			}
		}
		add("negative", mib.Int32(-1), mib.WrongValue)
		add("greatest INTEGER", mib.Int32(math.MaxInt32), mib.WrongValue)
	case o.Type == mib.OctetString:
		for _, e := range edges(o) {
			want := mib.NoError
			if !e.inside {
				want = mib.WrongLength
			}
			add("size", mib.Str(strings.Repeat("x", int(e.n))), want)
		}
		want := mib.NoError
		if o.TC == "SnmpAdminString" {
			want = mib.WrongValue
		}
		if n := o.Ranges[len(o.Ranges)-1].Max; n > 0 {
			add("not UTF-8", mib.Octets(bytes.Repeat([]byte{0xff}, int(n))), want)
		}
		if o.TC == "SnmpAdminString" {
			add("UTF-8", mib.Str("Zürich"), mib.NoError)
			add("UTF-8 cut off", mib.Str("Zü"[:2]), mib.WrongValue)
		}
	default:
		for _, e := range edges(o) {
			want := mib.NoError
			if !e.inside {
				want = mib.WrongValue
			}
			add("number", mib.Value{Type: o.Type, Int: e.n}, want)
		}
	}
	return cases
}

type edge struct {
	n      int64
	inside bool
}

// edges are the ends of the ranges and the numbers beyond them.
func edges(o *mib.Object) []edge {
	inside := func(n int64) bool {
		return slices.ContainsFunc(o.Ranges, func(r mib.Range) bool { return r.Min <= n && n <= r.Max })
	}
	var all []edge
	for _, r := range o.Ranges {
		for _, n := range []int64{r.Min - 1, r.Min, r.Max, r.Max + 1} {
			if n >= 0 || o.Type != mib.OctetString {
				all = append(all, edge{n, inside(n)})
			}
		}
	}
	return all
}

// Every object of the module, with every value at its edge, alone and behind
// a varbind that is in order.
func TestSetEveryObject(t *testing.T) {
	for _, o := range mib.Objects {
		d := newDevice(1)
		m, tree := serve(d)
		good := mib.Varbind{OID: m.OID(mib.ReqOwner, 0), Value: mib.Str("noc")}
		index := mib.OID{0}
		if o.Kind == mib.Column {
			if rows := d.rows[o.Row]; len(rows) > 0 {
				index = rows[len(rows)-1]
			}
		}
		refused := func(what string, vb mib.Varbind, want mib.Status) {
			t.Helper()
			before := maps.Clone(d.values)
			_, err := tree.Set(mib.Caller{}, []mib.Varbind{good, vb})
			if err == nil || err.Status != want || err.Index != 2 {
				t.Errorf("%s, %s: SET = %v, want %v at index 2", o.Name, what, err, want)
			}
			if !maps.EqualFunc(before, d.values, mib.Value.Equal) {
				t.Errorf("%s, %s: a refused SET changed something", o.Name, what)
			}
		}
		if o.Access != mib.ReadWrite {
			refused("not writable", mib.Varbind{OID: m.OID(o, index...), Value: mib.Int32(1)}, mib.NotWritable)
			continue
		}
		for _, c := range valueCases(o) {
			vb := mib.Varbind{OID: m.OID(o, index...), Value: c.value}
			if c.want != mib.NoError {
				refused(c.name, vb, c.want)
				refused(c.name+", no such instance", mib.Varbind{OID: m.OID(o, 99), Value: c.value}, c.want)
				continue
			}
			tx, err := tree.Set(mib.Caller{}, []mib.Varbind{vb})
			if err != nil {
				t.Errorf("%s, %s %v: %v", o.Name, c.name, c.value, err)
				continue
			}
			tx.Done()
			if got := get(t, tree, vb.OID); !got.Equal(c.value) && !o.IsBits {
				t.Errorf("%s, %s: reads back as %v, was set to %v", o.Name, c.name, got, c.value)
			}
			for _, oid := range []mib.OID{m.OID(o), m.OID(o, 99), m.OID(o, append(index.Append(), 0)...)} {
				refused(c.name+", no such instance", mib.Varbind{OID: oid, Value: c.value}, mib.NoCreation)
			}
		}
	}
}

func TestSetRefusesUnknownNames(t *testing.T) {
	m, tree := serve(newDevice(1))
	for _, oid := range []mib.OID{{}, {1, 3, 6, 1, 2, 1, 1, 5, 0}, m.Root(), m.Root().Append(1, 5, 99, 0),
		m.OID(mib.ServerEntry, 99, 1), m.NotificationOID(mib.NotifyOpFailed)} {
		if _, err := tree.Set(mib.Caller{}, []mib.Varbind{{OID: oid, Value: mib.Int32(1)}}); err == nil || err.Status != mib.NotWritable || err.Index != 1 {
			t.Errorf("SET of %v = %v, want notWritable at index 1", oid, err)
		}
	}
}

func TestSetGivesBitsOneForm(t *testing.T) {
	for _, sent := range [][]byte{{0xa0}, {0xa0, 0}, {0xa0, 0, 0, 0}} {
		d := newDevice(0)
		m, tree := serve(d)
		if _, err := tree.Set(mib.Caller{}, []mib.Varbind{{OID: m.OID(mib.ReqOptions, 0), Value: mib.Octets(sent)}}); err != nil {
			t.Fatal(err)
		}
		if got := d.changes[0].Value.Bytes; !bytes.Equal(got, []byte{0xa0}) {
			t.Errorf("BITS %x reach the device as %x, want one octet a0", sent, got)
		}
	}
}

func TestSetTellsTheDevicePositions(t *testing.T) {
	d := newDevice(0)
	m, tree := serve(d)
	owner := mib.Varbind{OID: m.OID(mib.ReqOwner, 0), Value: mib.Str("noc")}
	server := mib.Varbind{OID: m.OID(mib.ServerPort, 3), Value: mib.Uint32(6900)}
	tx, err := tree.Set(mib.Caller{}, []mib.Varbind{owner, owner, server})
	if err != nil {
		t.Fatal(err)
	}
	tx.Done()
	if len(d.changes) != 2 {
		t.Fatalf("the device got %d assignments, want 2: an instance named twice with one value counts once", len(d.changes))
	}
	a, b := d.changes[0], d.changes[1]
	if a.Pos != 1 || a.Object != mib.ReqOwner || a.Index.Compare(mib.OID{0}) != 0 || !a.Value.Equal(owner.Value) {
		t.Errorf("first assignment %+v", a)
	}
	if b.Pos != 3 || b.Object != mib.ServerPort || b.Index.Compare(mib.OID{3}) != 0 || !b.Value.Equal(server.Value) {
		t.Errorf("second assignment %+v", b)
	}
}

func TestSetTwoValuesForOneInstance(t *testing.T) {
	d := newDevice(0)
	m, tree := serve(d)
	owner := m.OID(mib.ReqOwner, 0)
	_, err := tree.Set(mib.Caller{}, []mib.Varbind{
		{OID: owner, Value: mib.Str("a")},
		{OID: m.OID(mib.ReqId, 0), Value: mib.Uint32(7)},
		{OID: owner, Value: mib.Str("b")},
	})
	if err == nil || err.Status != mib.InconsistentValue || err.Index != 3 {
		t.Errorf("SET = %v, want inconsistentValue at index 3", err)
	}
	if len(d.calls) != 0 {
		t.Errorf("the device was asked: %v", d.calls)
	}
}

// What the front end sees and what the device is called for, whatever the
// device answers.
func TestSetCourses(t *testing.T) {
	other := errors.New("flash is gone")
	tests := []struct {
		name                 string
		refuse, commit, undo error
		varbinds             int
		want                 *mib.SetError
		calls                []string
	}{
		{name: "success", varbinds: 2, calls: []string{"test", "commit", "done"}},
		{name: "nothing to set", varbinds: 0},
		{name: "refused", varbinds: 2, refuse: &mib.SetError{Status: mib.InconsistentValue, Index: 2},
			want: &mib.SetError{Status: mib.InconsistentValue, Index: 2}, calls: []string{"test"}},
		{name: "refused without index", varbinds: 2, refuse: &mib.SetError{Status: mib.ResourceUnavailable},
			want: &mib.SetError{Status: mib.ResourceUnavailable, Index: 1}, calls: []string{"test"}},
		{name: "refused with a wrong index", varbinds: 2, refuse: &mib.SetError{Status: mib.InconsistentValue, Index: 3},
			want: &mib.SetError{Status: mib.InconsistentValue, Index: 1}, calls: []string{"test"}},
		{name: "refused with a status that must not travel", varbinds: 2, refuse: &mib.SetError{Status: 19, Index: 1},
			want: &mib.SetError{Status: mib.GenErr, Index: 1}, calls: []string{"test"}},
		{name: "refused by another error", varbinds: 2, refuse: other,
			want: &mib.SetError{Status: mib.GenErr, Index: 1}, calls: []string{"test"}},
		{name: "commit failed", varbinds: 2, commit: &mib.SetError{Status: mib.CommitFailed, Index: 2},
			want: &mib.SetError{Status: mib.CommitFailed, Index: 2}, calls: []string{"test", "commit", "undo"}},
		{name: "commit failed with another status", varbinds: 2, commit: &mib.SetError{Status: mib.WrongValue, Index: 1},
			want: &mib.SetError{Status: mib.CommitFailed, Index: 1}, calls: []string{"test", "commit", "undo"}},
		{name: "commit failed by another error", varbinds: 2, commit: other,
			want: &mib.SetError{Status: mib.CommitFailed, Index: 1}, calls: []string{"test", "commit", "undo"}},
		{name: "undo failed", varbinds: 2, commit: other, undo: other,
			want: &mib.SetError{Status: mib.UndoFailed}, calls: []string{"test", "commit", "undo"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := newDevice(0)
			d.refuse, d.commit, d.undo = tt.refuse, tt.commit, tt.undo
			m, tree := serve(d)
			vbs := []mib.Varbind{{OID: m.OID(mib.ReqOwner, 0), Value: mib.Str("noc")}, {OID: m.OID(mib.ReqId, 0), Value: mib.Uint32(7)}}
			tx, err := tree.Set(mib.Caller{Name: "test"}, vbs[:tt.varbinds])
			if (err == nil) != (tt.want == nil) || err != nil && (err.Status != tt.want.Status || err.Index != tt.want.Index) {
				t.Errorf("SET = %v, want %v", err, tt.want)
			}
			if err == nil {
				tx.Done()
			}
			if !slices.Equal(d.calls, tt.calls) {
				t.Errorf("the device was called for %v, want %v", d.calls, tt.calls)
			}
		})
	}
}

// The two phases as an AgentX session uses them.
func TestTestCommitUndo(t *testing.T) {
	d := newDevice(0)
	m, tree := serve(d)
	owner := m.OID(mib.ReqOwner, 0)
	tx, err := tree.Test(mib.Caller{}, []mib.Varbind{{OID: owner, Value: mib.Str("noc")}})
	if err != nil {
		t.Fatal(err)
	}
	if got := get(t, tree, owner); !got.Equal(mib.Str("")) {
		t.Errorf("Test alone changed the value to %v", got)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	if got := get(t, tree, owner); !got.Equal(mib.Str("noc")) {
		t.Errorf("after Commit the value is %v", got)
	}
	if err := tx.Undo(); err != nil {
		t.Fatal(err)
	}
	if got := get(t, tree, owner); !got.Equal(mib.Str("")) {
		t.Errorf("after Undo the value is %v", got)
	}
	tx, err = tree.Test(mib.Caller{}, nil)
	if err != nil || tx.Commit() != nil || tx.Undo() != nil {
		t.Errorf("a SET without varbinds is refused: %v", err)
	}
	var refused *mib.SetError
	if _, err := tree.Test(mib.Caller{}, []mib.Varbind{{OID: owner, Value: mib.Int32(1)}}); !errors.As(err, &refused) ||
		!strings.Contains(err.Error(), "wrongType") || !strings.Contains(err.Error(), "iadUpgReqOwner: INTEGER instead of OCTET STRING") {
		t.Errorf("the refusal %q does not say what is wrong", err)
	}
}
