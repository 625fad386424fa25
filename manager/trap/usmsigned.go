package trap

import (
	"crypto"
	"crypto/hmac"
	"errors"
	"hash"
	"sync"

	"github.com/gosnmp/gosnmp"

	"example.com/iad/manager/device"
)

// knownUser is a user with the key that its password stands for.
type knownUser struct {
	device.User
	once sync.Once
	key  []byte // Ku of RFC 3414 section 2.6
}

// authKey is the key that the password stands for. The megabyte of hashing that makes
// it is done once, not for every engine that a message names.
func (u *knownUser) authKey(h crypto.Hash) []byte {
	u.once.Do(func() {
		digest, password := h.New(), []byte(u.AuthPassword)
		for n := 0; n < 1<<20; {
			k := min(len(password), 1<<20-n)
			digest.Write(password[:k])
			n += k
		}
		u.key = digest.Sum(nil)
	})
	return u.key
}

// signs reports whether the user's password made the digest of a message (RFC 3414
// section 6.3.2, RFC 7860 section 4.2.2).
func (u *knownUser) signs(m *signedMessage, engine string) bool {
	h := device.AuthProtocols[device.PlainName(u.Auth)].HashType()
	key := u.authKey(h)
	local := h.New()
	for _, part := range [][]byte{key, []byte(engine), key} {
		local.Write(part)
	}
	mac := hmac.New(func() hash.Hash { return h.New() }, local.Sum(nil))
	n := len(m.digest)
	if n != digestLengths[device.AuthProtocols[device.PlainName(u.Auth)]] {
		return false
	}
	mac.Write(m.before)
	mac.Write(make([]byte, n))
	mac.Write(m.after)
	return hmac.Equal(mac.Sum(nil)[:n], m.digest)
}

// digestLengths are the octets of msgAuthenticationParameters.
var digestLengths = map[gosnmp.SnmpV3AuthProtocol]int{
	gosnmp.MD5: 12, gosnmp.SHA: 12, gosnmp.SHA224: 16, gosnmp.SHA256: 24, gosnmp.SHA384: 32, gosnmp.SHA512: 48,
}

// signedMessage is an SNMPv3 message, with its digest apart.
type signedMessage struct{ before, digest, after []byte }

var errHeader = errors.New("SNMPv3 header: malformed")

// element finds the contents of the element of BER at b[from:to]; next is where the one
// after it begins. Lengths may be longer than they have to be, as net-snmp writes them.
func element(b []byte, from, to int, tag byte) (begin, next int, err error) {
	if to-from < 2 || b[from] != tag {
		return 0, 0, errHeader
	}
	length, at := int(b[from+1]), from+2
	if length >= 0x80 {
		octets := length & 0x7f
		if octets == 0 || octets > 4 || to-at < octets {
			return 0, 0, errHeader
		}
		length = 0
		for _, c := range b[at : at+octets] {
			length = length<<8 | int(c)
		}
		at += octets
	}
	if length < 0 || length > to-at {
		return 0, 0, errHeader
	}
	return at, at + length, nil
}

// readSigned finds the digest in a message: msgAuthenticationParameters, the fifth
// field of the security parameters (RFC 3412 section 6, RFC 3414 section 2.4). It
// reads no further and allocates nothing that the message could ask for.
func readSigned(message []byte) (*signedMessage, error) {
	const integer, octets, sequence = 0x02, 0x04, 0x30
	at, end := 0, len(message)
	for _, step := range []struct {
		tag   byte
		enter bool
	}{
		{sequence, true}, {integer, false}, {sequence, false}, // version, msgGlobalData
		{octets, true}, {sequence, true}, // security parameters
		{octets, false}, {integer, false}, {integer, false}, {octets, false}, // engine, boots, time, user
	} {
		begin, next, err := element(message, at, end, step.tag)
		if err != nil {
			return nil, err
		}
		if at = next; step.enter {
			at, end = begin, next
		}
	}
	begin, next, err := element(message, at, end, octets)
	if err != nil {
		return nil, err
	}
	return &signedMessage{before: message[:begin], digest: message[begin:next], after: message[next:]}, nil
}
