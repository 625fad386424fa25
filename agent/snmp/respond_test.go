package snmp

import (
	"math"
	"net/netip"
	"testing"
	"time"

	"example.com/iad/internal/snmp"
	"example.com/iad/mib"
)

func oids(names ...string) []mib.Varbind {
	var vars []mib.Varbind
	for _, n := range names {
		vars = append(vars, mib.Varbind{OID: mib.MustParseOID(n), Value: mib.Value{Type: mib.Null}})
	}
	return vars
}

// ask sends a request of a community past the network; ok is false if there
// is no answer.
func ask(t testing.TB, e *Engine, version int32, community string, request snmp.PDU) (answer snmp.PDU, done func(), ok bool) {
	t.Helper()
	reply, done := e.Answer(source, snmp.AppendCommunityMessage(nil, version, community, request, snmp.EncodeVars(request.Vars)))
	if reply == nil {
		return snmp.PDU{}, done, false
	}
	gotVersion, err := snmp.ReadVersion(reply)
	if err != nil || gotVersion != version {
		t.Fatalf("answer of version %d: %v", gotVersion, err)
	}
	name, answer, err := snmp.ReadCommunityMessage(reply)
	if err != nil || string(name) != community {
		t.Fatalf("answer to %q: %v", name, err)
	}
	if answer.Kind != snmp.PDUResponse || answer.RequestID != request.RequestID {
		t.Fatalf("answer %+v", answer)
	}
	return answer, done, true
}

func newV2c(t testing.TB) (*Engine, *device) {
	return newEngine(t, Config{Communities: communities(), System: System{Descr: "test device"}})
}

func TestGetBulk(t *testing.T) {
	e, _ := newV2c(t)
	bulk := func(nonRepeaters, repetitions int32, names ...string) snmp.PDU {
		answer, _, ok := ask(t, e, snmp.Version2c, "public", snmp.PDU{Kind: snmp.PDUGetBulk, RequestID: 1, Status: nonRepeaters, Index: repetitions, Vars: oids(names...)})
		if !ok || answer.Status != 0 {
			t.Fatalf("answer %+v, %v", answer, ok)
		}
		return answer
	}
	names := func(p snmp.PDU) (list []string) {
		for _, vb := range p.Vars {
			list = append(list, vb.OID.String())
		}
		return list
	}
	system := "1.3.6.1.2.1.1"
	for _, c := range []struct {
		name                      string
		nonRepeaters, repetitions int32
		ask, want                 []string
	}{
		{"repeat", 0, 2, []string{system, system + ".4"},
			[]string{system + ".1.0", system + ".4.0", system + ".2.0", system + ".5.0"}},
		{"once and repeat", 1, 2, []string{system, system},
			[]string{system + ".1.0", system + ".1.0", system + ".2.0"}},
		{"all once", 5, 9, []string{system, system}, []string{system + ".1.0", system + ".1.0"}},
		{"negative", -1, -1, []string{system}, nil},
		{"more than 255 once", 256, 1, []string{system}, []string{system + ".1.0"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := names(bulk(c.nonRepeaters, c.repetitions, c.ask...))
			if len(got) != len(c.want) {
				t.Fatalf("got %v, want %v", got, c.want)
			}
			for i := range got {
				if got[i] != c.want[i] {
					t.Errorf("got %v, want %v", got, c.want)
				}
			}
		})
	}
	all := bulk(0, math.MaxInt32, "1.3.6.1.4")
	last := all.Vars[len(all.Vars)-1]
	if last.Value.Type != mib.EndOfMibView || len(all.Vars) < 10 {
		t.Errorf("GETBULK of everything ends with %v after %d variables", last, len(all.Vars))
	}
}

func TestErrorsOfSet(t *testing.T) {
	owner := module.OID(mib.ReqOwner, 0)
	good := mib.Varbind{OID: owner, Value: mib.Str("x")}
	var many []mib.Varbind
	for range 300 {
		many = append(many, mib.Varbind{OID: owner, Value: mib.Str("")})
	}
	many = append(many, mib.Varbind{OID: module.OID(mib.DeviceId, 0), Value: mib.Str("x")})
	for _, c := range []struct {
		name    string
		vars    []mib.Varbind
		prepare func(*device)
		status  mib.Status
		v1      mib.Status
		index   int32
	}{
		{"second is not writable", []mib.Varbind{good, {OID: mib.MustParseOID("1.3.6.1.2.1.1.5.0"), Value: mib.Str("x")}}, nil, mib.NotWritable, noSuchName, 2},
		{"two values", []mib.Varbind{good, good, {OID: owner, Value: mib.Str("y")}}, nil, mib.InconsistentValue, badValue, 3},
		{"refused by the device", []mib.Varbind{good}, func(d *device) { d.refuse = &mib.SetError{Status: mib.ResourceUnavailable, Index: 1} }, mib.ResourceUnavailable, mib.GenErr, 1},
		{"commit failed", []mib.Varbind{good}, func(d *device) { d.commitFails = true }, mib.CommitFailed, mib.GenErr, 1},
		{"index above 255", many, nil, mib.NotWritable, noSuchName, 301},
	} {
		t.Run(c.name, func(t *testing.T) {
			e, d := newEngine(t, Config{Communities: communities(), MaxSize: 65507})
			if c.prepare != nil {
				c.prepare(d)
			}
			for version, want := range map[int32]mib.Status{snmp.Version2c: c.status, snmp.Version1: c.v1} {
				answer, done, ok := ask(t, e, version, "private", snmp.PDU{Kind: snmp.PDUSet, RequestID: 9, Vars: c.vars})
				if !ok || done != nil || mib.Status(answer.Status) != want || answer.Index != c.index {
					t.Errorf("version %d: status %v, index %d; want %v, %d", version, mib.Status(answer.Status), answer.Index, want, c.index)
				}
				if len(answer.Vars) != len(c.vars) {
					t.Errorf("the answer has %d variables", len(answer.Vars))
				}
			}
			if d.committed() != 0 || len(d.value(mib.ReqOwner, 0).Bytes) != 0 {
				t.Error("something was set")
			}
		})
	}
}

func TestViews(t *testing.T) {
	root := module.Root()
	e, d := newEngine(t, Config{Communities: []Community{{Name: "part", Write: true, View: View{
		{OID: mib.MustParseOID("1.3.6.1.2.1.1.1")},
		{OID: root},
		{OID: module.OID(mib.BankVersion), Excluded: true},
		{OID: module.OID(mib.BankVersion, 2)},
		{OID: module.OID(mib.ServerEntry), Excluded: true},
	}}}})
	var walked []string
	for oid := (mib.OID{1}); ; {
		answer, _, _ := ask(t, e, snmp.Version2c, "part", snmp.PDU{Kind: snmp.PDUGetNext, Vars: []mib.Varbind{{OID: oid, Value: mib.Value{Type: mib.Null}}}})
		if answer.Vars[0].Value.Type == mib.EndOfMibView {
			break
		}
		oid = answer.Vars[0].OID
		walked = append(walked, oid.String())
	}
	want := []string{
		"1.3.6.1.2.1.1.1.0",
		module.OID(mib.DeviceId, 0).String(), module.OID(mib.DeviceModel, 0).String(),
		module.OID(mib.SoftwareVersion, 0).String(), module.OID(mib.ConfigFormat, 0).String(),
		module.OID(mib.BankState, 1).String(), module.OID(mib.BankState, 2).String(), module.OID(mib.BankVersion, 2).String(),
		module.OID(mib.ReqOwner, 0).String(), module.OID(mib.ReqVersion, 0).String(),
	}
	if len(walked) != len(want) {
		t.Fatalf("walked %v\nwant   %v", walked, want)
	}
	for i := range want {
		if walked[i] != want[i] {
			t.Errorf("walked %v\nwant   %v", walked, want)
		}
	}

	answer, _, _ := ask(t, e, snmp.Version2c, "part", snmp.PDU{Kind: snmp.PDUGet, Vars: oids(module.OID(mib.BankVersion, 1).String(), "1.3.6.1.2.1.1.2.0")})
	for _, vb := range answer.Vars {
		if vb.Value.Type != mib.NoSuchObject {
			t.Errorf("%v is %v outside the view", vb.OID, vb.Value)
		}
	}
	user := mib.Varbind{OID: module.OID(mib.ServerUser, 1), Value: mib.Str("x")}
	answer, _, _ = ask(t, e, snmp.Version2c, "part", snmp.PDU{Kind: snmp.PDUSet, Vars: []mib.Varbind{setOwner("x").Vars[0], user}})
	if mib.Status(answer.Status) != mib.NoAccess || answer.Index != 2 || d.tested() != 0 {
		t.Errorf("SET outside the view: %+v", answer)
	}
}

func TestBoundaries(t *testing.T) {
	o := mib.MustParseOID
	v := View{{OID: o("1.3.5")}, {OID: o("1.3.4294967295"), Excluded: true}}
	for at, want := range map[string]string{"1.2": "1.3.5", "1.3.5.9": "1.3.6", "1.3.6": "1.3.4294967295", "1.3.4294967295": "1.4"} {
		if got, ok := v.boundary(o(at)); !ok || got.String() != want {
			t.Errorf("after %s: %v, want %s", at, got, want)
		}
	}
	if got, ok := v.boundary(o("1.4")); ok {
		t.Errorf("a boundary at %v", got)
	}
	if got := successor(mib.OID{math.MaxUint32}); got != nil {
		t.Errorf("something follows the last name: %v", got)
	}
}

func TestTooBigV1(t *testing.T) {
	e, _ := newEngine(t, Config{Communities: communities(), MaxSize: snmp.MinMaxSize})
	var vars []mib.Varbind
	for range 20 {
		vars = append(vars, oids(module.OID(mib.DeviceId, 0).String())...)
	}
	answer, _, ok := ask(t, e, snmp.Version2c, "public", snmp.PDU{Kind: snmp.PDUGet, Vars: vars[:16]})
	if !ok || mib.Status(answer.Status) != mib.TooBig || len(answer.Vars) != 0 {
		t.Errorf("v2c: %+v", answer)
	}
	answer, _, ok = ask(t, e, snmp.Version1, "public", snmp.PDU{Kind: snmp.PDUGet, Vars: vars[:16]})
	if !ok || mib.Status(answer.Status) != mib.TooBig || len(answer.Vars) != 16 {
		t.Errorf("v1: %+v", answer)
	}
}

// Some sorts of messages get no answer, whoever sends them.
func TestSilence(t *testing.T) {
	e, _ := newV2c(t)
	for _, kind := range []byte{snmp.PDUResponse, snmp.PDUInform, snmp.PDUTrap, snmp.PDUReport} {
		if answer, _, ok := ask(t, e, snmp.Version2c, "private", snmp.PDU{Kind: kind}); ok {
			t.Errorf("PDU %x is answered with %+v", kind, answer)
		}
	}
	if _, _, ok := ask(t, e, snmp.Version1, "private", snmp.PDU{Kind: snmp.PDUGetBulk}); ok {
		t.Error("v1 has no GETBULK")
	}
	if got := e.own(t, "1.3.6.1.2.1.11.1.0").Int; got != 5 {
		t.Errorf("snmpInPkts is %d", got)
	}
}

// Whoever fails too often is not listened to for a while, even with the right
// community; others are, and so is who authenticated before.
func TestFailuresLimited(t *testing.T) {
	c := &clock{time.Unix(1e9, 0)}
	e, _ := newEngine(t, Config{Communities: communities(), Users: []User{privateUser}, EngineID: testEngineID, Boots: 1, Now: c.now})
	p := newPeer(t, e, &privateUser)
	from := func(src netip.AddrPort, msg []byte) bool {
		reply, _ := e.Answer(src, msg)
		return reply != nil
	}
	get := func(community string) []byte {
		return snmp.AppendCommunityMessage(nil, snmp.Version2c, community, getID(), snmp.EncodeVars(getID().Vars))
	}
	port := func(n int) netip.AddrPort { return netip.AddrPortFrom(source.Addr(), uint16(n)) }

	if !from(port(1), p.message(getID(), nil)) {
		t.Fatal("no answer at first")
	}
	for range portFailureBurst {
		from(port(2), get("guess"))
	}
	if from(port(2), get("public")) || from(port(2), p.message(getID(), nil)) {
		t.Error("answered after too many failures")
	}
	if !from(port(3), get("public")) || !from(port(4), p.message(getID(), nil)) {
		t.Error("another port is not answered")
	}
	for n := range addrFailureBurst {
		from(port(1000+n), get("guess"))
	}
	if from(port(999), get("public")) || from(port(998), p.message(getID(), nil)) {
		t.Error("answered after too many failures of the address")
	}
	if !from(port(1), p.message(getID(), nil)) {
		t.Error("the peer that authenticated is not answered")
	}
	if !from(netip.MustParseAddrPort("127.0.0.2:2"), get("public")) {
		t.Error("another address is not answered")
	}
	c.advance(time.Second)
	if !from(port(2), get("public")) {
		t.Error("no answer after a while")
	}
	for n := range 2 * maxPeers {
		from(port(n), p.message(getID(), nil))
	}
	if n := len(e.guard.peers); n > maxPeers {
		t.Errorf("%d peers are remembered", n)
	}
}

// Answers that anybody can cause are limited for each port and address, since
// both may be forged.
func TestReportsLimited(t *testing.T) {
	for name, change := range map[string]func(*snmp.Header){
		"discovery":       func(h *snmp.Header) { h.Flags, h.EngineID, h.User = snmp.FlagReportable, nil, "" },
		"unauthenticated": func(h *snmp.Header) { h.Flags = snmp.FlagReportable },
		"not in time":     func(h *snmp.Header) { h.Boots++ },
	} {
		t.Run(name, func(t *testing.T) {
			e, _, c := newV3(t, privateUser)
			p := newPeer(t, e, &privateUser)
			from := func(addr netip.Addr, port int) bool {
				reply, _ := e.Answer(netip.AddrPortFrom(addr, uint16(port)), p.message(getID(), change))
				return reply != nil
			}
			here, there := source.Addr(), netip.MustParseAddr("127.0.0.2")
			for range portReportBurst {
				if !from(here, 1) {
					t.Fatal("too few answers")
				}
			}
			if from(here, 1) {
				t.Error("answers to one port are not limited")
			}
			for n := range addrReportBurst - portReportBurst {
				if !from(here, 1000+n) {
					t.Fatal("too few answers to an address")
				}
			}
			if from(here, 2) {
				t.Error("answers to one address are not limited")
			}
			if !from(there, 1) {
				t.Error("another address gets none")
			}
			c.advance(time.Second)
			if !from(here, 1) {
				t.Error("none after a while")
			}
			for i := range 5 * maxSources {
				from(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 1)
			}
			if n := len(e.guard.reports.addr.byKey) + len(e.guard.reports.port.byKey); n > 2*maxSources {
				t.Errorf("%d sources are remembered", n)
			}
		})
	}
}

func TestConfigRefused(t *testing.T) {
	good := func() Config {
		return Config{Users: []User{privateUser}, EngineID: testEngineID, Boots: 1}
	}
	for name, change := range map[string]func(*Config){
		"no engine ID":             func(c *Config) { c.EngineID = nil },
		"engine ID too long":       func(c *Config) { c.EngineID = make([]byte, 33) },
		"no boots":                 func(c *Config) { c.Boots = 0 },
		"boots beyond the last":    func(c *Config) { c.Boots = 1 << 31 },
		"short passphrase":         func(c *Config) { c.Users[0].AuthPassphrase = "7 chars" },
		"short privacy passphrase": func(c *Config) { c.Users[0].PrivPassphrase = "" },
		"MD5":                      func(c *Config) { c.Users[0].Auth = MD5 },
		"DES":                      func(c *Config) { c.Users[0].Priv = DES },
		"privacy alone":            func(c *Config) { c.Users[0].Auth = NoAuth },
		"unknown protocol":         func(c *Config) { c.Users[0].Auth = 99 },
		"user twice":               func(c *Config) { c.Users = append(c.Users, c.Users[0]) },
		"user without name":        func(c *Config) { c.Users[0].Name = "" },
		"level beyond protocols":   func(c *Config) { c.Users[0].Priv = NoPriv },
		"unknown level":            func(c *Config) { c.Users[0].Access[0].Level = 77 },
		"community without name":   func(c *Config) { c.Communities = []Community{{}} },
		"message size":             func(c *Config) { c.MaxSize = 100 },
		"long text":                func(c *Config) { c.System.Contact = string(make([]byte, 256)) },
		"sink of nobody":           func(c *Config) { c.Sinks = []Sink{{Address: "127.0.0.1"}} },
		"sink of a stranger":       func(c *Config) { c.Sinks = []Sink{{Address: "127.0.0.1", User: "x"}} },
		"sink's address":           func(c *Config) { c.Sinks = []Sink{{Address: "::1]:x:y", Community: "x"}} },
		"sink without view": func(c *Config) {
			c.Users[0].Access[0].Notify = nil
			c.Sinks = []Sink{{Address: "127.0.0.1", User: "manager"}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := good()
			c.Users[0].Access = full(AuthPriv)
			change(&c)
			if _, err := New(c, mib.NewTree(module, newDevice())); err == nil {
				t.Error("accepted")
			}
		})
	}
}

// A configuration serves for any number of engines.
func TestConfigUnchanged(t *testing.T) {
	c := Config{Sinks: []Sink{{Address: "127.0.0.1", Community: "traps", Retries: -1}}}
	for range 2 {
		e, _ := newEngine(t, c)
		if r := e.Receivers()[0]; r.Address() != "127.0.0.1:162" || r.sink.Retries != 0 {
			t.Errorf("receiver %s, %d retries", r.Address(), r.sink.Retries)
		}
	}
	if s := c.Sinks[0]; s.Address != "127.0.0.1" || s.Retries != -1 {
		t.Errorf("the configuration became %+v", s)
	}
}

func TestNewEngineID(t *testing.T) {
	a, err := NewEngineID()
	if err != nil {
		t.Fatal(err)
	}
	b, _ := NewEngineID()
	if string(a) == string(b) || checkEngine(a, 1) != nil || a[0]&0x80 == 0 || a[4] != 5 {
		t.Errorf("engine IDs %x and %x", a, b)
	}
}
