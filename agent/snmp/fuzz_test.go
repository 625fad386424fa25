package snmp

import (
	"math"
	"slices"
	"testing"
	"time"

	"example.com/iad/internal/snmp"
	"example.com/iad/mib"
)

// requestSeeds are requests of all kinds, and some that are none.
func requestSeeds() []snmp.PDU {
	var all []mib.Varbind
	for _, v := range []mib.Value{
		mib.Int32(-1), mib.Uint32(math.MaxUint32), mib.Str("text"), mib.ID(mib.DefaultRoot), mib.Ticks(1),
		{Type: mib.Counter32, Int: 1}, {Type: mib.Counter64, Int: -1}, {Type: mib.IPAddress, Bytes: []byte{127, 0, 0, 1}},
		{Type: mib.Opaque, Bytes: []byte{0x9f, 0x78, 4, 0, 0, 0, 0}}, {Type: mib.NoSuchInstance},
	} {
		all = append(all, mib.Varbind{OID: module.OID(mib.ReqOwner, 0), Value: v})
	}
	pdus := []snmp.PDU{getID(), setOwner("x"), {Kind: snmp.PDUGetBulk, RequestID: 1, Status: 1, Index: 10, Vars: oids("1.3", "1.3.6.1.4")}}
	for kind := byte(snmp.PDUGet); kind <= snmp.PDUReport; kind++ {
		pdus = append(pdus, snmp.PDU{Kind: kind, RequestID: math.MaxInt32, Vars: all})
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
	for _, request := range requestSeeds() {
		f.Add(snmp.AppendCommunityMessage(nil, snmp.Version2c, "private", request, snmp.EncodeVars(request.Vars)))
		f.Add(snmp.AppendCommunityMessage(nil, snmp.Version1, "private", request, snmp.EncodeVars(request.Vars)))
		f.Add(p.message(request, nil))
		f.Add(p.message(request, func(h *snmp.Header) { h.Flags = snmp.FlagReportable }))
	}
	f.Fuzz(func(t *testing.T, msg []byte) {
		if m, err := snmp.ReadV3(msg); err == nil {
			m.Open(p.keys)
		}
		reply, done := e.Answer(source, msg)
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
	version, err := snmp.ReadVersion(reply)
	if err != nil {
		t.Fatal(err)
	}
	if version == snmp.Version3 {
		if _, err := snmp.ReadV3(reply); err != nil {
			t.Fatalf("%v: %x", err, reply)
		}
		return
	}
	if _, _, err := snmp.ReadCommunityMessage(reply); err != nil {
		t.Fatalf("%v: %x", err, reply)
	}
}

// FuzzAnswer feeds what the receiver of an inform may answer: a stranger's
// whole message, or what an authentic one holds.
func FuzzAnswer(f *testing.F) {
	e, _ := fuzzEngine(f)
	p := newPeer(f, e, &privateUser)
	for _, answer := range []snmp.PDU{
		{Kind: snmp.PDUResponse, RequestID: 1, Vars: oids("1.3")}, {Kind: snmp.PDUReport, Vars: oids(snmp.NotInTimeWindows.String())}, {Kind: snmp.PDUReport},
	} {
		scoped := snmp.AppendScoped(nil, testEngineID, nil, answer, snmp.EncodeVars(answer.Vars))
		f.Add(scoped, true)
		msg, err := snmp.SealV3(snmp.Header{MsgID: 1, MaxSize: 65507, EngineID: testEngineID}, nil, 0, scoped)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(msg, false)
	}
	f.Fuzz(func(t *testing.T, msg []byte, seal bool) {
		s := &sink{engine: e, user: e.users["manager"], remote: &remote{engineID: testEngineID, account: e.users["manager"].own, latest: -1}}
		if seal {
			var err error
			h := snmp.Header{MsgID: 1, MaxSize: 65507, Flags: snmp.FlagAuth | snmp.FlagPriv, EngineID: testEngineID, Boots: 1, Time: 1, User: "manager"}
			if msg, err = snmp.SealV3(h, p.keys, 1, msg); err != nil {
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
	for _, request := range requestSeeds() {
		f.Add(snmp.AppendScoped(nil, testEngineID, nil, request, snmp.EncodeVars(request.Vars)))
	}
	f.Fuzz(func(t *testing.T, scoped []byte) {
		p.salt++
		msg, err := snmp.SealV3(snmp.Header{
			MsgID: int32(p.salt & math.MaxInt32), MaxSize: defaultMaxSize, Flags: snmp.FlagAuth | snmp.FlagPriv | snmp.FlagReportable,
			EngineID: testEngineID, Boots: 7, Time: e.engineTime(), User: "manager",
		}, p.keys, p.salt, scoped)
		if err != nil {
			t.Fatal(err)
		}
		reply, done := e.Answer(source, msg)
		if done != nil {
			done()
		}
		if reply != nil {
			p.t = t
			p.open(reply)
		}
	})
}
