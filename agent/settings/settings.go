// Package settings is iad.toml, the file with a device's settings: its schema,
// the copy of the last good start that takes the place of a damaged file, and the
// conversion to agent.Config.
package settings

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"aead.dev/minisign"
	"github.com/pelletier/go-toml/v2"

	"example.com/iad/agent"
	"example.com/iad/agent/agentx"
	"example.com/iad/agent/board"
	"example.com/iad/agent/procedure"
	"example.com/iad/agent/snmp"
	"example.com/iad/bank"
	"example.com/iad/mib"
	"example.com/iad/transfer"
)

// Name is the name of the file in the device's root directory.
const Name = "iad.toml"

// Settings is iad.toml. File names in it are relative to its folder.
type Settings struct {
	DeviceID  string   `toml:"device_id" comment:"Identity of the device, 1 to 32 octets, in every notification."`
	Model     string   `toml:"model"`
	Hardware  string   `toml:"hardware" comment:"Software must name this model."`
	Trust     []string `toml:"trust" comment:"Public keys (minisign) that software is signed with."`
	BankSize  int64    `toml:"bank_size" comment:"Capacity of a bank in octets; 0: its partition."`
	Protocols []string `toml:"protocols" comment:"tftp, ftp, ftps"`
	MIBRoot   string   `toml:"mib_root,omitempty" comment:"Object identifier of IAD-UPGRADE-MIB."`

	PlainPasswords bool  `toml:"plain_passwords" comment:"Accept passwords of file servers in requests that anybody on the way can read."`
	RateLimit      int   `toml:"rate_limit" comment:"Octets a second for transfers; 0: no limit."`
	MaxConfigFile  int64 `toml:"max_config_file" comment:"Greatest configuration file in octets; 0: 1 MiB."`

	FTPS     FTPS     `toml:"ftps" comment:"How servers of FTP over TLS are known; neither: by the certificates of this system."`
	Paths    Paths    `toml:"paths" comment:"Where the parts are, if not in the root folder: on a board the banks are mounts."`
	Programs Programs `toml:"programs" comment:"What this board does by programs of its own; empty: nothing."`
	SNMP     SNMP     `toml:"snmp" comment:"Embedded SNMP engine."`
	AgentX   string   `toml:"agentx,omitempty" comment:"Master agent: unix:PATH or tcp:HOST:PORT."`
	// AgentXPrivate promises that the master accepts SETs with privacy only.
	AgentXPrivate bool `toml:"agentx_private,omitempty"`

	badKeys error // keys and certificates that cannot be used
	// text is the file. damage says why it is the copy, doubt why it is not to
	// replace the copy.
	text          []byte
	damage, doubt string
}

// Paths are the paths of a device's parts.
type Paths struct {
	Bank1    string `toml:"bank1,omitempty"`
	Bank2    string `toml:"bank2,omitempty"`
	State    string `toml:"state,omitempty"`
	Config   string `toml:"config,omitempty"`
	Work     string `toml:"work,omitempty"`
	Applied  string `toml:"applied,omitempty"`
	Watchdog string `toml:"watchdog,omitempty"`
}

// FTPS says how FTPS servers are recognized.
type FTPS struct {
	CA  string `toml:"ca,omitempty" comment:"File of certificates (PEM) that servers' certificates must go back to."`
	Pin string `toml:"pin,omitempty" comment:"SHA-256 of the one certificate that is accepted, in hexadecimal; instead of every other check."`
}

// Programs are the programs of a board.
type Programs struct {
	SelfTest string `toml:"self_test,omitempty"`
	Convert  string `toml:"convert,omitempty"`
	Check    string `toml:"check_config,omitempty"`
	Apply    string `toml:"apply_config,omitempty"`
	Calls    string `toml:"calls,omitempty"`
	Limit    string `toml:"limit,omitempty" comment:"Time limit of a program, such as 60s."`
	UID      uint32 `toml:"uid,omitempty" comment:"User and group that programs of the software run as; 0: the agent's."`
	GID      uint32 `toml:"gid,omitempty"`
	NoReset  bool   `toml:"no_reset,omitempty" comment:"Software can be put to use without a reset."`
}

// SNMP is the embedded SNMP engine.
type SNMP struct {
	Listen         string   `toml:"listen" comment:"UDP address to answer on; empty: off."`
	ReadCommunity  string   `toml:"read_community,omitempty" comment:"SNMPv1 and v2c; off unless given."`
	WriteCommunity string   `toml:"write_community,omitempty"`
	Sources        []string `toml:"sources,omitempty" comment:"Networks that communities are answered to; empty: all."`
	WeakCrypto     bool     `toml:"weak_crypto,omitempty" comment:"Accept users with MD5 or DES."`
	Users          []User   `toml:"users,omitempty"`
	Sinks          []Sink   `toml:"sinks,omitempty"`
	Contact        string   `toml:"contact,omitempty"`
	Location       string   `toml:"location,omitempty"`
}

// User is an SNMPv3 user.
type User struct {
	Name           string   `toml:"name"`
	Auth           string   `toml:"auth" comment:"none, SHA, SHA-224, SHA-256, SHA-384, SHA-512, MD5"`
	AuthPassphrase string   `toml:"auth_passphrase"`
	Priv           string   `toml:"priv" comment:"none, AES, AES-192, AES-256, DES"`
	PrivPassphrase string   `toml:"priv_passphrase"`
	Write          bool     `toml:"write" comment:"Whether the user may command, or else only look."`
	Level          string   `toml:"level,omitempty" comment:"Lowest level that the user is let in at: noAuthNoPriv, authNoPriv, authPriv; empty: the highest that it has protocols for."`
	Sources        []string `toml:"sources,omitempty" comment:"Networks that the user is let in from; empty: all."`
	ReadView       []string `toml:"read_view,omitempty" comment:"Subtrees that the user sees, as object identifiers, '!' before those left out; empty: everything."`
	WriteView      []string `toml:"write_view,omitempty" comment:"Of what it may write, if write is true."`
	NotifyView     []string `toml:"notify_view,omitempty" comment:"Of what notifications may tell it."`
}

// Sink is a receiver of notifications.
type Sink struct {
	Address   string `toml:"address"`
	Community string `toml:"community,omitempty"`
	User      string `toml:"user,omitempty"`
	Inform    bool   `toml:"inform,omitempty"`
}

// Load reads iad.toml without comparing it with the copy.
func Load(file string) (*Settings, error) {
	data, err := read(file)
	if err != nil {
		return nil, err
	}
	return parse(file, data)
}

// parse decodes the content of file.
func parse(file string, data []byte) (*Settings, error) {
	if isUTF16(data) {
		return nil, fmt.Errorf("%s is in UTF-16: save it as UTF-8", file)
	}
	s := &Settings{text: data}
	dec := toml.NewDecoder(bytes.NewReader(bytes.TrimPrefix(data, byteOrderMark)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(s); err != nil {
		var strict *toml.StrictMissingError
		if errors.As(err, &strict) {
			return nil, fmt.Errorf("%s: settings that do not exist: %s", file, unknownSettings(strict))
		}
		var where *toml.DecodeError
		if errors.As(err, &where) {
			row, col := where.Position()
			return nil, fmt.Errorf("%s, line %d, column %d: %w", file, row, col, err)
		}
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return s, nil
}

// serves reports whether the settings name the device and a way to reach it.
func (s *Settings) serves() bool {
	return s.DeviceID != "" && (s.SNMP.Listen != "" || s.AgentX != "")
}

// unknownSettings names keys and lines alone: what stands around them may be
// secret.
func unknownSettings(e *toml.StrictMissingError) string {
	var list []string
	for _, key := range e.Errors {
		row, _ := key.Position()
		list = append(list, fmt.Sprintf("line %d: %s", row, strings.Join(key.Key(), ".")))
	}
	return strings.Join(list, "; ")
}

// Root is where the parts of the device in dir are.
func (s *Settings) Root(dir string) (board.Root, error) {
	root, err := board.RootIn(dir)
	if err != nil {
		return root, err
	}
	for part, given := range map[*string]string{
		&root.Banks[0]: s.Paths.Bank1, &root.Banks[1]: s.Paths.Bank2, &root.State: s.Paths.State,
		&root.Data: s.Paths.Config, &root.Work: s.Paths.Work, &root.Applied: s.Paths.Applied,
	} {
		if given != "" {
			*part = filepath.Clean(within(dir, given))
		}
	}
	return root, nil
}

// BadKeys names the keys and certificates that Config could not use.
func (s *Settings) BadKeys() error { return s.badKeys }

// Marshal returns the file of the settings, with the line that marks it as complete.
func (s *Settings) Marshal() ([]byte, error) {
	text, err := toml.Marshal(s)
	if err != nil {
		return nil, err
	}
	return fmt.Appendf(text, "\n# Keep the next line last: a file without it may have been cut off.\n%s\n", endLine), nil
}

// Config turns settings into the agent's configuration; dir is the folder of the
// device, whose parts are neither looked at nor made: that is for board.Root.
func (s *Settings) Config(dir, version string) (agent.Config, *board.Platform, error) {
	root, err := s.Root(dir)
	if err != nil {
		return agent.Config{}, nil, err
	}
	p := &board.Platform{
		Banks: root.Banks, BankSize: s.BankSize, Work: root.Work, Applied: root.Applied, State: root.State, Data: root.Data,
		SelfTestProgram: s.Programs.SelfTest, ConverterProgram: s.Programs.Convert, CheckProgram: s.Programs.Check,
		ApplyProgram: s.Programs.Apply, CallsProgram: s.Programs.Calls, NoReset: s.Programs.NoReset,
	}
	if s.Programs.UID != 0 {
		p.As = &board.User{UID: s.Programs.UID, GID: s.Programs.GID}
	}
	if s.Programs.Limit != "" {
		if p.Limit, err = time.ParseDuration(s.Programs.Limit); err != nil {
			return agent.Config{}, nil, fmt.Errorf("programs.limit: %w", err)
		}
	}
	c := agent.Config{
		DeviceID: s.DeviceID, Model: s.Model, Hardware: s.Hardware, Platform: p,
		PlainPasswords: s.PlainPasswords, MaxConfigFile: s.MaxConfigFile,
	}
	c.Transfer.RateLimit = s.RateLimit
	c.Trust, s.badKeys = readKeys(dir, s.Trust)
	if err := s.FTPS.into(&c.Transfer, dir); err != nil {
		s.badKeys = errors.Join(s.badKeys, fmt.Errorf("ftps: %w", err))
	}
	for _, name := range s.Protocols {
		proto, ok := map[string]procedure.Protocol{"tftp": procedure.TFTP, "ftp": procedure.FTP, "ftps": procedure.FTPS}[name]
		if !ok {
			return c, nil, fmt.Errorf("protocols: %q is none of tftp, ftp, ftps", name)
		}
		c.Protocols = append(c.Protocols, proto)
	}
	if s.MIBRoot != "" {
		if c.Root, err = mib.ParseRoot(s.MIBRoot); err != nil {
			return c, nil, fmt.Errorf("mib_root: %w", err)
		}
	}
	if c.SNMP, err = s.SNMP.config(s, version); err != nil {
		return c, nil, err
	}
	if s.AgentX != "" {
		c.AgentX = &agentx.Config{Address: s.AgentX, Private: s.AgentXPrivate, Description: "iad " + s.DeviceID}
	}
	return c, p, nil
}

// into says how servers are known; after an error none is.
func (p *FTPS) into(o *transfer.Options, dir string) (err error) {
	defer func() {
		if err != nil {
			o.Pin, o.TLS = nil, &tls.Config{RootCAs: x509.NewCertPool()}
		}
	}()
	if p.CA != "" {
		data, err := os.ReadFile(within(dir, p.CA))
		if err != nil {
			return err
		}
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM(bytes.TrimPrefix(data, byteOrderMark)) {
			return fmt.Errorf("%s has no certificate", p.CA)
		}
		o.TLS = &tls.Config{RootCAs: roots}
	}
	if p.Pin != "" {
		if o.Pin, err = hex.DecodeString(strings.ReplaceAll(p.Pin, ":", "")); err != nil || len(o.Pin) != sha256.Size {
			return fmt.Errorf("pin: %q is not a SHA-256 digest in hexadecimal", p.Pin)
		}
	}
	return nil
}

func within(dir, name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(dir, name)
}

// readKeys reads the keys that can be read; the error is about the others. A
// lost key keeps new software out, never a device from starting.
func readKeys(dir string, files []string) (keys []minisign.PublicKey, errs error) {
	for _, f := range files {
		data, err := os.ReadFile(within(dir, f))
		if err != nil {
			errs = errors.Join(errs, fmt.Errorf("trust: %w", err))
			continue
		}
		key, err := bank.ReadPublicKey(data)
		if err != nil {
			errs = errors.Join(errs, fmt.Errorf("trust: %s: %w", f, err))
			continue
		}
		keys = append(keys, key)
	}
	return keys, errs
}

// config makes the engine's configuration, nil if it has nothing to do.
func (p *SNMP) config(s *Settings, version string) (*snmp.Config, error) {
	if p.Listen == "" && len(p.Sinks) == 0 {
		return nil, nil
	}
	sources, err := prefixes(p.Sources)
	if err != nil {
		return nil, err
	}
	c := &snmp.Config{
		Listen: p.Listen, WeakCrypto: p.WeakCrypto,
		System: snmp.System{
			Descr: strings.TrimSpace(s.Model + " IAD upgrade agent " + version), Name: s.DeviceID,
			Contact: p.Contact, Location: p.Location,
		},
	}
	for _, comm := range []snmp.Community{
		{Name: p.ReadCommunity, Sources: sources},
		{Name: p.WriteCommunity, Sources: sources, Write: true},
	} {
		if comm.Name != "" {
			c.Communities = append(c.Communities, comm)
		}
	}
	for _, u := range p.Users {
		user, err := u.config()
		if err != nil {
			return nil, err
		}
		c.Users = append(c.Users, user)
	}
	for _, k := range p.Sinks {
		c.Sinks = append(c.Sinks, snmp.Sink{Address: k.Address, Community: k.Community, User: k.User, Inform: k.Inform})
	}
	return c, nil
}
