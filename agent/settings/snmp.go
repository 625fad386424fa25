package settings

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"example.com/iad/agent/snmp"
	"example.com/iad/mib"
)

// config makes the configuration of the engine, whose socket the caller opens;
// nil if the engine has nothing to do.
func (p *SNMP) config(s *Settings, version string) (*snmp.Config, error) {
	if p.Listen == "" && len(p.Sinks) == 0 {
		return nil, nil
	}
	sources, err := prefixes(p.Sources)
	if err != nil {
		return nil, s.mistake("snmp.sources", 0)
	}
	c := &snmp.Config{
		WeakCrypto: p.WeakCrypto,
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
	for i := range p.Users {
		user, key, err := p.Users[i].config()
		if err != nil {
			return nil, err
		}
		if key != "" {
			return nil, s.mistake("snmp.users."+key, i)
		}
		c.Users = append(c.Users, user)
	}
	for _, k := range p.Sinks {
		c.Sinks = append(c.Sinks, snmp.Sink{Address: k.Address, Community: k.Community, User: k.User, Inform: k.Inform})
	}
	return c, nil
}

// config is the user with what it may do, at its level and above. key is the setting
// with a value that it cannot have.
func (u *User) config() (user snmp.User, key string, err error) {
	user = snmp.User{Name: u.Name, AuthPassphrase: u.AuthPassphrase, PrivPassphrase: u.PrivPassphrase}
	if user.Auth.UnmarshalText([]byte(cmp.Or(u.Auth, "none"))) != nil {
		return user, "auth", nil
	}
	if user.Priv.UnmarshalText([]byte(cmp.Or(u.Priv, "none"))) != nil {
		return user, "priv", nil
	}
	access := snmp.Access{Level: snmp.NoAuthNoPriv}
	switch {
	case user.Priv != snmp.NoPriv:
		access.Level = snmp.AuthPriv
	case user.Auth != snmp.NoAuth:
		access.Level = snmp.AuthNoPriv
	}
	if u.Level != "" {
		if access.Level, err = level(u.Level); err != nil {
			return user, "level", nil
		}
	}
	if access.Sources, err = prefixes(u.Sources); err != nil {
		return user, "sources", nil
	}
	if len(u.WriteView) > 0 && !u.Write {
		return user, "", fmt.Errorf("snmp user %s: write_view without write = true", u.Name)
	}
	for _, v := range []struct {
		key  string
		view *snmp.View
		list []string
		not  bool
	}{{"read_view", &access.Read, u.ReadView, false}, {"write_view", &access.Write, u.WriteView, !u.Write}, {"notify_view", &access.Notify, u.NotifyView, false}} {
		if v.not {
			continue
		}
		if *v.view, err = subtrees(v.list); err != nil {
			return user, v.key, nil
		}
	}
	if u.Write {
		access.Write = withKeys(access.Write, u.WriteView)
	}
	user.Access = []snmp.Access{access}
	return user, "", nil
}

// withKeys adds to the view of a list what the list does not say about keys: a user who may write
// changes its own keys. For those of others the list has to name a subtree that has them.
func withKeys(view snmp.View, list []string) snmp.View {
	if !slices.ContainsFunc(list, func(s string) bool { return !strings.HasPrefix(s, "!") }) {
		for _, oid := range snmp.OtherKeys() {
			view = append(view, snmp.Subtree{OID: oid, Excluded: true})
		}
		return view
	}
	for _, oid := range snmp.OwnKeys() {
		if !slices.ContainsFunc(view, func(s snmp.Subtree) bool { return s.Excluded && (oid.HasPrefix(s.OID) || s.OID.HasPrefix(oid)) }) {
			view = append(view, snmp.Subtree{OID: oid})
		}
	}
	return view
}

func level(name string) (snmp.Level, error) {
	for _, l := range []snmp.Level{snmp.NoAuthNoPriv, snmp.AuthNoPriv, snmp.AuthPriv} {
		if l.String() == name {
			return l, nil
		}
	}
	return 0, fmt.Errorf("unknown level %q (want noAuthNoPriv, authNoPriv or authPriv)", name)
}

// subtrees is the view of a list of object identifiers, of which those with "!"
// before them are left out; without any to take in, that is everything else.
func subtrees(list []string) (snmp.View, error) {
	var view snmp.View
	if !slices.ContainsFunc(list, func(s string) bool { return !strings.HasPrefix(s, "!") }) {
		view = snmp.Everything()
	}
	for _, text := range list {
		name, excluded := strings.CutPrefix(text, "!")
		oid, err := mib.ParseOID(name)
		if err != nil {
			return nil, fmt.Errorf("view: %w", err)
		}
		view = append(view, snmp.Subtree{OID: oid, Excluded: excluded})
	}
	return view, nil
}

func prefixes(list []string) (out []netip.Prefix, err error) {
	for _, s := range list {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			a, aerr := netip.ParseAddr(s)
			if aerr != nil {
				return nil, fmt.Errorf("snmp sources: %w", err)
			}
			p = netip.PrefixFrom(a, a.BitLen())
		}
		out = append(out, p)
	}
	return out, nil
}
