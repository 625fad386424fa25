package mib_test

import (
	"testing"

	"example.com/iad/mib"
)

func BenchmarkGet(b *testing.B) {
	d := newDevice(8)
	m, tree := benchTree(d)
	oids := []mib.OID{m.OID(mib.OpState, 0), m.OID(mib.OpPhase, 0), m.OID(mib.OpPercent, 0), m.OID(mib.BankState, 2), m.OID(mib.HistKind, 40)}
	b.ReportAllocs()
	for b.Loop() {
		tree.Get(oids)
	}
}

func BenchmarkNext(b *testing.B) {
	d := newDevice(1024)
	m, tree := benchTree(d)
	reqs := []mib.Search{{Start: m.OID(mib.HistKind, 5120)}}
	b.ReportAllocs()
	for b.Loop() {
		tree.Next(reqs)
	}
}

// BenchmarkWalk reads all instances of a device with a full history of 1024
// operations by one reader, as GETBULK does.
func BenchmarkWalk(b *testing.B) {
	_, tree := benchTree(newDevice(1024))
	b.ReportAllocs()
	instances := 0
	for b.Loop() {
		instances += walk(tree)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(instances), "ns/instance")
}

func BenchmarkSet(b *testing.B) {
	d := newDevice(8)
	m, tree := benchTree(d)
	vbs := []mib.Varbind{
		{OID: m.OID(mib.ReqLock, 0), Value: mib.Int32(1)},
		{OID: m.OID(mib.ReqId, 0), Value: mib.Uint32(7)},
		{OID: m.OID(mib.ReqOwner, 0), Value: mib.Str("noc")},
		{OID: m.OID(mib.ReqFiles, 0), Value: mib.Octets(mib.Bits(mib.FileSetUserData))},
		{OID: m.OID(mib.ReqCommand, 0), Value: mib.OperationKindBackupConfig.Value()},
	}
	b.ReportAllocs()
	for b.Loop() {
		tx, err := tree.Test(mib.Caller{}, vbs)
		if err != nil {
			b.Fatal(err)
		}
		tx.Done()
	}
}

// benchTree serves a device whose views cost nothing, so that the tree alone
// is measured.
func benchTree(d *device) (*mib.Module, *mib.Tree) {
	m := mib.NewModule(nil)
	return m, mib.NewTree(m, still{rows: d.rows})
}

// still is a device on which every instance has the same value.
type still struct{ rows map[*mib.Object][]mib.OID }

func (s still) View() mib.View { return s }
func (s still) Value(o *mib.Object, _ mib.OID) (mib.Value, bool) {
	return mib.Value{Type: o.Type}, true
}
func (s still) Rows(o *mib.Object) []mib.OID { return s.rows[o] }
func (s still) Test(mib.Caller, []mib.Assignment) (mib.Transaction, error) {
	return &transaction{device: &device{}}, nil
}
