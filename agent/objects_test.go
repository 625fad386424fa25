package agent_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/iad/mib"
)

// walk returns all instances in the order of GetNext.
func (b *bench) walk() (list []mib.Varbind) {
	b.t.Helper()
	tree := b.tree()
	at := tree.Root()
	for {
		next := tree.Next([]mib.Search{{Start: at}})[0]
		if next.Value.Type == mib.EndOfMibView {
			return list
		}
		if next.OID.Compare(at) <= 0 {
			b.t.Fatalf("%v after %v", next.OID, at)
		}
		list, at = append(list, next), next.OID
	}
}

// busy gives the device a history, events and a bank full of software.
func (b *bench) busy() {
	b.t.Helper()
	b.server()
	b.image("2.0.0", 1)
	b.must(command(mib.OperationKindBackupConfig))
	b.must(command(mib.OperationKindDownloadSoftware))
	b.succeeded()
	b.must(command(mib.OperationKindReset))
	b.succeeded()
}

// Every readable object is met in a walk, in order, with a value of its syntax;
// GET gives the same value, and noSuchInstance beside it.
func TestEveryObjectIsServed(t *testing.T) {
	onBench(t, nil, func(b *bench) {
		for _, prepare := range []func(){func() {}, b.busy} {
			prepare()
			met := map[*mib.Object]int{}
			for _, v := range b.walk() {
				o, idx, ok := b.tree().Module().Lookup(v.OID)
				if !ok {
					t.Fatalf("%v is no instance", v.OID)
				}
				met[o]++
				if st, why := o.Check(v.Value); st != mib.NoError {
					t.Errorf("%s.%v: %s: %s", o.Name, idx, st, why)
				}
				if got := b.get(o, idx...); !got.Equal(v.Value) && o != mib.OpLastChange {
					t.Errorf("%s.%v: GET %v, GETNEXT %v", o.Name, idx, got, v.Value)
				}
			}
			for _, o := range mib.Objects {
				rows := map[*mib.Object]int{nil: 1, mib.BankEntry: 2, mib.ServerEntry: 4, mib.FileEntry: 6}
				want, fixed := rows[o.Row]
				switch {
				case !readable(o):
					want = 0
				case !fixed:
					want = met[o]
				}
				if met[o] != want {
					t.Errorf("%s has %d instances, want %d", o.Name, met[o], want)
				}
				if !readable(o) {
					if v := b.get(o, 1); v.Type != mib.NoSuchObject {
						t.Errorf("%s can be read: %v", o.Name, v)
					}
				} else if v := b.get(o, 4000000000); v.Type != mib.NoSuchInstance {
					t.Errorf("%s.4000000000: %v", o.Name, v)
				}
			}
		}
		if b.num(mib.HistKind, 1) != int64(mib.OperationKindBackupConfig) || b.num(mib.EventType, 1) != int64(mib.EventTypeRestarted) {
			t.Error("the tables have no rows")
		}
	})
}

func readable(o *mib.Object) bool { return o.Access == mib.ReadOnly || o.Access == mib.ReadWrite }

// values are what the module lets a writable object have at its limits, and
// what lies one beyond them.
func values(o *mib.Object) (good []mib.Value, bad map[string]mib.Value) {
	bad = map[string]mib.Value{}
	inside := func(n int64) bool {
		return slices.ContainsFunc(o.Ranges, func(r mib.Range) bool { return r.Min <= n && n <= r.Max })
	}
	switch {
	case o.IsBits:
		all := make([]int, len(o.Enums))
		for i := range all {
			all[i] = i
			good = append(good, mib.Octets(mib.Bits(i)))
		}
		good = append(good, mib.Octets(nil), mib.Octets(mib.Bits(all...)))
		bad["bit beyond"] = mib.Octets(mib.Bits(len(o.Enums)))
	case len(o.Enums) > 0:
		last := int64(0)
		for _, e := range o.Enums {
			good = append(good, mib.Value{Type: o.Type, Int: e.Number})
			last = max(last, e.Number)
		}
		bad["number beyond"] = mib.Value{Type: o.Type, Int: last + 1}
	case o.Type == mib.OctetString:
		for _, r := range o.Ranges {
			for _, n := range []int64{r.Min, r.Max} {
				good = append(good, mib.Octets(bytes.Repeat([]byte{'a'}, int(n))))
			}
			for _, n := range []int64{r.Min - 1, r.Max + 1} {
				if n >= 0 && !inside(n) {
					bad[fmt.Sprint(n, " bytes")] = mib.Octets(bytes.Repeat([]byte{'a'}, int(n)))
				}
			}
		}
	default:
		for _, r := range o.Ranges {
			good = append(good, mib.Value{Type: o.Type, Int: r.Min}, mib.Value{Type: o.Type, Int: r.Max})
			for _, n := range []int64{r.Min - 1, r.Max + 1} {
				if n >= 0 && n < 1<<32 && !inside(n) {
					bad[fmt.Sprint(n)] = mib.Value{Type: o.Type, Int: n}
				}
			}
		}
	}
	return good, bad
}

// company returns what has to be written together with a value, and a value
// that fits where the plain limit does not.
func company(o *mib.Object, v mib.Value, row uint32) (mib.Value, []mib.Varbind) {
	longest := strings.Repeat(strings.Repeat("a", 63)+".", 4)[:255]
	switch {
	case o == mib.ServerAddress && len(v.Bytes) == 255:
		return mib.Str(longest), []mib.Varbind{num(mib.ServerAddressType, int64(mib.InetAddressTypeDns), row)}
	case o == mib.ServerAddress:
		return v, []mib.Varbind{num(mib.ServerAddressType, int64(mib.InetAddressTypeUnknown), row)}
	case o == mib.ServerAddressType:
		sizes := map[int64]int{int64(mib.InetAddressTypeIpv4): 4, int64(mib.InetAddressTypeIpv6): 16, int64(mib.InetAddressTypeIpv6z): 20}
		address := make([]byte, sizes[v.Int])
		if v.Int == int64(mib.InetAddressTypeDns) {
			address = []byte("files.example")
		}
		return v, []mib.Varbind{vb(mib.ServerAddress, mib.Octets(address), row)}
	}
	return v, nil
}

// Every writable object takes its DEFVAL and its limits, reads back what was
// written and keeps it over a restart; it refuses one beyond, a wrong type and
// an unknown instance. A read-only object refuses everything. A refused SET of
// several varbinds changes nothing, and blames the right one.
func TestEveryObjectIsSet(t *testing.T) {
	for _, o := range mib.Objects {
		t.Run(o.Name, func(t *testing.T) {
			onBench(t, nil, func(b *bench) {
				idx := []uint32{0}
				if o.Kind != mib.Scalar {
					idx = []uint32{1}
				}
				refuse := func(what string, v mib.Varbind, status mib.Status) {
					t.Helper()
					before := b.walk()
					err := b.set(num(mib.NotifyStep, 33), num(mib.ServerTimeout, 44, 2), v, num(mib.NotifyStep, 34))
					if err == nil || err.Status != status || err.Index != 3 {
						t.Errorf("%s: %v, want %s at 3", what, err, status)
					}
					if o == mib.ReqCommand { // the request says why it was refused
						b.same(before, what, mib.ReqRefusal, mib.ReqRefusalText)
						return
					}
					b.same(before, what)
				}
				if o.Access != mib.ReadWrite {
					for _, typ := range []mib.Type{mib.Integer, mib.Gauge32, mib.OctetString} {
						refuse("not writable", vb(o, mib.Value{Type: typ, Int: 1}, idx...), mib.NotWritable)
					}
					return
				}
				good, bad := values(o)
				if o.Default != nil {
					if v := b.get(o, idx...); !v.Equal(pad(o, *o.Default)) {
						t.Errorf("a new device has %v, DEFVAL is %v", v, *o.Default)
					}
					good = append(good, *o.Default)
				}
				for _, v := range good {
					b.accept(o, v, idx)
				}
				for what, v := range bad {
					status := mib.WrongValue
					if o.Type == mib.OctetString && !o.IsBits {
						status = mib.WrongLength
					}
					refuse(what, vb(o, v, idx...), status)
				}
				for _, typ := range []mib.Type{mib.Integer, mib.OctetString, mib.Gauge32, mib.ObjectIdentifier, mib.Counter64, mib.Null} {
					if typ != o.Type {
						refuse("type "+typ.String(), vb(o, mib.Value{Type: typ, Int: good[0].Int, Bytes: good[0].Bytes}, idx...), mib.WrongType)
					}
				}
				refuse("unknown instance", vb(o, good[0], 77), mib.NoCreation)
				refuse("too long a name", vb(o, good[0], append(idx, 1)...), mib.NoCreation)
			})
		})
	}
}

func pad(o *mib.Object, v mib.Value) mib.Value {
	if o.IsBits && len(v.Bytes) == 0 {
		v.Bytes = []byte{0}
	}
	return v
}

// accept writes a value, reads it, and reads it again after a restart.
func (b *bench) accept(o *mib.Object, v mib.Value, idx []uint32) {
	b.t.Helper()
	v, with := company(o, v, idx[0])
	want, kept := pad(o, v), true
	switch {
	case o == mib.ReqLock:
		// TestAndIncr: only the present value is accepted.
		v = b.get(o)
		want, kept = mib.Value{Type: v.Type, Int: v.Int + 1}, false
	case o == mib.ReqCommand && v.Int != int64(mib.OperationKindNone):
		return // scenarios
	case o == mib.ServerPassword:
		want = mib.Octets([]byte{})
	case o == mib.ServerProtocol && v.Int == int64(mib.ProtocolFtps):
		if err := b.set(vb(o, v, idx...)); err == nil || err.Status != mib.WrongValue || err.Index != 1 {
			b.t.Errorf("a protocol that is not supported: %v", err)
		}
		return
	case o == mib.ServerAddressType && v.Int == int64(mib.InetAddressTypeIpv4z):
		if err := b.set(vb(o, v, idx...)); err == nil || err.Status != mib.InconsistentValue || err.Index != 1 {
			b.t.Errorf("ipv4z: %v", err)
		}
		return
	}
	if err := b.set(append(with, vb(o, v, idx...))...); err != nil {
		b.t.Errorf("%s = %v: %v", o.Name, v, err)
		return
	}
	if got := b.get(o, idx...); !got.Equal(want) {
		b.t.Errorf("%s is %v after %v was written", o.Name, got, want)
	}
	b.powerCut()
	if got := b.get(o, idx...); got.Equal(want) != kept {
		b.t.Errorf("%s is %v after a restart, was %v", o.Name, got, want)
	}
}

// powerCut takes the power away and gives it back.
func (b *bench) powerCut() {
	b.t.Helper()
	n := b.device.Starts()
	b.device.CutPower()
	b.device.PowerOn()
	if b.device.Agent(b.t.Context(), n+1) == nil {
		b.t.Fatal("did not start")
	}
	time.Sleep(time.Second)
}

// same checks that nothing has changed but the passing of time, and what may.
func (b *bench) same(before []mib.Varbind, what string, may ...*mib.Object) {
	b.t.Helper()
	after := b.walk()
	if len(after) != len(before) {
		b.t.Fatalf("%s: %d instances, before %d", what, len(after), len(before))
	}
	for i := range after {
		if o, _, _ := b.tree().Module().Lookup(after[i].OID); !after[i].Value.Equal(before[i].Value) && o != mib.OpLastChange && !slices.Contains(may, o) {
			b.t.Errorf("%s: %s changed", what, o.Name)
		}
	}
}
