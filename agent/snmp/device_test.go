package snmp

import (
	"net"
	"slices"
	"sync"
	"testing"

	"example.com/iad/mib"
)

// device is a small device behind the real tree: some scalars and a table of
// two rows, kept in a map.
type device struct {
	mu     sync.Mutex
	values map[string]mib.Value // by object name and index
	// refuse is what Test answers, commitFails what Commit does.
	refuse      *mib.SetError
	commitFails bool
	// done counts transactions that are done, callers who asked for them.
	done    int
	callers []mib.Caller
	onDone  func()
	// onCommit and onView are called first.
	onCommit, onView func()
}

func key(o *mib.Object, index mib.OID) string { return o.Name + "." + index.String() }

func newDevice() *device {
	d := &device{values: make(map[string]mib.Value)}
	scalar := mib.OID{0}
	d.values[key(mib.DeviceId, scalar)] = mib.Str("iad-1")
	d.values[key(mib.DeviceModel, scalar)] = mib.Str("IAD-4FXS")
	d.values[key(mib.SoftwareVersion, scalar)] = mib.Str("1.0.0")
	d.values[key(mib.ConfigFormat, scalar)] = mib.Uint32(1)
	d.values[key(mib.ReqOwner, scalar)] = mib.Str("")
	d.values[key(mib.ReqVersion, scalar)] = mib.Str("")
	for row := range uint32(2) {
		index := mib.OID{row + 1}
		d.values[key(mib.BankState, index)] = mib.Int32(int64(row) + 1)
		d.values[key(mib.BankVersion, index)] = mib.Str("1.0.0")
		d.values[key(mib.ServerPassword, index)] = mib.Str("")
		d.values[key(mib.ServerUser, index)] = mib.Str("")
	}
	return d
}

func (d *device) View() mib.View {
	if d.onView != nil {
		d.onView()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return view{d}
}

type view struct{ d *device }

func (v view) Value(o *mib.Object, index mib.OID) (mib.Value, bool) {
	v.d.mu.Lock()
	defer v.d.mu.Unlock()
	value, ok := v.d.values[key(o, index)]
	return value, ok
}

func (v view) Rows(o *mib.Object) []mib.OID {
	if slices.Contains([]*mib.Object{mib.BankEntry, mib.ServerEntry}, o) {
		return []mib.OID{{1}, {2}}
	}
	return nil
}

func (d *device) Test(caller mib.Caller, changes []mib.Assignment) (mib.Transaction, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.callers = append(d.callers, caller)
	if d.refuse != nil {
		return nil, d.refuse
	}
	return &transaction{d: d, changes: changes}, nil
}

type transaction struct {
	d       *device
	changes []mib.Assignment
}

func (t *transaction) Commit() error {
	if t.d.onCommit != nil {
		t.d.onCommit()
	}
	t.d.mu.Lock()
	defer t.d.mu.Unlock()
	if t.d.commitFails {
		return &mib.SetError{Status: mib.CommitFailed, Index: 1}
	}
	for _, c := range t.changes {
		t.d.values[key(c.Object, c.Index)] = c.Value
	}
	return nil
}

func (t *transaction) Undo() error { return nil }

func (t *transaction) Done() {
	t.d.mu.Lock()
	t.d.done++
	onDone := t.d.onDone
	t.d.mu.Unlock()
	if onDone != nil {
		onDone()
	}
}

// value reads a value of the device past SNMP.
func (d *device) value(o *mib.Object, index ...uint32) mib.Value {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.values[key(o, index)]
}

// committed returns how many SETs were carried out to the end.
func (d *device) committed() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.done
}

// caller returns who asked for the i-th SET.
func (d *device) caller(i int) mib.Caller {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.callers[i]
}

func (d *device) tested() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.callers)
}

var module = mib.NewModule(nil)

// newEngine returns an engine on a device; it is closed with the test.
func newEngine(t testing.TB, cfg Config) (*Engine, *device) {
	t.Helper()
	d := newDevice()
	e, err := New(cfg, mib.NewTree(module, d))
	if err != nil {
		t.Fatal(err)
	}
	return e, d
}

// socketAt opens a socket that is closed when the test ends.
func socketAt(t testing.TB, address string) net.PacketConn {
	t.Helper()
	conn, err := Listen(address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}
