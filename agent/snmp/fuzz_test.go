package snmp

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/gosnmp/gosnmp"

	"example.com/iad/mib"
)

// seedPDUs are requests of all kinds, and some that are none.
func seedPDUs() []pdu {
	var all []mib.Varbind
	for _, v := range []mib.Value{
		mib.Int32(-1), mib.Uint32(math.MaxUint32), mib.Str("text"), mib.ID(mib.DefaultRoot), mib.Ticks(1),
		{Type: mib.Counter32, Int: 1}, {Type: mib.Counter64, Int: -1}, {Type: mib.IPAddress, Bytes: []byte{127, 0, 0, 1}},
		{Type: mib.Opaque, Bytes: []byte{0x9f, 0x78, 4, 0, 0, 0, 0}}, {Type: mib.NoSuchInstance},
	} {
		all = append(all, mib.Varbind{OID: module.OID(mib.ReqOwner, 0), Value: v})
	}
	pdus := []pdu{getID(), setOwner("x"), {kind: pduGetBulk, requestID: 1, status: 1, index: 10, vars: oids("1.3", "1.3.6.1.4")}}
	for kind := byte(pduGet); kind <= pduReport; kind++ {
		pdus = append(pdus, pdu{kind: kind, requestID: math.MaxInt32, vars: all})
	}
	return pdus
}

func fuzzEngine(f testing.TB) (*Engine, *device) {
	c := &clock{time.Unix(1e9, 0)}
	return newEngine(f, Config{
		Communities: []Community{{Name: "private", Write: true}},
		Users:       []User{privateUser}, EngineID: testEngineID, Boots: 7,
		// Time moves on, so that limits are reached and leave off.
		Now: func() time.Time { c.advance(time.Millisecond); return c.t },
	})
}

// FuzzMessage feeds whole messages to the engine, and to what reads answers.
// Whatever they are, nothing panics, and what is answered is well formed and
// no longer than it may be.
func FuzzMessage(f *testing.F) {
	e, _ := fuzzEngine(f)
	p := newPeer(f, e, &privateUser)
	for _, request := range seedPDUs() {
		f.Add(appendCommunityMessage(nil, version2c, "private", request, encodeVars(request.vars)))
		f.Add(appendCommunityMessage(nil, version1, "private", request, encodeVars(request.vars)))
		f.Add(p.message(request, nil))
		f.Add(p.message(request, func(h *header) { h.flags = flagReportable }))
	}
	f.Fuzz(func(t *testing.T, msg []byte) {
		openHeader(slices.Clone(msg))
		reply, done := e.handle(source, msg)
		if done != nil {
			done()
		}
		if reply == nil {
			return
		}
		checkAnswer(t, reply)
	})
}

func checkAnswer(t *testing.T, reply []byte) {
	t.Helper()
	if len(reply) > defaultMaxSize {
		t.Fatalf("answer of %d octets", len(reply))
	}
	version, body, err := readVersion(reply)
	if err != nil {
		t.Fatal(err)
	}
	if version == version3 {
		if _, _, ok := openHeader(reply); !ok {
			t.Fatalf("malformed answer %x", reply)
		}
		return
	}
	if _, _, err := readCommunityMessage(&body); err != nil {
		t.Fatalf("%v: %x", err, reply)
	}
}

// FuzzAnswer feeds what the receiver of an inform may answer: a stranger's
// whole message, or what an authentic one holds.
func FuzzAnswer(f *testing.F) {
	e, _ := fuzzEngine(f)
	p := newPeer(f, e, &privateUser)
	for _, answer := range []pdu{
		{kind: pduResponse, requestID: 1, vars: oids("1.3")}, {kind: pduReport, vars: oids(oidNotInTimeWindows.String())}, {kind: pduReport},
	} {
		scoped := appendScoped(nil, testEngineID, answer, encodeVars(answer.vars))
		f.Add(scoped, true)
		msg, err := appendV3(header{msgID: 1, maxSize: 65507, engineID: testEngineID}, nil, 0, scoped)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(msg, false)
	}
	f.Fuzz(func(t *testing.T, msg []byte, seal bool) {
		s := &sink{engine: e, user: e.users["manager"], remote: &remote{engineID: testEngineID, keys: p.keys, latest: -1}}
		if seal {
			var err error
			h := header{msgID: 1, maxSize: 65507, flags: flagAuth | flagPriv, engineID: testEngineID, boots: 1, time: 1, user: "manager"}
			if msg, err = appendV3(h, p.keys, 1, msg); err != nil {
				t.Fatal(err)
			}
		}
		answer, level, ok := s.open(slices.Clone(msg), 1)
		if ok && level > NoAuthNoPriv && !seal {
			t.Fatalf("a forged answer is taken for authentic: %+v", answer)
		}
		if ok {
			reportName(varbindOf(answer))
		}
	})
}

// FuzzScopedPDU feeds what an authenticated user may send after decryption.
func FuzzScopedPDU(f *testing.F) {
	e, _ := fuzzEngine(f)
	p := newPeer(f, e, &privateUser)
	for _, request := range seedPDUs() {
		f.Add(appendScoped(nil, testEngineID, request, encodeVars(request.vars)))
	}
	f.Fuzz(func(t *testing.T, scoped []byte) {
		p.salt++
		msg, err := appendV3(header{
			msgID: int32(p.salt & math.MaxInt32), maxSize: defaultMaxSize, flags: flagAuth | flagPriv | flagReportable,
			engineID: testEngineID, boots: 7, time: e.engineTime(), user: "manager",
		}, p.keys, p.salt, scoped)
		if err != nil {
			t.Fatal(err)
		}
		reply, done := e.handle(source, msg)
		if done != nil {
			done()
		}
		if reply != nil {
			p.t = t
			p.open(reply)
		}
	})
}

// FuzzAgainstGosnmp compares the reader with an independent one: a message
// that is accepted here means the same there.
func FuzzAgainstGosnmp(f *testing.F) {
	for _, request := range seedPDUs() {
		f.Add(appendCommunityMessage(nil, version2c, "private", request, encodeVars(request.vars)))
	}
	other := &gosnmp.GoSNMP{Version: gosnmp.Version2c, Target: "127.0.0.1"}
	f.Fuzz(func(t *testing.T, msg []byte) {
		version, body, err := readVersion(msg)
		if err != nil || version != version2c {
			return
		}
		community, p, err := readCommunityMessage(&body)
		if err != nil || p.kind == pduTrapV1 {
			return
		}
		if slices.ContainsFunc(p.vars, func(vb mib.Varbind) bool { return vb.Value.Type == mib.Opaque }) {
			return // gosnmp looks for floating-point numbers in it
		}
		theirs, err := other.SnmpDecodePacket(slices.Clone(msg))
		if err != nil {
			t.Fatalf("gosnmp refuses it: %v", err)
		}
		if theirs.Community != string(community) || byte(theirs.PDUType) != p.kind || int32(theirs.RequestID) != p.requestID ||
			len(theirs.Variables) != len(p.vars) {
			t.Fatalf("gosnmp reads %+v, not %+v", theirs, p)
		}
		for i, v := range theirs.Variables {
			if v.Name != "."+p.vars[i].OID.String() || !sameValue(v, p.vars[i].Value) {
				t.Fatalf("gosnmp reads %+v, not %v = %v", v, p.vars[i].OID, p.vars[i].Value)
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
