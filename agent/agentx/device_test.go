package agentx

import (
	"fmt"
	"maps"
	"slices"
	"sync"

	"example.com/iad/mib"
)

// device is an Instrumentation in memory: it has every readable object of the
// module and takes one SET at a time. Hooks stand for what may go wrong.
type device struct {
	mu      sync.Mutex
	values  map[string]mib.Value // by object name and index
	rows    map[string][]mib.OID // by name of the row object
	busy    bool                 // a tested SET holds the reservation
	tests   int
	undone  int
	started int // SETs that came to Done after Commit

	onTest   func(caller mib.Caller, changes []mib.Assignment) error
	onCommit func() error
	onUndo   func() error
	onRead   func()
}

func newDevice() *device {
	d := &device{values: map[string]mib.Value{}, rows: map[string][]mib.OID{
		mib.BankEntry.Name:   {{1}, {2}},
		mib.ServerEntry.Name: {{1}, {2}, {3}},
		mib.FileEntry.Name:   {{1}, {2}, {3}, {4}, {5}, {6}},
		mib.EventEntry.Name:  {{4294967290}, {4294967291}, {4294967295}},
	}}
	for _, o := range mib.Objects {
		if o.Access != mib.ReadOnly && o.Access != mib.ReadWrite {
			continue
		}
		if o.Kind == mib.Scalar {
			d.values[key(o, mib.OID{0})] = sample(o, 0)
			continue
		}
		for i, row := range d.rows[o.Row.Name] {
			d.values[key(o, row)] = sample(o, i+1)
		}
	}
	return d
}

func key(o *mib.Object, index mib.OID) string { return o.Name + "." + index.String() }

// sample is a value that the syntax of o permits.
func sample(o *mib.Object, n int) mib.Value {
	v := mib.Value{Type: o.Type}
	switch {
	case o.Type != mib.OctetString && len(o.Enums) > 0:
		v.Int = o.Enums[n%len(o.Enums)].Number
	case o.Type != mib.OctetString:
		v.Int = int64(n)
		if len(o.Ranges) > 0 {
			v.Int = min(max(v.Int, o.Ranges[0].Min), o.Ranges[0].Max)
		}
	case o.IsBits:
		v.Bytes = mib.Bits(n % len(o.Enums))
	case o.TC == "SnmpAdminString":
		v.Bytes = fmt.Appendf(nil, "%s %d", o.Name[6:], n)
		if r := o.Ranges; len(r) > 0 && int64(len(v.Bytes)) > r[len(r)-1].Max {
			v.Bytes = v.Bytes[:r[len(r)-1].Max]
		}
	case len(o.Ranges) > 0:
		v.Bytes = make([]byte, o.Ranges[0].Min)
	}
	return v
}

func (d *device) get(o *mib.Object, index ...uint32) mib.Value {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.values[key(o, index)]
}

func (d *device) counts() (tests, undone, started int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.tests, d.undone, d.started
}

func (d *device) reserved() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.busy
}

// View implements mib.Instrumentation. It is as consistent as these tests
// need: values change only between requests.
func (d *device) View() mib.View {
	if d.onRead != nil {
		d.onRead()
	}
	return deviceView{d}
}

type deviceView struct{ d *device }

func (v deviceView) Value(o *mib.Object, index mib.OID) (mib.Value, bool) {
	v.d.mu.Lock()
	defer v.d.mu.Unlock()
	value, ok := v.d.values[key(o, index)]
	return value, ok
}

func (v deviceView) Rows(o *mib.Object) []mib.OID { return v.d.rows[o.Name] }

// Test implements mib.Instrumentation. The owner "bad" is refused, for tests
// of a SET that only the device finds fault with.
func (d *device) Test(caller mib.Caller, changes []mib.Assignment) (mib.Transaction, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tests++
	if d.onTest != nil {
		if err := d.onTest(caller, changes); err != nil {
			return nil, err
		}
	}
	if d.busy {
		return nil, &mib.SetError{Status: mib.ResourceUnavailable, Reason: "another SET is under way"}
	}
	for _, c := range changes {
		if c.Object == mib.ReqOwner && string(c.Value.Bytes) == "bad" {
			return nil, &mib.SetError{Status: mib.InconsistentValue, Index: c.Pos, Reason: "no such owner"}
		}
	}
	d.busy = true
	return &deviceSet{d: d, changes: slices.Clone(changes)}, nil
}

type deviceSet struct {
	d         *device
	changes   []mib.Assignment
	old       []mib.Value
	committed bool
}

func (s *deviceSet) Commit() error {
	s.d.mu.Lock()
	defer s.d.mu.Unlock()
	if s.d.onCommit != nil {
		if err := s.d.onCommit(); err != nil {
			return err
		}
	}
	for _, c := range s.changes {
		k := key(c.Object, c.Index)
		s.old = append(s.old, s.d.values[k])
		s.d.values[k] = c.Value
	}
	s.committed = true
	return nil
}

func (s *deviceSet) Undo() error {
	s.d.mu.Lock()
	defer s.d.mu.Unlock()
	s.d.busy = false
	s.d.undone++
	if s.d.onUndo != nil {
		if err := s.d.onUndo(); err != nil {
			return err
		}
	}
	for i, old := range s.old {
		s.d.values[key(s.changes[i].Object, s.changes[i].Index)] = old
	}
	return nil
}

func (s *deviceSet) Done() {
	s.d.mu.Lock()
	defer s.d.mu.Unlock()
	s.d.busy = false
	if s.committed {
		s.d.started++
	}
}

// reset takes the hooks away and sets those that prepare wants.
func (d *device) reset(prepare func(*device)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.onTest, d.onCommit, d.onUndo = nil, nil, nil
	if prepare != nil {
		prepare(d)
	}
}

// state is what a test compares of two devices.
func (d *device) state() any {
	d.mu.Lock()
	defer d.mu.Unlock()
	return map[string]any{"values": maps.Clone(d.values), "started": d.started, "undone": d.undone, "busy": d.busy}
}
