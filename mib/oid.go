package mib

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// OID is an object identifier: a sequence of sub-identifiers, each in
// 0..2^32-1, at most 128 of them (RFC 2578 section 3.5).
type OID []uint32

// MaxOIDLen is the greatest number of sub-identifiers of an OID (RFC 2578
// section 3.5).
const MaxOIDLen = 128

var errOID = errors.New("mib: not an object identifier")

// ParseOID reads the dotted form, with or without a leading dot.
func ParseOID(s string) (OID, error) {
	fields := strings.Split(strings.TrimPrefix(s, "."), ".")
	if len(fields) > MaxOIDLen {
		return nil, fmt.Errorf("%w: %q has more than %d numbers", errOID, s, MaxOIDLen)
	}
	oid := make(OID, len(fields))
	for i, f := range fields {
		n, err := strconv.ParseUint(f, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("%w: %q", errOID, s)
		}
		oid[i] = uint32(n)
	}
	return oid, nil
}

// MustParseOID is ParseOID for constants; it panics on an error.
func MustParseOID(s string) OID {
	oid, err := ParseOID(s)
	if err != nil {
		panic(err)
	}
	return oid
}

// String returns the dotted form without a leading dot.
func (o OID) String() string {
	b := make([]byte, 0, 4*len(o))
	for i, n := range o {
		if i > 0 {
			b = append(b, '.')
		}
		b = strconv.AppendUint(b, uint64(n), 10)
	}
	return string(b)
}

// Compare orders lexicographically by sub-identifier (RFC 3416 section 4.2.2).
func (o OID) Compare(p OID) int { return slices.Compare(o, p) }

// HasPrefix reports whether o lies in the subtree p or is p itself.
func (o OID) HasPrefix(p OID) bool {
	return len(o) >= len(p) && slices.Equal(o[:len(p)], p)
}

// Append returns a new OID, o followed by sub; o is not changed.
func (o OID) Append(sub ...uint32) OID {
	return append(append(make(OID, 0, len(o)+len(sub)), o...), sub...)
}

// key returns the sub-identifiers as bytes, for use in a map.
func (o OID) key() []byte {
	b := make([]byte, 0, 4*len(o))
	for _, n := range o {
		b = binary.BigEndian.AppendUint32(b, n)
	}
	return b
}
