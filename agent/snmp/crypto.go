package snmp

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/des"
	"crypto/hmac"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"strings"

	"github.com/gosnmp/gosnmp"
)

// AuthProtocol is an authentication protocol of the USM.
type AuthProtocol uint8

// Authentication protocols: RFC 3414 section 6 (MD5) and 7 (SHA1), RFC 7860
// (the others).
const (
	NoAuth AuthProtocol = iota
	MD5
	SHA1
	SHA224
	SHA256
	SHA384
	SHA512
)

var authProtocols = [...]struct {
	name   string
	gosnmp gosnmp.SnmpV3AuthProtocol
	hash   func() hash.Hash
	macLen int // octets of msgAuthenticationParameters
}{
	NoAuth: {"none", gosnmp.NoAuth, nil, 0},
	MD5:    {"MD5", gosnmp.MD5, md5.New, 12},
	SHA1:   {"SHA", gosnmp.SHA, sha1.New, 12},
	SHA224: {"SHA-224", gosnmp.SHA224, sha256.New224, 16},
	SHA256: {"SHA-256", gosnmp.SHA256, sha256.New, 24},
	SHA384: {"SHA-384", gosnmp.SHA384, sha512.New384, 32},
	SHA512: {"SHA-512", gosnmp.SHA512, sha512.New, 48},
}

// String returns the name that net-snmp gives the protocol.
func (p AuthProtocol) String() string {
	if int(p) < len(authProtocols) {
		return authProtocols[p].name
	}
	return fmt.Sprintf("AuthProtocol(%d)", uint8(p))
}

// MarshalText returns the protocol's name.
func (p AuthProtocol) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads a protocol's name, in any case, with or without
// hyphens.
func (p *AuthProtocol) UnmarshalText(text []byte) error {
	for i, known := range authProtocols {
		if sameName(string(text), known.name) {
			*p = AuthProtocol(i)
			return nil
		}
	}
	return fmt.Errorf("snmp: no authentication protocol %q: give none, SHA, SHA-224, SHA-256, SHA-384, SHA-512 or MD5", text)
}

func (p AuthProtocol) macLen() int { return authProtocols[p].macLen }

// PrivProtocol is a privacy protocol of the USM.
type PrivProtocol uint8

// Privacy protocols: RFC 3414 section 8 (DES), RFC 3826 (AES128), and AES with
// longer keys in the two ways in use to extend a key: the draft of Blumenthal
// (net-snmp) and that of Reeder (Cisco; names that end in C).
const (
	NoPriv PrivProtocol = iota
	DES
	AES128
	AES192
	AES256
	AES192C
	AES256C
)

var privProtocols = [...]struct {
	name   string
	gosnmp gosnmp.SnmpV3PrivProtocol
}{
	NoPriv:  {"none", gosnmp.NoPriv},
	DES:     {"DES", gosnmp.DES},
	AES128:  {"AES", gosnmp.AES},
	AES192:  {"AES-192", gosnmp.AES192},
	AES256:  {"AES-256", gosnmp.AES256},
	AES192C: {"AES-192-C", gosnmp.AES192C},
	AES256C: {"AES-256-C", gosnmp.AES256C},
}

// String returns the name that net-snmp gives the protocol, where it has one.
func (p PrivProtocol) String() string {
	if int(p) < len(privProtocols) {
		return privProtocols[p].name
	}
	return fmt.Sprintf("PrivProtocol(%d)", uint8(p))
}

// MarshalText returns the protocol's name.
func (p PrivProtocol) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads a protocol's name, in any case, with or without
// hyphens.
func (p *PrivProtocol) UnmarshalText(text []byte) error {
	name := string(text)
	if sameName(name, "AES-128") {
		name = "AES"
	}
	for i, known := range privProtocols {
		if sameName(name, known.name) {
			*p = PrivProtocol(i)
			return nil
		}
	}
	return fmt.Errorf("snmp: no privacy protocol %q: give none, AES, AES-192, AES-256, AES-192-C, AES-256-C or DES", text)
}

func sameName(a, b string) bool {
	return strings.EqualFold(strings.ReplaceAll(a, "-", ""), strings.ReplaceAll(b, "-", ""))
}

// keys are a user's keys localized to one engine (RFC 3414 section 2.6).
type keys struct {
	auth    AuthProtocol
	priv    PrivProtocol
	authKey []byte
	privKey []byte
}

var errDecrypt = errors.New("decryption error")

// localize derives the keys that u shares with the engine.
func localize(u *User, engineID []byte) (*keys, error) {
	usm := gosnmp.UsmSecurityParameters{
		AuthoritativeEngineID:    string(engineID),
		UserName:                 u.Name,
		AuthenticationProtocol:   authProtocols[u.Auth].gosnmp,
		AuthenticationPassphrase: u.AuthPassphrase,
		PrivacyProtocol:          privProtocols[u.Priv].gosnmp,
		PrivacyPassphrase:        u.PrivPassphrase,
	}
	if err := usm.InitSecurityKeys(); err != nil {
		return nil, fmt.Errorf("snmp: keys of user %s: %w", u.Name, err)
	}
	return &keys{auth: u.Auth, priv: u.Priv, authKey: usm.SecretKey, privKey: usm.PrivacyKey}, nil
}

// digest authenticates msg, in which msgAuthenticationParameters are zeros.
func (k *keys) digest(msg []byte) []byte {
	p := authProtocols[k.auth]
	mac := hmac.New(p.hash, k.authKey)
	mac.Write(msg)
	return mac.Sum(nil)[:p.macLen]
}

// authentic tells whether h.mac is the digest of msg. The octets of h.mac in
// msg are zero afterwards, and h.mac does not share them any more.
func (k *keys) authentic(msg []byte, h *header) bool {
	if len(h.mac) != k.auth.macLen() {
		return false
	}
	place := h.mac
	h.mac = append([]byte(nil), place...)
	clear(place)
	return hmac.Equal(h.mac, k.digest(msg))
}

// encrypt returns plain encrypted and msgPrivacyParameters. The same salt
// must not be given twice within one engineBoots.
func (k *keys) encrypt(boots, time int32, salt uint64, plain []byte) (data, privParams []byte, err error) {
	privParams = binary.BigEndian.AppendUint64(nil, salt)
	if k.priv == DES {
		// RFC 3414 section 8.1.1.1: engineBoots, then a local integer.
		binary.BigEndian.PutUint32(privParams, uint32(boots))
		block, err := des.NewCipher(k.privKey[:8])
		if err != nil {
			return nil, nil, err
		}
		data = append(data, plain...)
		for len(data)%des.BlockSize != 0 {
			data = append(data, 0)
		}
		cipher.NewCBCEncrypter(block, k.desIV(privParams)).CryptBlocks(data, data)
		return data, privParams, nil
	}
	block, err := aes.NewCipher(k.privKey)
	if err != nil {
		return nil, nil, err
	}
	data = make([]byte, len(plain))
	cfb128(block, aesIV(boots, time, privParams), data, plain, false)
	return data, privParams, nil
}

// decrypt returns the plain text of data, with the padding of DES.
func (k *keys) decrypt(boots, time int32, privParams, data []byte) ([]byte, error) {
	if len(privParams) != 8 {
		return nil, errDecrypt
	}
	plain := make([]byte, len(data))
	if k.priv == DES {
		if len(data)%des.BlockSize != 0 {
			return nil, errDecrypt
		}
		block, err := des.NewCipher(k.privKey[:8])
		if err != nil {
			return nil, err
		}
		cipher.NewCBCDecrypter(block, k.desIV(privParams)).CryptBlocks(plain, data)
		return plain, nil
	}
	block, err := aes.NewCipher(k.privKey)
	if err != nil {
		return nil, err
	}
	cfb128(block, aesIV(boots, time, privParams), plain, data, true)
	return plain, nil
}

func (k *keys) desIV(salt []byte) []byte {
	iv := make([]byte, des.BlockSize)
	for i := range iv {
		iv[i] = k.privKey[8+i] ^ salt[i]
	}
	return iv
}

func aesIV(boots, time int32, salt []byte) (iv [aes.BlockSize]byte) {
	binary.BigEndian.PutUint32(iv[:], uint32(boots))
	binary.BigEndian.PutUint32(iv[4:], uint32(time))
	copy(iv[8:], salt)
	return iv
}

// cfb128 is the cipher feedback mode of RFC 3826 section 3.1.3. The standard
// library deprecates its own, since new designs need authentication in the
// same step; here the digest covers the encrypted text.
func cfb128(block cipher.Block, iv [aes.BlockSize]byte, dst, src []byte, decrypting bool) {
	for len(src) > 0 {
		block.Encrypt(iv[:], iv[:])
		n := min(len(src), len(iv))
		for i := range n {
			in := src[i]
			dst[i] = in ^ iv[i]
			if decrypting {
				iv[i] = in
			} else {
				iv[i] = dst[i]
			}
		}
		src, dst = src[n:], dst[n:]
	}
}
