package command

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"example.com/iad/manager/device"
	"example.com/iad/mib"
)

// settings is the configuration file; a credentials file has the same form.
type settings struct {
	accessSettings
	// Devices are known by name.
	Devices map[string]deviceSettings `toml:"devices"`
	// TrapListen is where notifications are received.
	TrapListen string `toml:"trap_listen"`
}

// accessSettings are what SNMP needs to be let in.
type accessSettings struct {
	Community      string        `toml:"community"`       // to read
	WriteCommunity string        `toml:"write_community"` // to write
	User           *userSettings `toml:"user"`
}

type userSettings struct {
	Name         string `toml:"name"`
	Auth         string `toml:"auth"`
	AuthPassword string `toml:"auth_password"`
	Priv         string `toml:"priv"`
	PrivPassword string `toml:"priv_password"`
	Context      string `toml:"context"`
}

type deviceSettings struct {
	accessSettings
	Address string `toml:"address"`
	RootOID string `toml:"root_oid"`
}

func (a accessSettings) empty() bool {
	return a.Community == "" && a.WriteCommunity == "" && a.User == nil
}

func (a accessSettings) credentials() device.Credentials {
	c := device.Credentials{Read: a.Community, Write: a.WriteCommunity}
	if c.Write == "" {
		c.Write = c.Read
	}
	if u := a.User; u != nil {
		c.User = &device.User{
			Name: u.Name, Auth: u.Auth, AuthPassword: u.AuthPassword,
			Priv: u.Priv, PrivPassword: u.PrivPassword, Context: u.Context,
		}
	}
	return c
}

// loadSettings reads the configuration file and then the credentials file,
// whose entries count more. A missing configuration file is an empty one
// unless it was named.
func (g *globals) loadSettings() (*settings, error) {
	s := new(settings)
	if g.config != "" {
		err := readSettings(g.config, s)
		if err != nil && !(errors.Is(err, fs.ErrNotExist) && g.config == defaultConfig()) {
			return nil, usageError{err}
		}
	}
	if g.credentials != "" {
		if err := readSettings(g.credentials, s); err != nil {
			return nil, usageError{err}
		}
	}
	if env := accessFromEnvironment(); !env.empty() {
		s.accessSettings = env
	}
	return s, nil
}

// readSettings adds what a file says to s. A file with secrets that others
// may read is refused.
func readSettings(name string, s *settings) error {
	data, err := readTextFile(name)
	if err != nil {
		return err
	}
	var file settings
	decoder := toml.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&file); err != nil {
		var strict *toml.StrictMissingError
		if errors.As(err, &strict) {
			return fmt.Errorf("%s: %s", name, unknownSettings(strict))
		}
		return fmt.Errorf("%s: %w", name, err)
	}
	if file.secret() {
		info, err := os.Stat(name)
		if err != nil {
			return err
		}
		if info.Mode().Perm()&0o077 != 0 {
			return fmt.Errorf("%s holds credentials and others may read it (mode %04o): chmod 600 %s", name, info.Mode().Perm(), name)
		}
	}
	if !file.empty() {
		s.accessSettings = file.accessSettings
	}
	if file.TrapListen != "" {
		s.TrapListen = file.TrapListen
	}
	if s.Devices == nil {
		s.Devices = make(map[string]deviceSettings)
	}
	for deviceID, d := range file.Devices {
		known := s.Devices[deviceID]
		if d.Address == "" {
			d.Address = known.Address
		}
		if d.RootOID == "" {
			d.RootOID = known.RootOID
		}
		if d.empty() {
			d.accessSettings = known.accessSettings
		}
		s.Devices[deviceID] = d
	}
	return nil
}

// unknownSettings names keys and lines alone: what stands around them may be
// secret.
func unknownSettings(e *toml.StrictMissingError) string {
	var list []string
	for _, key := range e.Errors {
		row, _ := key.Position()
		list = append(list, fmt.Sprintf("line %d: unknown setting %s", row, strings.Join(key.Key(), ".")))
	}
	return strings.Join(list, "; ")
}

func (s *settings) secret() bool {
	secret := !s.empty()
	for _, d := range s.Devices {
		secret = secret || !d.empty()
	}
	return secret
}

// accessFromEnvironment reads credentials from the environment, where other
// users of the machine cannot see them, unlike on the command line.
func accessFromEnvironment() accessSettings {
	a := accessSettings{Community: os.Getenv("IADMS_COMMUNITY"), WriteCommunity: os.Getenv("IADMS_WRITE_COMMUNITY")}
	if name := os.Getenv("IADMS_USER"); name != "" {
		a.User = &userSettings{
			Name: name, Auth: os.Getenv("IADMS_AUTH"), AuthPassword: os.Getenv("IADMS_AUTH_PASSWORD"),
			Priv: os.Getenv("IADMS_PRIV"), PrivPassword: os.Getenv("IADMS_PRIV_PASSWORD"), Context: os.Getenv("IADMS_CONTEXT"),
		}
	}
	return a
}

// target finds address and credentials of a TARGET.
func (g *globals) target(s *settings, name string) (device.Target, error) {
	dev, known := s.Devices[name]
	if !known {
		dev.Address = name
	}
	if dev.Address == "" {
		return device.Target{}, usageError{fmt.Errorf("device %s has no address in the configuration", name)}
	}
	access := dev.accessSettings
	if access.empty() {
		access = s.accessSettings
	}
	if access.empty() && onThisMachine(dev.Address) {
		access = accessSettings{Community: "public", WriteCommunity: "private"} // as "iad init" makes them
	}
	if access.empty() {
		return device.Target{}, usageError{fmt.Errorf(
			"no SNMP credentials for %s: put them into a file for --credentials (see iadms help credentials) or set IADMS_WRITE_COMMUNITY or IADMS_USER", name)}
	}
	t := device.Target{Address: dev.Address, Credentials: access.credentials()}
	if text := cmp.Or(g.rootOID, dev.RootOID); text != "" {
		oid, err := mib.ParseOID(text)
		if err != nil {
			return t, usageError{fmt.Errorf("root OID: %w", err)}
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
		return nil, usageError{err}
	}
	return c, nil
}
