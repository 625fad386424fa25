package command

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"

	"example.com/iad/internal/cli"
	"example.com/iad/internal/credentials"
	"example.com/iad/manager/device"
	"example.com/iad/mib"
)

// settings is the configuration file and the credentials file together.
type settings struct{ credentials.File }

// access converts credentials for package device.
func access(a credentials.Access) device.Credentials {
	c := device.Credentials{Read: a.ReadCommunity, Write: cmp.Or(a.WriteCommunity, a.ReadCommunity)}
	if u := a.User; u != nil {
		c.User = &device.User{
			Name: u.Name, Auth: u.Auth, AuthPassphrase: u.AuthPassphrase,
			Priv: u.Priv, PrivPassphrase: u.PrivPassphrase, Context: u.Context,
		}
	}
	return c
}

// loadSettings reads the configuration file and then the credentials file, which takes
// precedence. A missing configuration file counts as empty unless it was named.
func (g *globals) loadSettings() (*settings, error) {
	s := new(settings)
	if g.config != "" {
		err := s.add(g.config)
		if err != nil && !(errors.Is(err, fs.ErrNotExist) && g.config == defaultConfig()) {
			return nil, cli.Usage(err)
		}
	}
	if g.credentials != "" {
		if err := s.add(g.credentials); err != nil {
			return nil, cli.Usage(err)
		}
	}
	if env := accessFromEnvironment(); !env.Empty() {
		s.Access = env
	}
	return s, nil
}

// add adds the settings in a file.
func (s *settings) add(name string) error {
	file, err := credentials.Read(name)
	if err == nil {
		s.Add(file)
	}
	return err
}

// accessFromEnvironment reads credentials from the environment, where other users of
// the machine cannot see them, unlike on the command line. The second name of a variable
// is that of earlier releases.
func accessFromEnvironment() credentials.Access {
	env := func(names ...string) (value string) {
		for _, name := range names {
			value = cmp.Or(value, os.Getenv(name))
		}
		return value
	}
	a := credentials.Access{ReadCommunity: env("IADMS_READ_COMMUNITY", "IADMS_COMMUNITY"), WriteCommunity: env("IADMS_WRITE_COMMUNITY")}
	if name := env("IADMS_USER"); name != "" {
		a.User = &credentials.User{
			Name: name, Auth: env("IADMS_AUTH"), AuthPassphrase: env("IADMS_AUTH_PASSPHRASE", "IADMS_AUTH_PASSWORD"),
			Priv: env("IADMS_PRIV"), PrivPassphrase: env("IADMS_PRIV_PASSPHRASE", "IADMS_PRIV_PASSWORD"), Context: env("IADMS_CONTEXT"),
		}
	}
	return a
}

// target returns the address and credentials of a TARGET.
func (g *globals) target(s *settings, name string) (device.Target, error) {
	dev, known := s.Devices[name]
	if !known {
		dev.Address = name
	}
	if dev.Address == "" {
		return device.Target{}, cli.Usage(fmt.Errorf("device %s has no address in the configuration", name))
	}
	let := dev.Access
	if let.Empty() {
		let = s.Access
	}
	if let.Empty() && onThisMachine(dev.Address) {
		let = credentials.Access{ReadCommunity: "public", WriteCommunity: "private"} // as of iadsim
	}
	if let.Empty() {
		return device.Target{}, cli.Usage(fmt.Errorf(
			"no SNMP credentials for %s: put them into a file for --credentials (see iadms help credentials) or set IADMS_WRITE_COMMUNITY or IADMS_USER", name))
	}
	t := device.Target{Address: dev.Address, Credentials: access(let)}
	if text := cmp.Or(g.rootOID, dev.RootOID); text != "" {
		oid, err := mib.ParseOID(text)
		if err != nil {
			return t, cli.Usage(fmt.Errorf("root OID: %w", err))
		}
		t.Root = oid
	}
	return t, nil
}

func onThisMachine(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		host = address
	}
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// dial reads the settings and prepares access to one target.
func (g *globals) dial(name string) (*device.Client, *settings, error) {
	s, err := g.loadSettings()
	if err != nil {
		return nil, nil, err
	}
	c, err := g.dialWith(s, name)
	return c, s, err
}

func (g *globals) dialWith(s *settings, name string) (*device.Client, error) {
	t, err := g.target(s, name)
	if err != nil {
		return nil, err
	}
	log, err := g.logger()
	if err != nil {
		return nil, err
	}
	t.Warn = func(text string) { log.Warn(text) }
	c, err := device.Dial(t)
	if err != nil {
		return nil, cli.Usage(err)
	}
	return c, nil
}
