package fleet

import (
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"

	"example.com/iad/agent/snmp"
	"example.com/iad/internal/credentials"
)

// access is who may manage the devices.
type access struct {
	communities []snmp.Community
	users       []snmp.User
}

// access reads the credentials of the manager, or creates them and says so.
func (c *Config) access(notes io.Writer) (access, error) {
	var a access
	if c.ReadCommunity != "" {
		a.communities = append(a.communities, snmp.Community{Name: c.ReadCommunity})
	}
	if c.WriteCommunity != "" {
		a.communities = append(a.communities, snmp.Community{Name: c.WriteCommunity, Write: true})
	}
	if c.Manager == "" {
		return a, nil
	}
	file, err := credentials.Read(c.Manager)
	if errors.Is(err, os.ErrNotExist) {
		file = &credentials.File{Access: credentials.Access{User: &credentials.User{
			Name: "iadms", Auth: "SHA-256", AuthPassphrase: rand.Text(), Priv: "AES", PrivPassphrase: rand.Text(),
		}}}
		if err := credentials.Write(c.Manager, file); err != nil {
			return a, err
		}
		fmt.Fprintf(notes, "made %s: credentials for the devices\n", c.Manager)
	} else if err != nil {
		return a, mistake("manager", "%v", err)
	}
	if file.User == nil {
		return a, mistake("manager", "%s: has no SNMPv3 user; name a file of iad init or iadsim, or one that does not exist", c.Manager)
	}
	u := snmp.User{Name: file.User.Name, AuthPassphrase: file.User.AuthPassphrase, PrivPassphrase: file.User.PrivPassphrase}
	if u.Auth.UnmarshalText([]byte(cmp.Or(file.User.Auth, "none"))) != nil || u.Priv.UnmarshalText([]byte(cmp.Or(file.User.Priv, "none"))) != nil {
		return a, mistake("manager", "%s: unknown protocol of authentication or privacy", c.Manager)
	}
	level := snmp.NoAuthNoPriv
	switch {
	case u.Priv != snmp.NoPriv:
		level = snmp.AuthPriv
	case u.Auth != snmp.NoAuth:
		level = snmp.AuthNoPriv
	}
	u.Access = []snmp.Access{{Level: level, Read: snmp.Everything(), Write: snmp.Everything(), Notify: snmp.Everything()}}
	a.users = append(a.users, u)
	return a, nil
}
