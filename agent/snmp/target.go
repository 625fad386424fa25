package snmp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"example.com/iad/mib"
)

// Columns of snmpTargetAddrTable (RFC 3413 section 4.1).
const (
	targetTDomain     = 2
	targetTAddress    = 3
	targetTimeout     = 4
	targetRetryCount  = 5
	targetTagList     = 6
	targetParams      = 7
	targetStorageType = 8
	targetRowStatus   = 9
)

var (
	oidTargetObjects  = mib.MustParseOID("1.3.6.1.6.3.12.1")
	oidTargetSpinLock = oidTargetObjects.Append(1, 0)
	oidTargetAddr     = oidTargetObjects.Append(2)
	oidTargetEntry    = oidTargetAddr.Append(1)
)

// Transport domains of RFC 3417 and RFC 3419.
var (
	domainUDP   = mib.MustParseOID("1.3.6.1.6.1.1")
	domainIPv4  = mib.MustParseOID("1.3.6.1.2.1.100.1.1")
	domainIPv6  = mib.MustParseOID("1.3.6.1.2.1.100.1.2")
	domainIPv6z = mib.MustParseOID("1.3.6.1.2.1.100.1.4")
	domainDNS   = mib.MustParseOID("1.3.6.1.2.1.100.1.14")
)

// maxTAddress is the size of a TAddress (RFC 2579).
const maxTAddress = 255

// endpoint is the address of a target, as the table has it and as Config.Dial takes it.
type endpoint struct {
	domain   mib.OID
	taddress []byte
	address  string
	gone     string // name of the interface that a stored address needs, if the device has no such interface
}

// endpointOf is the endpoint HOST:PORT of the configuration.
func endpointOf(address string) endpoint {
	host, port, err := net.SplitHostPort(address)
	number, bad := strconv.ParseUint(port, 10, 16)
	ip, noIP := netip.ParseAddr(host)
	if err != nil || bad != nil || noIP != nil {
		return endpoint{domain: domainDNS, taddress: []byte(address), address: address}
	}
	e := endpoint{domain: domainUDP, taddress: ip.WithZone("").AsSlice(), address: netip.AddrPortFrom(ip, uint16(number)).String()}
	switch {
	case ip.Zone() != "":
		e.domain = domainIPv6z
		e.taddress = binary.BigEndian.AppendUint32(e.taddress, zoneIndex(ip.Zone()))
	case ip.Is6():
		e.domain = domainIPv6
	}
	e.taddress = binary.BigEndian.AppendUint16(e.taddress, uint16(number))
	return e
}

// zoneIndex is the number of an interface, 0 if there is none.
func zoneIndex(zone string) uint32 {
	if i, err := net.InterfaceByName(zone); err == nil {
		return uint32(i.Index)
	}
	n, _ := strconv.ParseUint(zone, 10, 32)
	return uint32(n)
}

var errUnusable = errors.New("this address is not that of a receiver")

// check fills in the address. The error wraps errUnusable for an address that the domain has
// and that is of no use.
func (e endpoint) check() (endpoint, error) {
	size := map[string]int{domainUDP.String(): 6, domainIPv4.String(): 6, domainIPv6.String(): 18, domainIPv6z.String(): 22}[e.domain.String()]
	if size == 0 {
		return e.checkDNS()
	}
	if len(e.taddress) != size {
		return e, fmt.Errorf("an address of the domain %v has %d bytes, not %d", e.domain, size, len(e.taddress))
	}
	length := 4
	if size > 6 {
		length = 16
	}
	ip, _ := netip.AddrFromSlice(e.taddress[:length])
	if zone := e.taddress[length : size-2]; len(zone) > 0 {
		if e.gone != "" {
			ip = ip.WithZone(e.gone) // it may come back, and its number may be another one's
		} else if n := binary.BigEndian.Uint32(zone); n > 0 {
			ip = ip.WithZone(strconv.FormatUint(uint64(n), 10))
		}
	}
	port := binary.BigEndian.Uint16(e.taddress[size-2:])
	e.address = netip.AddrPortFrom(ip, port).String()
	if port == 0 || ip.IsUnspecified() || ip.IsMulticast() || ip == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return e, fmt.Errorf("%s: %w", e.address, errUnusable)
	}
	return e, nil
}

// checkDNS is check for a name and a port.
func (e endpoint) checkDNS() (endpoint, error) {
	e.address = string(e.taddress)
	host, port, err := net.SplitHostPort(e.address)
	n, bad := strconv.ParseUint(port, 10, 16)
	strange := strings.ContainsFunc(host, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == ':' || r == '%' })
	if err != nil || bad != nil || n == 0 || host == "" || strange {
		return e, fmt.Errorf("%q is not NAME:PORT", e.address)
	}
	return e, nil
}

// equal reports whether two endpoints are the same, whatever the domain is called.
func (e endpoint) equal(o endpoint) bool {
	return e.address != "" && e.address == o.address || e.domain.Compare(o.domain) == 0 && string(e.taddress) == string(o.taddress)
}

// targetTable has a row for each sink, with the names target1, target2 and so on in the order
// of the configuration.
var targetTable = table{
	entry: oidTargetEntry, first: targetTDomain, last: targetRowStatus,
	rows: func(e *Engine) []row {
		rows := make([]row, len(e.sinks))
		for i, s := range e.sinks {
			rows[i] = s
		}
		slices.SortFunc(rows, func(a, b row) int { return a.rowIndex().Compare(b.rowIndex()) })
		return rows
	},
}

func (s *sink) rowIndex() mib.OID { return s.index }

func (s *sink) column(n uint32) mib.Value {
	at := s.present()
	switch n {
	case targetTDomain:
		return mib.ID(at.domain)
	case targetTAddress:
		return mib.Octets(at.taddress)
	case targetTimeout:
		return mib.Int32(int64(s.Timeout / (10 * time.Millisecond)))
	case targetRetryCount:
		return mib.Int32(int64(s.Retries))
	case targetTagList:
		if s.Inform {
			return mib.Str("inform")
		}
		return mib.Str("trap")
	case targetParams:
		// A community is a secret of sorts, and who the users are is not for everybody.
		if s.user != nil {
			return mib.Str("v3")
		}
		return mib.Str("v2c")
	case targetStorageType:
		return mib.Int32(storagePermanent)
	}
	if s.held() != nil {
		return mib.Int32(rowNotInService)
	}
	return mib.Int32(rowActive)
}

// holdTime is how long a row may be out of service: a manager that does not finish what it
// began changes nothing (RFC 2579, RowStatus).
const holdTime = 5 * time.Minute

// held is the endpoint that a manager prepares while the row is out of service, nil if it is in service.
// Until it is in service again notifications go where they went before.
func (s *sink) held() *endpoint {
	if s.pending != nil && s.engine.now().Sub(s.since) >= holdTime {
		s.pending = nil
	}
	return s.pending
}

// present is what the table shows.
func (s *sink) present() endpoint {
	if p := s.held(); p != nil {
		return *p
	}
	return *s.at.Load()
}

// targetSet is what a SET changes of a row of snmpTargetAddrTable.
type targetSet struct {
	pos      int // of the varbind that is to blame if all of them do not fit together
	domain   mib.OID
	taddress []byte
	status   int64
	hold     bool // the row is out of service afterwards
	to       endpoint
}

func (s *ownSet) assignTarget(pos int, vb mib.Varbind) (mib.Status, string) {
	if vb.OID.Compare(oidTargetSpinLock) == 0 {
		s.targetLock = true
		return testAndIncr(vb.Value, s.engine.targetLock)
	}
	column, r, ok := targetTable.find(s.engine, vb.OID)
	switch {
	case !ok:
		return mib.NotWritable, vb.OID.String() + " is not a writable object"
	case r == nil:
		return mib.NoCreation, "there is no such target; targets are made in iad.toml"
	}
	set := s.targets[r.(*sink)]
	if set == nil {
		set = &targetSet{pos: pos}
		s.targets[r.(*sink)] = set
	}
	v := vb.Value
	switch column {
	case targetTDomain:
		known := func(d mib.OID) bool { return d.Compare(v.OID) == 0 }
		switch {
		case v.Type != mib.ObjectIdentifier:
			return mib.WrongType, "snmpTargetAddrTDomain is an OBJECT IDENTIFIER"
		case !slices.ContainsFunc([]mib.OID{domainUDP, domainIPv4, domainIPv6, domainIPv6z, domainDNS}, known):
			return mib.WrongValue, fmt.Sprintf("%v is not a domain of UDP", v.OID)
		}
		set.domain = slices.Clone(v.OID)
	case targetTAddress:
		switch {
		case v.Type != mib.OctetString:
			return mib.WrongType, "snmpTargetAddrTAddress is an OCTET STRING"
		case len(v.Bytes) == 0 || len(v.Bytes) > maxTAddress:
			return mib.WrongLength, fmt.Sprintf("snmpTargetAddrTAddress has 1 to %d bytes", maxTAddress)
		}
		set.taddress, set.pos = slices.Clone(v.Bytes), pos
	case targetRowStatus:
		switch {
		case v.Type != mib.Integer:
			return mib.WrongType, "snmpTargetAddrRowStatus is an INTEGER"
		case v.Int == rowCreateAndGo, v.Int == rowCreateAndWait, v.Int == rowDestroy:
			return mib.InconsistentValue, "targets are made and removed in iad.toml"
		case v.Int != rowActive && v.Int != rowNotInService:
			return mib.WrongValue, "snmpTargetAddrRowStatus is set to active or notInService"
		}
		set.status = v.Int
	default:
		return mib.NotWritable, "only the address of a target can be changed; the rest is in iad.toml"
	}
	return mib.NoError, ""
}

// finish judges what a SET makes of the row.
func (set *targetSet) finish(s *sink) (mib.Status, string) {
	set.to = s.present()
	set.to.address = "" // of what may have changed
	if set.domain != nil || set.taddress != nil {
		set.to.gone = ""
	}
	if set.domain != nil {
		set.to.domain = set.domain
	}
	if set.taddress != nil {
		set.to.taddress = set.taddress
	}
	set.hold = set.status == rowNotInService || set.status == 0 && s.held() != nil
	if set.hold {
		return mib.NoError, "" // it is judged when the row is to be active
	}
	if set.to.equal(s.configured) {
		set.to = s.configured
		return mib.NoError, ""
	}
	var err error
	switch set.to, err = set.to.check(); {
	case errors.Is(err, errUnusable):
		return mib.WrongValue, err.Error()
	case err != nil:
		return mib.InconsistentValue, err.Error()
	}
	if set.to.equal(s.configured) {
		set.to = s.configured
	}
	return mib.NoError, ""
}

// endpoint is where notifications go after the SET.
func (set *targetSet) endpoint(s *sink) endpoint {
	if set.hold {
		return *s.at.Load()
	}
	return set.to
}

// done puts the change in force.
func (set *targetSet) done(s *sink, by string) {
	if set.hold {
		s.pending, s.since = &set.to, s.engine.now()
		return
	}
	s.pending = nil
	if was := s.at.Load(); !was.equal(set.to) {
		s.engine.log.Info("a manager has moved a target of notifications", "from", was.address, "to", set.to.address, "by", by)
	}
	s.at.Store(&set.to)
}

// targetChange is a row of snmpTargetAddrTable that differs from the configuration.
type targetChange struct {
	// Settings is the address in the configuration. If it has another one now, that one counts.
	Settings string `json:"settings"`
	Nth      int    `json:"nth,omitempty"` // of several with that address
	Domain   string `json:"domain"`
	Address  []byte `json:"address"`
	// Zone is the name of the interface that Address has the number of, which may be another one
	// after a restart.
	Zone string `json:"zone,omitempty"`
}

// endpoint is where the target is.
func (c *targetChange) endpoint() (e endpoint, err error) {
	if e.domain, err = mib.ParseOID(c.Domain); err != nil {
		return e, err
	}
	e.taddress = c.Address
	if at := len(c.Address) - 6; c.Zone != "" && at > 0 && e.domain.Compare(domainIPv6z) == 0 {
		if n := zoneIndex(c.Zone); n > 0 {
			e.taddress = slices.Clone(c.Address)
			binary.BigEndian.PutUint32(e.taddress[at:], n)
		} else {
			e.gone = c.Zone
		}
	}
	return e.check()
}

// lost reports whether the interface is gone that the target is to be reached through.
func (c *targetChange) lost() bool { return c.Zone != "" && zoneIndex(c.Zone) == 0 }

// zone is the name of the interface that an address has the number of, "" if there is none.
func (e endpoint) zone() string {
	if e.gone != "" {
		return e.gone
	}
	if at := len(e.taddress) - 6; at > 0 && e.domain.Compare(domainIPv6z) == 0 {
		if i, err := net.InterfaceByIndex(int(binary.BigEndian.Uint32(e.taddress[at:]))); err == nil {
			return i.Name
		}
	}
	return ""
}

// changeTo is what differs from the configuration if the target is at to; ok is false if nothing does.
func (s *sink) changeTo(to endpoint) (c targetChange, ok bool) {
	c = targetChange{Settings: s.Address, Nth: s.nth, Domain: to.domain.String(), Address: to.taddress, Zone: to.zone()}
	return c, !to.equal(s.configured)
}

// apply puts a change in force; it returns false if the configuration has no such target any more.
func (c *targetChange) apply(e *Engine) bool {
	for _, s := range e.sinks {
		if s.Address == c.Settings && s.nth == c.Nth {
			to, err := c.endpoint()
			if err == nil {
				s.at.Store(&to)
			}
			return err == nil
		}
	}
	return false
}

// MovedTarget is a target of notifications that a manager has moved.
type MovedTarget struct {
	Settings string `json:"settings"` // HOST:PORT in the configuration
	Address  string `json:"address"`  // HOST:PORT now
}

func (s *sink) moved() (MovedTarget, bool) {
	at := s.at.Load()
	return MovedTarget{s.Address, at.address}, !at.equal(s.configured)
}
