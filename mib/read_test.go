package mib_test

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"

	"example.com/iad/mib"
)

func TestGetEveryInstance(t *testing.T) {
	d := newDevice(3)
	m, tree := serve(d)
	for _, oid := range d.names(m) {
		o, index, ok := m.Lookup(oid)
		if !ok {
			t.Fatalf("Lookup(%v) found nothing", oid)
		}
		if got, want := get(t, tree, oid), d.values[instance(o, index)]; !got.Equal(want) && !o.IsBits {
			t.Errorf("Get(%s.%v) = %v, want %v", o.Name, index, got, want)
		}
	}
}

// RFC 3416 section 4.2.1.
func TestGetExceptions(t *testing.T) {
	m, tree := serve(newDevice(1))
	tests := []struct {
		name string
		oid  mib.OID
		want mib.Type
	}{
		{"a scalar without its .0", m.OID(mib.OpState), mib.NoSuchInstance},
		{"a scalar with another index", m.OID(mib.OpState, 1), mib.NoSuchInstance},
		{"a scalar with too much index", m.OID(mib.OpState, 0, 0), mib.NoSuchInstance},
		{"a column without index", m.OID(mib.BankState), mib.NoSuchInstance},
		{"a row that is not there", m.OID(mib.BankState, 3), mib.NoSuchInstance},
		{"row 0", m.OID(mib.BankState, 0), mib.NoSuchInstance},
		{"a row with too much index", m.OID(mib.BankState, 1, 1), mib.NoSuchInstance},
		{"an index that is no INTEGER", m.OID(mib.FileName, 1<<31), mib.NoSuchInstance},
		{"a row of an empty table", m.OID(mib.EventText, 1), mib.NoSuchInstance},
		{"an index column", m.OID(mib.BankIndex, 1), mib.NoSuchObject},
		{"a table", m.OID(mib.BankTable), mib.NoSuchObject},
		{"a row object", m.OID(mib.BankEntry), mib.NoSuchObject},
		{"a column that is not defined", m.OID(mib.BankEntry, 99, 1), mib.NoSuchObject},
		{"a group of objects", m.Root().Append(1, 1), mib.NoSuchObject},
		{"the root", m.Root(), mib.NoSuchObject},
		{"a notification", m.NotificationOID(mib.NotifyOpFailed), mib.NoSuchObject},
		{"before the root", mib.OID{1, 3, 6, 1, 2, 1, 1, 1, 0}, mib.NoSuchObject},
		{"behind the root", mib.OID{2, 99}, mib.NoSuchObject},
		{"nothing", mib.OID{}, mib.NoSuchObject},
	}
	for _, tt := range tests {
		if got := get(t, tree, tt.oid); got.Type != tt.want || !got.IsException() {
			t.Errorf("%s: Get(%v) = %v, want %v", tt.name, tt.oid, got, tt.want)
		}
	}
}

func TestOneViewForARequest(t *testing.T) {
	d := newDevice(3)
	m, tree := serve(d)
	tree.Get(d.names(m))
	if d.views != 1 {
		t.Errorf("Get took %d views, want 1", d.views)
	}
	var searches []mib.Search
	for _, oid := range d.names(m) {
		searches = append(searches, mib.Search{Start: oid})
	}
	d.views, d.rowsOf = 0, 0
	tree.Next(searches)
	if d.views != 1 || d.rowsOf != 5 {
		t.Errorf("Next took %d views and asked %d times for rows, want 1 and once for each of 5 tables", d.views, d.rowsOf)
	}
}

// A reader shows one state of the device however long it is used.
func TestReaderKeepsItsState(t *testing.T) {
	d := newDevice(1)
	m, tree := serve(d)
	reader := tree.Read()
	owner := m.OID(mib.ReqOwner, 0)
	tx, err := tree.Set(mib.Caller{}, []mib.Varbind{{OID: owner, Value: mib.Str("noc")}})
	if err != nil {
		t.Fatal(err)
	}
	tx.Done()
	if got := reader.Get([]mib.OID{owner})[0].Value; !got.Equal(mib.Str("")) {
		t.Errorf("a reader made before the SET shows %v", got)
	}
	if got := get(t, tree, owner); !got.Equal(mib.Str("noc")) {
		t.Errorf("after the SET Get shows %v", got)
	}
}

func TestBitsAreServedAtFullWidth(t *testing.T) {
	d := newDevice(0)
	m, tree := serve(d)
	for _, held := range [][]byte{nil, {}, {0x80}, {0x80, 0}, {0x80, 0, 0}} {
		d.values[instance(mib.OpKindsSupported, mib.OID{0})] = mib.Octets(held)
		want := []byte{0, 0}
		copy(want, held)
		if got := get(t, tree, m.OID(mib.OpKindsSupported, 0)); !bytes.Equal(got.Bytes, want) {
			t.Errorf("nine bits held as %x are served as %x, want %x", held, got.Bytes, want)
		}
	}
}

func TestWalk(t *testing.T) {
	for _, root := range []mib.OID{nil, {1, 3, 6, 1, 4, 1, 99999, 1}} {
		d := newDevice(5)
		delete(d.values, instance(mib.HistOwner, mib.OID{10}))      // first cell of a column
		delete(d.values, instance(mib.HistOwner, mib.OID{30}))      // one in between
		delete(d.values, instance(mib.HistNewVersion, mib.OID{50})) // last cell of a table
		delete(d.values, instance(mib.DeviceId, mib.OID{0}))        // first object
		m := mib.NewModule(root)
		tree := mib.NewTree(m, d)
		var got []mib.OID
		for start := tree.Root(); ; {
			vb := tree.Next([]mib.Search{{Start: start}})[0]
			if vb.Value.Type == mib.EndOfMibView {
				if vb.OID.Compare(start) != 0 {
					t.Errorf("endOfMibView is named %v, want %v", vb.OID, start)
				}
				break
			}
			if want := get(t, tree, vb.OID); !vb.Value.Equal(want) {
				t.Errorf("Next gives %v = %v, Get gives %v", vb.OID, vb.Value, want)
			}
			got = append(got, vb.OID)
			start = vb.OID
		}
		if want := d.names(m); !slices.EqualFunc(got, want, slices.Equal) {
			t.Errorf("walk below %v found %d instances, want %d:\n%v\n%v", tree.Root(), len(got), len(want), got, want)
		}
	}
}

// A walk by one reader asks each table for its rows once: its cost grows with
// the number of instances, not with the square of it.
func TestWalkAsksForRowsOnce(t *testing.T) {
	d := newDevice(200)
	_, tree := serve(d)
	if n := walk(tree); n < 200*15 {
		t.Fatalf("walk found %d instances only", n)
	}
	if d.rowsOf != 5 || d.views != 1 {
		t.Errorf("walk asked %d times for rows and took %d views, want 5 and 1", d.rowsOf, d.views)
	}
}

func walk(tree *mib.Tree) (instances int) {
	reader := tree.Read()
	search := []mib.Search{{Start: tree.Root()}}
	for {
		vb := reader.Next(search)[0]
		if vb.Value.Type == mib.EndOfMibView {
			return instances
		}
		instances++
		search[0].Start = vb.OID
	}
}

// nextOf is Next by looking at every name.
func nextOf(names []mib.OID, s mib.Search) (mib.OID, bool) {
	for _, name := range names {
		c := name.Compare(s.Start)
		if c > 0 || c == 0 && s.Inclusive {
			return name, s.End == nil || name.Compare(s.End) < 0
		}
	}
	return nil, false
}

// Names near those of instances, objects and groups, each as the start of
// searches of every form.
func TestNextAgreesWithLookingAtEveryName(t *testing.T) {
	d := newDevice(3)
	m, tree := serve(d)
	names := d.names(m)
	rnd := rand.New(rand.NewPCG(1, 2))
	near := func() mib.OID {
		oid := names[rnd.IntN(len(names))].Append()
		switch rnd.IntN(6) {
		case 0:
			oid = oid[:rnd.IntN(len(oid)+1)]
		case 1:
			oid = oid.Append(rnd.Uint32N(3))
		case 2:
			oid[rnd.IntN(len(oid))]++
		case 3:
			oid[rnd.IntN(len(oid))]--
		case 4:
			oid[len(oid)-1] = rnd.Uint32()
		}
		return oid
	}
	for range 20000 {
		s := mib.Search{Start: near(), Inclusive: rnd.IntN(2) == 0}
		if rnd.IntN(2) == 0 {
			s.End = near()
		}
		got := tree.Next([]mib.Search{s})[0]
		want, ok := nextOf(names, s)
		switch {
		case !ok && (got.Value.Type != mib.EndOfMibView || got.OID.Compare(s.Start) != 0):
			t.Fatalf("%+v: got %v = %v, want endOfMibView", s, got.OID, got.Value)
		case ok && got.OID.Compare(want) != 0:
			t.Fatalf("%+v: got %v = %v, want %v", s, got.OID, got.Value, want)
		}
	}
}
