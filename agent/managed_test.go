package agent

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/spf13/afero"

	"example.com/iad/agent/snmp"
	"example.com/iad/internal/crashfs"
	"example.com/iad/internal/durable"
	wire "example.com/iad/internal/snmp"
	"example.com/iad/mib"
)

// turns are the keys of one user: the first are those of its settings, each of the others is
// what a manager changes the one before into.
type turns struct {
	user     snmp.User
	engineID []byte
	keys     []*wire.Keys
}

func newTurns(t *testing.T, n int) *turns {
	t.Helper()
	everything := snmp.Everything()
	r := &turns{engineID: []byte{0x80, 0, 0x1f, 0x88, 5, 1, 2, 3}, user: snmp.User{
		Name: "manager", Auth: snmp.SHA1, AuthPassphrase: "authentication", Priv: snmp.AES128, PrivPassphrase: "private matters",
		Access: []snmp.Access{{Level: snmp.AuthPriv, Read: everything, Write: everything}},
	}}
	k := wire.NewKeys(wire.NewMasterKey(wire.SHA1, "authentication"), r.engineID)
	k.AddPrivacy(wire.AES128, wire.NewMasterKey(wire.SHA1, "private matters"), r.engineID)
	r.keys = []*wire.Keys{k}
	for i := range n {
		auth, priv := r.change(i)
		newAuth, err := wire.ChangedKey(wire.SHA1, k.AuthKey(), auth)
		if err != nil {
			t.Fatal(err)
		}
		newPriv, err := wire.ChangedKey(wire.SHA1, k.PrivKey(), priv)
		if err != nil {
			t.Fatal(err)
		}
		if k, err = k.WithKeys(newAuth, newPriv); err != nil {
			t.Fatal(err)
		}
		r.keys = append(r.keys, k)
	}
	return r
}

// change are the values that lead to the keys after number i.
func (r *turns) change(i int) (auth, priv []byte) {
	sum := sha256.Sum256(fmt.Append(nil, i))
	return bytes.Repeat(sum[:], 2)[:40], sum[:32]
}

// engine starts an engine whose state is on a disk.
func (r *turns) engine(fs afero.Fs) (*snmp.Engine, []string, error) {
	c := snmp.Config{Users: []snmp.User{r.user}, EngineID: r.engineID, Boots: 1}
	findings := openManaged(fs, &c)
	e, err := snmp.New(c, mib.NewTree(mib.NewModule(nil), nil))
	return e, findings, err
}

// column is an instance of the user's row.
func (r *turns) column(n uint32) mib.OID {
	oid := mib.MustParseOID("1.3.6.1.6.3.15.1.2.2.1").Append(n, uint32(len(r.engineID)))
	for _, b := range r.engineID {
		oid = oid.Append(uint32(b))
	}
	oid = oid.Append(uint32(len(r.user.Name)))
	for _, b := range []byte(r.user.Name) {
		oid = oid.Append(uint32(b))
	}
	return oid
}

// ask sends a request with some keys; status is 0 after success and negative if the keys do
// not count. done is to be called as if the answer had left.
func (r *turns) ask(e *snmp.Engine, with int, p wire.PDU) (status int32, done func(), err error) {
	h := wire.Header{MsgID: 1, MaxSize: 65507, Flags: wire.AuthPriv.Flags() | wire.FlagReportable, EngineID: r.engineID, Boots: 1, User: r.user.Name}
	k := r.keys[with]
	msg, err := wire.SealV3(h, k, uint64(with)+1, wire.AppendScoped(nil, r.engineID, nil, p, wire.EncodeVars(p.Vars)))
	if err != nil {
		return 0, nil, err
	}
	reply, done := e.Answer(netip.MustParseAddrPort("127.0.0.1:4000"), msg)
	m, err := wire.ReadV3(reply)
	if err != nil {
		return 0, nil, err
	}
	if m.Flags&wire.FlagAuth == 0 {
		return -1, nil, nil
	}
	if !m.Authentic(k) {
		return 0, nil, fmt.Errorf("the answer to keys %d has other keys", with)
	}
	s, err := m.Open(k)
	return s.PDU.Status, done, err
}

// inForce is the number of the keys that count.
func (r *turns) inForce(e *snmp.Engine) (int, error) {
	found := -1
	for i := range r.keys {
		status, _, err := r.ask(e, i, wire.PDU{Kind: wire.PDUGet, RequestID: 1, Vars: []mib.Varbind{{OID: r.column(3), Value: mib.Value{Type: mib.Null}}}})
		switch {
		case err != nil:
			return 0, err
		case status == 0 && found >= 0:
			return 0, fmt.Errorf("keys %d and %d both count", found, i)
		case status == 0:
			found = i
		}
	}
	if found < 0 {
		return 0, fmt.Errorf("none of the keys counts")
	}
	return found, nil
}

// turn changes keys number i.
func (r *turns) turn(e *snmp.Engine, i int) error {
	auth, priv := r.change(i)
	status, done, err := r.ask(e, i, wire.PDU{Kind: wire.PDUSet, RequestID: 1, Vars: []mib.Varbind{
		{OID: r.column(7), Value: mib.Octets(auth)}, {OID: r.column(10), Value: mib.Octets(priv)},
	}})
	if err == nil && status != 0 {
		err = fmt.Errorf("changing keys %d: %v", i, mib.Status(status))
	}
	if done != nil {
		done()
	}
	return err
}

// The power fails at every write of a change of keys, and again in what follows: the device has
// the old keys or the new ones, both of a user together, and never older ones than it has acknowledged.
func TestCrashManaged(t *testing.T) {
	const last = 2
	r := newTurns(t, last)
	result, err := crashfs.Sweep[int]{
		Start: crashfs.NewDisk("p"), Depth: 2, Limit: 10,
		Life: func(m *crashfs.Machine, acknowledged *int) error {
			e, _, err := r.engine(m.Fs("p"))
			if err == nil {
				err = sameCopies(m.Fs("p"))
			}
			if err != nil {
				return err
			}
			now, err := r.inForce(e)
			if err != nil {
				return err
			}
			if now != *acknowledged && now != *acknowledged+1 {
				return fmt.Errorf("keys %d count, and %d were acknowledged", now, *acknowledged)
			}
			for *acknowledged = now; *acknowledged < last; *acknowledged++ {
				if err := r.turn(e, *acknowledged); err != nil {
					return err
				}
			}
			if now, err = r.inForce(e); err == nil && now != last {
				err = fmt.Errorf("keys %d count after the last change", now)
			}
			return err
		},
	}.Run()
	if err != nil {
		t.Fatal(err)
	}
	t.Log(result)
	for _, f := range result.Faults {
		t.Error(f)
	}
	if result.Cuts < 20 {
		t.Error("too few cuts")
	}
}

// sameCopies is an error if one copy of the record has older keys than the other.
func sameCopies(fs afero.Fs) error {
	var have [][]byte
	for _, suffix := range []string{".a", ".b"} {
		data, err := afero.ReadFile(fs, managedRecord+suffix)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		_, _, content, err := durable.DecodeFrame(managedMagic, stateVersion, data)
		if err != nil {
			return err
		}
		have = append(have, content)
	}
	if len(have) == 1 || len(have) == 2 && !bytes.Equal(have[0], have[1]) {
		return fmt.Errorf("the record has the copies %q", have)
	}
	return nil
}

// One copy of the record is enough for the newest keys; without both the settings count, and the
// device reports that.
func TestDamagedManaged(t *testing.T) {
	r := newTurns(t, 2)
	for _, damaged := range [][]string{{".a"}, {".b"}, {".a", ".b"}} {
		state := afero.NewMemMapFs()
		e, _, err := r.engine(state)
		for i := range 2 {
			if err == nil {
				err = r.turn(e, i)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, suffix := range damaged {
			name := managedRecord + suffix
			data, err := afero.ReadFile(state, name)
			if err != nil {
				t.Fatal(err)
			}
			if info, err := state.Stat(name); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("%s: %v, %v", name, info, err)
			}
			data[len(data)/2] ^= 1
			if err := afero.WriteFile(state, name, data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		for turn := range 2 { // what is found at the first start is repaired
			e, findings, err := r.engine(state)
			if err != nil {
				t.Fatal(err)
			}
			want := 2
			if len(damaged) == 2 {
				want = 0
			}
			if now, err := r.inForce(e); err != nil || now != want {
				t.Errorf("without %v keys %d count, %v; want %d", damaged, now, err, want)
			}
			text := strings.Join(findings, "\n")
			if (turn == 0) != strings.Contains(text, managedRecord) || (len(damaged) == 2 && turn == 0) != strings.Contains(text, "those of the settings count") {
				t.Errorf("start %d without %v: %q", turn, damaged, findings)
			}
		}
	}
}

// A change that cannot be stored is refused and does not come back after a restart, also if some
// of it was written.
func TestManagedNotStored(t *testing.T) {
	r := newTurns(t, 2)
	for op := range 20 {
		m := crashfs.NewDisk("p").Start()
		fs := m.Fs("p")
		e, _, err := r.engine(fs)
		if err == nil {
			err = r.turn(e, 0)
		}
		if err != nil {
			t.Fatal(err)
		}
		m.Fail(crashfs.Fault{Skip: op, Times: 1, Err: errors.New("input/output error")})
		want := 2
		if err := r.turn(e, 1); err != nil {
			want = 1
			if !strings.Contains(err.Error(), "commitFailed") {
				t.Errorf("operation %d: %v", op, err)
			}
		}
		m.Heal()
		again, _, err := r.engine(fs)
		if err != nil {
			t.Fatal(err)
		}
		for name, e := range map[string]*snmp.Engine{"at once": e, "after a restart": again} {
			if now, err := r.inForce(e); err != nil || now != want {
				t.Errorf("operation %d, %s: keys %d count, %v; want %d", op, name, now, err, want)
			}
		}
	}
}

// Where what was refused cannot be removed either, the answer says so, and it is removed as soon as
// that is possible.
func TestManagedNotUndone(t *testing.T) {
	r := newTurns(t, 2)
	uncertain := 0
	for op := range 20 {
		m := crashfs.NewDisk("p").Start()
		fs := m.Fs("p")
		e, _, err := r.engine(fs)
		if err == nil {
			err = r.turn(e, 0)
		}
		if err != nil {
			t.Fatal(err)
		}
		m.Fail(crashfs.Fault{Skip: op, Err: errors.New("input/output error")})
		want := 2
		if err := r.turn(e, 1); err != nil {
			want = 1
			uncertain++
			if !strings.Contains(err.Error(), "undoFailed") {
				t.Errorf("operation %d: %v", op, err)
			}
		}
		m.Heal()
		if now, err := r.inForce(e); err != nil || now != want {
			t.Errorf("operation %d: keys %d count, %v; want %d", op, now, err, want)
		}
		again, _, err := r.engine(fs)
		if err != nil {
			t.Fatal(err)
		}
		if now, err := r.inForce(again); err != nil || now != want {
			t.Errorf("operation %d, after a restart: keys %d count, %v; want %d", op, now, err, want)
		}
	}
	if uncertain == 0 {
		t.Error("every change could be stored")
	}
}

// A device that is returned to its settings keeps no keys of managers.
func TestDiscardManaged(t *testing.T) {
	r := newTurns(t, 1)
	state := afero.NewMemMapFs()
	e, _, err := r.engine(state)
	if err == nil {
		err = r.turn(e, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{".a.corrupt-1", ".b.corrupt-3", ".a.unreadable-1", ".b.newer-2"} {
		if err := afero.WriteFile(state, managedRecord+name, []byte("keys"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cfg := Config{State: state, SNMP: &snmp.Config{Users: []snmp.User{r.user}, EngineID: r.engineID}}
	if c, _ := peekManaged(cfg); len(c.Users) != 1 || c.Users[0] != "manager" {
		t.Errorf("changed: %+v", c)
	}
	// Whatever the settings are now: here they have no engine.
	c, err := DiscardManaged(Config{State: state})
	if err != nil || len(c.Users) != 1 {
		t.Errorf("%+v, %v", c, err)
	}
	if left, err := afero.ReadDir(state, "."); err != nil || len(left) != 2 {
		t.Errorf("files that may have keys: %v, %v", left, err)
	}
	if c, _ := peekManaged(cfg); len(c.Users) != 0 {
		t.Errorf("changed: %+v", c)
	}
	e, findings, err := r.engine(state)
	if err != nil || len(findings) > 0 {
		t.Fatal(err, findings)
	}
	if now, err := r.inForce(e); err != nil || now != 0 {
		t.Errorf("keys %d count, %v", now, err)
	}
	for _, suffix := range []string{".a", ".b"} {
		data, err := afero.ReadFile(state, managedRecord+suffix)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, payload, err := durable.DecodeFrame(managedMagic, stateVersion, data); err != nil || len(payload) > 0 {
			t.Errorf("%s%s has %q, %v", managedRecord, suffix, payload, err)
		}
	}
}
