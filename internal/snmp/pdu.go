package snmp

import (
	"bytes"
	"math"

	"example.com/iad/mib"
)

// PDU types (RFC 3416 section 3; v1 traps: RFC 1157 section 4.1.6).
const (
	PDUGet      = 0xa0
	PDUGetNext  = 0xa1
	PDUResponse = 0xa2
	PDUSet      = 0xa3
	pduTrapV1   = 0xa4
	PDUGetBulk  = 0xa5
	PDUInform   = 0xa6
	PDUTrap     = 0xa7
	PDUReport   = 0xa8
)

// PDU is a protocol data unit of RFC 3416.
type PDU struct {
	Kind      byte
	RequestID int32
	// Status is error-status, and non-repeaters of a GetBulkRequest.
	Status int32
	// Index is error-index, and max-repetitions of a GetBulkRequest.
	Index int32
	Vars  []mib.Varbind
}

// Confirmed reports whether the sender expects an answer (RFC 3411 section
// 2.8): only then may a Report be sent.
func Confirmed(kind byte) bool {
	switch kind {
	case PDUGet, PDUGetNext, PDUGetBulk, PDUSet, PDUInform:
		return true
	}
	return false
}

// readPDU takes a PDU that must fill r. Values are copied out of the message.
func readPDU(r *reader) (PDU, error) {
	kind, body, err := r.next()
	if err != nil {
		return PDU{}, err
	}
	p := PDU{Kind: kind}
	switch {
	case !r.empty():
		return p, malformed("octets after the PDU")
	case kind == pduTrapV1:
		// Well formed or not, nobody here is interested.
		return p, nil
	case kind < PDUGet || kind > PDUReport:
		return p, malformed("unknown PDU type")
	}
	if p.RequestID, err = body.integer("request-id"); err != nil {
		return p, err
	}
	if p.Status, err = body.integer("error-status"); err != nil {
		return p, err
	}
	if p.Index, err = body.integer("error-index"); err != nil {
		return p, err
	}
	list, err := body.expect(tagSequence, "variable-bindings")
	if err != nil {
		return p, err
	}
	if !body.empty() {
		return p, malformed("octets after the variable-bindings")
	}
	for !list.empty() {
		vb, err := readVarbind(&list)
		if err != nil {
			return p, err
		}
		p.Vars = append(p.Vars, vb)
	}
	return p, nil
}

func readVarbind(list *reader) (vb mib.Varbind, err error) {
	pair, err := list.expect(tagSequence, "variable binding")
	if err != nil {
		return vb, err
	}
	name, err := pair.expect(tagOID, "name of a variable")
	if err != nil {
		return vb, err
	}
	if vb.OID, err = name.oid(); err != nil {
		return vb, err
	}
	tag, body, err := pair.next()
	if err != nil {
		return vb, err
	}
	if !pair.empty() {
		return vb, malformed("octets after a value")
	}
	vb.Value, err = readValue(tag, &body)
	return vb, err
}

func readValue(tag byte, body *reader) (v mib.Value, err error) {
	v.Type = mib.Type(tag)
	switch v.Type {
	case mib.Integer:
		var n int32
		n, err = body.int32("value")
		v.Int = int64(n)
	case mib.Counter32, mib.Gauge32, mib.TimeTicks:
		var n uint64
		n, err = body.unsigned(32)
		v.Int = int64(n)
	case mib.Counter64:
		var n uint64
		n, err = body.unsigned(64)
		v.Int = int64(n)
	case mib.OctetString, mib.Opaque:
		v.Bytes = bytes.Clone(body.bytes())
	case mib.IPAddress:
		if len(body.bytes()) != 4 {
			return v, malformed("IpAddress is not four octets")
		}
		v.Bytes = bytes.Clone(body.bytes())
	case mib.ObjectIdentifier:
		v.OID, err = body.oid()
	case mib.Null, mib.NoSuchObject, mib.NoSuchInstance, mib.EndOfMibView:
		if !body.empty() {
			return v, malformed("null with contents")
		}
	default:
		return v, malformed("unknown type of value")
	}
	return v, err
}

// AppendVarbind writes one variable binding.
func AppendVarbind(dst []byte, vb mib.Varbind) []byte {
	start := len(dst)
	dst = appendOID(dst, vb.OID)
	tag := byte(vb.Value.Type)
	switch vb.Value.Type {
	case mib.Integer:
		dst = appendInt(dst, tag, int64(int32(vb.Value.Int)))
	case mib.Counter32, mib.Gauge32, mib.TimeTicks:
		dst = appendUint(dst, tag, uint64(vb.Value.Int)&math.MaxUint32)
	case mib.Counter64:
		dst = appendUint(dst, tag, uint64(vb.Value.Int))
	case mib.OctetString, mib.Opaque, mib.IPAddress:
		dst = appendOctets(dst, tag, vb.Value.Bytes)
	case mib.ObjectIdentifier:
		dst = appendOID(dst, vb.Value.OID)
	default:
		dst = append(dst, tag, 0)
	}
	return wrap(dst, start, tagSequence)
}

// appendPDU writes p with the variable bindings that vars holds encoded;
// p.Vars is not looked at.
func appendPDU(dst []byte, p PDU, vars []byte) []byte {
	start := len(dst)
	dst = appendInt(dst, tagInteger, int64(p.RequestID))
	dst = appendInt(dst, tagInteger, int64(p.Status))
	dst = appendInt(dst, tagInteger, int64(p.Index))
	dst = appendOctets(dst, tagSequence, vars)
	return wrap(dst, start, p.Kind)
}

// EncodeVars encodes variable bindings.
func EncodeVars(vars []mib.Varbind) []byte {
	dst := make([]byte, 0, 32*len(vars)+16)
	for _, vb := range vars {
		dst = AppendVarbind(dst, vb)
	}
	return dst
}
