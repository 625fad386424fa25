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

// config is the user with what it may do, at its level and above.
func (u *User) config() (snmp.User, error) {
	user, err := u.usm()
	if err != nil {
		return user, fmt.Errorf("snmp user %s: %w", u.Name, err)
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
			return user, fmt.Errorf("snmp user %s: %w", u.Name, err)
		}
	}
	if access.Sources, err = prefixes(u.Sources); err != nil {
		return user, fmt.Errorf("snmp user %s: %w", u.Name, err)
	}
	if len(u.WriteView) > 0 && !u.Write {
		return user, fmt.Errorf("snmp user %s: write_view without write = true", u.Name)
	}
	for _, v := range []struct {
		view *snmp.View
		list []string
		not  bool
	}{{&access.Read, u.ReadView, false}, {&access.Write, u.WriteView, !u.Write}, {&access.Notify, u.NotifyView, false}} {
		if v.not {
			continue
		}
		if *v.view, err = subtrees(v.list); err != nil {
			return user, fmt.Errorf("snmp user %s: %w", u.Name, err)
		}
	}
	user.Access = []snmp.Access{access}
	return user, nil
}

// usm is the user without access to anything.
func (u *User) usm() (snmp.User, error) {
	user := snmp.User{Name: u.Name, AuthPassphrase: u.AuthPassphrase, PrivPassphrase: u.PrivPassphrase}
	if err := user.Auth.UnmarshalText([]byte(cmp.Or(u.Auth, "none"))); err != nil {
		return user, err
	}
	return user, user.Priv.UnmarshalText([]byte(cmp.Or(u.Priv, "none")))
}

func level(name string) (snmp.Level, error) {
	for _, l := range []snmp.Level{snmp.NoAuthNoPriv, snmp.AuthNoPriv, snmp.AuthPriv} {
		if l.String() == name {
			return l, nil
		}
	}
	return 0, fmt.Errorf("level: %q is none of noAuthNoPriv, authNoPriv, authPriv", name)
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
