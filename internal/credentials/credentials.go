// Package credentials has the file that lets a management system into devices: "iad
// init" writes one, iadms reads it. The configuration file of iadms has the same form.
package credentials

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/spf13/afero"

	"example.com/iad/internal/durable"
	"example.com/iad/internal/textfile"
)

// File is what a file says.
type File struct {
	// Access is for devices that have none of their own.
	Access
	// Devices are known by name.
	Devices map[string]Device `toml:"devices,omitempty"`
	// Notifications is the HOST:PORT where notifications are received.
	Notifications string `toml:"notifications,omitempty"`

	TrapListen string `toml:"trap_listen,omitempty"` // Notifications, as it was named before
}

// Access is what SNMP needs to be let in: communities or a user.
type Access struct {
	ReadCommunity  string `toml:"read_community,omitempty"`
	WriteCommunity string `toml:"write_community,omitempty"`
	User           *User  `toml:"user,omitempty"`

	Community string `toml:"community,omitempty"` // ReadCommunity, as it was named before
}

// User is an SNMPv3 user.
type User struct {
	Name           string `toml:"name"`
	Auth           string `toml:"auth,omitempty"`
	AuthPassphrase string `toml:"auth_passphrase,omitempty"`
	Priv           string `toml:"priv,omitempty"`
	PrivPassphrase string `toml:"priv_passphrase,omitempty"`
	Context        string `toml:"context,omitempty"`

	AuthPassword string `toml:"auth_password,omitempty"` // AuthPassphrase, as it was named before
	PrivPassword string `toml:"priv_password,omitempty"`
}

// Device is a device that has a name.
type Device struct {
	Access
	Address string `toml:"address,omitempty"`
	RootOID string `toml:"root_oid,omitempty"`
}

// Empty reports whether nobody can be let in with a.
func (a Access) Empty() bool {
	return a.ReadCommunity == "" && a.WriteCommunity == "" && a.User == nil
}

// Write writes a new file that only its owner may read.
func Write(name string, f *File) error {
	text, err := toml.Marshal(f)
	if err != nil {
		return err
	}
	return durable.ReplaceFile(afero.NewOsFs(), name, text, 0o600)
}

// Read reads a file. One with secrets that others may read is refused.
func Read(name string) (*File, error) {
	text, err := textfile.Read(name)
	if err != nil {
		return nil, err
	}
	f, err := Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s %w", name, err)
	}
	if f.secret() {
		info, err := os.Stat(name)
		if err != nil {
			return nil, err
		}
		if info.Mode().Perm()&0o077 != 0 {
			return nil, fmt.Errorf("%s holds credentials and others may read it (mode %04o): chmod 600 %s", name, info.Mode().Perm(), name)
		}
	}
	return f, nil
}

func (f *File) secret() bool {
	for _, d := range f.Devices {
		if !d.Empty() {
			return true
		}
	}
	return !f.Empty()
}

// Parse parses the text of a file. Errors have lines and keys and no values, which may
// be secret.
func Parse(text []byte) (*File, error) {
	f := new(File)
	decoder := toml.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(f); err != nil {
		return nil, mistake(err)
	}
	move(&f.Notifications, &f.TrapListen)
	f.Access.rename()
	for name, d := range f.Devices {
		d.Access.rename()
		f.Devices[name] = d
	}
	return f, nil
}

// rename gives settings that a file has under their earlier names the present ones.
func (a *Access) rename() {
	move(&a.ReadCommunity, &a.Community)
	if u := a.User; u != nil {
		move(&u.AuthPassphrase, &u.AuthPassword)
		move(&u.PrivPassphrase, &u.PrivPassword)
	}
}

// move moves a value to its present name, unless that has one.
func move(to, from *string) {
	if *to == "" {
		*to = *from
	}
	*from = ""
}

func mistake(err error) error {
	var unknown *toml.StrictMissingError
	if errors.As(err, &unknown) {
		var list []string
		for _, key := range unknown.Errors {
			row, _ := key.Position()
			list = append(list, fmt.Sprintf("line %d: unknown setting %s", row, strings.Join(key.Key(), ".")))
		}
		return errors.New(strings.Join(list, "; "))
	}
	var where *toml.DecodeError
	if !errors.As(err, &where) {
		return errors.New("is not valid TOML")
	}
	row, _ := where.Position()
	switch path := where.Key(); {
	case len(path) == 0:
		return fmt.Errorf("line %d: not valid TOML; write settings as KEY = \"VALUE\"", row)
	case path[len(path)-1] == "user", path[0] == "devices" && len(path) < 3:
		return fmt.Errorf("line %d: %s must be a section, [%[2]s]", row, strings.Join(path, "."))
	default:
		return fmt.Errorf("line %d: %s must be text in quotes, and set once", row, strings.Join(path, "."))
	}
}

// Add adds what other says to f; where both say something, other counts.
func (f *File) Add(other *File) {
	if !other.Empty() {
		f.Access = other.Access
	}
	if other.Notifications != "" {
		f.Notifications = other.Notifications
	}
	if f.Devices == nil {
		f.Devices = make(map[string]Device)
	}
	for name, d := range other.Devices {
		known := f.Devices[name]
		if d.Address == "" {
			d.Address = known.Address
		}
		if d.RootOID == "" {
			d.RootOID = known.RootOID
		}
		if d.Empty() {
			d.Access = known.Access
		}
		f.Devices[name] = d
	}
}
