package snmp

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/gosnmp/gosnmp"
)

// Keys of RFC 3414 appendix A.3, derived from the password "maplesyrup".
func TestLocalizedKeys(t *testing.T) {
	ofRFC := append(make([]byte, 11), 2)
	for auth, want := range map[AuthProtocol]string{
		MD5:  "526f5eed9fcce26f8964c2930787d82b",
		SHA1: "6695febc9288e36282235fc7151f128497b38f3f",
	} {
		master := NewMasterKey(auth, "maplesyrup")
		k := NewKeys(master, ofRFC)
		k.AddPrivacy(AES128, master, ofRFC)
		if got := hex.EncodeToString(k.authKey); got != want {
			t.Errorf("%v: key %s, want %s", auth, got, want)
		}
		if got := hex.EncodeToString(k.privKey); got != want[:32] {
			t.Errorf("%v: privacy key %s, want %s", auth, got, want[:32])
		}
	}
}

// What is encrypted comes back, of any length, and with another salt, time or
// key it does not.
func TestPrivacy(t *testing.T) {
	for priv := DES; priv <= AES256C; priv++ {
		k := NewKeys(NewMasterKey(SHA256, "authentication"), codecEngineID)
		k.AddPrivacy(priv, NewMasterKey(SHA256, "privacy-privacy"), codecEngineID)
		for n := range 40 {
			plain := bytes.Repeat([]byte{0x5a}, n)
			data, salt, err := k.encrypt(1, 2, 3, plain)
			if err != nil {
				t.Fatal(err)
			}
			back, err := k.decrypt(1, 2, salt, data)
			if err != nil || !bytes.HasPrefix(back, plain) || len(back) >= n+8 {
				t.Fatalf("%v: %d octets come back as %x, %v", priv, n, back, err)
			}
			if n < 8 {
				continue
			}
			salt[7] ^= 1
			if other, _ := k.decrypt(1, 2, salt, data); bytes.HasPrefix(other, plain) {
				t.Errorf("%v: the salt does not matter", priv)
			}
		}
		if _, err := k.decrypt(1, 2, make([]byte, 7), make([]byte, 16)); err == nil {
			t.Errorf("%v: a salt of 7 octets is taken", priv)
		}
		if _, err := k.decrypt(1, 2, make([]byte, 8), make([]byte, 15)); (err == nil) != (priv != DES) {
			t.Errorf("%v: 15 octets: %v", priv, err)
		}
	}
}

// Localized keys of every pair of protocols are those that gosnmp derives.
func TestKeysLikeGosnmp(t *testing.T) {
	auths := []gosnmp.SnmpV3AuthProtocol{gosnmp.NoAuth, gosnmp.MD5, gosnmp.SHA, gosnmp.SHA224, gosnmp.SHA256, gosnmp.SHA384, gosnmp.SHA512}
	privs := []gosnmp.SnmpV3PrivProtocol{gosnmp.NoPriv, gosnmp.DES, gosnmp.AES, gosnmp.AES192, gosnmp.AES256, gosnmp.AES192C, gosnmp.AES256C}
	for auth := MD5; auth <= SHA512; auth++ {
		authMaster, privMaster := NewMasterKey(auth, "authentication"), NewMasterKey(auth, "privacy-privacy")
		for priv := NoPriv; priv <= AES256C; priv++ {
			k := NewKeys(authMaster, codecEngineID)
			k.AddPrivacy(priv, privMaster, codecEngineID)
			theirs := gosnmp.UsmSecurityParameters{
				AuthoritativeEngineID: string(codecEngineID), UserName: "u",
				AuthenticationProtocol: auths[auth], AuthenticationPassphrase: "authentication",
				PrivacyProtocol: privs[priv], PrivacyPassphrase: "privacy-privacy",
			}
			if err := theirs.InitSecurityKeys(); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(k.authKey, theirs.SecretKey) || !bytes.Equal(k.privKey, theirs.PrivacyKey[:len(k.privKey)]) { // DES uses 16 bytes, whatever is left
				t.Errorf("%v, %v: keys %x, %x; gosnmp has %x, %x", auth, priv, k.authKey, k.privKey, theirs.SecretKey, theirs.PrivacyKey)
			}
		}
	}
}

// Changes of keys of RFC 3414 appendix A.5, from "maplesyrup" to "newsyrup", with a random part of zeros.
func TestKeyChange(t *testing.T) {
	ofRFC := append(make([]byte, 11), 2)
	for auth, delta := range map[AuthProtocol]string{
		MD5:  "88056151 41676cc9 196174e7 42a32551",
		SHA1: "9c1017f4 fd483d2d e8d5fadb f84392cb 06457051",
	} {
		old, want := NewKeys(NewMasterKey(auth, "maplesyrup"), ofRFC), NewKeys(NewMasterKey(auth, "newsyrup"), ofRFC)
		change, err := hex.DecodeString(strings.ReplaceAll(delta, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		change = append(make([]byte, len(change)), change...)
		if got, err := ChangedKey(auth, old.AuthKey(), change); err != nil || !bytes.Equal(got, want.AuthKey()) {
			t.Errorf("%v: %x, %v; want %x", auth, got, err, want.AuthKey())
		}
		for _, bad := range [][]byte{nil, change[1:], append(change, 0)} {
			if _, err := ChangedKey(auth, old.AuthKey(), bad); !errors.Is(err, ErrKeyLength) {
				t.Errorf("%v: a change of %d bytes: %v", auth, len(bad), err)
			}
		}
		if _, err := old.WithKeys(change, nil); !errors.Is(err, ErrKeyLength) {
			t.Errorf("%v: a key of twice the length: %v", auth, err)
		}
	}
	if _, err := ChangedKey(NoAuth, nil, nil); !errors.Is(err, ErrKeyLength) {
		t.Error(err)
	}
}
