package snmp

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"example.com/iad/internal/snmp"
	"example.com/iad/mib"
)

// target is the name of an instance of snmpTargetAddrTable.
func targetColumn(n uint32, name string) string {
	oid := oidTargetEntry.Append(n)
	for _, b := range []byte(name) {
		oid = oid.Append(uint32(b))
	}
	return "." + oid.String()
}

// tAddress is a TAddress in hexadecimal, as snmpset takes it.
func tAddress(t *testing.T, address string) string {
	t.Helper()
	return hex.EncodeToString(endpointOf(address).taddress)
}

// silent reports what a receiver got that must have got nothing.
func silent(t *testing.T, lines <-chan string) {
	t.Helper()
	for {
		select {
		case line := <-lines:
			if strings.Contains(line, "TRAP") || strings.Contains(line, "INFORM") {
				t.Errorf("came to the old address: %s", line)
			}
		default:
			return
		}
	}
}

// Traps and informs go where snmpset moves a target, in one SET or with the row out of service as
// RFC 3413 wants it, also after a restart, and back.
func TestTargetMoves(t *testing.T) {
	m := &memory{}
	users := fmt.Sprintf("manager SHA-256 %q AES %q", authPass, privPass)
	conf := fmt.Sprintf("createUser -e 0x%x %s\ncreateUser %s\nauthUser log manager priv\nauthCommunity log traps\n", testEngineID, users, users)
	old, atOld := snmptrapd(t, conf)
	now, atNew := snmptrapd(t, conf)
	start := func(addresses ...string) *Engine {
		cfg := keyConfig(t, m, privateUser)
		cfg.Communities = communities()
		for _, a := range addresses {
			cfg.Sinks = append(cfg.Sinks, Sink{Address: a, Community: "traps"}, Sink{Address: a, User: "manager", Inform: true})
		}
		e, _ := newEngine(t, cfg)
		run(t, e)
		return e
	}
	arrive := func(e *Engine, to, other <-chan string) {
		t.Helper()
		if err := e.Notify(t.Context(), notice); err != nil {
			t.Fatal(err)
		}
		for range 2 { // in any order
			awaitLine(t, to, noticeParts...)
		}
		// The old receiver has got everything that was sent to it before this.
		if err := e.Receivers()[0].Notify(t.Context(), notice); err != nil {
			t.Fatal(err)
		}
		awaitLine(t, to, "TRAP2")
		silent(t, other)
	}
	e := start(old)
	at := e.Addr().String()
	arrive(e, atOld, atNew)

	v3 := append(options(&privateUser), at)
	set := func(args ...string) { t.Helper(); mustTool(t, "snmpset", append(slices.Clone(v3), args...)...) }
	get := func(oid string) string {
		t.Helper()
		return mustTool(t, "snmpget", append(append([]string{"-Oqvx"}, v3...), oid)...)
	}
	before := strings.ToLower(strings.ReplaceAll(strings.Trim(get(targetColumn(3, "target1")), `"`), " ", ""))
	if before != tAddress(t, old) {
		t.Errorf("the old address is %s, want %s", before, tAddress(t, old))
	}
	// The trap in one SET, by community; the inform step by step.
	mustTool(t, "snmpset", "-v2c", "-c", "private", at, targetColumn(3, "target1"), "x", tAddress(t, now))
	set(targetColumn(9, "target2"), "i", "2")
	set(targetColumn(3, "target2"), "x", tAddress(t, now))
	if err := e.Receivers()[1].Notify(t.Context(), notice); err != nil { // which it holds no longer than needed
		t.Fatal(err)
	}
	awaitLine(t, atOld, "INFORM")
	set(targetColumn(9, "target2"), "i", "1")
	arrive(e, atNew, atOld)
	moved := []MovedTarget{{old, now}, {old, now}}
	if got := e.Changed().Targets; !slices.Equal(got, moved) {
		t.Errorf("moved: %v, want %v", got, moved)
	}

	e = start(old)
	at = e.Addr().String()
	v3[len(v3)-1] = at
	arrive(e, atNew, atOld)

	// Back again, which leaves nothing to store.
	set(targetColumn(3, "target1"), "x", before, targetColumn(2, "target1"), "o", domainUDP.String(), targetColumn(3, "target2"), "x", before)
	arrive(e, atOld, atNew)
	if data, _ := m.stored(); strings.Contains(string(data), "targets") {
		t.Errorf("still stored: %s", data)
	}

	// An address that changes in iad.toml counts, also when it is changed back.
	set(targetColumn(3, "target1"), "x", tAddress(t, now))
	set(targetColumn(3, "target2"), "x", tAddress(t, now))
	third, atThird := snmptrapd(t, conf)
	arrive(start(third), atThird, atNew)
	e = start(old)
	arrive(e, atOld, atNew)
	if got := e.Changed().Targets; len(got) > 0 {
		t.Errorf("moved: %v", got)
	}
}

// An inform that nobody acknowledges goes to the new address as soon as there is one.
func TestTargetMovesDuringInform(t *testing.T) {
	dead := newReceiver(t, func(int, []byte) []byte { return nil })
	alive := newReceiver(t, func(_ int, msg []byte) []byte {
		community, p, err := snmp.ReadCommunityMessage(msg)
		if err != nil {
			t.Error(err)
			return nil
		}
		p.Kind = snmp.PDUResponse
		return snmp.AppendCommunityMessage(nil, snmp.Version2c, string(community), p, snmp.EncodeVars(p.Vars))
	})
	m := &memory{}
	cfg := keyConfig(t, m)
	cfg.Communities = communities()
	cfg.Sinks = []Sink{{Address: dead.addr(), Community: "traps", Inform: true, Timeout: 100 * time.Millisecond, Retries: 200}}
	e, _ := newEngine(t, cfg)
	run(t, e)
	sent := make(chan error, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second) // before the retries are over
	defer cancel()
	go func() { sent <- e.Notify(ctx, notice) }()
	dead.next(t)
	mustTool(t, "snmpset", "-v2c", "-c", "private", e.Addr().String(), targetColumn(3, "target1"), "x", tAddress(t, alive.addr()))
	if err := <-sent; err != nil {
		t.Error(err)
	}
	alive.next(t)
}

// The table shows targets of every kind, and a walk has the rows in their order.
func TestTargetTable(t *testing.T) {
	m := &memory{}
	cfg := keyConfig(t, m, privateUser)
	cfg.Communities = communities()
	loop, err := net.InterfaceByName("lo")
	if err != nil {
		t.Skip(err)
	}
	cfg.Sinks = []Sink{
		{Address: "192.0.2.1", Community: "a secret of sorts", Timeout: 3 * time.Second, Retries: 5}, {Address: "[2001:db8::1]:1162", User: "manager", Inform: true},
		{Address: "nms.example.com:162", Community: "x"}, {Address: "[fe80::1%lo]:162", Community: "x"},
	}
	for range 7 {
		cfg.Sinks = append(cfg.Sinks, Sink{Address: "192.0.2.9", Community: "x"})
	}
	e, _ := newEngine(t, cfg)
	run(t, e)
	at := e.Addr().String()
	who := []string{"-v2c", "-c", "public", at}
	walk := mustTool(t, "snmpwalk", append(who, ".1.3.6.1.6.3.12.1")...)
	zone := fmt.Sprintf("%08X", loop.Index)
	for _, line := range []string{
		targetColumn(2, "target1") + " = OID: .1.3.6.1.6.1.1", targetColumn(3, "target1") + " = Hex-STRING: C0 00 02 01 00 A2",
		targetColumn(4, "target1") + " = INTEGER: 300", targetColumn(5, "target1") + " = INTEGER: 5", targetColumn(6, "target1") + ` = STRING: "trap"`,
		targetColumn(7, "target1") + ` = STRING: "v2c"`, targetColumn(8, "target1") + " = INTEGER: 4", targetColumn(9, "target1") + " = INTEGER: 1",
		targetColumn(2, "target2") + " = OID: .1.3.6.1.2.1.100.1.2", targetColumn(4, "target2") + " = INTEGER: 200", targetColumn(5, "target2") + " = INTEGER: 3",
		targetColumn(6, "target2") + ` = STRING: "inform"`, targetColumn(7, "target2") + ` = STRING: "v3"`,
		targetColumn(2, "target3") + " = OID: .1.3.6.1.2.1.100.1.14", targetColumn(3, "target3") + ` = STRING: "nms.example.com:162"`,
		targetColumn(2, "target4") + " = OID: .1.3.6.1.2.1.100.1.4",
	} {
		wantLine(t, walk, line)
	}
	for name, want := range map[string]string{
		"target2": "20 01 0D B8 00 00 00 00 00 00 00 00 00 00 00 01 04 8A",
		"target4": fmt.Sprintf("FE 80 00 00 00 00 00 00 00 00 00 00 00 00 00 01 %s %s %s %s 00 A2", zone[:2], zone[2:4], zone[4:6], zone[6:]),
	} {
		if got := mustTool(t, "snmpget", "-v2c", "-c", "public", "-Oqvx", at, targetColumn(3, name)); !strings.Contains(strings.ReplaceAll(got, "\n", " "), want) && strings.Join(strings.Fields(strings.Trim(got, `"`)), " ") != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	if strings.Contains(walk, "secret") {
		t.Errorf("shows a community:\n%s", walk)
	}
	if n := strings.Count(walk, "."+oidTargetEntry.String()); n != 8*len(cfg.Sinks) {
		t.Errorf("%d instances:\n%s", n, walk)
	}
	if bulk := mustTool(t, "snmpbulkwalk", append(who, ".1.3.6.1.6.3.12.1")...); bulk != walk {
		t.Errorf("snmpwalk and snmpbulkwalk differ:\n%s\n%s", walk, bulk)
	}
	if !strings.Contains(walk, oidTargetSpinLock.String()) || !strings.Contains(walk, ".1.3.6.1.6.3.12.1.5.0") {
		t.Errorf("scalars are missing:\n%s", walk)
	}
}

// What does not fit is refused, and notifications go where they went.
func TestTargetRefuses(t *testing.T) {
	m := &memory{}
	c := &clock{time.Unix(1e9, 0)}
	narrow := privateUser
	narrow.Name, narrow.Access = "narrow", []Access{{Level: AuthPriv, Read: Everything(), Write: View{{OID: module.Root()}}}}
	cfg := keyConfig(t, m, privateUser, narrow)
	cfg.Conn, cfg.Now = nil, c.now
	cfg.Sinks = []Sink{{Address: "192.0.2.1", Community: "x"}, {Address: "nms.example.com", Community: "x"}}
	e, d := newEngine(t, cfg)
	manager, other := newPeer(t, e, &privateUser), newPeer(t, e, &narrow)
	c.advance(time.Minute)
	do := func(p *peer, kind byte, vars ...mib.Varbind) snmp.PDU {
		t.Helper()
		reply, done := e.Answer(source, p.message(snmp.PDU{Kind: kind, RequestID: 1, Vars: vars}, nil))
		if done != nil {
			done()
		}
		_, answer := p.open(reply)
		return answer
	}
	name := func(n uint32, target string) mib.OID { return mib.MustParseOID(targetColumn(n, target)[1:]) }
	domain := func(o mib.OID) mib.Varbind { return mib.Varbind{OID: name(2, "target1"), Value: mib.ID(o)} }
	address := func(b ...byte) mib.Varbind { return mib.Varbind{OID: name(3, "target1"), Value: mib.Octets(b)} }
	status := func(n int64) mib.Varbind { return mib.Varbind{OID: name(9, "target1"), Value: mib.Int32(n)} }
	text := func(s string) mib.Varbind { return address([]byte(s)...) }
	good := address(192, 0, 2, 2, 0, 162)
	v6 := netip.MustParseAddr("2001:db8::2").AsSlice()
	for what, tc := range map[string]struct {
		vars  []mib.Varbind
		want  mib.Status
		index int32
	}{
		"no row":                  {[]mib.Varbind{{OID: name(3, "target3"), Value: good.Value}}, mib.NoCreation, 1},
		"a new row":               {[]mib.Varbind{{OID: name(9, "target3"), Value: mib.Int32(4)}}, mib.NoCreation, 1},
		"removing":                {[]mib.Varbind{good, status(6)}, mib.InconsistentValue, 2},
		"no such status":          {[]mib.Varbind{status(3)}, mib.WrongValue, 1},
		"status of a text":        {[]mib.Varbind{{OID: name(9, "target1"), Value: mib.Str("x")}}, mib.WrongType, 1},
		"TCP":                     {[]mib.Varbind{domain(mib.MustParseOID("1.3.6.1.2.1.100.1.5"))}, mib.WrongValue, 1},
		"domain of a text":        {[]mib.Varbind{{OID: name(2, "target1"), Value: mib.Str("x")}}, mib.WrongType, 1},
		"address of a number":     {[]mib.Varbind{{OID: name(3, "target1"), Value: mib.Int32(1)}}, mib.WrongType, 1},
		"empty":                   {[]mib.Varbind{address()}, mib.WrongLength, 1},
		"too long":                {[]mib.Varbind{address(make([]byte, 256)...)}, mib.WrongLength, 1},
		"IPv6 for IPv4":           {[]mib.Varbind{address(append(slices.Clone(v6), 0, 162)...)}, mib.InconsistentValue, 1},
		"domain alone":            {[]mib.Varbind{domain(domainIPv6)}, mib.InconsistentValue, 1},
		"port 0":                  {[]mib.Varbind{address(192, 0, 2, 2, 0, 0)}, mib.WrongValue, 1},
		"nobody":                  {[]mib.Varbind{address(0, 0, 0, 0, 0, 162)}, mib.WrongValue, 1},
		"everybody":               {[]mib.Varbind{address(255, 255, 255, 255, 0, 162)}, mib.WrongValue, 1},
		"multicast":               {[]mib.Varbind{domain(domainIPv4), address(224, 0, 0, 1, 0, 162)}, mib.WrongValue, 2},
		"a name without port":     {[]mib.Varbind{domain(domainDNS), text("nms.example.com")}, mib.InconsistentValue, 2},
		"a strange name":          {[]mib.Varbind{domain(domainDNS), text("nms\n:162")}, mib.InconsistentValue, 2},
		"read-only":               {[]mib.Varbind{{OID: name(4, "target1"), Value: mib.Int32(1)}}, mib.NotWritable, 1},
		"the table":               {[]mib.Varbind{{OID: oidTargetEntry, Value: mib.Int32(1)}}, mib.NotWritable, 1},
		"two addresses":           {[]mib.Varbind{good, address(192, 0, 2, 3, 0, 162)}, mib.InconsistentValue, 2},
		"an old lock":             {[]mib.Varbind{good, {OID: oidTargetSpinLock, Value: mib.Int32(int64(increment(e.targetLock)))}}, mib.InconsistentValue, 2},
		"what the device refuses": {[]mib.Varbind{good, {OID: module.OID(mib.DeviceId, 0), Value: mib.Str("x")}}, mib.NotWritable, 2},
	} {
		if got := do(manager, snmp.PDUSet, tc.vars...); got.Status != int32(tc.want) || got.Index != tc.index {
			t.Errorf("%s: %v at %d, want %v at %d", what, mib.Status(got.Status), got.Index, tc.want, tc.index)
		}
	}
	if got := do(other, snmp.PDUSet, good); got.Status != int32(mib.NoAccess) {
		t.Errorf("without a view: %v", mib.Status(got.Status))
	}
	if _, n := m.stored(); n != 0 || len(e.Changed().Targets) > 0 || d.committed() > 0 {
		t.Errorf("stored %d times, %v, %d requests", n, e.Changed(), d.committed())
	}

	// A manager that does not finish changes nothing; one that does gets what it prepared.
	ok := func(vars ...mib.Varbind) {
		t.Helper()
		if got := do(manager, snmp.PDUSet, vars...); got.Status != 0 {
			t.Fatalf("%v at %d", mib.Status(got.Status), got.Index)
		}
	}
	where := func(want string, state int64) {
		t.Helper()
		if got := e.Receivers()[0].Address(); got != want {
			t.Errorf("notifications go to %s, want %s", got, want)
		}
		if got := do(manager, snmp.PDUGet, mib.Varbind{OID: name(9, "target1"), Value: mib.Value{Type: mib.Null}}); got.Vars[0].Value.Int != state {
			t.Errorf("row status %d, want %d", got.Vars[0].Value.Int, state)
		}
	}
	ok(status(2))
	ok(domain(domainIPv6))
	where("192.0.2.1:162", 2)
	if got := do(manager, snmp.PDUSet, status(1)); got.Status != int32(mib.InconsistentValue) {
		t.Errorf("half of an address: %v", mib.Status(got.Status))
	}
	c.advance(holdTime)
	where("192.0.2.1:162", 1)
	ok(status(2))
	ok(domain(domainIPv6))
	ok(address(append(slices.Clone(v6), 4, 138)...))
	where("192.0.2.1:162", 2)
	if data, n := m.stored(); n > 0 {
		t.Errorf("stored before it is active: %s", data)
	}
	ok(status(1))
	where("[2001:db8::2]:1162", 1)
	lock := mib.Varbind{OID: oidTargetSpinLock, Value: mib.Int32(int64(e.targetLock))}
	ok(domain(domainDNS), text("nms.example.com:1162"), lock)
	if got := do(manager, snmp.PDUSet, lock); got.Status != int32(mib.InconsistentValue) {
		t.Errorf("the lock once more: %v", mib.Status(got.Status))
	}
	where("nms.example.com:1162", 1)
	ok(domain(domainIPv6z), address(append(netip.MustParseAddr("fe80::2").AsSlice(), 0, 0, 0, 1, 0, 162)...))
	where("[fe80::2%1]:162", 1)
	ok(domain(domainIPv4), good)
	where("192.0.2.2:162", 1)
	// The second one was given by its name, and gets that back.
	ok(mib.Varbind{OID: name(2, "target2"), Value: mib.ID(domainUDP)}, mib.Varbind{OID: name(3, "target2"), Value: good.Value})
	if got := e.Receivers()[1].Address(); got != "192.0.2.2:162" {
		t.Error(got)
	}
	ok(mib.Varbind{OID: name(2, "target2"), Value: mib.ID(domainDNS)}, mib.Varbind{OID: name(3, "target2"), Value: mib.Str("nms.example.com:162")})
	if got := e.Changed().Targets; !slices.Equal(got, []MovedTarget{{"192.0.2.1:162", "192.0.2.2:162"}}) {
		t.Errorf("moved: %v", got)
	}
}

// A target behind an interface is still behind it when that has another number after a restart.
func TestTargetKeepsInterface(t *testing.T) {
	loopback, err := net.InterfaceByName("lo")
	if err != nil {
		t.Skip(err)
	}
	number := strconv.Itoa(loopback.Index)
	m := &memory{}
	cfg := Config{Boots: 1, Sinks: []Sink{{Address: "192.0.2.1:162", Community: "x"}}, Store: m.store}
	e, _ := newEngine(t, cfg)
	moved, err := endpointOf("[fe80::1%lo]:162").check()
	if err != nil {
		t.Fatal(err)
	}
	e.sinks[0].at.Store(&moved)
	if err := e.store(e.changes(nil)); err != nil {
		t.Fatal(err)
	}
	for zone, finding := range map[string]bool{"lo": false, "gone0": true} {
		var c changes
		if err := json.Unmarshal(m.data, &c); err != nil || c.Targets[0].Zone != "lo" {
			t.Fatalf("%s, %v", m.data, err)
		}
		at := len(c.Targets[0].Address) - 6
		binary.BigEndian.PutUint32(c.Targets[0].Address[at:], 999) // its number at that time
		c.Targets[0].Zone = zone
		if cfg.Changes, err = json.Marshal(c); err != nil {
			t.Fatal(err)
		}
		again, _ := newEngine(t, cfg)
		want := "[fe80::1%" + number + "]:162"
		if finding {
			want = "[fe80::1%gone0]:162"
		}
		if got := again.Receivers()[0].Address(); got != want {
			t.Errorf("%s: %s, want %s", zone, got, want)
		}
		if f := strings.Join(again.Findings(), "\n"); (f != "") != finding || strings.Contains(f, zone) != finding {
			t.Errorf("%s: findings %q", zone, f)
		}
	}
}
