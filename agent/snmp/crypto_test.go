package snmp

import (
	"bytes"
	"encoding/hex"
	"testing"
)

// Keys of RFC 3414 appendix A.3, derived from the password "maplesyrup".
func TestLocalizedKeys(t *testing.T) {
	engineID := append(make([]byte, 11), 2)
	for auth, want := range map[AuthProtocol]string{
		MD5:  "526f5eed9fcce26f8964c2930787d82b",
		SHA1: "6695febc9288e36282235fc7151f128497b38f3f",
	} {
		k, err := localize(&User{Name: "u", Auth: auth, AuthPassphrase: "maplesyrup", Priv: AES128, PrivPassphrase: "maplesyrup"}, engineID)
		if err != nil {
			t.Fatal(err)
		}
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
		u := User{Name: "u", Auth: SHA256, AuthPassphrase: authPass, Priv: priv, PrivPassphrase: privPass}
		k, err := localize(&u, testEngineID)
		if err != nil {
			t.Fatal(err)
		}
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
