package snmp

import (
	"errors"
	"fmt"
	"math"

	"example.com/iad/mib"
)

// errMalformed is wrapped by every error about a message that is not well formed.
var errMalformed = errors.New("malformed message")

func malformed(what string) error { return fmt.Errorf("%w: %s", errMalformed, what) }

const (
	tagSequence = 0x30
	tagInteger  = byte(mib.Integer)
	tagOctets   = byte(mib.OctetString)
	tagOID      = byte(mib.ObjectIdentifier)
)

// reader takes apart a run of BER elements (RFC 3417 section 8: definite
// lengths only). Contents share the buffer of the message.
type reader struct {
	buf []byte // the whole message, so that positions are known
	pos int
	end int
}

func (r *reader) empty() bool { return r.pos >= r.end }

// next takes one element of any tag and returns a reader of its contents.
func (r *reader) next() (tag byte, body reader, err error) {
	if r.end-r.pos < 2 {
		return 0, reader{}, malformed("truncated element")
	}
	tag = r.buf[r.pos]
	length := int(r.buf[r.pos+1])
	p := r.pos + 2
	if length >= 0x80 {
		// Encoders pad lengths to four bytes; none needs more.
		n := length & 0x7f
		if n == 0 || n > 4 || r.end-p < n {
			return 0, reader{}, malformed("length of an element")
		}
		var long uint32
		for _, b := range r.buf[p : p+n] {
			long = long<<8 | uint32(b)
		}
		if long > math.MaxInt32 {
			return 0, reader{}, malformed("length of an element")
		}
		length, p = int(long), p+n
	}
	if length > r.end-p {
		return 0, reader{}, malformed("element longer than what holds it")
	}
	r.pos = p + length
	return tag, reader{buf: r.buf, pos: p, end: p + length}, nil
}

// expect takes one element that must have the tag.
func (r *reader) expect(tag byte, what string) (reader, error) {
	got, body, err := r.next()
	if err != nil {
		return reader{}, err
	}
	if got != tag {
		return reader{}, malformed(what + " has another type")
	}
	return body, nil
}

// bytes returns the contents that are left; they share the message's buffer.
func (r *reader) bytes() []byte { return r.buf[r.pos:r.end] }

// integer takes an INTEGER of 32 bits (RFC 2578 section 7.1.1).
func (r *reader) integer(what string) (int32, error) {
	body, err := r.expect(tagInteger, what)
	if err != nil {
		return 0, err
	}
	return body.int32(what)
}

// bytes takes an OCTET STRING; the result shares the message's buffer.
func (r *reader) octets(what string) ([]byte, error) {
	body, err := r.expect(tagOctets, what)
	return body.bytes(), err
}

func (r *reader) int32(what string) (int32, error) {
	b := r.bytes()
	if len(b) == 0 || len(b) > 4 {
		return 0, malformed(what + " is no 32-bit integer")
	}
	n := int32(int8(b[0]))
	for _, c := range b[1:] {
		n = n<<8 | int32(c)
	}
	return n, nil
}

// unsigned reads contents of at most the given number of bits.
func (r *reader) unsigned(bits int) (uint64, error) {
	b := r.bytes()
	if len(b) == 0 || b[0]&0x80 != 0 || len(b) > bits/8+1 || len(b) == bits/8+1 && b[0] != 0 {
		return 0, malformed("unsigned integer out of range")
	}
	var n uint64
	for _, c := range b {
		n = n<<8 | uint64(c)
	}
	return n, nil
}

// oid reads the contents of an OBJECT IDENTIFIER (X.690 section 8.19) of 2 to
// 128 sub-identifiers.
func (r *reader) oid() (mib.OID, error) {
	b := r.bytes()
	if len(b) == 0 || b[len(b)-1]&0x80 != 0 {
		return nil, malformed("truncated object identifier")
	}
	count := 1
	for _, c := range b {
		if c&0x80 == 0 {
			count++
		}
	}
	if count > mib.MaxOIDLen {
		return nil, malformed("object identifier too long")
	}
	oid := make(mib.OID, 0, count)
	var n uint64
	start := true
	for _, c := range b {
		if start && c == 0x80 {
			return nil, malformed("sub-identifier with a leading zero")
		}
		n = n<<7 | uint64(c&0x7f)
		start = c&0x80 == 0
		switch {
		case len(oid) == 0 && n > math.MaxUint32+80, len(oid) > 0 && n > math.MaxUint32:
			return nil, malformed("sub-identifier out of range")
		case !start:
		case len(oid) == 0:
			first := min(n/40, 2)
			oid = append(oid, uint32(first), uint32(n-40*first))
			n = 0
		default:
			oid = append(oid, uint32(n))
			n = 0
		}
	}
	return oid, nil
}

// wrap makes dst[start:] the contents of an element by putting tag and length
// before it.
func wrap(dst []byte, start int, tag byte) []byte {
	n := len(dst) - start
	var head [6]byte
	h := head[:0]
	switch {
	case n < 0x80:
		h = append(h, tag, byte(n))
	case n < 1<<8:
		h = append(h, tag, 0x81, byte(n))
	case n < 1<<16:
		h = append(h, tag, 0x82, byte(n>>8), byte(n))
	default:
		h = append(h, tag, 0x84, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
	}
	dst = append(dst, h...)
	copy(dst[start+len(h):], dst[start:start+n])
	copy(dst[start:], h)
	return dst
}

func appendInt(dst []byte, tag byte, n int64) []byte {
	size := 1
	for size < 8 && (n>>(8*size-1) != 0 && n>>(8*size-1) != -1) {
		size++
	}
	dst = append(dst, tag, byte(size))
	for i := size - 1; i >= 0; i-- {
		dst = append(dst, byte(n>>(8*i)))
	}
	return dst
}

func appendUint(dst []byte, tag byte, n uint64) []byte {
	if n > math.MaxInt64 {
		dst = append(dst, tag, 9, 0)
		for i := 7; i >= 0; i-- {
			dst = append(dst, byte(n>>(8*i)))
		}
		return dst
	}
	return appendInt(dst, tag, int64(n))
}

func appendOctets(dst []byte, tag byte, b []byte) []byte {
	start := len(dst)
	return wrap(append(dst, b...), start, tag)
}

func appendOID(dst []byte, oid mib.OID) []byte {
	start := len(dst)
	// RFC 3416 knows no identifier of less than two; 0.0 stands for it.
	var first uint64
	if len(oid) > 1 {
		first = 40*uint64(oid[0]) + uint64(oid[1])
		oid = oid[2:]
	} else {
		oid = nil
	}
	dst = appendBase128(dst, first)
	for _, n := range oid {
		dst = appendBase128(dst, uint64(n))
	}
	return wrap(dst, start, tagOID)
}

func appendBase128(dst []byte, n uint64) []byte {
	for shift := 35; shift > 0; shift -= 7 {
		if n>>shift != 0 {
			dst = append(dst, byte(n>>shift)|0x80)
		}
	}
	return append(dst, byte(n)&0x7f)
}
