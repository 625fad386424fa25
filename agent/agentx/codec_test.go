package agentx

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"math"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"example.com/iad/mib"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/posteo/go-agentx/pdu"
	"github.com/posteo/go-agentx/value"
)

var samePacket = cmp.Options{
	cmpopts.IgnoreUnexported(packet{}),
	cmpopts.EquateEmpty(),
	cmpopts.IgnoreFields(pdu.Header{}, "PayloadLength"),
}

// samples returns a PDU of every type and with every type of value.
func samples() []*packet {
	header := func(t pdu.Type, flags pdu.Flags) pdu.Header {
		return pdu.Header{Version: 1, Type: t, Flags: flags, SessionID: 0x01020304, TransactionID: 0x05060708, PacketID: 0x090a0b0c}
	}
	root := mib.DefaultRoot
	values := []mib.Varbind{
		{OID: root.Append(1, 1, 1), Value: mib.Int32(math.MinInt32)},
		{OID: root.Append(1, 1, 2), Value: mib.Str("four")},
		{OID: root.Append(1, 1, 3), Value: mib.Octets([]byte{0, 255, 3, 4, 5})},
		{OID: mib.OID{1, 3, 6, 1, 0, 9}, Value: mib.Value{Type: mib.Null}},
		{OID: mib.OID{1, 3, 6, 1, 256}, Value: mib.ID(root)},
		{OID: mib.OID{1, 3, 6, 1, 255}, Value: mib.ID(mib.OID{0, 0})},
		{OID: mib.OID{2, 999, math.MaxUint32}, Value: mib.Value{Type: mib.IPAddress, Bytes: []byte{127, 0, 0, 1}}},
		{OID: root, Value: mib.Value{Type: mib.Counter32, Int: math.MaxUint32}},
		{OID: root, Value: mib.Uint32(math.MaxUint32)},
		{OID: root, Value: mib.Ticks(1)},
		{OID: root, Value: mib.Value{Type: mib.Opaque, Bytes: []byte("o")}},
		{OID: root, Value: mib.Value{Type: mib.Counter64, Int: -1}},
		{OID: root, Value: mib.Value{Type: mib.NoSuchObject}},
		{OID: root, Value: mib.Value{Type: mib.NoSuchInstance}},
		{OID: slices.Repeat(mib.OID{1}, maxSubIDs), Value: mib.Value{Type: mib.EndOfMibView}},
	}
	ranges := []mib.Search{
		{Start: root, End: root.Append(2)},
		{Start: root.Append(1, 1), Inclusive: true},
		{},
	}
	context := pdu.FlagNonDefaultContext
	return []*packet{
		{Header: header(pdu.TypeOpen, 0), Timeout: 5, OID: mib.OID{1, 3, 6, 1, 4, 1, 99}, Description: []byte("sub")},
		{Header: header(pdu.TypeClose, 0), Reason: pdu.ReasonShutdown},
		{Header: header(pdu.TypeRegister, context), Context: []byte("other"), Timeout: 3, Priority: 127, RangeSubID: 2, UpperBound: 9, OID: root},
		{Header: header(pdu.TypeUnregister, 0), Priority: 127, OID: root},
		{Header: header(pdu.TypeGet, 0), Ranges: ranges},
		{Header: header(pdu.TypeGetNext, context), Context: []byte("c"), Ranges: ranges},
		{Header: header(pdu.TypeGetBulk, 0), NonRepeaters: 1, MaxRepetitions: 65535, Ranges: ranges},
		{Header: header(pdu.TypeTestSet, 0), Varbinds: values},
		{Header: header(pdu.TypeCommitSet, 0)},
		{Header: header(pdu.TypeUndoSet, 0)},
		{Header: header(pdu.TypeCleanupSet, 0)},
		{Header: header(pdu.TypeNotify, 0), Varbinds: values},
		{Header: header(pdu.TypePing, context), Context: []byte{}},
		{Header: header(pdu.TypeIndexAllocate, pdu.FlagNewIndex), Varbinds: values[:1]},
		{Header: header(pdu.TypeIndexDeallocate, 0), Varbinds: values[:1]},
		{Header: header(pdu.TypeAddAgentCaps, 0), OID: root, Description: []byte("caps")},
		{Header: header(pdu.TypeRemoveAgentCaps, 0), OID: root},
		{Header: header(pdu.TypeResponse, 0), UpTime: 4711, Error: pdu.ErrorNotOpen, Index: 3, Varbinds: values},
	}
}

func TestRoundTrip(t *testing.T) {
	for _, flags := range []pdu.Flags{0, pdu.FlagNetworkByteOrder} {
		var stream []byte
		all := samples()
		for _, p := range all {
			p.Flags |= flags
			stream = append(stream, encodePacket(p)...)
		}
		for name, r := range map[string]io.Reader{
			"in one piece":   bytes.NewReader(stream),
			"octet by octet": iotest.OneByteReader(bytes.NewReader(stream)),
			"data with EOF":  iotest.DataErrReader(bytes.NewReader(stream)),
		} {
			var got packet // used again and again, as a session does
			for _, want := range all {
				if err := got.read(r); err != nil {
					t.Fatalf("%s, %v, flags %v: %v", name, want.Type, want.Flags, err)
				}
				if diff := cmp.Diff(want, &got, samePacket); diff != "" {
					t.Errorf("%s, %v, flags %v: -want +got\n%s", name, want.Type, want.Flags, diff)
				}
			}
			if err := got.read(r); !errors.Is(err, io.EOF) {
				t.Errorf("%s: after the last PDU: %v", name, err)
			}
		}
	}
}

// TestWireFormat compares with bytes written down by hand from the figures of
// RFC 2741.
func TestWireFormat(t *testing.T) {
	want := unhex(t, `
		01 12 10 00  00000007 00000008 00000009 00000020
		00000000 000c 0001
		0004 0000  02 04 00 00  00000001 00000022
		00000003 616263 00`)
	got, err := encodeResponse(nil, pdu.Header{Type: pdu.TypeTestSet, Flags: pdu.FlagNetworkByteOrder, SessionID: 7, TransactionID: 8, PacketID: 9},
		mib.InconsistentValue, 1, []mib.Varbind{{OID: mib.OID{1, 3, 6, 1, 4, 1, 0x22}, Value: mib.Str("abc")}})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("got\n% x, want\n% x", got, want)
	}
}

// TestGoAgentX compares with go-agentx's encoders where those are right.
func TestGoAgentX(t *testing.T) {
	var vars pdu.Variables
	name := value.OID{1, 3, 6, 1, 300, 5} // too large for a prefix, which go-agentx does not use
	vars.Add(name, pdu.VariableTypeInteger, int32(-7))
	vars.Add(name, pdu.VariableTypeOctetString, "hello")
	vars.Add(name, pdu.VariableTypeGauge32, uint32(7))
	vars.Add(name, pdu.VariableTypeCounter64, uint64(1)<<63)
	vars.Add(name, pdu.VariableTypeObjectIdentifier, "2.5.300")
	vars.Add(name, pdu.VariableTypeIPAddress, net.IP{127, 0, 0, 1})
	vars.Add(name, pdu.VariableTypeTimeTicks, 3*time.Second)
	vars.Add(name, pdu.VariableTypeNoSuchInstance, nil)
	want, err := vars.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	oid := mib.OID(name)
	got, err := appendVarbinds(nil, orderOf(0), []mib.Varbind{
		{OID: oid, Value: mib.Int32(-7)},
		{OID: oid, Value: mib.Str("hello")},
		{OID: oid, Value: mib.Uint32(7)},
		{OID: oid, Value: mib.Value{Type: mib.Counter64, Int: math.MinInt64}},
		{OID: oid, Value: mib.ID(mib.OID{2, 5, 300})},
		{OID: oid, Value: mib.Value{Type: mib.IPAddress, Bytes: []byte{127, 0, 0, 1}}},
		{OID: oid, Value: mib.Ticks(300)},
		{OID: oid, Value: mib.Value{Type: mib.NoSuchInstance}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("got\n% x, go-agentx has\n% x", got, want)
	}
}

func TestMalformed(t *testing.T) {
	head := func(t pdu.Type, length byte) string {
		return "01" + hex.EncodeToString([]byte{byte(t)}) + "1000 00000001 00000002 00000003 000000" + hex.EncodeToString([]byte{length})
	}
	const good = `00000000 00000000` // an empty search range
	for name, in := range map[string]string{
		"unknown type":                   head(99, 0),
		"Close without reason":           head(pdu.TypeClose, 0),
		"Commit with payload":            head(pdu.TypeCommitSet, 4) + `00000000`,
		"range without end":              head(pdu.TypeGet, 4) + `00000000`,
		"more sub-identifiers than data": head(pdu.TypeGet, 8) + `02000000 00000001`,
		"129 sub-identifiers":            head(pdu.TypeGet, 208) + `00000000` + `7c040000` + strings.Repeat(`00000001`, 50),
		"bulk without counts":            head(pdu.TypeGetBulk, 0),
		"string beyond the end":          head(pdu.TypeTestSet, 12) + `00040000 00000000 00000005`,
		"string of 4 GiB":                head(pdu.TypeTestSet, 16) + `00040000 00000000 ffffffff 00000000`,
		"string without padding":         head(pdu.TypeTestSet, 16) + `00040000 00000000 00000005 61626364`,
		"Counter64 of four octets":       head(pdu.TypeTestSet, 12) + `00460000 00000000 00000000`,
		"unknown type of value":          head(pdu.TypeTestSet, 8) + `00030000 00000000`,
		"varbind cut short":              head(pdu.TypeTestSet, 4) + `00040000`,
		"short Response":                 head(pdu.TypeResponse, 4) + `00000000`,
		"Register beyond its subtree":    head(pdu.TypeRegister, 12) + `00000500 00000000 00000001`,
	} {
		r := bytes.NewReader(append(unhex(t, in), unhex(t, head(pdu.TypeGet, 8)+good)...))
		var p packet
		if err := p.read(r); !errors.Is(err, errMalformed) {
			t.Errorf("%s: got %v, want errMalformed", name, err)
		}
		if err := p.read(r); err != nil || p.Type != pdu.TypeGet || len(p.Ranges) != 1 {
			t.Errorf("%s: the PDU after it: %v", name, err)
		}
	}
}

func TestBadFraming(t *testing.T) {
	for name, in := range map[string]string{
		"version 2":           `02051000 00000001 00000002 00000003 00000000`,
		"odd length":          `01051000 00000001 00000002 00000003 00000001`,
		"more than 64 KiB":    `01051000 00000001 00000002 00000003 00010004`,
		"length of 4 GiB":     `01050000 00000001 00000002 00000003 fcffffff`,
		"an SNMP message":     `302902010104067075626c6963a01c020416`,
		"length, wrong order": `01050000 00000001 00000002 00000003 00000008`,
	} {
		in := unhex(t, in)
		var p packet
		err := p.read(io.MultiReader(bytes.NewReader(in), strings.NewReader(strings.Repeat("x", 40))))
		if !errors.Is(err, errFraming) {
			t.Errorf("%s: got %v, want errFraming", name, err)
		}
	}
	var p packet
	cut := encodePacket(samples()[0])
	if err := p.read(bytes.NewReader(cut[:len(cut)-4])); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("cut in the payload: %v", err)
	}
}

func TestEncodeRefuses(t *testing.T) {
	for name, vb := range map[string]mib.Varbind{
		"name of 129":     {OID: make(mib.OID, 129), Value: mib.Int32(1)},
		"value of 129":    {OID: mib.OID{1}, Value: mib.ID(make(mib.OID, 129))},
		"string > 64 KiB": {OID: mib.OID{1}, Value: mib.Octets(make([]byte, maxPayload+1))},
		"no type":         {OID: mib.OID{1}},
	} {
		if _, err := encodeNotify(nil, pdu.Header{}, []mib.Varbind{vb}); err == nil {
			t.Errorf("%s: encoded", name)
		}
	}
	many := slices.Repeat([]mib.Varbind{{OID: mib.OID{1}, Value: mib.Octets(make([]byte, 1000))}}, 66)
	if _, err := encodeNotify(nil, pdu.Header{}, many); !errors.Is(err, errTooBig) {
		t.Errorf("66 varbinds of 1000 octets: %v", err)
	}
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}
