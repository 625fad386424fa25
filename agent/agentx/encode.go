package agentx

import (
	"encoding"
	"errors"
	"fmt"

	"example.com/iad/mib"
	"github.com/posteo/go-agentx/pdu"
)

// errTooBig means that the varbinds do not fit into one PDU.
var errTooBig = errors.New("agentx: PDU would exceed 64 KiB")

// startPDU begins a PDU with its header in b, which is overwritten; finishPDU
// fills in the length of the payload appended since.
func startPDU(b []byte, h pdu.Header) []byte {
	o := orderOf(h.Flags)
	b = append(b[:0], protocolVersion, byte(h.Type), byte(h.Flags), 0)
	b = o.AppendUint32(b, h.SessionID)
	b = o.AppendUint32(b, h.TransactionID)
	b = o.AppendUint32(b, h.PacketID)
	return append(b, 0, 0, 0, 0)
}

func finishPDU(b []byte) []byte {
	o := orderOf(pdu.Flags(b[2]))
	o.PutUint32(b[pdu.HeaderSize-4:], uint32(len(b)-pdu.HeaderSize))
	return b
}

// encodeResponse makes the answer to the request req in b, in the same order
// of bytes.
func encodeResponse(b []byte, req pdu.Header, status mib.Status, index int, vbs []mib.Varbind) ([]byte, error) {
	req.Type = pdu.TypeResponse
	req.Flags &= pdu.FlagNetworkByteOrder
	o := orderOf(req.Flags)
	b = startPDU(b, req)
	b = o.AppendUint32(b, 0) // sysUpTime is the master's
	b = o.AppendUint16(b, uint16(status))
	b = o.AppendUint16(b, uint16(index))
	b, err := appendVarbinds(b, o, vbs)
	if err != nil {
		return b, err
	}
	return finishPDU(b), nil
}

// encodeNotify makes a Notify PDU in b (RFC 2741 section 6.2.10).
func encodeNotify(b []byte, h pdu.Header, vbs []mib.Varbind) ([]byte, error) {
	h.Type = pdu.TypeNotify
	b, err := appendVarbinds(startPDU(b, h), orderOf(h.Flags), vbs)
	if err != nil {
		return b, err
	}
	return finishPDU(b), nil
}

// encodeControl makes a PDU in b whose payload go-agentx encodes, which it does in
// little-endian order; a nil body is an empty payload.
func encodeControl(b []byte, h pdu.Header, body encoding.BinaryMarshaler) ([]byte, error) {
	h.Flags &^= pdu.FlagNetworkByteOrder
	b = startPDU(b, h)
	if body != nil {
		payload, err := body.MarshalBinary()
		if err != nil {
			return b, err
		}
		b = append(b, payload...)
	}
	return finishPDU(b), nil
}

func appendVarbinds(b []byte, o order, vbs []mib.Varbind) ([]byte, error) {
	start := len(b)
	for _, vb := range vbs {
		var err error
		if b, err = appendVarbind(b, o, vb); err != nil {
			return b, err
		}
		if len(b)-start > maxPayload-8 { // 8: the fixed fields of a Response
			return b, errTooBig
		}
	}
	return b, nil
}

func appendVarbind(b []byte, o order, vb mib.Varbind) ([]byte, error) {
	v := vb.Value
	b = o.AppendUint16(b, uint16(v.Type))
	b = append(b, 0, 0)
	b, err := appendOID(b, o, vb.OID)
	if err != nil {
		return b, err
	}
	switch v.Type {
	case mib.Integer, mib.Counter32, mib.Gauge32, mib.TimeTicks:
		return o.AppendUint32(b, uint32(v.Int)), nil
	case mib.Counter64:
		return o.AppendUint64(b, uint64(v.Int)), nil
	case mib.OctetString, mib.Opaque, mib.IPAddress:
		if len(v.Bytes) > maxPayload {
			return b, errTooBig
		}
		return appendOctets(b, o, v.Bytes), nil
	case mib.ObjectIdentifier:
		return appendOID(b, o, v.OID)
	case mib.Null, mib.NoSuchObject, mib.NoSuchInstance, mib.EndOfMibView:
		return b, nil
	}
	return b, fmt.Errorf("agentx: %v: no encoding for type %#x", vb.OID, uint8(v.Type))
}

func appendOctets(b []byte, o order, s []byte) []byte {
	b = o.AppendUint32(b, uint32(len(s)))
	b = append(b, s...)
	return append(b, make([]byte, -len(s)&3)...)
}

// appendOID appends an object identifier, shortened by the prefix where it
// begins with 1.3.6.1.n (RFC 2741 section 5.1).
func appendOID(b []byte, o order, oid mib.OID) ([]byte, error) {
	if len(oid) > maxSubIDs {
		return b, fmt.Errorf("agentx: object identifier of %d sub-identifiers", len(oid))
	}
	var prefix byte
	if len(oid) >= 5 && oid[0] == 1 && oid[1] == 3 && oid[2] == 6 && oid[3] == 1 && oid[4]-1 < 255 {
		prefix, oid = byte(oid[4]), oid[5:]
	}
	b = append(b, byte(len(oid)), prefix, 0, 0)
	for _, n := range oid {
		b = o.AppendUint32(b, n)
	}
	return b, nil
}
