package agentx

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"example.com/iad/mib"
	"github.com/posteo/go-agentx/pdu"
)

// protocolVersion is h.version of RFC 2741 section 6.1.
const protocolVersion = 1

// maxPayload is the longest payload that is read or sent, in bytes. The
// protocol has no limit; SNMP over UDP cannot carry more than this.
const maxPayload = 64 << 10

// maxSubIDs is the most sub-identifiers of an object identifier (RFC 2741
// section 5.1).
const maxSubIDs = mib.MaxOIDLen

var (
	// errFraming means that the start of the next PDU cannot be found: the
	// connection is of no more use.
	errFraming = errors.New("agentx: stream is not AgentX version 1")
	// errMalformed means that one PDU cannot be understood; its length was
	// plausible, so the next one can be read.
	errMalformed = errors.New("agentx: malformed PDU")
)

// order is the order of the bytes of a number; each PDU names its own.
type order interface {
	binary.ByteOrder
	binary.AppendByteOrder
}

func orderOf(f pdu.Flags) order {
	if f&pdu.FlagNetworkByteOrder != 0 {
		return binary.BigEndian
	}
	return binary.LittleEndian
}

// packet is one PDU. Which of the fields below Header have a meaning depends on
// its type (RFC 2741 section 6.2). All slices lie in memory of the packet, which
// the next read into it overwrites.
type packet struct {
	pdu.Header

	Context []byte // with FlagNonDefaultContext

	Timeout     byte    // Open, Register: seconds, 0 for the default
	Priority    byte    // Register, Unregister
	RangeSubID  byte    // Register, Unregister: position in OID, from 1; 0 for none
	UpperBound  uint32  // Register, Unregister: with RangeSubID
	OID         mib.OID // Open, Register, Unregister, AddAgentCaps, RemoveAgentCaps
	Description []byte  // Open, AddAgentCaps
	Reason      pdu.Reason

	NonRepeaters   uint16 // GetBulk
	MaxRepetitions uint16 // GetBulk
	Ranges         []mib.Search

	UpTime   uint32 // Response: sysUpTime in hundredths of a second
	Error    pdu.Error
	Index    uint16 // Response: of the varbind to blame, from 1
	Varbinds []mib.Varbind

	malformed bool // read returned errMalformed

	head   [pdu.HeaderSize]byte
	raw    []byte   // the payload as it was read
	subIDs []uint32 // what the object identifiers are cut from
}

// read reads the next PDU in full. The error wraps errMalformed if only this
// PDU is lost; the header is valid then. Any other error is final.
func (p *packet) read(r io.Reader) error {
	if _, err := io.ReadFull(r, p.head[:]); err != nil {
		return err
	}
	if err := p.decodeHeader(); err != nil {
		return err
	}
	if n := int(p.PayloadLength); cap(p.raw) < n {
		p.raw = make([]byte, n)
	} else {
		p.raw = p.raw[:n]
	}
	if _, err := io.ReadFull(r, p.raw); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	err := p.decodePayload()
	p.malformed = err != nil
	return err
}

func (p *packet) decodeHeader() error {
	h := p.head[:]
	p.Version, p.Type, p.Flags = h[0], pdu.Type(h[1]), pdu.Flags(h[2])
	if p.Version != protocolVersion {
		return fmt.Errorf("%w: version %d", errFraming, p.Version)
	}
	o := orderOf(p.Flags)
	p.SessionID = o.Uint32(h[4:])
	p.TransactionID = o.Uint32(h[8:])
	p.PacketID = o.Uint32(h[12:])
	p.PayloadLength = o.Uint32(h[16:])
	if p.PayloadLength > maxPayload || p.PayloadLength%4 != 0 {
		return fmt.Errorf("%w: payload of %d octets", errFraming, p.PayloadLength)
	}
	return nil
}

// decodePayload reads p.raw into the fields that p.Type has.
func (p *packet) decodePayload() error {
	*p = packet{
		Header: p.Header, raw: p.raw,
		Ranges: p.Ranges[:0], Varbinds: p.Varbinds[:0], subIDs: p.subIDs[:0],
	}

	d := decoder{packet: p, order: orderOf(p.Flags), data: p.raw}
	if p.Flags&pdu.FlagNonDefaultContext != 0 && hasContext(p.Type) {
		p.Context = d.octets()
	}
	switch p.Type {
	case pdu.TypeOpen:
		p.Timeout = d.word()[0]
		p.OID, _ = d.oid()
		p.Description = d.octets()
	case pdu.TypeClose:
		p.Reason = pdu.Reason(d.word()[0])
	case pdu.TypeRegister, pdu.TypeUnregister:
		w := d.word()
		p.Timeout, p.Priority, p.RangeSubID = w[0], w[1], w[2]
		p.OID, _ = d.oid()
		if p.RangeSubID != 0 {
			p.UpperBound = d.uint32()
		}
		if int(p.RangeSubID) > len(p.OID) {
			d.bad = true
		}
	case pdu.TypeGet, pdu.TypeGetNext:
		d.ranges()
	case pdu.TypeGetBulk:
		p.NonRepeaters, p.MaxRepetitions = d.uint16(), d.uint16()
		d.ranges()
	case pdu.TypeTestSet, pdu.TypeNotify, pdu.TypeIndexAllocate, pdu.TypeIndexDeallocate:
		d.varbinds()
	case pdu.TypeAddAgentCaps:
		p.OID, _ = d.oid()
		p.Description = d.octets()
	case pdu.TypeRemoveAgentCaps:
		p.OID, _ = d.oid()
	case pdu.TypeResponse:
		p.UpTime = d.uint32()
		p.Error, p.Index = pdu.Error(d.uint16()), d.uint16()
		d.varbinds()
	case pdu.TypeCommitSet, pdu.TypeUndoSet, pdu.TypeCleanupSet, pdu.TypePing:
	default:
		return fmt.Errorf("%w: unknown type %d", errMalformed, p.Type)
	}
	if d.bad || len(d.data) != 0 {
		return fmt.Errorf("%w of type %d, payload of %d octets", errMalformed, p.Type, len(p.raw))
	}
	return nil
}

// hasContext reports whether PDUs of a type may carry a context (RFC 2741 section 6.1.1).
func hasContext(t pdu.Type) bool {
	switch t {
	case pdu.TypeOpen, pdu.TypeClose, pdu.TypeCommitSet, pdu.TypeUndoSet,
		pdu.TypeCleanupSet, pdu.TypeResponse:
		return false
	}
	return true
}

// decoder takes fields off the front of data. After the first field that is
// not there or not right it says bad and returns zero values.
type decoder struct {
	packet *packet
	order  order
	data   []byte
	bad    bool
}

func (d *decoder) take(n int) []byte {
	if d.bad || n > len(d.data) {
		d.bad, d.data = true, nil
		return nil
	}
	b := d.data[:n:n]
	d.data = d.data[n:]
	return b
}

func (d *decoder) word() (w [4]byte) {
	copy(w[:], d.take(4))
	return w
}

func (d *decoder) uint16() uint16 {
	b := d.take(2)
	if b == nil {
		return 0
	}
	return d.order.Uint16(b)
}

func (d *decoder) uint32() uint32 {
	b := d.take(4)
	if b == nil {
		return 0
	}
	return d.order.Uint32(b)
}

// bytes reads a byte string, which is padded to a multiple of four (RFC 2741
// section 5.3).
func (d *decoder) octets() []byte {
	n := d.uint32()
	if n > maxPayload {
		d.bad = true
		return nil
	}
	b := d.take((int(n) + 3) &^ 3)
	if b == nil {
		return nil
	}
	return b[:n:n]
}

// oid reads an object identifier (RFC 2741 section 5.1); the null one is nil.
func (d *decoder) oid() (oid mib.OID, include bool) {
	w := d.word()
	n, prefix := int(w[0]), w[1]
	total := n
	if prefix != 0 {
		total += 5
	}
	b := d.take(4 * n)
	if total > maxSubIDs {
		d.bad = true
	}
	if d.bad || total == 0 {
		return nil, w[2] != 0
	}
	oid = d.packet.newOID(total)
	rest := oid
	if prefix != 0 {
		rest = rest[copy(oid, mib.OID{1, 3, 6, 1, uint32(prefix)}):]
	}
	for i := range rest {
		rest[i] = d.order.Uint32(b[4*i:])
	}
	return oid, w[2] != 0
}

// newOID cuts n sub-identifiers from the packet's memory.
func (p *packet) newOID(n int) mib.OID {
	if cap(p.subIDs)-len(p.subIDs) < n {
		p.subIDs = make([]uint32, 0, max(256, n))
	}
	from := len(p.subIDs)
	p.subIDs = p.subIDs[:from+n]
	return mib.OID(p.subIDs[from : from+n : from+n])
}

// ranges reads search ranges up to the end of the payload (RFC 2741 section
// 5.2).
func (d *decoder) ranges() {
	for len(d.data) > 0 {
		start, include := d.oid()
		end, _ := d.oid()
		if d.bad {
			return
		}
		d.packet.Ranges = append(d.packet.Ranges, mib.Search{Start: start, Inclusive: include, End: end})
	}
}

// varbinds reads varbinds up to the end of the payload (RFC 2741 section 5.4).
func (d *decoder) varbinds() {
	for len(d.data) > 0 {
		t := pdu.VariableType(d.uint16())
		d.uint16() // reserved
		name, _ := d.oid()
		v := d.value(t)
		if d.bad {
			return
		}
		d.packet.Varbinds = append(d.packet.Varbinds, mib.Varbind{OID: name, Value: v})
	}
}

func (d *decoder) value(t pdu.VariableType) mib.Value {
	v := mib.Value{Type: mib.Type(t)}
	switch t {
	case pdu.VariableTypeInteger:
		v.Int = int64(int32(d.uint32()))
	case pdu.VariableTypeCounter32, pdu.VariableTypeGauge32, pdu.VariableTypeTimeTicks:
		v.Int = int64(d.uint32())
	case pdu.VariableTypeCounter64:
		if b := d.take(8); b != nil {
			v.Int = int64(d.order.Uint64(b))
		}
	case pdu.VariableTypeOctetString, pdu.VariableTypeOpaque, pdu.VariableTypeIPAddress:
		v.Bytes = d.octets()
	case pdu.VariableTypeObjectIdentifier:
		if v.OID, _ = d.oid(); v.OID == nil {
			v.OID = mib.OID{0, 0} // zeroDotZero
		}
	case pdu.VariableTypeNull, pdu.VariableTypeNoSuchObject,
		pdu.VariableTypeNoSuchInstance, pdu.VariableTypeEndOfMIBView:
	default:
		d.bad = true
	}
	return v
}
