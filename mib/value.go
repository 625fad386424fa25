package mib

import (
	"bytes"
	"fmt"
	"strconv"
)

// Type is the type of a value on the wire. The numbers are the BER tags of
// RFC 3416 section 3, which AgentX uses as well (RFC 2741 section 5.4).
type Type uint8

// Types of values. Unsigned32 and Gauge32 are the same on the wire, and BITS
// travels as OctetString (RFC 2578 section 7.1).
const (
	Integer          Type = 0x02
	OctetString      Type = 0x04
	Null             Type = 0x05
	ObjectIdentifier Type = 0x06
	IPAddress        Type = 0x40
	Counter32        Type = 0x41
	Gauge32          Type = 0x42
	TimeTicks        Type = 0x43
	Opaque           Type = 0x44
	Counter64        Type = 0x46
	NoSuchObject     Type = 0x80
	NoSuchInstance   Type = 0x81
	EndOfMibView     Type = 0x82
)

// String returns the name of the type in the SMI, or its number.
func (t Type) String() string {
	switch t {
	case Integer:
		return "INTEGER"
	case OctetString:
		return "OCTET STRING"
	case Null:
		return "NULL"
	case ObjectIdentifier:
		return "OBJECT IDENTIFIER"
	case IPAddress:
		return "IpAddress"
	case Counter32:
		return "Counter32"
	case Gauge32:
		return "Unsigned32"
	case TimeTicks:
		return "TimeTicks"
	case Opaque:
		return "Opaque"
	case Counter64:
		return "Counter64"
	case NoSuchObject:
		return "noSuchObject"
	case NoSuchInstance:
		return "noSuchInstance"
	case EndOfMibView:
		return "endOfMibView"
	}
	return fmt.Sprintf("type %#x", uint8(t))
}

// Value is one value with its type. Number types use Int, OctetString,
// IPAddress and Opaque use Bytes, ObjectIdentifier uses OID; exceptions and
// Null use none. Counter64 above 2^63-1 is kept as its two's complement.
type Value struct {
	Type  Type
	Int   int64
	Bytes []byte
	OID   OID
}

// Int32 returns an INTEGER.
func Int32(n int64) Value { return Value{Type: Integer, Int: n} }

// Uint32 returns an Unsigned32, which is Gauge32 on the wire.
func Uint32(n uint32) Value { return Value{Type: Gauge32, Int: int64(n)} }

// Octets returns an OCTET STRING; b is not copied.
func Octets(b []byte) Value { return Value{Type: OctetString, Bytes: b} }

// Str returns an OCTET STRING with the bytes of s.
func Str(s string) Value { return Value{Type: OctetString, Bytes: []byte(s)} }

// Ticks returns a TimeTicks value in hundredths of a second.
func Ticks(n uint32) Value { return Value{Type: TimeTicks, Int: int64(n)} }

// ID returns an OBJECT IDENTIFIER.
func ID(o OID) Value { return Value{Type: ObjectIdentifier, OID: o} }

// IsException reports whether v is noSuchObject, noSuchInstance or
// endOfMibView (RFC 3416 section 3).
func (v Value) IsException() bool { return v.Type&0x80 != 0 }

// String shows the value for logs.
func (v Value) String() string {
	switch v.Type {
	case OctetString, Opaque, IPAddress:
		return fmt.Sprintf("%q", v.Bytes)
	case ObjectIdentifier:
		return v.OID.String()
	case Null, NoSuchObject, NoSuchInstance, EndOfMibView:
		return v.Type.String()
	case Counter64:
		return strconv.FormatUint(uint64(v.Int), 10)
	default:
		return strconv.FormatInt(v.Int, 10)
	}
}

// Equal reports whether two values are the same, type included.
func (v Value) Equal(w Value) bool {
	return v.Type == w.Type && v.Int == w.Int && bytes.Equal(v.Bytes, w.Bytes) && v.OID.Compare(w.OID) == 0
}

// Varbind is a variable binding: the name of an instance and its value.
type Varbind struct {
	OID   OID
	Value Value
}
