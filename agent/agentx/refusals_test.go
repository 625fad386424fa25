package agentx_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/gosnmp/gosnmp"

	"example.com/iad/agent/agentx"
	"example.com/iad/agent/procedure"
	"example.com/iad/agent/snmp"
	"example.com/iad/mib"
	"example.com/iad/sim"
)

// What a session logs when it ends and when it begins.
const (
	lost       = "no session with the master agent"
	registered = "registered with the master agent"
)

// step is a SET, and what becomes of it.
type step struct {
	name    string
	prepare func(*iad)
	vbs     []gosnmp.SnmpPDU
	status  mib.Status
	index   uint8         // of the varbind that is to blame
	refusal mib.FailCause // iadUpgReqRefusal after it; 0 for the one before
	says    string        // in iadUpgReqRefusalText
}

func number(o *mib.Object, index uint32, n int) gosnmp.SnmpPDU {
	if o.Type == mib.Gauge32 {
		return gosnmp.SnmpPDU{Name: name(o, index), Type: gosnmp.Gauge32, Value: uint32(n)}
	}
	return gosnmp.SnmpPDU{Name: name(o, index), Type: gosnmp.Integer, Value: n}
}

func octets(o *mib.Object, index uint32, s string) gosnmp.SnmpPDU {
	return gosnmp.SnmpPDU{Name: name(o, index), Type: gosnmp.OctetString, Value: s}
}

func options(n ...int) gosnmp.SnmpPDU { return octets(mib.ReqOptions, 0, string(mib.Bits(n...))) }

func command(k mib.OperationKind) gosnmp.SnmpPDU { return number(mib.ReqCommand, 0, int(k)) }

// lock is replaced by what iadUpgReqLock is, and so much more.
func lock(more int) gosnmp.SnmpPDU { return number(mib.ReqLock, 0, more) }

// refusals are met in this order by a device that runs 2.0.0 from bank 2 and
// has 1.0.0 in bank 1.
func refusals() []step {
	const ok = mib.FailCauseNone
	set := func(vbs ...gosnmp.SnmpPDU) []gosnmp.SnmpPDU { return vbs }
	owner := octets(mib.ReqOwner, 0, "ems")
	server := func(row uint32) []gosnmp.SnmpPDU {
		return set(number(mib.ServerAddressType, row, int(mib.InetAddressTypeIpv4)),
			octets(mib.ServerAddress, row, "\x7f\x00\x00\x01"), number(mib.ServerProtocol, row, int(mib.ProtocolFtp)))
	}
	return []step{
		// Settings.
		{name: "good server", vbs: server(3)},
		{name: "good file", vbs: set(octets(mib.FileName, 1, "software"), number(mib.FileExpectSize, 2, 38))},
		{name: "good parameters", vbs: set(lock(0), owner, number(mib.ReqRetries, 0, 0), octets(mib.ReqFiles, 0, ""))},
		{name: "wrong lock", vbs: set(owner, lock(1)), status: mib.InconsistentValue, index: 2},
		{name: "not writable", vbs: set(owner, octets(mib.DeviceId, 0, "x")), status: mib.NotWritable, index: 2},
		{name: "no such row", vbs: set(owner, octets(mib.ServerUser, 9, "x")), status: mib.NoCreation, index: 2},
		{name: "wrong type", vbs: set(owner, octets(mib.ReqTimeLimit, 0, "x")), status: mib.WrongType, index: 2},
		{name: "wrong length", vbs: set(octets(mib.ReqOwner, 0, string(make([]byte, 33)))), status: mib.WrongLength, index: 1},
		{name: "wrong value", vbs: set(owner, number(mib.ServerTimeout, 1, 601)), status: mib.WrongValue, index: 2},
		{name: "wrong value in a gap", vbs: set(number(mib.ReqTimeLimit, 0, 9)), status: mib.WrongValue, index: 1},
		{name: "no such command", vbs: set(owner, number(mib.ReqCommand, 0, 11)), status: mib.WrongValue, index: 2,
			refusal: mib.FailCauseUnsupported},
		{name: "protocol that is not supported", vbs: set(owner, number(mib.ServerProtocol, 1, int(mib.ProtocolFtps))),
			status: mib.WrongValue, index: 2},
		{name: "address that does not fit", vbs: set(octets(mib.ServerAddress, 2, "\x7f")), status: mib.InconsistentValue, index: 1},

		// Commands that start nothing.
		{name: "command and wrong lock", vbs: set(command(mib.OperationKindBackupConfig), lock(1)),
			status: mib.InconsistentValue, index: 2, refusal: mib.FailCauseOther},
		{name: "command and wrong length", vbs: set(command(mib.OperationKindReset), octets(mib.ReqOwner, 0, string(make([]byte, 33)))),
			status: mib.WrongLength, index: 2, refusal: mib.FailCauseBadRequest},
		{name: "command and protocol that is not supported",
			vbs:    set(number(mib.ServerProtocol, 1, int(mib.ProtocolFtps)), command(mib.OperationKindBackupConfig)),
			status: mib.WrongValue, index: 1, refusal: mib.FailCauseUnsupportedProtocol},
		{name: "server without address", vbs: set(owner, number(mib.ReqServer, 0, 2), command(mib.OperationKindDownloadSoftware)),
			status: mib.InconsistentValue, index: 3, refusal: mib.FailCauseBadRequest},
		{name: "file without name", vbs: set(octets(mib.ReqFiles, 0, "\x40"), command(mib.OperationKindBackupConfig)),
			status: mib.InconsistentValue, index: 2, refusal: mib.FailCauseBadRequest},
		{name: "option that means nothing", vbs: set(command(mib.OperationKindReset), options(mib.ReqOptionsConvertFirst)),
			status: mib.InconsistentValue, index: 1, refusal: mib.FailCauseBadRequest},
		{name: "nothing to abort", vbs: set(command(mib.OperationKindAbort)), refusal: ok},
		{name: "nothing to confirm", vbs: set(command(mib.OperationKindConfirm)), refusal: ok},
		{name: "bank that runs", vbs: set(number(mib.ReqBank, 0, 2), command(mib.OperationKindDownloadSoftware)),
			status: mib.InconsistentValue, index: 2, refusal: mib.FailCauseBankUnavailable, says: "bank 2 is running"},
		{name: "nothing to convert", vbs: set(command(mib.OperationKindConvertConfig)),
			status: mib.InconsistentValue, index: 1, refusal: mib.FailCausePreconditionMissing},
		{name: "calls in progress", prepare: func(d *iad) { d.SetCalls(2) }, vbs: set(owner, command(mib.OperationKindReset)),
			status: mib.ResourceUnavailable, index: 2, refusal: mib.FailCauseServiceInUse},
		{name: "settings that cannot be stored", prepare: func(d *iad) { d.SetCalls(0); d.full.Store(true) },
			vbs: set(number(mib.NotifyStep, 0, 5), number(mib.NotifyMinInterval, 0, 5)), status: mib.CommitFailed, index: 1},
		{name: "backup that cannot be stored", vbs: set(octets(mib.FileName, 2, "user"), octets(mib.ReqFiles, 0, "\x40"), command(mib.OperationKindBackupConfig)),
			status: mib.CommitFailed, index: 3, refusal: mib.FailCauseStorageFull},
		{name: "backup", prepare: func(d *iad) { d.full.Store(false) },
			vbs: set(command(mib.OperationKindBackupConfig), octets(mib.FileName, 2, "user"), octets(mib.ReqFiles, 0, "\x40")), refusal: ok},
		{name: "no fallback", prepare: func(d *iad) {
			d.await(2, "backup", func(s *procedure.Snapshot) bool { return s.Op.State.Final() })
			if err := d.disk.Banks[0].Remove("firmware"); err != nil {
				d.t.Fatal(err)
			}
		}, vbs: set(command(mib.OperationKindRestoreOldSoftware)), status: mib.InconsistentValue, index: 1, refusal: mib.FailCauseNoFallback},

		// Beside a download that stands still.
		{name: "download", prepare: func(d *iad) { d.files.grant(1000) },
			vbs: set(command(mib.OperationKindDownloadSoftware), number(mib.ReqId, 0, 77), owner, number(mib.ReqServer, 0, 3)), refusal: ok},
		{name: "the same again", vbs: set(command(mib.OperationKindDownloadSoftware), number(mib.ReqId, 0, 77), owner), refusal: ok},
		{name: "another download", vbs: set(command(mib.OperationKindDownloadSoftware), number(mib.ReqId, 0, 78), owner),
			status: mib.InconsistentValue, index: 1, refusal: mib.FailCauseBusy},
		{name: "reset", vbs: set(owner, command(mib.OperationKindReset)),
			status: mib.InconsistentValue, index: 2, refusal: mib.FailCauseBusy},
		{name: "its server", vbs: set(owner, octets(mib.ServerPath, 1, "x"), octets(mib.ServerPath, 3, "x")),
			status: mib.InconsistentValue, index: 3},
		{name: "its file", vbs: set(octets(mib.FileName, 1, "other")), status: mib.InconsistentValue, index: 1},
		{name: "its file with a command", vbs: set(octets(mib.FileName, 1, "other"), command(mib.OperationKindReset)),
			status: mib.InconsistentValue, index: 1, refusal: mib.FailCauseBusy},
		{name: "the values it has", vbs: set(octets(mib.FileName, 1, "software"))},
		{name: "other rows", vbs: append(server(2), octets(mib.FileName, 3, "port"), octets(mib.ServerPath, 2, "y"))},
		{name: "abort of another", vbs: set(number(mib.ReqTargetOpId, 0, 99), command(mib.OperationKindAbort)),
			status: mib.InconsistentValue, index: 2, refusal: mib.FailCauseBadRequest},
		{name: "abort", vbs: set(number(mib.ReqTargetOpId, 0, 3), command(mib.OperationKindAbort)), refusal: ok},
	}
}

// front is a device behind one of the front ends.
type front struct {
	*iad
	client *gosnmp.GoSNMP
}

// carryOut makes the SET of a step and returns the answer, then what the
// device says of it.
func (f *front) carryOut(t *testing.T, s *step) (got []string, status mib.Status, index uint8, refusal mib.FailCause) {
	t.Helper()
	if s.prepare != nil {
		s.prepare(f.iad)
	}
	vbs := append([]gosnmp.SnmpPDU{}, s.vbs...)
	for i := range vbs {
		if vbs[i].Name == name(mib.ReqLock, 0) {
			vbs[i].Value = int(f.get(t, name(mib.ReqLock, 0))[0].Value.(int)) + vbs[i].Value.(int)
		}
	}
	res, err := f.client.Set(vbs)
	if err != nil {
		t.Fatal(err)
	}
	is := f.get(t, name(mib.ReqRefusal, 0), name(mib.ReqRefusalText, 0), name(mib.OpId, 0), name(mib.OpKind, 0))
	got = append(got, fmt.Sprintf("%v at %d", res.Error, res.ErrorIndex))
	// Every device has a lock of its own.
	now := fmt.Sprint(f.get(t, name(mib.ReqLock, 0))[0].Value)
	for _, vb := range is {
		value := fmt.Sprint(vb.Value)
		if text, ok := vb.Value.([]byte); ok {
			value = strings.ReplaceAll(string(text), now, "(lock)")
		}
		got = append(got, vb.Name+" = "+value)
	}
	return got, mib.Status(res.Error), res.ErrorIndex, mib.FailCause(is[0].Value.(int))
}

func (f *front) get(t *testing.T, names ...string) []gosnmp.SnmpPDU {
	t.Helper()
	res, err := f.client.Get(names)
	if err != nil {
		t.Fatal(err)
	}
	return res.Variables
}

// settings are the values of all that can be written, but for the lock.
func (f *front) settings(t *testing.T) (list []string) {
	t.Helper()
	for _, o := range mib.Objects {
		rows := map[*mib.Object]uint32{mib.ServerEntry: 4, mib.FileEntry: 6}[o.Row]
		for row := range max(rows, 1) {
			if o.Row != nil {
				row++
			}
			if o.Access == mib.ReadWrite && o != mib.ReqLock {
				list = append(list, fmt.Sprintf("%s.%d = %v", o.Name, row, f.get(t, name(o, row))[0].Value))
			}
		}
	}
	return list
}

// upgrade brings a device from 1.0.0 to 2.0.0, which is confirmed.
func (d *iad) upgrade(t *testing.T) {
	t.Helper()
	d.files.upload("software", build(t, "2.0.0"))
	m := mib.NewModule(nil)
	tx, refused := d.Agent(t.Context(), 1).Tree().Set(mib.Caller{}, []mib.Varbind{
		{OID: m.OID(mib.ServerAddressType, 1), Value: mib.InetAddressTypeIpv4.Value()},
		{OID: m.OID(mib.ServerAddress, 1), Value: mib.Octets([]byte{127, 0, 0, 1})},
		{OID: m.OID(mib.FileName, 1), Value: mib.Str("software")},
		{OID: m.OID(mib.ReqOptions, 0), Value: mib.Octets(mib.Bits(mib.ReqOptionsThenActivate, mib.ReqOptionsThenReset))},
		{OID: m.OID(mib.ReqCommand, 0), Value: mib.OperationKindDownloadSoftware.Value()},
	})
	if refused != nil {
		t.Fatal(refused)
	}
	tx.Done()
	d.await(2, "upgrade", func(s *procedure.Snapshot) bool {
		return s.Op.State == mib.OperationStateSucceeded && s.Banks.Running == 2 && !s.Banks.OnTrial()
	})
	d.files.upload("software", build(t, "3.0.0"))
}

// TestRefusals lets a real agent behind snmpd and one behind the embedded engine
// refuse and accept the same, in the same words.
func TestRefusals(t *testing.T) {
	for version, newClient := range map[string]func(testing.TB, uint16) *gosnmp.GoSNMP{"v2c": agentx.Client, "v3": agentx.ClientV3} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			master := agentx.StartSnmpd(t, fmt.Sprintf("createUser operator SHA-256 %s AES %s", agentx.AuthPass, agentx.PrivPass), "rwuser operator priv")
			log := newMessages()
			behindSnmpd := front{iad: startIAD(t, func(c *sim.Config) {
				c.AgentX = &agentx.Config{Address: master.Address(), Log: log.logger()}
			})}
			log.await(t, registered, 0)
			behindSnmpd.upgrade(t)
			log.await(t, registered, 1) // again, after the restart
			embedded := front{iad: startIAD(t, func(c *sim.Config) {
				c.Listen = "127.0.0.1:0"
				c.SNMP = &snmp.Config{
					Communities: []snmp.Community{{Name: "private", Write: true}},
					Users: []snmp.User{{
						Name: "operator", Auth: snmp.SHA256, AuthPassphrase: agentx.AuthPass, Priv: snmp.AES128, PrivPassphrase: agentx.PrivPass,
						Access: []snmp.Access{{Level: snmp.AuthPriv, Read: snmp.Everything(), Write: snmp.Everything()}},
					}},
				}
			})}
			embedded.upgrade(t)
			behindSnmpd.client = newClient(t, master.Port())
			embedded.client = newClient(t, embedded.Addr(t.Context()).Port())

			refusal := mib.FailCauseNone
			for _, s := range refusals() {
				if s.refusal != 0 {
					refusal = s.refusal
				}
				x, status, index, why := behindSnmpd.carryOut(t, &s)
				y, _, _, _ := embedded.carryOut(t, &s)
				if status != s.status || index != s.index || why != refusal {
					t.Errorf("%s: %v at %d with the refusal %v, want %v at %d with %v", s.name, status, index, why, s.status, s.index, refusal)
				}
				if !strings.Contains(strings.Join(x, "\n"), s.says) {
					t.Errorf("%s: the device does not say %q: %q", s.name, s.says, x)
				}
				if diff := cmp.Diff(x, y); diff != "" {
					t.Errorf("%s: -snmpd +embedded\n%s", s.name, diff)
				}
			}
			for _, f := range []front{behindSnmpd, embedded} {
				f.await(2, "abort", func(s *procedure.Snapshot) bool { return s.Op.State == mib.OperationStateAborted })
			}
			if diff := cmp.Diff(behindSnmpd.settings(t), embedded.settings(t)); diff != "" {
				t.Errorf("settings: -snmpd +embedded\n%s", diff)
			}
		})
	}
}
