package agentx

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"example.com/iad/agent/snmp"
	"example.com/iad/mib"
	"github.com/google/go-cmp/cmp"
	"github.com/gosnmp/gosnmp"
)

// request is one request of a manager; which fields count depends on its kind.
type request struct {
	name    string
	kind    gosnmp.PDUType
	oids    []mib.OID
	once    uint8
	repeat  uint32
	vbs     []gosnmp.SnmpPDU
	prepare func(*device)
}

func requests() []request {
	m := mib.NewModule(nil)
	oid := m.OID
	root := m.Root()
	get := func(name string, oids ...mib.OID) request {
		return request{name: name, kind: gosnmp.GetRequest, oids: oids}
	}
	next := func(name string, oids ...mib.OID) request {
		return request{name: name, kind: gosnmp.GetNextRequest, oids: oids}
	}
	bulk := func(name string, once uint8, repeat uint32, oids ...mib.OID) request {
		return request{name: name, kind: gosnmp.GetBulkRequest, once: once, repeat: repeat, oids: oids}
	}
	vb := func(o mib.OID, typ gosnmp.Asn1BER, v any) gosnmp.SnmpPDU {
		return gosnmp.SnmpPDU{Name: "." + o.String(), Type: typ, Value: v}
	}
	text := func(o mib.OID, s string) gosnmp.SnmpPDU { return vb(o, gosnmp.OctetString, s) }
	set := func(name string, vbs ...gosnmp.SnmpPDU) request {
		return request{name: name, kind: gosnmp.SetRequest, vbs: vbs}
	}
	with := func(r request, prepare func(*device)) request {
		r.prepare = prepare
		return r
	}
	fails := func(status mib.Status, index int) func() error {
		return func() error { return &mib.SetError{Status: status, Index: index, Reason: "as the test wants"} }
	}
	refuse := func(status mib.Status, index int) func(*device) {
		return func(d *device) {
			d.onTest = func(mib.Caller, []mib.Assignment) error { return fails(status, index)() }
		}
	}
	var columns, scalars []mib.OID
	for _, o := range mib.Objects {
		switch {
		case o.Kind == mib.Column && o.Access != mib.NotAccessible:
			columns = append(columns, oid(o))
		case o.Kind == mib.Scalar:
			scalars = append(scalars, oid(o, 0))
		}
	}
	owner := text(oid(mib.ReqOwner, 0), "operator")
	user := func(row uint32, s string) gosnmp.SnmpPDU { return text(oid(mib.ServerUser, row), s) }

	return []request{
		get("a scalar", oid(mib.DeviceId, 0)),
		get("all scalars", scalars...),
		get("several rows", oid(mib.BankVersion, 2), oid(mib.BankState, 1), oid(mib.ServerUser, 3), oid(mib.FileName, 6), oid(mib.EventText, 4294967295)),
		get("one twice", oid(mib.DeviceId, 0), oid(mib.DeviceId, 0)),
		get("no such row", oid(mib.BankVersion, 3), oid(mib.BankVersion, 0), oid(mib.EventText, 1)),
		get("good and bad", oid(mib.BankVersion, 3), oid(mib.DeviceId, 0), root.Append(77), oid(mib.OpState, 0)),
		get("below an instance", oid(mib.DeviceId, 0, 0), oid(mib.BankVersion, 1, 1)),
		get("instance 1 of a scalar", oid(mib.DeviceId, 1)),
		get("without instance", oid(mib.DeviceId), oid(mib.BankVersion)),
		get("table, entry, index", oid(mib.BankTable), oid(mib.BankEntry), oid(mib.BankIndex, 1)),
		get("root and beside", root, root.Append(1), root.Append(3, 1, 0)),
		get("index of many numbers", oid(mib.BankVersion, slices.Repeat([]uint32{1}, 100)...)),

		next("from the root", root),
		next("of scalars", scalars[:20]...),
		next("of columns", columns...),
		next("within a column", oid(mib.BankVersion, 1), oid(mib.BankVersion, 0), oid(mib.BankVersion, 1, 5)),
		next("from a column to the next", oid(mib.BankVersion, 2), oid(mib.ServerPort, 3)),
		next("between rows", oid(mib.EventText, 4294967291), oid(mib.EventText, 7)),
		next("at the end", oid(mib.EventSeq, 0)),
		next("before the module", mib.OID{1, 3, 6, 1, 4, 1, 8072, 9999, 9999, 17324}),

		bulk("a column", 0, 10, oid(mib.EventText)),
		bulk("all columns", 0, 6, columns...),
		bulk("scalars first", 3, 4, oid(mib.DeviceId), oid(mib.DeviceModel), oid(mib.OpState), oid(mib.BankState), oid(mib.BankVersion)),
		bulk("non-repeaters only", 5, 10, oid(mib.DeviceId), oid(mib.DeviceModel)),
		bulk("no repetition", 1, 0, oid(mib.DeviceId), oid(mib.DeviceModel)),
		bulk("over the whole module", 0, 1000, root),
		bulk("past the end", 0, 20, oid(mib.NotifyMaxInterval, 0)),

		set("a scalar", owner),
		set("rows and scalars", owner, user(1, "u1"), user(3, "u3"), vb(oid(mib.ServerPort, 2), gosnmp.Gauge32, uint32(2121))),
		set("empty string", user(2, "")),
		set("bits", vb(oid(mib.ReqFiles, 0), gosnmp.OctetString, []byte{0x80})),
		set("the same twice", owner, owner),
		set("two values", owner, text(oid(mib.ReqOwner, 0), "other"), user(1, "x")),
		set("not writable", owner, text(oid(mib.DeviceId, 0), "x")),
		set("not accessible", vb(oid(mib.BankIndex, 1), gosnmp.Gauge32, uint32(1))),
		set("no such object", text(root.Append(77, 0), "x")),
		set("a table", text(oid(mib.ServerTable), "x")),
		set("the root", text(root, "x")),
		set("without instance", text(oid(mib.ReqOwner), "x")),
		set("instance 1 of a scalar", text(oid(mib.ReqOwner, 1), "x")),
		set("below an instance", text(oid(mib.ReqOwner, 0, 0), "x")),
		set("no such row", user(1, "u"), user(9, "u")),
		set("wrong type", vb(oid(mib.ReqOwner, 0), gosnmp.Integer, 5)),
		set("wrong type, number", owner, vb(oid(mib.ServerPort, 1), gosnmp.Integer, 5)),
		set("null", vb(oid(mib.ReqOwner, 0), gosnmp.Null, nil)),
		set("object identifier", vb(oid(mib.ReqOwner, 0), gosnmp.ObjectIdentifier, ".1.3.6.1.4.1.1")),
		set("address", vb(oid(mib.ReqOwner, 0), gosnmp.IPAddress, "127.0.0.1")),
		set("counter", vb(oid(mib.ServerPort, 1), gosnmp.Counter32, uint32(1))),
		set("time ticks", vb(oid(mib.ServerPort, 1), gosnmp.TimeTicks, uint32(1))),
		set("too long", user(1, "u"), text(oid(mib.ReqOwner, 0), strings.Repeat("x", 300))),
		set("out of range", vb(oid(mib.ServerPort, 1), gosnmp.Gauge32, uint32(4294967295))),
		set("no such enumeration", vb(oid(mib.ServerProtocol, 1), gosnmp.Integer, 99)),
		set("negative", vb(oid(mib.ServerProtocol, 1), gosnmp.Integer, -1)),
		set("several faults", user(9, "u"), text(oid(mib.DeviceId, 0), "x"), vb(oid(mib.ReqOwner, 0), gosnmp.Integer, 5)),

		set("refused by the device", user(1, "u"), text(oid(mib.ReqOwner, 0), "bad")),
		with(set("authorization", owner, user(2, "u")), refuse(mib.AuthorizationError, 2)),
		with(set("no varbind to blame", owner, user(2, "u")), refuse(mib.ResourceUnavailable, 0)),
		with(set("generic error", owner), refuse(mib.GenErr, 1)),
		with(set("commit fails", user(1, "u"), owner), func(d *device) { d.onCommit = fails(mib.CommitFailed, 2) }),
		with(set("commit fails for no varbind", user(1, "u"), owner), func(d *device) { d.onCommit = fails(mib.CommitFailed, 0) }),
		with(set("undo fails", user(1, "u"), owner), func(d *device) {
			d.onCommit = fails(mib.CommitFailed, 2)
			d.onUndo = fails(mib.UndoFailed, 0)
		}),
	}
}

// TestFrontEnds asks the same of this package behind snmpd and of the embedded
// engine, and compares answers and what became of the device.
func TestFrontEnds(t *testing.T) {
	master := startSnmpd(t, fmt.Sprintf("createUser operator SHA-256 %s AES %s", authPass, privPass), "rwuser operator priv")
	behindSnmpd, embedded := newDevice(), newDevice()
	s := start(t, Config{Address: master.address}, behindSnmpd)
	s.awaitReady()
	port := startEngine(t, embedded)

	for version, newClient := range map[string]func(testing.TB, uint16) *gosnmp.GoSNMP{"v2c": client, "v3": clientV3} {
		a, b := newClient(t, master.port), newClient(t, port)
		for _, r := range requests() {
			t.Run(fmt.Sprintf("%v/%v/%s", version, r.kind, r.name), func(t *testing.T) {
				for _, d := range []*device{behindSnmpd, embedded} {
					d.reset(r.prepare)
				}
				x, y := send(t, a, r), send(t, b, r)
				if r.kind == gosnmp.GetBulkRequest {
					n := min(len(x.Varbinds), len(y.Varbinds))
					if n < min(len(r.oids), 1) && r.repeat > 0 {
						t.Errorf("%d and %d varbinds", len(x.Varbinds), len(y.Varbinds))
					}
					x.Varbinds, y.Varbinds = x.Varbinds[:n], y.Varbinds[:n]
				}
				if x.Error == gosnmp.UndoFailed {
					// RFC 3416 section 4.2.5 wants 0. snmpd makes genErr of an
					// AgentX error that blames no varbind.
					x.Index = 0
				}
				if diff := cmp.Diff(x, y); diff != "" {
					t.Errorf("-snmpd +embedded\n%s", diff)
				}
				if r.kind == gosnmp.SetRequest {
					// A later answer shows that CleanupSet was worked off.
					probe := request{kind: gosnmp.GetRequest, oids: []mib.OID{s.tree.Module().OID(mib.DeviceId, 0)}}
					send(t, a, probe)
					send(t, b, probe)
				}
				if diff := cmp.Diff(behindSnmpd.state(), embedded.state()); diff != "" {
					t.Errorf("device: -snmpd +embedded\n%s", diff)
				}
			})
		}
	}
}

// startEngine runs the embedded engine on a device's tree and returns its
// port.
func startEngine(t testing.TB, d *device) uint16 {
	t.Helper()
	return startEngineTree(t, mib.NewTree(mib.NewModule(nil), d))
}

func startEngineTree(t testing.TB, tree *mib.Tree) uint16 {
	t.Helper()
	conn, err := snmp.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	e, err := snmp.New(snmp.Config{
		Conn:        conn,
		Communities: []snmp.Community{{Name: "private", Write: true}},
		Users: []snmp.User{{
			Name: "operator", Auth: snmp.SHA256, AuthPassphrase: authPass, Priv: snmp.AES128, PrivPassphrase: privPass,
			Access: []snmp.Access{{Level: snmp.AuthPriv, Read: snmp.Everything(), Write: snmp.Everything()}},
		}},
		EngineID: []byte{0x80, 0, 0x1f, 0x88, 5, 1, 2, 3}, Boots: 1,
		MaxSize: 65507,
	}, tree)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- e.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("embedded engine: %v", err)
		}
	})
	return e.Addr().Port()
}

// reply is an answer in a form that can be compared. Names outside the module
// are those of the front end's own objects and are left out of the comparison.
type reply struct {
	Error    gosnmp.SNMPError
	Index    uint8
	Varbinds []string
}

func send(t *testing.T, c *gosnmp.GoSNMP, r request) reply {
	t.Helper()
	var names []string
	for _, o := range r.oids {
		names = append(names, "."+o.String())
	}
	var p *gosnmp.SnmpPacket
	var err error
	switch r.kind {
	case gosnmp.GetRequest:
		p, err = c.Get(names)
	case gosnmp.GetNextRequest:
		p, err = c.GetNext(names)
	case gosnmp.GetBulkRequest:
		p, err = c.GetBulk(names, r.once, r.repeat)
	case gosnmp.SetRequest:
		p, err = c.Set(r.vbs)
	}
	if err != nil {
		t.Fatal(err)
	}
	out := reply{Error: p.Error, Index: p.ErrorIndex}
	for _, v := range p.Variables {
		s := "outside the module"
		if strings.HasPrefix(v.Name+".", "."+mib.DefaultRoot.String()+".") && v.Type != gosnmp.EndOfMibView {
			s = fmt.Sprintf("%s %v %v", v.Name, v.Type, v.Value)
		}
		out.Varbinds = append(out.Varbinds, s)
	}
	return out
}
