package settings

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A setting that does not exist is named without what stands around it.
func TestUnknownSetting(t *testing.T) {
	file := filepath.Join(t.TempDir(), "iad.toml")
	text := "device_id = \"x\"\n[snmp]\nwrite_community = \"secret one\"\nwrite_comunity = \"secret two\"\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Load(file)
	if err == nil || !strings.Contains(err.Error(), "line 4: snmp.write_comunity") || strings.Contains(err.Error(), "secret") {
		t.Error(err)
	}
}

// withUsers is the root directory of a device with two SNMPv3 users, and the text of
// its settings, with which it has started once.
func withUsers(t *testing.T) (root string, text []byte) {
	t.Helper()
	root = t.TempDir()
	s := &Settings{DeviceID: "IAD-0001", Model: "IAD-4FXS", Hardware: "IAD-4FXS", Trust: []string{"keys/1-maker.pub"}, Protocols: []string{"tftp", "ftp"}}
	s.SNMP.Listen, s.SNMP.ReadCommunity = "127.0.0.1:1161", "public"
	s.SNMP.Users = []User{
		{Name: "iadms", Auth: "SHA-256", AuthPassphrase: "something long", Priv: "AES", PrivPassphrase: "something else", Write: true},
	}
	text, err := s.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	marked, found := bytes.CutSuffix(text, []byte(endLine+"\n"))
	if !found {
		t.Fatalf("the settings do not end with %q", endLine)
	}
	second := "[[snmp.users]]\nname = 'watcher'\nauth = 'SHA-256'\nauth_passphrase = 'something long'\npriv = 'none'\npriv_passphrase = ''\nwrite = false\n"
	text = append(append(marked, second...), endLine+"\n"...)
	file := filepath.Join(root, Name)
	overwrite(t, file, text)
	if s, err = LoadOrGood(root, file); err == nil {
		err = s.KeepGood(root, file)
	}
	if err != nil {
		t.Fatal(err)
	}
	return root, text
}

func overwrite(t *testing.T, file string, text []byte) {
	t.Helper()
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// firstRelease makes the settings and their copy as the first release left them.
func firstRelease(t *testing.T, root string, text []byte) []byte {
	t.Helper()
	text = bytes.ReplaceAll(text, []byte(endLine+"\n"), nil)
	overwrite(t, filepath.Join(root, Name), text)
	overwrite(t, filepath.Join(root, GoodName), text)
	if err := os.RemoveAll(filepath.Join(root, goodSumName)); err != nil {
		t.Fatal(err)
	}
	return text
}

// Settings that are cut off at any byte are those of the copy, whether or not what is
// left of them is TOML.
func TestCutSettings(t *testing.T) {
	root, whole := withUsers(t)
	file := filepath.Join(root, Name)
	edited := func(text []byte) []byte {
		changed := bytes.Replace(text, []byte("#rate_limit = 500000"), []byte("rate_limit = 50"), 1)
		if bytes.Equal(changed, text) {
			t.Fatal("rate_limit is not among the settings")
		}
		return changed
	}
	for _, c := range []struct {
		name string
		old  bool // the first release wrote them
		edit func([]byte) []byte
	}{
		{name: "marked"},
		{name: "marked and edited", edit: edited},
		{name: "of the first release", old: true},
		{name: "of the first release and edited", old: true, edit: edited},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := whole
			overwrite(t, file, whole)
			if c.old {
				text = firstRelease(t, root, whole)
			}
			if c.edit != nil {
				text = c.edit(text)
			}
			from := 0
			if c.old || c.edit != nil {
				from = bytes.Index(text, []byte("\n[[snmp.users]]")) + 1
			}
			for n := from; n < len(bytes.TrimSpace(text)); n++ {
				if line := text[bytes.LastIndexByte(text[:n], '\n')+1 : n]; len(line) > 2 && line[0] == '#' && text[n] != '\n' && n%16 != 0 {
					continue // one place in a comment is like another
				}
				overwrite(t, file, text[:n])
				if s, err := LoadOrGood(root, file); err != nil || len(s.SNMP.Users) != 2 || s.damage == "" {
					t.Fatalf("cut after %d of %d bytes, %q: %q, %v", n, len(text), text[max(0, n-30):n], s.Finding(), err)
				}
			}
			overwrite(t, file, text)
			if s, err := LoadOrGood(root, file); err != nil || s.Finding() != "" {
				t.Errorf("whole: %+v, %v", s, err)
			}
		})
	}
}
