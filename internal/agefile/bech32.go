package agefile

import "strings"

const (
	recipientPrefix = "age"
	identityPrefix  = "age-secret-key-"
	// bech32 has the digits of the encoding (BIP 173), five bits each.
	bech32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
	// bech32Digits is how many digits a key has, and bech32Sum how many a checksum.
	bech32Digits = (keySize*8 + 4) / 5
	bech32Sum    = 6
)

// checksum returns the checksum of digits under a prefix, which is 1 if digits end with
// theirs.
func checksum(prefix string, digits []byte) uint32 {
	sum := uint32(1)
	add := func(digit byte) {
		top := sum >> 25
		sum = sum&0x1ffffff<<5 ^ uint32(digit)
		for i, g := range []uint32{0x3b6a57b2, 0x26508e6d, 0x1ea119fa, 0x3d4233dd, 0x2a1462b3} {
			if top>>i&1 != 0 {
				sum ^= g
			}
		}
	}
	for i := range len(prefix) {
		add(prefix[i] >> 5)
	}
	add(0)
	for i := range len(prefix) {
		add(prefix[i] & 31)
	}
	for _, d := range digits {
		add(d)
	}
	return sum
}

// regroup turns groups of from bits into groups of to bits. Bits that are left over
// must be 0 and less than a group if strict, and are filled up otherwise.
func regroup(data []byte, from, to uint, strict bool) (out []byte, ok bool) {
	value, bits := uint32(0), uint(0)
	for _, b := range data {
		value, bits = value<<from|uint32(b), bits+from
		for bits >= to {
			bits -= to
			out = append(out, byte(value>>bits&(1<<to-1)))
		}
	}
	left := value << (to - bits) & (1<<to - 1)
	if strict {
		return out, bits < from && left == 0
	}
	if bits > 0 {
		out = append(out, byte(left))
	}
	return out, true
}

// encodeBech32 returns a key in lower case.
func encodeBech32(prefix string, key []byte) string {
	digits, _ := regroup(key, 8, 5, false)
	digits = append(digits, make([]byte, bech32Sum)...)
	sum := checksum(prefix, digits) ^ 1
	for i := range bech32Sum {
		digits[len(digits)-1-i] = byte(sum >> (5 * i) & 31)
	}
	for i, d := range digits {
		digits[i] = bech32[d]
	}
	return prefix + "1" + string(digits)
}

// decodeBech32 reads a key of 32 bytes in lower case.
func decodeBech32(prefix, s string) (key []byte, ok bool) {
	text, ok := strings.CutPrefix(s, prefix+"1")
	if !ok || len(text) != bech32Digits+bech32Sum {
		return nil, false
	}
	digits := make([]byte, len(text))
	for i := range len(text) {
		d := strings.IndexByte(bech32, text[i])
		if d < 0 {
			return nil, false
		}
		digits[i] = byte(d)
	}
	if checksum(prefix, digits) != 1 {
		return nil, false
	}
	return regroup(digits[:bech32Digits], 5, 8, true)
}
