package device_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
	"time"

	"example.com/iad/internal/iadtest"
	"example.com/iad/internal/peers"
	"example.com/iad/manager/device"
	"example.com/iad/mib"
)

// TestKeyChangeVectors has the vectors of RFC 3414 appendix A.5.
func TestKeyChangeVectors(t *testing.T) {
	for _, c := range []struct{ auth, oldKey, newKey, change string }{
		{"md5", "526f5eed9fcce26f8964c2930787d82b", "87021d7bd9d101ba05ea6e3bf9d9bd4a", "8805615141676cc9196174e742a32551"},
		{"sha", "6695febc9288e36282235fc7151f128497b38f3f", "78e2dcce79d59403b58c1bbaa5bff46391f1cd25", "9c1017f4fd483d2de8d5fadbf84392cb06457051"},
	} {
		oldKey, newKey := unhex(t, c.oldKey), unhex(t, c.newKey)
		random := make([]byte, len(oldKey))
		got, err := device.KeyChange(c.auth, oldKey, newKey, random)
		if want := append(random, unhex(t, c.change)...); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %x, %v; want %x", c.auth, got, err, want)
		}
	}
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestKeyChangeArguments(t *testing.T) {
	for _, c := range []struct {
		auth           string
		old, new, seed int
	}{{"none", 16, 16, 16}, {"sha7", 16, 16, 16}, {"sha", 0, 0, 0}, {"sha", 20, 16, 16}, {"sha", 16, 20, 20}, {"sha", 20, 20, 16}} {
		if v, err := device.KeyChange(c.auth, make([]byte, c.old), make([]byte, c.new), make([]byte, c.seed)); err == nil {
			t.Errorf("%+v: %x", c, v)
		}
	}
}

func TestCheckKeyChange(t *testing.T) {
	from := device.User{Name: "operator", Auth: "SHA-256", AuthPassphrase: "authentication", Priv: "AES-128", PrivPassphrase: "privacy of it"}
	good := from
	good.Auth, good.Priv, good.AuthPassphrase = "sha256", "aes", "another passphrase"
	if err := from.CheckKeyChange(&good); err != nil {
		t.Errorf("the names of protocols can be written in two ways: %v", err)
	}
	for want, change := range map[string]func(*device.User){
		"keeps the user":          func(u *device.User) { u.Name = "other" },
		"authentication protocol": func(u *device.User) { u.Auth = "sha512" },
		"privacy protocol":        func(u *device.User) { u.Priv = "aes256" },
		"protocol aes with none":  func(u *device.User) { u.Priv = "" },
		"keeps the context":       func(u *device.User) { u.Context = "x" },
		"shorter than 8":          func(u *device.User) { u.AuthPassphrase = "short" },
	} {
		to := from
		change(&to)
		if err := from.CheckKeyChange(&to); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "privacy of it") {
			t.Errorf("want %q: %v", want, err)
		}
	}
	plain := device.User{Name: "operator"}
	if err := plain.CheckKeyChange(&plain); err == nil {
		t.Error("a user without keys has had them changed")
	}
}

// snmpdUser is a user of snmpd whose keys can be changed: one that was cloned.
func snmpdUser(t *testing.T, auth, priv string, access ...string) (*peers.Snmpd, device.User) {
	t.Helper()
	user := device.User{Name: "operator", Auth: auth, AuthPassphrase: "authentication", Priv: priv, PrivPassphrase: "privacy of it"}
	template := user
	template.Name = "template"
	names := map[string]string{"sha": "SHA", "sha256": "SHA-256", "md5": "MD5", "des": "DES", "aes": "AES"}
	if len(access) == 0 {
		access = []string{"rwuser operator"}
	}
	s := peers.StartSnmpd(t, func(address string) bool { return reads(t, address, template) == nil },
		append(access, "createUser template "+names[auth]+` "authentication" `+names[priv]+` "privacy of it"`, "rwuser template")...)
	s.Run("snmpusm", "-v3", "-l", "authPriv", "-u", "template", "-a", names[auth], "-A", "authentication", "-x", names[priv], "-X", "privacy of it", s.Address,
		"create", "operator", "template")
	return s, user
}

func dial(t *testing.T, address string, user device.User) *device.Client {
	t.Helper()
	c, err := device.Dial(device.Target{Address: address, Credentials: device.Credentials{User: &user}, Timeout: 2 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// reads reports whether a user may read.
func reads(t *testing.T, address string, user device.User) error {
	t.Helper()
	_, err := dial(t, address, user).Get(t.Context(), mib.MustParseOID("1.3.6.1.2.1.1.1.0"))
	return err
}

// TestChangeKeys changes the passphrases of a user of snmpd, and back.
func TestChangeKeys(t *testing.T) {
	for _, c := range []struct{ auth, priv string }{{"sha256", "aes"}, {"sha", "aes"}, {"sha", "des"}, {"md5", "des"}} {
		t.Run(c.auth+" "+c.priv, func(t *testing.T) {
			t.Parallel()
			s, from := snmpdUser(t, c.auth, c.priv)
			to := from
			to.AuthPassphrase, to.PrivPassphrase = "new authentication", "new privacy of it"
			for _, way := range [][2]device.User{{from, to}, {to, from}} {
				if err := dial(t, s.Address, way[0]).ChangeKeys(t.Context(), way[1], nobodyElse); err != nil {
					t.Fatal(err)
				}
				if err := reads(t, s.Address, way[1]); err != nil {
					t.Errorf("the new passphrases: %v", err)
				}
				if err := reads(t, s.Address, way[0]); !errors.Is(err, device.ErrCredentials) {
					t.Errorf("the old passphrases: %v", err)
				}
			}
		})
	}
}

// TestChangeKeysOfAnother: the columns for other users are used where those for the own keys
// are not permitted.
func TestChangeKeysOfAnother(t *testing.T) {
	s, from := snmpdUser(t, "sha256", "aes", "view keys included .1.3.6.1", "view keys excluded .1.3.6.1.6.3.15.1.2.2.1.7", "view keys excluded .1.3.6.1.6.3.15.1.2.2.1.10",
		"rwuser operator priv -V keys")
	to := from
	to.AuthPassphrase, to.PrivPassphrase = "new authentication", "new privacy of it"
	if err := dial(t, s.Address, from).ChangeKeys(t.Context(), to, nobodyElse); err != nil {
		t.Fatal(err)
	}
	if err := reads(t, s.Address, to); err != nil {
		t.Error(err)
	}
}

// TestChangeKeysLocked: a lock that is not valid any more is read again, and whoever is not in
// charge any more changes nothing.
func TestChangeKeysLocked(t *testing.T) {
	s, from := snmpdUser(t, "sha256", "aes")
	to := from
	to.AuthPassphrase = "new authentication"
	away := errors.New("somebody else has the device")
	if err := dial(t, s.Address, from).ChangeKeys(t.Context(), to, func() error { return away }); !errors.Is(err, away) || reads(t, s.Address, from) != nil {
		t.Errorf("%v", err)
	}
	times, other := 0, dial(t, s.Address, from)
	lock := mib.MustParseOID("1.3.6.1.6.3.15.1.2.1.0")
	err := dial(t, s.Address, from).ChangeKeys(t.Context(), to, func() error {
		if times++; times > 2 {
			return nil
		}
		vbs, err := other.Get(t.Context(), lock)
		if err == nil {
			err = other.Set(t.Context(), vbs[0])
		}
		return err
	})
	if err != nil || times != 3 || reads(t, s.Address, to) != nil {
		t.Errorf("%d times: %v", times, err)
	}
}

// nobodyElse is in charge of a device.
func nobodyElse() error { return nil }

// TestChangeKeysRefused: what a device refuses leaves its keys, and the error says what to do.
func TestChangeKeysRefused(t *testing.T) {
	s, from := snmpdUser(t, "sha256", "aes")
	to := from
	to.AuthPassphrase = "new authentication"
	refuses := func(client *device.Client, to device.User, want ...string) {
		t.Helper()
		err := client.ChangeKeys(t.Context(), to, nobodyElse)
		for _, w := range want {
			if err == nil || !strings.Contains(err.Error(), w) {
				t.Errorf("want %q: %v", w, err)
			}
		}
		if err != nil && (strings.Contains(err.Error(), "new authentication") || strings.Contains(err.Error(), "privacy of it")) {
			t.Errorf("the error has a passphrase: %v", err)
		}
	}
	template, newTemplate := from, to
	template.Name, newTemplate.Name = "template", "template"
	refuses(dial(t, s.Address, template), newTemplate, "InconsistentName", "snmpusm create", s.Address)
	if err := reads(t, s.Address, template); err != nil {
		t.Errorf("the keys are others: %v", err)
	}
	other := to
	other.Auth = "sha"
	refuses(dial(t, s.Address, from), other, "authentication protocol", s.Address)

	peer := iadtest.NewPeer(t)
	refuses(peer.Client(), to, "communities", peer.Address())
}

func TestWeaker(t *testing.T) {
	user := func(auth, priv string) device.Credentials {
		return device.Credentials{User: &device.User{Name: "operator", Auth: auth, Priv: priv}}
	}
	for _, c := range []struct {
		a, b device.Credentials
		want bool
	}{
		{device.Credentials{Write: "private"}, user("", ""), true}, {user("none", ""), user("md5", ""), true}, {user("SHA-512", ""), user("md5", "des"), true},
		{user("sha", "aes"), user("SHA-256", "aes"), true}, {user("sha512", "des"), user("sha256", "AES-128"), true}, {user("sha256", "des"), user("sha512", ""), true},
		{user("SHA1", "AES"), user("sha", "aes128"), false}, {user("sha512", "aes256"), user("sha256", "aes"), false}, {user("sha", "aes192"), user("sha", "aes192c"), false},
		{user("", ""), device.Credentials{Write: "private"}, false}, {device.Credentials{Write: "a"}, device.Credentials{Write: "b"}, false},
	} {
		if got := c.a.Weaker(c.b); got != c.want {
			t.Errorf("%+v than %+v: %t", c.a.User, c.b.User, got)
		}
	}
}
