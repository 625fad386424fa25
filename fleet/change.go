package fleet

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"
)

// Operations that change how devices are reached and where they send notifications.
const (
	OperationRotate OperationKind = "rotate-credentials" // the passphrases of the SNMPv3 user
	OperationMove   OperationKind = "move-targets"       // the addresses that notifications are sent to
)

// ChangesAccess reports whether the operation changes how devices are reached or where they
// send notifications. It asks no questions, and a campaign can undo what another one did.
func (k OperationKind) ChangesAccess() bool { return k == OperationRotate || k == OperationMove }

// TargetMove says which notification targets of devices get another address.
type TargetMove struct {
	// From are the addresses IP:PORT that are replaced: other targets are not changed.
	From []string `json:"from"`
	// To is the address IP:PORT that they get.
	To string `json:"to"`
}

// Change is what a run changes on its device. It is stored before the device is asked for
// it, so that another run can undo it.
type Change struct {
	// From and To are the names of secrets, for OperationRotate.
	From string `json:"from,omitempty"`
	To   string `json:"to,omitempty"`
	// Targets are those of the device that are moved, for OperationMove.
	Targets []MovedTarget `json:"targets,omitempty"`
	// Done: the device was read back afterwards.
	Done bool `json:"done,omitempty"`
}

// MovedTarget is a notification target of a device.
type MovedTarget struct {
	// Row is the index in snmpTargetAddrTable; Name is what it stands for.
	Row  string `json:"row"`
	Name string `json:"name"`
	From string `json:"from"`
	To   string `json:"to"`
	// Suspended: the target was not in use before, and need not be afterwards.
	Suspended bool `json:"suspended,omitempty"`
}

// String describes the change for people.
func (c *Change) String() string {
	if c.To != "" {
		return fmt.Sprintf("credentials %s -> %s", c.From, c.To)
	}
	text := ""
	for i, t := range c.Targets {
		if i > 0 {
			text += ", "
		}
		text += fmt.Sprintf("target %q %s -> %s", t.Name, t.From, t.To)
	}
	return text
}

// WayBack returns the specification of a campaign that undoes this one, as carefully as it
// was carried out.
func (c *Campaign) WayBack() CampaignSpec {
	s := c.Spec
	s.Title = strings.ToValidUTF8(("Undo " + s.Title)[:min(len("Undo ")+len(s.Title), 200)], "")
	s.Filter, s.Back = "true", c.ID
	s.Credentials, s.Renew, s.Targets, s.NotBefore, s.Deadline = "", "", nil, time.Time{}, time.Time{}
	return s
}

// SecretNames returns the names of the secrets that the device may accept, those in force
// first.
func (d *Device) SecretNames() []string {
	return append([]string{d.SecretName()}, slices.DeleteFunc(slices.Clone(d.PreviousCredentials), func(name string) bool { return name == d.SecretName() })...)
}

// ReplaceCredentials gives the device the secret with this name. Those before stay among the
// previous ones, so that the device is reached whatever it accepts. What it accepted when it was
// last reached stays known until it is reached again.
func (d *Device) ReplaceCredentials(name string) {
	if cmp.Or(name, DefaultSecret) == d.SecretName() {
		d.Credentials = name
		return
	}
	before, accepted := d.SecretNames(), cmp.Or(d.Contact.Credentials, d.SecretName())
	d.Credentials, d.Contact.Credentials = name, ""
	if d.Facts != nil && accepted != d.SecretName() {
		d.Contact.Credentials = accepted
	}
	d.PreviousCredentials = slices.DeleteFunc(before, func(n string) bool { return n == d.SecretName() })
}

// ParseTarget parses the address IP:PORT of a notification target.
func ParseTarget(s string) (netip.AddrPort, error) {
	a, err := netip.ParseAddrPort(s)
	if err != nil || a.Port() == 0 || a.Addr().Zone() != "" {
		return netip.AddrPort{}, fmt.Errorf("%.80q must be an IP address and a port, such as 192.0.2.1:162 or [2001:db8::1]:162", s)
	}
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()), nil
}

// validateChange checks the fields of the operations that change access.
func (s *CampaignSpec) validateChange(p problems) {
	rotates, moves := s.Operation == OperationRotate, s.Operation == OperationMove
	p.unless(rotates || s.Credentials == "", "credentials", "is for the operation %s only", OperationRotate)
	p.unless(rotates || s.Renew == "", "renew", "is for the operation %s only", OperationRotate)
	p.unless(moves || s.Targets == nil, "targets", "is for the operation %s only", OperationMove)
	p.unless(rotates || moves || s.Back == "", "back", "is for the operations %s and %s only", OperationRotate, OperationMove)
	if !rotates && !moves {
		return
	}
	options := s.Options
	options.OtherDevice = false
	p.unless(reflect.DeepEqual(options, RunOptions{}), "options", "must be empty except for other_device: the operation %s transfers no files and asks no questions", s.Operation)
	if s.Back != "" {
		p.check("back", CheckID(s.Back))
		p.unless(s.Credentials == "" && s.Renew == "", "credentials", "must be empty with back: each device gets back the credentials that it had")
		p.unless(s.Targets == nil, "targets", "must be empty with back: each device gets back the addresses that it had")
		return
	}
	switch {
	case rotates && s.Credentials == "" && s.Renew == "":
		p.add("credentials", "must name the credentials that the devices get; or name in renew those whose user gets random passphrases")
	case rotates:
		for field, name := range map[string]string{"credentials": s.Credentials, "renew": s.Renew} {
			if name != "" {
				p.check(field, CheckName(name))
			}
		}
	case s.Targets == nil:
		p.add("targets", "must say which addresses are replaced by which one")
	default:
		s.Targets.validate(p.in("targets"))
	}
}

func (t *TargetMove) validate(p problems) {
	to, err := ParseTarget(t.To)
	p.check("to", err)
	p.unless(len(t.From) > 0, "from", "must name the addresses that are replaced, so that no other target is changed")
	p.unless(len(t.From) <= 100, "from", "must have at most 100 addresses")
	for i, text := range t.From {
		from, fromErr := ParseTarget(text)
		if fromErr == nil && err == nil && from == to {
			fromErr = errors.New("is the address that the targets get")
		}
		p.check(fmt.Sprintf("from[%d]", i), fromErr)
	}
}
