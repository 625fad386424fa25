package device

import (
	"fmt"
	"slices"
	"strings"

	"github.com/gosnmp/gosnmp"
)

// Credentials are an SNMPv3 user, or communities for SNMPv2c.
type Credentials struct {
	// Read and Write are communities; with an empty Read, Write is used for both.
	Read, Write string
	// User selects SNMPv3; the communities are not used then.
	User *User
}

// User is a user of the User-based Security Model (RFC 3414).
type User struct {
	Name string
	// Auth is md5, sha, sha224, sha256, sha384 or sha512, in any case, with or without
	// hyphens; empty: none.
	Auth, AuthPassphrase string
	// Priv is des, aes (128 bits), aes192, aes256 (Blumenthal's key
	// extension), aes192c or aes256c (Reeder's); empty: none.
	Priv, PrivPassphrase string
	// Context is the context name, usually empty.
	Context string
}

var authProtocols = map[string]gosnmp.SnmpV3AuthProtocol{
	"": gosnmp.NoAuth, "md5": gosnmp.MD5, "sha": gosnmp.SHA, "sha224": gosnmp.SHA224,
	"sha256": gosnmp.SHA256, "sha384": gosnmp.SHA384, "sha512": gosnmp.SHA512,
}

var privProtocols = map[string]gosnmp.SnmpV3PrivProtocol{
	"": gosnmp.NoPriv, "des": gosnmp.DES, "aes": gosnmp.AES, "aes192": gosnmp.AES192,
	"aes256": gosnmp.AES256, "aes192c": gosnmp.AES192C, "aes256c": gosnmp.AES256C,
}

// authStrength and privStrength order the protocols; those of one number are alike.
var (
	authStrength = map[string]int{"": 0, "md5": 1, "sha": 2, "sha224": 3, "sha256": 4, "sha384": 5, "sha512": 6}
	privStrength = map[string]int{"": 0, "des": 1, "aes": 2, "aes192": 3, "aes192c": 3, "aes256": 4, "aes256c": 4}
)

// strength returns how much authentication and privacy protect; communities do less than a user
// without both.
func (c *Credentials) strength() (auth, priv int) {
	if c.User == nil {
		return -1, 0
	}
	return authStrength[PlainName(c.User.Auth)], privStrength[PlainName(c.User.Priv)]
}

// Weaker reports whether c protects requests less than other does, by its security level or by
// one of its protocols.
func (c Credentials) Weaker(other Credentials) bool {
	auth, priv := c.strength()
	otherAuth, otherPriv := other.strength()
	return auth < otherAuth || priv < otherPriv
}

// PlainName returns a protocol's name as the tables spell it: net-snmp writes SHA-256 and
// AES-128.
func PlainName(name string) string {
	name = strings.ToLower(strings.ReplaceAll(name, "-", ""))
	switch name {
	case "none":
		return ""
	case "sha1":
		return "sha"
	case "aes128":
		return "aes"
	}
	return name
}

// minPassword is the minimum length of a passphrase (RFC 3414 section 11.2).
const minPassword = 8

// Check returns an error if the user is invalid.
func (u *User) Check() error {
	_, okAuth := authProtocols[PlainName(u.Auth)]
	_, okPriv := privProtocols[PlainName(u.Priv)]
	switch {
	case u.Name == "" || len(u.Name) > 32:
		return fmt.Errorf("invalid SNMPv3 user name %.40q: it must have 1 to 32 bytes", u.Name)
	case !okAuth:
		return fmt.Errorf("SNMPv3 user %s: unknown authentication protocol %q (want %s)", u.Name, u.Auth, names(authProtocols))
	case !okPriv:
		return fmt.Errorf("SNMPv3 user %s: unknown privacy protocol %q (want %s)", u.Name, u.Priv, names(privProtocols))
	case PlainName(u.Auth) == "" && PlainName(u.Priv) != "":
		return fmt.Errorf("SNMPv3 user %s: privacy needs authentication", u.Name)
	case PlainName(u.Auth) != "" && len(u.AuthPassphrase) < minPassword:
		return fmt.Errorf("SNMPv3 user %s: the authentication passphrase is shorter than %d bytes", u.Name, minPassword)
	case PlainName(u.Priv) != "" && len(u.PrivPassphrase) < minPassword:
		return fmt.Errorf("SNMPv3 user %s: the privacy passphrase is shorter than %d bytes", u.Name, minPassword)
	}
	return nil
}

func names[V any](m map[string]V) string {
	var list []string
	for name := range m {
		if name != "" {
			list = append(list, name)
		}
	}
	slices.Sort(list)
	return strings.Join(list, ", ")
}

// Level returns the security level that the user uses.
func (u *User) Level() gosnmp.SnmpV3MsgFlags {
	switch {
	case PlainName(u.Priv) != "":
		return gosnmp.AuthPriv
	case PlainName(u.Auth) != "":
		return gosnmp.AuthNoPriv
	}
	return gosnmp.NoAuthNoPriv
}

// USM returns new security parameters for the user.
func (u *User) USM() *gosnmp.UsmSecurityParameters {
	return &gosnmp.UsmSecurityParameters{
		UserName:                 u.Name,
		AuthenticationProtocol:   authProtocols[PlainName(u.Auth)],
		AuthenticationPassphrase: u.AuthPassphrase,
		PrivacyProtocol:          privProtocols[PlainName(u.Priv)],
		PrivacyPassphrase:        u.PrivPassphrase,
	}
}
