package snmp

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/gosnmp/gosnmp"

	"example.com/iad/mib"
)

var codecEngineID = []byte{0x80, 0, 0x1f, 0x88, 5, 1, 2, 3}

// seedPDUs are PDUs of every kind with values of every type.
func seedPDUs() []PDU {
	var all []mib.Varbind
	for _, v := range []mib.Value{
		mib.Int32(-1), mib.Uint32(math.MaxUint32), mib.Str("text"), mib.ID(mib.DefaultRoot), mib.Ticks(1),
		{Type: mib.Counter32, Int: 1}, {Type: mib.Counter64, Int: -1}, {Type: mib.IPAddress, Bytes: []byte{127, 0, 0, 1}},
		{Type: mib.Opaque, Bytes: []byte{0x9f, 0x78, 4, 0, 0, 0, 0}}, {Type: mib.Null}, {Type: mib.NoSuchInstance},
	} {
		all = append(all, mib.Varbind{OID: mib.DefaultRoot, Value: v})
	}
	var pdus []PDU
	for kind := byte(PDUGet); kind <= PDUReport; kind++ {
		pdus = append(pdus, PDU{Kind: kind, RequestID: math.MaxInt32, Status: 1, Index: 10, Vars: all})
	}
	return pdus
}

// FuzzV3 reads messages of v3 whose sender is unknown: none is authentic, and what an
// authentic sender may have encrypted does no harm either.
func FuzzV3(f *testing.F) {
	master := NewMasterKey(SHA256, "authentication")
	k := NewKeys(master, codecEngineID)
	k.AddPrivacy(AES128, master, codecEngineID)
	seal := func(level Level, scoped []byte) []byte {
		h := Header{MsgID: 1, MaxSize: 65507, Flags: level.Flags(), EngineID: codecEngineID, Boots: 1, Time: 1, User: "u"}
		msg, err := SealV3(h, k, 1, scoped)
		if err != nil {
			f.Fatal(err)
		}
		return msg
	}
	for _, p := range seedPDUs() {
		scoped := AppendScoped(nil, codecEngineID, nil, p, EncodeVars(p.Vars))
		f.Add(seal(NoAuthNoPriv, scoped), false)
		f.Add(scoped, true)
	}
	f.Fuzz(func(t *testing.T, data []byte, sealed bool) {
		if sealed {
			data = seal(AuthPriv, data)
		}
		before := slices.Clone(data)
		m, err := ReadV3(data)
		if err != nil {
			return
		}
		if m.Authentic(k) != sealed {
			t.Fatalf("authentic: %v, made with the keys: %v", !sealed, sealed)
		}
		m.Open(k)
		if !bytes.Equal(before, data) {
			t.Fatal("reading changes the message")
		}
	})
}

// FuzzAgainstGosnmp compares the reader with an independent one: a message
// that is accepted here means the same there.
func FuzzAgainstGosnmp(f *testing.F) {
	for _, request := range seedPDUs() {
		f.Add(AppendCommunityMessage(nil, Version2c, "private", request, EncodeVars(request.Vars)))
	}
	other := &gosnmp.GoSNMP{Version: gosnmp.Version2c, Target: "127.0.0.1"}
	f.Fuzz(func(t *testing.T, msg []byte) {
		if version, err := ReadVersion(msg); err != nil || version != Version2c {
			return
		}
		community, p, err := ReadCommunityMessage(msg)
		if err != nil || p.Kind == pduTrapV1 {
			return
		}
		if slices.ContainsFunc(p.Vars, func(vb mib.Varbind) bool { return vb.Value.Type == mib.Opaque }) {
			return // gosnmp looks for floating-point numbers in it
		}
		theirs, err := other.SnmpDecodePacket(slices.Clone(msg))
		if err != nil {
			t.Fatalf("gosnmp refuses it: %v", err)
		}
		if theirs.Community != string(community) || byte(theirs.PDUType) != p.Kind || int32(theirs.RequestID) != p.RequestID ||
			len(theirs.Variables) != len(p.Vars) {
			t.Fatalf("gosnmp reads %+v, not %+v", theirs, p)
		}
		for i, v := range theirs.Variables {
			if v.Name != "."+p.Vars[i].OID.String() || !sameValue(v, p.Vars[i].Value) {
				t.Fatalf("gosnmp reads %+v, not %v = %v", v, p.Vars[i].OID, p.Vars[i].Value)
			}
		}
	})
}

func sameValue(theirs gosnmp.SnmpPDU, ours mib.Value) bool {
	if byte(theirs.Type) != byte(ours.Type) {
		return false
	}
	switch v := theirs.Value.(type) {
	case nil:
		return true
	case []byte:
		return bytes.Equal(v, ours.Bytes)
	case string:
		if ours.Type == mib.IPAddress {
			return v == fmt.Sprintf("%d.%d.%d.%d", ours.Bytes[0], ours.Bytes[1], ours.Bytes[2], ours.Bytes[3])
		}
		return v == "."+ours.OID.String()
	case int:
		return int64(v) == ours.Int
	case uint:
		return int64(v) == ours.Int
	case uint32:
		return int64(v) == ours.Int
	case uint64:
		return int64(v) == ours.Int
	}
	return false
}
