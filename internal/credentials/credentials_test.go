package credentials_test

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/pelletier/go-toml/v2"

	"example.com/iad/internal/credentials"
)

func TestWrittenFileIsRead(t *testing.T) {
	name := filepath.Join(t.TempDir(), "credentials.toml")
	want := &credentials.File{
		Access:        credentials.Access{User: &credentials.User{Name: "iadms", Auth: "sha256", AuthPassphrase: "something long", Priv: "aes", PrivPassphrase: "something else"}},
		Devices:       map[string]credentials.Device{"attic": {Address: "192.0.2.10", Access: credentials.Access{ReadCommunity: "r", WriteCommunity: "w"}}},
		Notifications: ":11162",
	}
	if err := credentials.Write(name, want); err != nil {
		t.Fatal(err)
	}
	if got, err := credentials.Read(name); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	if err := os.Chmod(name, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := credentials.Read(name); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a file that others may read: %v", err)
	}
}

// Files of earlier releases have other names.
func TestEarlierNames(t *testing.T) {
	f, err := credentials.Parse([]byte(`
trap_listen = ":11162"
community = "r"
[user]
name = "iadms"
auth_password = "something long"
priv_password = "something else"
[devices.attic]
community = "attic"
`))
	if err != nil {
		t.Fatal(err)
	}
	if f.Notifications != ":11162" || f.ReadCommunity != "r" || f.User.AuthPassphrase != "something long" ||
		f.User.PrivPassphrase != "something else" || f.Devices["attic"].ReadCommunity != "attic" {
		t.Errorf("%+v, user %+v", f, f.User)
	}
}

// Mistakes are described by line and key. No value is shown: it may be secret.
func TestMistakes(t *testing.T) {
	for text, want := range map[string]string{
		"read_community = \"secret\"\nreed_community = \"secret\"": "line 2: unknown setting reed_community",
		"[user]\nname = \"x\"\nauth_passphrase = 5318008":          "line 3: user.auth_passphrase must be text",
		"user = \"secret\"":                         "line 1: user must be a section",
		"[devices]\nattic = \"secret\"":             "line 2: devices.attic must be a section",
		"write_community = secret":                  "line 1: ",
		"read_community = \"secret\"\n[user\nname":  "line 2: ",
		"[user]\nname = \"x\"\nname = \"secret\"\n": "line 3: ",
	} {
		_, err := credentials.Parse([]byte(text))
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "5318008") {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("notifications = \":11162\"\nread_community = \"r\"\n[user]\nname = \"x\"\nauth = \"sha256\"\nauth_password = \"something long\"\n[devices.attic]\naddress = \"192.0.2.10\"\n"))
	f.Add([]byte("[devices.\"\"]\nuser = {}"))
	f.Fuzz(func(t *testing.T, text []byte) {
		file, err := credentials.Parse(text)
		if err != nil {
			return
		}
		again, err := toml.Marshal(file)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := credentials.Parse(again); err != nil || !reflect.DeepEqual(got, file) {
			t.Errorf("%q is read as %+v, written as %q and read as %+v, %v", text, file, again, got, err)
		}
		file.Add(file)
	})
}
