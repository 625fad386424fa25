package fleet

import (
	"cmp"
	"crypto/rand"
	"fmt"

	"example.com/iad/manager/device"
)

// Secret is what SNMP requires for access to devices. It is stored sealed and is never
// shown.
type Secret struct {
	// Name is its name; see CheckName.
	Name string `json:"name"`
	// ReadCommunity and WriteCommunity are for SNMPv2c; an empty WriteCommunity: the same.
	ReadCommunity  string `json:"read_community,omitempty"`
	WriteCommunity string `json:"write_community,omitempty"`
	// User selects SNMPv3.
	User *SNMPUser `json:"user,omitempty"`
	// Campaign is the ID of the campaign that the service made the secret for; empty: a person
	// has stored it.
	Campaign string `json:"campaign,omitempty"`
	// Removing: the secret is about to be removed, and no device gets it any more.
	Removing bool `json:"removing,omitempty"`
}

// SNMPUser is a user of the User-based Security Model; see device.User.
type SNMPUser struct {
	Name           string `json:"name"`
	Auth           string `json:"auth,omitempty"`
	AuthPassphrase string `json:"auth_passphrase,omitempty"`
	Priv           string `json:"priv,omitempty"`
	PrivPassphrase string `json:"priv_passphrase,omitempty"`
	Context        string `json:"context,omitempty"`
}

// Credentials returns s for package device.
func (s *Secret) Credentials() device.Credentials {
	c := device.Credentials{Read: s.ReadCommunity, Write: cmp.Or(s.WriteCommunity, s.ReadCommunity)}
	if u := s.User; u != nil {
		c.User = &device.User{
			Name: u.Name, Auth: u.Auth, AuthPassphrase: u.AuthPassphrase,
			Priv: u.Priv, PrivPassphrase: u.PrivPassphrase, Context: u.Context,
		}
	}
	return c
}

// Validate returns the errors of all fields, each a *FieldError, which never contain a
// value.
func (s *Secret) Validate() error {
	p := newProblems()
	p.check("name", CheckName(s.Name))
	if s.User != nil {
		if err := s.Credentials().User.Check(); err != nil {
			p.check("user", err)
		}
	} else {
		p.unless(s.ReadCommunity != "" || s.WriteCommunity != "", "read_community", "a secret has communities or a user")
	}
	return p.err()
}

// String hides what s contains, so that it does not get into logs by mistake.
func (s Secret) String() string { return "secret " + s.Name }

// GoString hides what s contains.
func (s Secret) GoString() string { return s.String() }

// Renewed returns a secret for the same user with random passphrases, for a campaign.
func (s *Secret) Renewed(name, campaign string) (*Secret, error) {
	if s.User == nil || device.PlainName(s.User.Auth) == "" {
		return nil, fmt.Errorf("the credentials %s are not those of an SNMPv3 user with authentication, so they have no passphrases to change", s.Name)
	}
	user := *s.User
	user.AuthPassphrase = rand.Text()
	if device.PlainName(user.Priv) != "" {
		user.PrivPassphrase = rand.Text()
	}
	return &Secret{Name: name, User: &user, Campaign: campaign}, nil
}
