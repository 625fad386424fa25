package fleet

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"

	"example.com/iad/mib"
	"example.com/iad/sim"
)

// MaxDevices is the largest number of devices.
const MaxDevices = 20000

// Config describes a fleet. Names of files are relative to the working directory.
type Config struct {
	Devices int `toml:"devices"` // 1 to MaxDevices
	// SNMP is the UDP address of the first device, HOST:PORT; the others have the ports
	// after it. Port 0 stands for free ports.
	SNMP string `toml:"snmp"`
	// Addresses is a range, ADDRESS/BITS; each device has an address of its own in it and
	// the port of SNMP. Empty for none.
	Addresses string `toml:"addresses"`
	// TrapSinks are receivers of SNMPv2c notifications, HOST:PORT.
	TrapSinks []string `toml:"trap-sink"`
	// Root is the directory of the disks; empty for disks in memory.
	Root  string   `toml:"root"`
	Trust []string `toml:"trust"` // files with the keys that sign Kind.Image
	// Maker names the key pair MAKER.key and MAKER.pub that signs generated software.
	Maker          string `toml:"maker"`
	DeviceID       string `toml:"device-id"` // before the number
	ReadCommunity  string `toml:"read-community"`
	WriteCommunity string `toml:"write-community"`
	// Manager is a file with the credentials of an SNMPv3 user of all devices; empty for
	// none.
	Manager     string   `toml:"manager"`
	SysObjectID string   `toml:"sys-object-id"`
	MIBRoot     string   `toml:"mib-root"` // empty for the usual place of IAD-UPGRADE-MIB
	Protocols   []string `toml:"protocols"`
	FTPSPin     string   `toml:"ftps-pin"` // SHA-256 digest in hexadecimal
	// PlainPasswords accepts passwords of file servers in requests without privacy.
	PlainPasswords bool     `toml:"plain-passwords"`
	Faults         []string `toml:"fault"` // see sim.ParseShare
	Seed           uint64   `toml:"seed"`  // decides which devices are of which kind and have which faults
	Kind
	// Groups are devices that differ from Kind. Without any, Software may be several.
	Groups []Group `toml:"group"`
}

// Kind is what devices of one kind have in common. In a Group the zero value stands for
// that of the Config.
type Kind struct {
	// Software are versions of generated software: VERSION, or several VERSION:PERCENT.
	Software  []string `toml:"software"`
	Image     string   `toml:"image"`      // the software to start with, in place of Software
	ConfigDir string   `toml:"config-dir"` // configuration data, empty for built-in ones
	Hardware  string   `toml:"hardware"`   // that software must name
	Model     string   `toml:"model"`      // to report, with a hardware revision perhaps; empty for Hardware
	// RestartTime is how long a restart takes.
	RestartTime Duration `toml:"restart-time"`
	RateLimit   int      `toml:"rate-limit"` // of transfers in bytes per second, 0 for none
	BankSize    int      `toml:"bank-size"`  // in bytes, 0 for no limit
}

// Group is a share of the devices.
type Group struct {
	Percent int `toml:"percent"` // of the devices, 1 to 100
	Kind
}

// Duration is a time.Duration that is written as in 1m30s.
type Duration time.Duration

// UnmarshalText reads what time.ParseDuration does; a negative duration is an error.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil || v < 0 {
		return fmt.Errorf("%q is not a duration such as 500ms, 30s or 5m", text)
	}
	*d = Duration(v)
	return nil
}

// Default returns the description of one device.
func Default() Config {
	return Config{
		Devices: 1, SNMP: "127.0.0.1:16100", Maker: "iadsim", DeviceID: "SIM-",
		ReadCommunity: "public", WriteCommunity: "private", Seed: 1,
		Protocols: []string{"tftp", "ftp"},
		Kind:      Kind{Software: []string{"1.0.0"}, Hardware: "IAD-SIM"},
	}
}

// Parse reads the text of a file, in which settings that are missing keep the values of
// Default. It does not check the values.
func Parse(text []byte) (*Config, error) {
	c := Default()
	d := toml.NewDecoder(bytes.NewReader(text)).DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		return nil, Explain(err)
	}
	return &c, nil
}

// Explain describes an error of the TOML decoder by line and setting.
func Explain(err error) error {
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
		return errors.New(strings.TrimPrefix(err.Error(), "toml: "))
	}
	row, _ := where.Position()
	if key := strings.Join(where.Key(), "."); key != "" {
		return fmt.Errorf("line %d: %s: %s", row, key, reason(where))
	}
	return fmt.Errorf("line %d: %s", row, reason(where))
}

// reason is why a value cannot be read, without the names of Go's types.
func reason(err *toml.DecodeError) string {
	text := strings.TrimPrefix(err.Error(), "toml: ")
	if strings.HasPrefix(text, "cannot decode") || strings.Contains(text, "into struct field") {
		return "a value of another type is needed here"
	}
	return text
}

// Mistake is a setting that cannot be used.
type Mistake struct {
	Setting string // as in the file
	Text    string // what is wrong with it
}

func (m *Mistake) Error() string { return m.Setting + " " + m.Text }

func mistake(setting, format string, args ...any) error {
	return &Mistake{setting, fmt.Sprintf(format, args...)}
}

// Check returns a *Mistake if the fleet cannot be made as described.
func (c *Config) Check() error {
	if c.Devices < 1 || c.Devices > MaxDevices {
		return mistake("devices", "must be 1 to %d", MaxDevices)
	}
	for _, s := range c.Faults {
		if _, err := sim.ParseShare(s); err != nil {
			return mistake("fault", "%v", err)
		}
	}
	if _, err := c.place(); err != nil {
		return err
	}
	if _, err := c.protocols(); err != nil {
		return err
	}
	if pin, err := hex.DecodeString(c.FTPSPin); err != nil || len(pin) != 0 && len(pin) != 32 {
		return mistake("ftps-pin", "%q: must be a SHA-256 digest, 64 hexadecimal digits", c.FTPSPin)
	}
	for _, o := range []struct{ setting, text string }{{"sys-object-id", c.SysObjectID}, {"mib-root", c.MIBRoot}} {
		if _, err := parseOID(o.text); err != nil {
			return mistake(o.setting, "%q: must be an object identifier such as 1.3.6.1.4.1.32473.1", o.text)
		}
	}
	_, err := c.kinds()
	return err
}

func parseOID(text string) (mib.OID, error) {
	if text == "" {
		return nil, nil
	}
	return mib.ParseOID(text)
}

// protocolNames are the protocols of file servers by name.
var protocolNames = map[string]mib.Protocol{"tftp": mib.ProtocolTftp, "ftp": mib.ProtocolFtp, "ftps": mib.ProtocolFtps}

func (c *Config) protocols() (list []mib.Protocol, err error) {
	for _, name := range c.Protocols {
		p, ok := protocolNames[name]
		if !ok {
			return nil, mistake("protocols", "%q: unknown protocol (want tftp, ftp or ftps)", name)
		}
		list = append(list, p)
	}
	return list, nil
}

// place is where the devices answer.
type place struct {
	host   string
	port   int
	prefix netip.Prefix // invalid: consecutive ports of host
}

func (c *Config) place() (place, error) {
	host, text, err := net.SplitHostPort(c.SNMP)
	if err != nil {
		return place{}, mistake("snmp", "%s: must be HOST:PORT", c.SNMP)
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return place{}, mistake("snmp", "%s: %q is not a port, 0 to 65535", c.SNMP, text)
	}
	p := place{host: host, port: int(port)}
	if c.Addresses == "" {
		if last := p.port + c.Devices - 1; p.port != 0 && last > 65535 {
			return p, mistake("snmp", "%s: %d devices need ports up to %d, and the last one is 65535; use a lower port, or 0, or a range of addresses", c.SNMP, c.Devices, last)
		}
		return p, nil
	}
	if p.prefix, err = netip.ParsePrefix(c.Addresses); err != nil {
		return p, mistake("addresses", "%s: not a range; use ADDRESS/BITS, such as 127.1.0.0/16 or 2001:db8:1::/64", c.Addresses)
	}
	if n := sim.Room(p.prefix); n < c.Devices {
		return p, mistake("addresses", "%s: room for %d devices, not %d; use a larger range", c.Addresses, n, c.Devices)
	}
	return p, nil
}

// kinds returns the kind of each group, complete, with the share of devices of it in
// percent. Shares that are left over are of the last kind.
func (c *Config) kinds() (list []Group, err error) {
	groups := c.Groups
	switch {
	case len(groups) == 0 && len(c.Software) > 1:
		for _, s := range c.Software {
			version, percent, err := parseShare(s)
			if err != nil {
				return nil, err
			}
			groups = append(groups, Group{percent, Kind{Software: []string{version}}})
		}
	case len(groups) > 0 && len(c.Software) > 1:
		return nil, mistake("software", "several versions and groups of devices exclude each other; name one version in each group")
	}
	left := 100
	for i, g := range groups {
		if g.Percent < 1 || g.Percent > 100 {
			return nil, mistake("group", "%d: percent must be 1 to 100", i+1)
		}
		left -= g.Percent
		list = append(list, Group{g.Percent, g.Kind.or(c.Kind)})
	}
	if left < 0 {
		return nil, mistake("group", "shares add up to %d percent", 100-left)
	}
	if left > 0 {
		if len(groups) > 0 && len(c.Groups) == 0 {
			return nil, mistake("software", "shares add up to %d percent, not 100", 100-left)
		}
		list = append(list, Group{left, c.Kind})
	}
	for _, g := range list {
		if err := g.check(c); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// parseShare reads VERSION:PERCENT.
func parseShare(s string) (version string, percent int, err error) {
	version, text, ok := strings.Cut(s, ":")
	if percent, err = strconv.Atoi(text); !ok || err != nil || percent < 1 || percent > 100 {
		return "", 0, mistake("software", "%q: must be VERSION:PERCENT, such as 1.1.0:30, if there are several", s)
	}
	return version, percent, nil
}

// or returns a kind that has of other what k leaves open.
func (k Kind) or(other Kind) Kind {
	out := other
	if k.Image != "" || len(k.Software) > 0 {
		out.Image, out.Software = k.Image, k.Software
	}
	if k.Hardware != "" {
		out.Hardware, out.Model = k.Hardware, k.Model
	}
	if k.Model != "" {
		out.Model = k.Model
	}
	if k.ConfigDir != "" {
		out.ConfigDir = k.ConfigDir
	}
	if k.RestartTime != 0 {
		out.RestartTime = k.RestartTime
	}
	if k.RateLimit != 0 {
		out.RateLimit = k.RateLimit
	}
	if k.BankSize != 0 {
		out.BankSize = k.BankSize
	}
	return out
}

// check returns an error for devices of a kind that cannot be.
func (k *Kind) check(c *Config) error {
	switch {
	case k.Hardware == "":
		return mistake("hardware", "must not be empty")
	case k.RateLimit < 0:
		return mistake("rate-limit", "must be a number of bytes per second, or 0 for no limit")
	case k.BankSize < 0:
		return mistake("bank-size", "must be a number of bytes, or 0 for no limit")
	case k.Image != "" && len(c.Trust) == 0:
		return mistake("image", "needs trust: the public key that it is signed with")
	case k.Image == "" && len(k.Software) != 1:
		return mistake("software", "must name one version for each kind of device, or several as VERSION:PERCENT")
	case k.Image == "" && strings.Contains(k.Software[0], ":"):
		_, percent, err := parseShare(k.Software[0])
		if err == nil && percent != 100 {
			err = mistake("software", "%q: the share of the only version must be 100", k.Software[0])
		}
		return err
	}
	return nil
}

// HardwareNames are those of all kinds of devices, each once.
func (c *Config) HardwareNames() (names []string) {
	kinds, _ := c.kinds() // what Check has found is not found again
	for _, k := range kinds {
		if !slices.Contains(names, k.Hardware) {
			names = append(names, k.Hardware)
		}
	}
	return names
}

// version is that of generated software.
func (k *Kind) version() string {
	version, _, _ := strings.Cut(k.Software[0], ":")
	return version
}

// equal reports whether the same disk is right for both kinds.
func (k *Kind) equal(other *Kind) bool {
	return slices.Equal(k.Software, other.Software) && k.Image == other.Image && k.ConfigDir == other.ConfigDir &&
		k.Hardware == other.Hardware && k.BankSize == other.BankSize
}
