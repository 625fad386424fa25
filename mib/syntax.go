package mib

import (
	"bytes"
	"fmt"
	"unicode/utf8"
)

// Check reports whether v is a value of the object's syntax: NoError, or in
// this order WrongType, WrongLength, WrongValue with the reason (RFC 3416
// section 4.2.5).
//
// Text, that is SnmpAdminString, has to be UTF-8; other bytes are a
// WrongValue, for wrongEncoding is about the encoding in ASN.1. A BITS value
// may have fewer bytes than the object has bits, or more of them if they
// are zero; a bit that has no label is a WrongValue. RFC 3417 section 8 would
// let such bits be ignored within the last byte; this is stricter, so that a
// manager that asks for an option of a later revision learns that it is not
// there.
func (o *Object) Check(v Value) (Status, string) {
	if v.Type != o.Type {
		return WrongType, fmt.Sprintf("%s: %v instead of %v", o.Name, v.Type, o.Type)
	}
	switch {
	case o.IsBits:
		for i, b := range v.Bytes {
			for bit := 0; b != 0; bit, b = bit+1, b<<1 {
				if n := 8*i + bit; b&0x80 != 0 && n >= len(o.Enums) {
					return WrongValue, fmt.Sprintf("%s: there is no bit %d", o.Name, n)
				}
			}
		}
	case o.Type == OctetString:
		if !inRanges(o.Ranges, int64(len(v.Bytes))) {
			return WrongLength, fmt.Sprintf("%s: %d octets", o.Name, len(v.Bytes))
		}
		if o.TC == "SnmpAdminString" && !utf8.Valid(v.Bytes) {
			return WrongValue, o.Name + ": not UTF-8"
		}
	case len(o.Enums) > 0:
		for _, e := range o.Enums {
			if e.Number == v.Int {
				return NoError, ""
			}
		}
		return WrongValue, fmt.Sprintf("%s: %d is not enumerated", o.Name, v.Int)
	default:
		if !inRanges(o.Ranges, v.Int) {
			return WrongValue, fmt.Sprintf("%s: %d is out of range", o.Name, v.Int)
		}
	}
	return NoError, ""
}

func inRanges(ranges []Range, n int64) bool {
	for _, r := range ranges {
		if r.Min <= n && n <= r.Max {
			return true
		}
	}
	return false
}

// pad gives BITS as many bytes as the object has bits (RFC 3417 section 8),
// whatever number of zero bytes is there.
func (o *Object) pad(b []byte) []byte {
	width := (len(o.Enums) + 7) / 8
	if len(b) >= width {
		return b[:width]
	}
	return append(bytes.Clone(b), make([]byte, width-len(b))...)
}

// plausibleIndex reports whether index can be that of an instance at all. The
// device is not asked about others.
func (o *Object) plausibleIndex(index OID) bool {
	if o.Kind == Scalar {
		return len(index) == 1 && index[0] == 0
	}
	if len(index) != len(o.Row.Index) {
		return false
	}
	for i, c := range o.Row.Index {
		if s, _ := c.Check(Value{Type: c.Type, Int: int64(index[i])}); s != NoError {
			return false
		}
	}
	return true
}
