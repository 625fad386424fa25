package mib

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

var errInetAddress = errors.New("mib: not an InetAddress")

// InetAddress returns a host, an IP address or a host name, as InetAddressType
// and InetAddress of RFC 4001. The zone of an IPv6 address has to be a
// number. An empty host gives unknown and no bytes.
func InetAddress(host string) (InetAddressType, []byte, error) {
	if host == "" {
		return InetAddressTypeUnknown, []byte{}, nil
	}
	a, err := netip.ParseAddr(host)
	if err != nil {
		if !isHostName(host) {
			return InetAddressTypeUnknown, nil, fmt.Errorf("%w: %q is neither an IP address nor a host name", errInetAddress, host)
		}
		return InetAddressTypeDns, []byte(host), nil
	}
	switch {
	case a.Is4():
		return InetAddressTypeIpv4, a.AsSlice(), nil
	case a.Zone() == "":
		return InetAddressTypeIpv6, a.AsSlice(), nil
	}
	zone, err := strconv.ParseUint(a.Zone(), 10, 32)
	if err != nil {
		return InetAddressTypeUnknown, nil, fmt.Errorf("%w: the zone of %q is not a number: give the index of the device's interface, or no zone", errInetAddress, host)
	}
	return InetAddressTypeIpv6z, binary.BigEndian.AppendUint32(a.AsSlice(), uint32(zone)), nil
}

// ParseInetAddress returns the host that an InetAddress of the given type
// stands for, as it can be dialled: an IP address, with a zone for ipv6z, or
// a host name; empty for unknown. The error says what is wrong with the pair;
// ipv4z, an IPv4 address with a zone, is not supported.
func ParseInetAddress(typ InetAddressType, b []byte) (host string, err error) {
	size := map[InetAddressType]int{InetAddressTypeUnknown: 0, InetAddressTypeIpv4: 4, InetAddressTypeIpv6: 16, InetAddressTypeIpv6z: 20}
	want, fixed := size[typ]
	switch {
	case fixed && len(b) != want:
		return "", fmt.Errorf("%w: %v has %d octets, not %d", errInetAddress, typ, want, len(b))
	case typ == InetAddressTypeUnknown:
		return "", nil
	case typ == InetAddressTypeIpv4 || typ == InetAddressTypeIpv6:
		a, _ := netip.AddrFromSlice(b)
		return a.String(), nil
	case typ == InetAddressTypeIpv6z:
		a := netip.AddrFrom16([16]byte(b))
		return a.WithZone(strconv.FormatUint(uint64(binary.BigEndian.Uint32(b[16:])), 10)).String(), nil
	case typ == InetAddressTypeDns:
		if !isHostName(string(b)) {
			return "", fmt.Errorf("%w: %q is not a host name", errInetAddress, b)
		}
		return string(b), nil
	}
	return "", fmt.Errorf("%w: type %v is not supported", errInetAddress, typ)
}

// isHostName reports whether s is a host name of up to 255 bytes with labels
// of up to 63 letters, digits, hyphens and underscores (RFC 1123 section 2.1;
// the underscore is in use all the same). A dot may end it. A last label of
// digits is that of a mistyped IPv4 address.
func isHostName(s string) bool {
	if len(s) > 255 {
		return false
	}
	letter := false
	for label := range strings.SplitSeq(strings.TrimSuffix(s, "."), ".") {
		if len(label) == 0 || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		letter = false
		for _, c := range []byte(label) {
			letter = letter || c < '0' || c > '9'
			if c != '-' && c != '_' && (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') {
				return false
			}
		}
	}
	return letter
}
