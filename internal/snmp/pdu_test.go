package snmp

import (
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"

	"example.com/iad/mib"
)

func TestPDURoundTrip(t *testing.T) {
	oid := mib.MustParseOID("2.999.0.4294967295.1")
	for _, v := range []mib.Value{
		mib.Int32(0), mib.Int32(-1), mib.Int32(127), mib.Int32(128), mib.Int32(math.MinInt32), mib.Int32(math.MaxInt32),
		mib.Uint32(0), mib.Uint32(127), mib.Uint32(128), mib.Uint32(math.MaxUint32), mib.Ticks(math.MaxUint32),
		{Type: mib.Counter32, Int: 1 << 31}, {Type: mib.Counter64, Int: -1}, {Type: mib.Counter64, Int: math.MaxInt64},
		mib.Str("text"), mib.Octets(make([]byte, 200)), mib.Octets(make([]byte, 70000)),
		mib.ID(mib.OID{0, 0}), mib.ID(oid), {Type: mib.IPAddress, Bytes: []byte{192, 0, 2, 1}},
		{Type: mib.Opaque, Bytes: []byte{1}}, {Type: mib.Null}, {Type: mib.NoSuchObject}, {Type: mib.EndOfMibView},
	} {
		want := PDU{Kind: PDUResponse, RequestID: math.MinInt32, Status: 5, Index: 300, Vars: []mib.Varbind{{OID: oid, Value: v}}}
		encoded := appendPDU(nil, want, EncodeVars(want.Vars))
		r := reader{buf: encoded, end: len(encoded)}
		got, err := readPDU(&r)
		if err != nil {
			t.Errorf("%v: %v", v, err)
			continue
		}
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(PDU{})); diff != "" {
			t.Errorf("%v: %s", v, diff)
		}
	}
}
