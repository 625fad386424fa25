package inventory

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"example.com/iad/fleet"
	"example.com/iad/manager/device"
	"example.com/iad/mib"
)

// MaxSweep is the maximum number of addresses of one sweep.
const MaxSweep = 65536

// Range is a range of addresses.
type Range struct{ First, Last netip.Addr }

// ParseRange parses an address, FIRST-LAST or a network such as 192.0.2.0/24, whose first
// and last addresses are left out if it is an IPv4 network of more than two.
func ParseRange(s string) (Range, error) {
	bad := func() (Range, error) {
		return Range{}, fmt.Errorf("%.80q must be an address, FIRST-LAST or a network such as 192.0.2.0/24", s)
	}
	var r Range
	if strings.Contains(s, "/") {
		network, err := netip.ParsePrefix(s)
		if err != nil {
			return bad()
		}
		network = network.Masked()
		if network.Addr().BitLen()-network.Bits() > 16 {
			return r, fmt.Errorf("%s has more than %d addresses", s, MaxSweep)
		}
		r.First, r.Last = network.Addr(), lastOf(network)
		if r.First.Is4() && network.Bits() < 31 {
			r.First, r.Last = r.First.Next(), r.Last.Prev()
		}
		return r, nil
	}
	first, last, isRange := strings.Cut(s, "-")
	if !isRange {
		last = first
	}
	var errFirst, errLast error
	r.First, errFirst = netip.ParseAddr(strings.TrimSpace(first))
	r.Last, errLast = netip.ParseAddr(strings.TrimSpace(last))
	if errFirst != nil || errLast != nil || r.First.BitLen() != r.Last.BitLen() || r.Last.Less(r.First) || r.First.Zone() != r.Last.Zone() {
		return bad()
	}
	if r.Size() > MaxSweep {
		return r, fmt.Errorf("%s has more than %d addresses", s, MaxSweep)
	}
	return r, nil
}

func lastOf(network netip.Prefix) netip.Addr {
	bytes := network.Addr().AsSlice()
	for bit := network.Bits(); bit < len(bytes)*8; bit++ {
		bytes[bit/8] |= 0x80 >> (bit % 8)
	}
	last, _ := netip.AddrFromSlice(bytes)
	return last
}

// Size is the number of addresses, at most MaxSweep+1.
func (r Range) Size() int {
	n := 1
	for a := r.First; a != r.Last && n <= MaxSweep; a = a.Next() {
		n++
	}
	return n
}

// Inside reports whether all addresses are in one of the networks.
func (r Range) Inside(networks []netip.Prefix) bool {
	for _, n := range networks {
		if n.Contains(r.First) && n.Contains(r.Last) {
			return true
		}
	}
	return false
}

// Sweep looks for devices.
type Sweep struct {
	Range Range
	// Allowed are the networks that an admin allows; the range must be inside one of them.
	Allowed []netip.Prefix
	// Port of the SNMP agents; 0: 161.
	Port uint16
	// Secrets are tried one after the other until one fits.
	Secrets []fleet.Secret
	// Root is the OID of IAD-UPGRADE-MIB; nil: the usual one.
	Root mib.OID
	// Parallel is the number of addresses at the same time; 0: 64.
	Parallel int
	// Timeout is how long to wait for an answer; 0: 2 s. Nothing is sent twice.
	Timeout time.Duration
}

// Run asks every address. It calls found, one at a time, for every device that answers,
// named after its device ID and otherwise as Contact returns it, and done, if it is not nil, with the number of addresses asked so far. The error wraps
// that of ctx, or says that the range is not allowed.
func (s *Sweep) Run(ctx context.Context, found func(*fleet.Device), done func(asked int)) error {
	if !s.Range.Inside(s.Allowed) {
		return &fleet.FieldError{Field: "range", Problem: fmt.Sprintf("%v to %v is not in a network that an admin allows", s.Range.First, s.Range.Last)}
	}
	if len(s.Secrets) == 0 {
		return &fleet.FieldError{Field: "secrets", Problem: "at least one is required"}
	}
	parallel := s.Parallel
	if parallel <= 0 {
		parallel = 64
	}
	answers := make(chan *fleet.Device)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallel + 1)
	group.Go(func() error {
		for a := s.Range.First; ; a = a.Next() {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			address := a
			group.Go(func() error {
				d := s.ask(ctx, address)
				select {
				case answers <- d:
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			})
			if a == s.Range.Last {
				return nil
			}
		}
	})
	var err error
	go func() { err = group.Wait(); close(answers) }()
	asked := 0
	for d := range answers {
		if d != nil {
			found(d)
		}
		if asked++; done != nil {
			done(asked)
		}
	}
	return err
}

// ask asks one address; nil: no device answers there.
func (s *Sweep) ask(ctx context.Context, address netip.Addr) *fleet.Device {
	target := address.String()
	if s.Port != 0 && s.Port != 161 {
		target = net.JoinHostPort(target, strconv.Itoa(int(s.Port)))
	}
	for i := range s.Secrets {
		d, err := Contact(ctx, target, &s.Secrets[i], s.Root, s.Timeout)
		if err == nil {
			d.Name = fleet.NameFor(d.Identity.Device)
			if d.Name == "" {
				d.Name = fleet.NameFor(target)
			}
			return d
		}
		if ctx.Err() != nil {
			return nil
		}
	}
	return nil
}

// Contact reads what a device reports: identity, facts and contact of the result are set,
// and its address and the name of the credentials.
func Contact(ctx context.Context, address string, secret *fleet.Secret, root mib.OID, timeout time.Duration) (*fleet.Device, error) {
	client, err := device.Dial(device.Target{Address: address, Credentials: secret.Credentials(), Root: root, Timeout: timeout, Retries: -1})
	if err != nil {
		return nil, err
	}
	defer client.Close()
	read, err := client.Device(ctx)
	if err != nil {
		return nil, err
	}
	now := time.Now().UTC()
	identity := client.Identity()
	identity.Device, identity.Time = read.ID, now
	return &fleet.Device{
		Address: address, Credentials: secret.Name, Identity: &identity, Facts: fleet.FactsOf(read, now), Contact: fleet.Contact{Time: now},
	}, nil
}
