package fleet

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"example.com/iad/manager/device"
	"example.com/iad/mib"
)

// Device is a device of the inventory.
type Device struct {
	// Name is the operator's name of the device, which stands for one unit wherever it is
	// reached; see CheckName.
	Name string `json:"name"`
	// Address is HOST or HOST:PORT of the SNMP agent; the default port is 161.
	Address string `json:"address"`
	// RootOID is where IAD-UPGRADE-MIB is on the device; empty: the usual place.
	RootOID string `json:"root_oid,omitempty"`
	// Site is the name of a Site; empty: none.
	Site string `json:"site,omitempty"`
	// Pool is the name of the workers that reach the device; empty: "default".
	Pool string `json:"pool,omitempty"`
	// Tags are sorted and without duplicates; see CheckName.
	Tags []string `json:"tags,omitempty"`
	// Credentials is the name of a Secret; empty: "default".
	Credentials string `json:"credentials,omitempty"`
	// PreviousCredentials are names of secrets that are tried, one after the other, if the
	// device does not accept Credentials.
	PreviousCredentials []string `json:"previous_credentials,omitempty"`
	// Rotating is the campaign that has begun to give the device Credentials, as long as it is
	// not known whether the device has them; empty: none.
	Rotating string `json:"rotating,omitempty"`
	// Note is for people, up to 1,000 bytes.
	Note string `json:"note,omitempty"`
	// Identity is the unit that the name stands for, from the first contact; nil: not yet
	// known.
	Identity *device.Identity `json:"identity,omitempty"`
	// Facts are what the device reported last; nil: it was never reached.
	Facts *Facts `json:"facts,omitempty"`
	// Contact says how the last attempt to reach the device went.
	Contact Contact `json:"contact,omitzero"`
	// ActiveRun is the campaign that may carry out operations on the device now; empty:
	// none. It is changed by compare-and-set only, so that there is one at a time.
	ActiveRun string `json:"active_run,omitempty"`
	// LastCampaign and LastOutcome are those of the run that ended last.
	LastCampaign string   `json:"last_campaign,omitempty"`
	LastOutcome  RunState `json:"last_outcome,omitempty"`
	// Created is when the device was added.
	Created time.Time `json:"created"`
}

// DefaultPool is the pool of devices and workers for which none is named.
const DefaultPool = "default"

// DefaultSecret is the name of the secret for devices for which none is named.
const DefaultSecret = "default"

// Facts are what a device reports about itself.
type Facts struct {
	Model        string `json:"model,omitempty"`
	Hardware     string `json:"hardware,omitempty"`
	Version      string `json:"version,omitempty"` // empty: rescue mode
	ConfigFormat uint32 `json:"config_format"`
	Generation   uint32 `json:"generation"` // 0: defaults
	ConfigDigest string `json:"config_digest,omitempty"`
	RestartCount uint32 `json:"restart_count"`
	// BackupRecipient is to whom files for the device are encrypted; empty: it takes plain ones.
	BackupRecipient string `json:"backup_recipient,omitempty"`
	// TrustSerial is that of the trust document whose keys sign software for the device; 0: none.
	TrustSerial uint32 `json:"trust_serial,omitempty"`
	// Time is when it was read.
	Time time.Time `json:"time"`
}

// FactsOf returns the facts in what was read from a device at a time.
func FactsOf(d *device.Device, at time.Time) *Facts {
	return &Facts{
		Model: d.Model, Hardware: d.Hardware, Version: d.Version, ConfigFormat: d.ConfigFormat, Generation: d.Generation,
		ConfigDigest: hex.EncodeToString(d.ConfigDigest), RestartCount: d.RestartCount,
		BackupRecipient: d.BackupRecipient, TrustSerial: d.TrustSerial, Time: at,
	}
}

// Contact is an attempt to reach a device.
type Contact struct {
	// Time is when the attempt ended; zero: none was made.
	Time time.Time `json:"time,omitzero"`
	// Problem says why the device was not reached; empty: it was.
	Problem string `json:"problem,omitempty"`
	// Credentials is the name of the secret that the device accepted when it was last reached, if
	// it is not the one in force; empty: it is, or the device was never reached.
	Credentials string `json:"credentials,omitempty"`
	// Since is when a device that is not reached was last reached.
	Since time.Time `json:"since,omitzero"`
}

// Normalize sorts the tags and removes duplicates and white space around the values.
func (d *Device) Normalize() {
	for _, s := range []*string{&d.Name, &d.Address, &d.RootOID, &d.Site, &d.Pool, &d.Credentials} {
		*s = strings.TrimSpace(*s)
	}
	tags := make([]string, 0, len(d.Tags))
	for _, t := range d.Tags {
		if t = strings.TrimSpace(t); t != "" {
			tags = append(tags, t)
		}
	}
	slices.Sort(tags)
	d.Tags = slices.Compact(tags)
	if len(d.Tags) == 0 {
		d.Tags = nil
	}
}

// Validate returns the errors of all fields that an operator sets, each a *FieldError.
func (d *Device) Validate() error {
	p := newProblems()
	p.check("name", CheckName(d.Name))
	p.check("address", CheckAddress(d.Address))
	if d.RootOID != "" {
		_, err := mib.ParseRoot(d.RootOID)
		p.check("root_oid", err)
	}
	for field, value := range map[string]string{"site": d.Site, "pool": d.Pool, "credentials": d.Credentials} {
		if value != "" {
			p.check(field, CheckName(value))
		}
	}
	p.unless(len(d.Tags) <= 64, "tags", "a device has at most 64 tags")
	for i, t := range d.Tags {
		p.check(fmt.Sprintf("tags[%d]", i), CheckName(t))
	}
	p.check("note", checkText(d.Note, 1000))
	return p.err()
}

// PoolName returns the name of the pool.
func (d *Device) PoolName() string {
	if d.Pool == "" {
		return DefaultPool
	}
	return d.Pool
}

// SecretName returns the name of the secret.
func (d *Device) SecretName() string {
	if d.Credentials == "" {
		return DefaultSecret
	}
	return d.Credentials
}

// CheckAddress reports why s is not HOST or HOST:PORT of an SNMP agent.
func CheckAddress(s string) error {
	if s == "" {
		return errors.New("must be HOST or HOST:PORT")
	}
	if _, err := netip.ParseAddr(s); err == nil {
		return nil
	}
	host := s
	if h, port, err := net.SplitHostPort(s); err == nil {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return fmt.Errorf("%q: the port must be a number from 1 to 65535", s)
		}
		host = h
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return nil
	}
	if len(host) > 253 || !hostName(host) {
		return fmt.Errorf("%.80q must be HOST or HOST:PORT, with an IP address or a host name", s)
	}
	return nil
}

func hostName(s string) bool {
	for label := range strings.SplitSeq(strings.TrimSuffix(s, "."), ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for i := range len(label) {
			if !nameByte(label[i]) {
				return false
			}
		}
	}
	return true
}

// Site is a place with devices.
type Site struct {
	// Name is its name; see CheckName.
	Name string `json:"name"`
	// Title is for people.
	Title string `json:"title,omitempty"`
	// TimeZone is the name of a zone of the IANA database, such as "Europe/Berlin"; empty:
	// that of the campaign.
	TimeZone string `json:"time_zone,omitempty"`
	// Parallel is how many devices of the site are worked on at the same time, by all
	// campaigns together; 0: as many as the campaigns allow.
	Parallel int `json:"parallel,omitempty"`
}

// Validate returns the errors of all fields, each a *FieldError.
func (s *Site) Validate() error {
	p := newProblems()
	p.check("name", CheckName(s.Name))
	p.check("title", checkText(s.Title, 200))
	checkZone(p, "time_zone", s.TimeZone)
	p.unless(s.Parallel >= 0, "parallel", "must be 0 or more")
	return p.err()
}

func checkZone(p problems, field, name string) {
	if name == "Local" {
		p.add(field, "must name a zone such as Europe/Berlin, not the server's own")
	} else if _, err := time.LoadLocation(name); err != nil {
		p.add(field, "unknown time zone %.40q; use a name such as Europe/Berlin or UTC", name)
	}
}

// Group is a named filter on the inventory.
type Group struct {
	// Name is its name; see CheckName.
	Name string `json:"name"`
	// Filter is an expression of the filter language of package fleet/inventory.
	Filter string `json:"filter"`
}

// Validate returns the errors of all fields, each a *FieldError. It does not compile the
// filter.
func (g *Group) Validate() error {
	p := newProblems()
	p.check("name", CheckName(g.Name))
	p.unless(strings.TrimSpace(g.Filter) != "", "filter", "must not be empty")
	p.unless(len(g.Filter) <= maxFilter, "filter", "must have at most %d bytes", maxFilter)
	return p.err()
}

// maxFilter is the maximum length of a filter, in bytes.
const maxFilter = 4000
