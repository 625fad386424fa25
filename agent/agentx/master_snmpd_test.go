package agentx

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"example.com/iad/mib"
	"github.com/gosnmp/gosnmp"
	"github.com/posteo/go-agentx/pdu"
)

func ownerPDU(name string) gosnmp.SnmpPDU {
	return gosnmp.SnmpPDU{Name: "." + mib.NewModule(nil).OID(mib.ReqOwner, 0).String(), Type: gosnmp.OctetString, Value: name}
}

const sysContact = ".1.3.6.1.2.1.1.4.0"

func TestSnmpdSet(t *testing.T) {
	master := startSnmpd(t)
	d := newDevice()
	s := start(t, Config{Address: master.address}, d)
	s.awaitReady()
	res, err := client(t, master.port).Set([]gosnmp.SnmpPDU{ownerPDU("operator")})
	if err != nil || res.Error != 0 {
		t.Fatalf("%v, %v", res, err)
	}
	if got := d.get(mib.ReqOwner, 0); !got.Equal(mib.Str("operator")) {
		t.Errorf("iadUpgReqOwner is %v", got)
	}
	s.stop() // works off the CleanupSet that snmpd sends after its answer
	if tests, undone, started := d.counts(); tests != 1 || undone != 0 || started != 1 {
		t.Errorf("%d tests, %d undone, %d started; want 1, 0, 1", tests, undone, started)
	}
}

// TestSnmpdMixedSet spreads a SET over this subagent and snmpd's own sysContact:
// if one of both refuses, nothing changes on either.
func TestSnmpdMixedSet(t *testing.T) {
	contact := func(v any, typ gosnmp.Asn1BER) gosnmp.SnmpPDU {
		return gosnmp.SnmpPDU{Name: sysContact, Type: typ, Value: v}
	}
	goodContact := contact("new contact", gosnmp.OctetString)
	badContact := contact(5, gosnmp.Integer)
	readOnly := gosnmp.SnmpPDU{Name: ".1.3.6.1.2.1.1.2.0", Type: gosnmp.ObjectIdentifier, Value: ".1.3"}
	for _, c := range []struct {
		name    string
		vbs     []gosnmp.SnmpPDU
		prepare func(*device)
		want    gosnmp.SNMPError
		index   uint8
		changed bool
	}{
		{name: "both good", vbs: []gosnmp.SnmpPDU{ownerPDU("operator"), goodContact}, changed: true},
		{name: "both good and master first", vbs: []gosnmp.SnmpPDU{goodContact, ownerPDU("operator")}, changed: true},
		{name: "spread three times", vbs: []gosnmp.SnmpPDU{ownerPDU("operator"), goodContact, ownerPDU("operator")}, changed: true},
		{name: "master refuses the type", vbs: []gosnmp.SnmpPDU{ownerPDU("operator"), badContact}, want: gosnmp.WrongType, index: 2},
		{name: "master refuses the name", vbs: []gosnmp.SnmpPDU{ownerPDU("operator"), readOnly}, want: gosnmp.NotWritable, index: 2},
		{name: "master refuses first", vbs: []gosnmp.SnmpPDU{badContact, ownerPDU("operator")}, want: gosnmp.WrongType, index: 1},
		{name: "subagent refuses", vbs: []gosnmp.SnmpPDU{goodContact, ownerPDU("bad")}, want: gosnmp.InconsistentValue, index: 2},
		{name: "subagent refuses first", vbs: []gosnmp.SnmpPDU{ownerPDU("bad"), goodContact}, want: gosnmp.InconsistentValue, index: 1},
		{name: "subagent fails in commit", vbs: []gosnmp.SnmpPDU{ownerPDU("operator"), goodContact},
			prepare: func(d *device) {
				d.onCommit = func() error { return &mib.SetError{Status: mib.CommitFailed} }
			}, want: gosnmp.CommitFailed, index: 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			master := startSnmpd(t)
			d := newDevice()
			if c.prepare != nil {
				c.prepare(d)
			}
			before := d.get(mib.ReqOwner, 0)
			s := start(t, Config{Address: master.address}, d)
			s.awaitReady()
			m := client(t, master.port)
			contactNow := func() string {
				res, err := m.Get([]string{sysContact})
				if err != nil {
					t.Fatal(err)
				}
				return fmt.Sprintf("%s", res.Variables[0].Value)
			}
			contactBefore := contactNow()
			res, err := m.Set(c.vbs)
			if err != nil {
				t.Fatal(err)
			}
			if res.Error != c.want || res.ErrorIndex != c.index {
				t.Errorf("error %v, index %d; want %v, %d", res.Error, res.ErrorIndex, c.want, c.index)
			}
			changed := contactNow() != contactBefore
			s.stop()
			if changed != c.changed {
				t.Errorf("sysContact changed: %v, want %v", changed, c.changed)
			}
			if changed := !d.get(mib.ReqOwner, 0).Equal(before); changed != c.changed {
				t.Errorf("iadUpgReqOwner changed: %v, want %v", changed, c.changed)
			}
			if _, _, started := d.counts(); (started == 1) != c.changed || started > 1 {
				t.Errorf("%d started", started)
			}
			if d.reserved() {
				t.Error("the reservation is held still")
			}
		})
	}
}

// TestSnmpdResends holds each phase of a SET up until snmpd has sent it three
// times, which takes it two seconds: the operation starts once.
func TestSnmpdResends(t *testing.T) {
	for name, hold := range map[string]pdu.Type{"TestSet": pdu.TypeTestSet, "CommitSet": pdu.TypeCommitSet} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			master := startSnmpd(t)
			thrice := make(chan struct{})
			copies := 0
			address := proxy(t, master.address, func(p *packet) {
				if p.Type == hold {
					if copies++; copies == 3 {
						close(thrice)
					}
				}
			})
			d := newDevice()
			wait := func() error {
				select {
				case <-thrice:
					return nil
				case <-time.After(15 * time.Second):
					return errors.New("snmpd does not repeat its request")
				}
			}
			if hold == pdu.TypeTestSet {
				d.onTest = func(mib.Caller, []mib.Assignment) error { return wait() }
			} else {
				d.onCommit = wait
			}
			s := start(t, Config{Address: address}, d)
			s.awaitReady()
			res, err := client(t, master.port).Set([]gosnmp.SnmpPDU{ownerPDU("operator")})
			if err != nil || res.Error != 0 {
				t.Fatalf("%v, %v", res, err)
			}
			s.stop()
			if tests, undone, started := d.counts(); tests != 1 || undone != 0 || started != 1 {
				t.Errorf("%d tests, %d undone, %d started; want 1, 0, 1", tests, undone, started)
			}
		})
	}
}

// TestSnmpdKilled kills snmpd and starts it again: the session comes back, and
// a notification that found no master is accepted then.
func TestSnmpdKilled(t *testing.T) {
	master := startSnmpd(t)
	s := start(t, Config{Address: master.address}, newDevice())
	s.awaitReady()
	m := client(t, master.port)
	get := func() {
		t.Helper()
		res, err := m.Get([]string{"." + s.tree.Module().OID(mib.DeviceId, 0).String()})
		if err != nil || res.Variables[0].Type != gosnmp.OctetString {
			t.Fatalf("%v, %v", res, err)
		}
	}
	get()
	for range 2 {
		master.kill()
		notice := mib.Notice{Notification: mib.NotifyRestarted}
		if err := s.Notify(t.Context(), notice); !errors.Is(err, ErrAway) {
			t.Errorf("Notify without snmpd: %v", err)
		}
		master.start()
		s.awaitReady()
		if err := s.Notify(t.Context(), notice); err != nil {
			t.Errorf("Notify after its return: %v", err)
		}
		get()
	}
}

// TestSnmpdStop checks that a session that ends leaves nothing registered.
func TestSnmpdStop(t *testing.T) {
	master := startSnmpd(t)
	m := client(t, master.port)
	for range 3 {
		began := time.Now()
		s := start(t, Config{Address: master.address}, newDevice())
		s.awaitReady()
		s.stop()
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("opening and closing took %v", took)
		}
		res, err := m.Get([]string{"." + s.tree.Module().OID(mib.DeviceId, 0).String()})
		if err != nil || res.Variables[0].Type != gosnmp.NoSuchObject {
			t.Errorf("after the end: %v, %v", res, err)
		}
	}
}
