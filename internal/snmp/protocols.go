package snmp

import (
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"fmt"
	"hash"
	"strings"
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
	hash   func() hash.Hash
	macLen int // bytes of msgAuthenticationParameters
}{
	NoAuth: {"none", nil, 0},
	MD5:    {"MD5", md5.New, 12},
	SHA1:   {"SHA", sha1.New, 12},
	SHA224: {"SHA-224", sha256.New224, 16},
	SHA256: {"SHA-256", sha256.New, 24},
	SHA384: {"SHA-384", sha512.New384, 32},
	SHA512: {"SHA-512", sha512.New, 48},
}

// String returns the name that net-snmp gives the protocol.
func (p AuthProtocol) String() string {
	if p.Known() {
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

// Known reports whether p is one of the protocols above.
func (p AuthProtocol) Known() bool { return int(p) < len(authProtocols) }

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
	keyLen int
}{
	NoPriv:  {"none", 0},
	DES:     {"DES", 16},
	AES128:  {"AES", 16},
	AES192:  {"AES-192", 24},
	AES256:  {"AES-256", 32},
	AES192C: {"AES-192-C", 24},
	AES256C: {"AES-256-C", 32},
}

// String returns the name that net-snmp gives the protocol, where it has one.
func (p PrivProtocol) String() string {
	if p.Known() {
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

// Known reports whether p is one of the protocols above.
func (p PrivProtocol) Known() bool { return int(p) < len(privProtocols) }

func sameName(a, b string) bool {
	return strings.EqualFold(strings.ReplaceAll(a, "-", ""), strings.ReplaceAll(b, "-", ""))
}

// Level is a security level (RFC 3411 section 3.4.3). Levels are ordered.
type Level uint8

// Security levels.
const (
	NoAuthNoPriv Level = iota
	AuthNoPriv
	AuthPriv
)

var levelNames = [...]string{"noAuthNoPriv", "authNoPriv", "authPriv"}

func (l Level) String() string {
	if int(l) < len(levelNames) {
		return levelNames[l]
	}
	return fmt.Sprintf("Level(%d)", uint8(l))
}

// Flags are the bits of msgFlags for a level.
func (l Level) Flags() byte {
	return [...]byte{NoAuthNoPriv: 0, AuthNoPriv: FlagAuth, AuthPriv: FlagAuth | FlagPriv}[l]
}

// LevelOf is the highest level at which a user with the protocols can speak.
func LevelOf(auth AuthProtocol, priv PrivProtocol) Level {
	switch {
	case priv != NoPriv:
		return AuthPriv
	case auth != NoAuth:
		return AuthNoPriv
	}
	return NoAuthNoPriv
}
