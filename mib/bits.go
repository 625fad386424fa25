package mib

// Bits returns a BITS value in which the bits n are set (RFC 2578 section
// 7.1.4): bit 0 is the most significant one of the first byte. It has one
// byte or as many more as the highest bit needs; the tree adds what the
// object needs. Negative positions are left out.
func Bits(n ...int) []byte {
	b := make([]byte, 1)
	for _, n := range n {
		if n < 0 {
			continue
		}
		for len(b) <= n/8 {
			b = append(b, 0)
		}
		b[n/8] |= 0x80 >> (n % 8)
	}
	return b
}

// HasBit reports whether bit n is set in a BITS value; bits that are not there
// are not set.
func HasBit(b []byte, n int) bool {
	return n >= 0 && n/8 < len(b) && b[n/8]&(0x80>>(n%8)) != 0
}

// Bool returns a TruthValue (RFC 2579).
func Bool(b bool) Value {
	if b {
		return TruthValueTrue.Value()
	}
	return TruthValueFalse.Value()
}
