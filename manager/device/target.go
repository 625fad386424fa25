package device

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"example.com/iad/mib"
)

// NotificationTarget is a row of snmpTargetAddrTable (RFC 3413 section 4.1): an address
// that the device sends notifications to.
type NotificationTarget struct {
	// Row is the index: the bytes of snmpTargetAddrName.
	Row mib.OID
	// Address is where the device sends; the zero AddrPort: it is not a UDP address.
	Address netip.AddrPort
	Domain  mib.OID
	// Suspended: the row is notInService, so that nothing is sent.
	Suspended bool
}

// Name returns the name of the target, for people.
func (t *NotificationTarget) Name() string {
	name := make([]byte, len(t.Row))
	for i, n := range t.Row {
		name[i] = byte(n)
	}
	return printable(name)
}

// Columns of snmpTargetAddrTable, and domains of its addresses.
var (
	targetEntry     = mib.MustParseOID("1.3.6.1.6.3.12.1.2.1")
	targetDomain    = targetEntry.Append(2)
	targetAddress   = targetEntry.Append(3)
	targetRowStatus = targetEntry.Append(9)

	snmpUDPDomain = mib.MustParseOID("1.3.6.1.6.1.1")
	udpIPv4Domain = mib.MustParseOID("1.3.6.1.2.1.100.1.1")
	udpIPv6Domain = mib.MustParseOID("1.3.6.1.2.1.100.1.2")
	domainLengths = map[string]int{snmpUDPDomain.String(): 4, udpIPv4Domain.String(): 4, udpIPv6Domain.String(): 16}
	rowActive     = mib.Int32(1)
	rowSuspended  = mib.Int32(2)
)

// maxTargets is the maximum number of rows that are read.
const maxTargets = 1000

// NotificationTargets returns the addresses that the device sends notifications to. The
// error wraps ErrNotSupported if the device does not have the table.
func (c *Client) NotificationTargets(ctx context.Context) ([]NotificationTarget, error) {
	var targets []NotificationTarget
	for at := targetDomain; ; {
		vb, err := c.getNext(ctx, at)
		if err != nil {
			return nil, err
		}
		if vb.Value.IsException() || !vb.OID.HasPrefix(targetDomain) {
			break
		}
		if vb.OID.Compare(at) <= 0 {
			return nil, fmt.Errorf("%s: the agent's answers are out of order at %s", c.address, vb.OID)
		}
		at = vb.OID
		if len(targets) == maxTargets {
			return nil, fmt.Errorf("%s: snmpTargetAddrTable has more than %d rows", c.address, maxTargets)
		}
		targets = append(targets, NotificationTarget{Row: slices.Clone(at[len(targetDomain):]), Domain: vb.Value.OID})
	}
	if len(targets) == 0 {
		return nil, fmt.Errorf("%s: snmpTargetAddrTable is empty or cannot be read: %w: the agent's software is too old, no target is set on the device, "+
			"or the user's view does not include 1.3.6.1.6.3.12", c.address, ErrNotSupported)
	}
	for i := range targets {
		if err := c.readTarget(ctx, &targets[i]); err != nil {
			return nil, err
		}
	}
	return targets, nil
}

// readTarget reads where a target is and whether it is in use.
func (c *Client) readTarget(ctx context.Context, t *NotificationTarget) error {
	vbs, err := c.get(ctx, []mib.OID{targetAddress.Append(t.Row...), targetRowStatus.Append(t.Row...)})
	if err != nil {
		return err
	}
	t.Address = netip.AddrPort{}
	if n, ok := domainLengths[t.Domain.String()]; ok && len(vbs[0].Value.Bytes) == n+2 {
		b := vbs[0].Value.Bytes
		if a, ok := netip.AddrFromSlice(b[:n]); ok {
			t.Address = netip.AddrPortFrom(a, uint16(b[n])<<8|uint16(b[n+1]))
		}
	}
	t.Suspended = vbs[1].Value.Int == rowSuspended.Int
	return nil
}

// CheckMove reports why a target cannot get an address: it stays in its domain.
func (t *NotificationTarget) CheckMove(to netip.AddrPort) error {
	n, ok := domainLengths[t.Domain.String()]
	if !ok {
		return fmt.Errorf("the notification target %s is in the transport domain %s, not in one of UDP; change it on the device", Quoted(t.Name()), t.Domain)
	}
	if !to.IsValid() || to.Port() == 0 || len(to.Addr().AsSlice()) != n {
		family := map[int]string{4: "IPv4", 16: "IPv6"}[n]
		return fmt.Errorf("the notification target %s is for %s and cannot be moved to %s; give an %s address", Quoted(t.Name()), family, to, family)
	}
	return nil
}

// MoveTarget gives a target another address and reads it back. A row that may not be
// changed while it is in use is suspended for the moment; resume also activates a row that
// is suspended already, because an earlier MoveTarget was interrupted.
func (c *Client) MoveTarget(ctx context.Context, t NotificationTarget, to netip.AddrPort, resume bool) error {
	if err := t.CheckMove(to); err != nil {
		return fmt.Errorf("%s: %w", c.address, err)
	}
	address := mib.Varbind{OID: targetAddress.Append(t.Row...), Value: mib.Octets(append(to.Addr().AsSlice(), byte(to.Port()>>8), byte(to.Port())))}
	status := func(v mib.Value) mib.Varbind { return mib.Varbind{OID: targetRowStatus.Append(t.Row...), Value: v} }
	var err error
	if t.Suspended && resume {
		err = c.set(ctx, []mib.Varbind{address, status(rowActive)})
	} else {
		err = c.set(ctx, []mib.Varbind{address})
	}
	var refused *SetError
	if errors.As(err, &refused) && refused.Status == mib.InconsistentValue && !t.Suspended { // RFC 3413: not while the row is active
		if err = c.set(ctx, []mib.Varbind{status(rowSuspended)}); err == nil {
			if err = c.set(ctx, []mib.Varbind{address, status(rowActive)}); errors.As(err, &refused) {
				err = errors.Join(err, c.set(ctx, []mib.Varbind{status(rowActive)}))
			}
		}
	}
	if errors.As(err, &refused) && t.Suspended && resume { // where it is, it can at least be in use
		err = errors.Join(err, c.set(ctx, []mib.Varbind{status(rowActive)}))
	}
	if errors.As(err, &refused) {
		remedy := ""
		switch refused.Status {
		case mib.NoAccess, mib.NotWritable, mib.NoCreation, mib.AuthorizationError:
			remedy = "; the user needs write access to 1.3.6.1.6.3.12, and a target that snmpd has from a line such as trapsess in its configuration file can only be changed there"
		}
		return fmt.Errorf("%s: the notification target %s cannot be moved: %w%s", c.address, Quoted(t.Name()), err, remedy)
	}
	if err != nil {
		return err
	}
	wanted := !t.Suspended || resume
	if err := c.readTarget(ctx, &t); err != nil {
		return err
	}
	if t.Suspended && wanted {
		return fmt.Errorf("%s: the notification target %s is still suspended (its snmpTargetAddrRowStatus is notInService), so nothing is sent to it; activate it on the device", c.address, Quoted(t.Name()))
	}
	if t.Address != to {
		return fmt.Errorf("%s: the notification target %s is still at %s: the device accepted %s and did not use it", c.address, Quoted(t.Name()), t.Address, to)
	}
	return nil
}
