package agentx

import (
	"errors"
	"testing"
	"time"

	"example.com/iad/mib"
	"github.com/google/go-cmp/cmp"
	"github.com/posteo/go-agentx/pdu"
)

func owner(s *running, name string) mib.Varbind {
	return mib.Varbind{OID: s.tree.Module().OID(mib.ReqOwner, 0), Value: mib.Str(name)}
}

// TestSet drives a transaction through every order of phases that a master may
// send, and looks at what is in force and what was started.
func TestSet(t *testing.T) {
	const txn = 4242
	type step struct {
		phase pdu.Type
		want  mib.Status
	}
	test := func(want mib.Status) step { return step{pdu.TypeTestSet, want} }
	commit := func(want mib.Status) step { return step{pdu.TypeCommitSet, want} }
	undo := func(want mib.Status) step { return step{pdu.TypeUndoSet, want} }
	cleanup := step{phase: pdu.TypeCleanupSet}
	failing := func(status mib.Status) func() error {
		return func() error { return &mib.SetError{Status: status, Reason: "as the test wants"} }
	}
	for name, c := range map[string]struct {
		prepare func(d *device)
		steps   []step
		lost    bool // the connection breaks after the steps
		changed bool // the new value is in force
		started int
		undone  int
	}{
		"carried out": {
			steps: []step{test(0), commit(0), cleanup}, changed: true, started: 1},
		"refused by another party": {
			steps: []step{test(0), cleanup}},
		"refused by the device": {
			prepare: func(d *device) {
				d.onTest = func(mib.Caller, []mib.Assignment) error {
					return &mib.SetError{Status: mib.InconsistentValue, Index: 1}
				}
			},
			steps: []step{test(mib.InconsistentValue), cleanup}},
		"another party's commit failed": {
			steps: []step{test(0), commit(0), undo(0)}, undone: 1},
		"undone before its commit": {
			steps: []step{test(0), undo(0)}},
		"commit failed": {
			prepare: func(d *device) { d.onCommit = failing(mib.CommitFailed) },
			steps:   []step{test(0), commit(mib.CommitFailed), undo(0)}, undone: 1},
		"commit failed, then cleaned up": {
			prepare: func(d *device) { d.onCommit = failing(mib.CommitFailed) },
			steps:   []step{test(0), commit(mib.CommitFailed), cleanup}, undone: 1},
		"commit failed for no reason that SNMP knows": {
			prepare: func(d *device) { d.onCommit = func() error { return errors.New("no status") } },
			steps:   []step{test(0), commit(mib.CommitFailed), undo(0)}, undone: 1},
		"undo failed": {
			prepare: func(d *device) { d.onUndo = failing(mib.UndoFailed) },
			steps:   []step{test(0), commit(0), undo(mib.UndoFailed)}, undone: 1, changed: true},
		"cleaned up twice": {
			steps: []step{test(0), commit(0), cleanup, cleanup}, changed: true, started: 1},
		"undone after its end": {
			steps: []step{test(0), commit(0), cleanup, undo(0)}, changed: true, started: 1},
		"committed twice": {
			steps: []step{test(0), commit(0), commit(mib.CommitFailed), undo(0)}, undone: 1},
		"tested twice": {
			steps: []step{test(0), test(mib.GenErr), cleanup}},
		"commit without test": {
			steps: []step{commit(mib.CommitFailed), undo(0)}},
		"only undo and cleanup": {
			steps: []step{undo(0), cleanup}},

		"lost after test":   {steps: []step{test(0)}, lost: true},
		"lost after commit": {steps: []step{test(0), commit(0)}, lost: true, undone: 1},
		"lost after a bad commit": {
			prepare: func(d *device) { d.onCommit = failing(mib.CommitFailed) },
			steps:   []step{test(0), commit(mib.CommitFailed)}, lost: true, undone: 1},
		"lost after undo":    {steps: []step{test(0), commit(0), undo(0)}, lost: true, undone: 1},
		"lost after cleanup": {steps: []step{test(0), commit(0), cleanup}, lost: true, changed: true, started: 1},
	} {
		t.Run(name, func(t *testing.T) {
			each(t, func(t *testing.T, m *master, s *running, d *device) {
				if c.prepare != nil {
					c.prepare(d)
				}
				before := d.get(mib.ReqOwner, 0)
				for _, step := range c.steps {
					switch step.phase {
					case pdu.TypeCleanupSet:
						m.cleanup(txn)
					case pdu.TypeTestSet:
						m.phase(step.phase, txn, step.want, owner(s, "operator"))
					default:
						m.phase(step.phase, txn, step.want)
					}
				}
				if c.lost {
					m.conn.Close()
					s.stop()
				}
				want := before
				if c.changed {
					want = mib.Str("operator")
				}
				if diff := cmp.Diff(want, d.get(mib.ReqOwner, 0)); diff != "" {
					t.Errorf("iadUpgReqOwner: -want +got\n%s", diff)
				}
				if _, undone, started := d.counts(); started != c.started || undone != c.undone {
					t.Errorf("%d started, %d undone; want %d, %d", started, undone, c.started, c.undone)
				}
				if d.reserved() && c.prepare == nil {
					t.Error("the reservation is held still")
				}
			})
		})
	}
}

// TestSetErrors checks status and index for what the tree finds fault with, and
// that the index counts the varbinds of the request.
func TestSetErrors(t *testing.T) {
	each(t, func(t *testing.T, m *master, s *running, d *device) {
		oid := s.tree.Module().OID
		good := owner(s, "operator")
		for name, c := range map[string]struct {
			vbs    []mib.Varbind
			status mib.Status
			index  uint16
		}{
			"read-only": {[]mib.Varbind{good, {OID: oid(mib.OpState, 0), Value: mib.Int32(1)}}, mib.NotWritable, 2},
			"type":      {[]mib.Varbind{{OID: oid(mib.ReqOwner, 0), Value: mib.Int32(1)}, good}, mib.WrongType, 1},
			"twice":     {[]mib.Varbind{good, good, owner(s, "other")}, mib.InconsistentValue, 3},
			"device":    {[]mib.Varbind{owner(s, "bad")}, mib.InconsistentValue, 1},
		} {
			res := m.ask(packet{Header: pdu.Header{Type: pdu.TypeTestSet, TransactionID: 9}, Varbinds: c.vbs})
			if res.Error != pdu.Error(c.status) || res.Index != c.index || len(res.Varbinds) != 0 {
				t.Errorf("%s: error %d, index %d, %d varbinds; want %d, %d, 0", name, res.Error, res.Index, len(res.Varbinds), c.status, c.index)
			}
			m.cleanup(9)
		}
	})
}

// TestResend sends every request six times, as snmpd does when it waits; each
// is carried out once, and all get the same answer.
func TestResend(t *testing.T) {
	each(t, func(t *testing.T, m *master, s *running, d *device) {
		reads := 0
		d.onRead = func() { reads++ }
		six := func(p packet) *packet {
			t.Helper()
			req := m.request(p)
			for range 6 {
				m.write(encodePacket(req))
			}
			first := m.answerTo(req)
			for range 5 {
				if diff := cmp.Diff(first, m.answerTo(req), samePacket); diff != "" {
					t.Errorf("-first +repeated\n%s", diff)
				}
			}
			if first.Error != 0 {
				t.Errorf("%v: %v", p.Type, first.Error)
			}
			return first
		}
		header := func(t pdu.Type) pdu.Header { return pdu.Header{Type: t, TransactionID: 5} }
		six(packet{Header: header(pdu.TypeGet), Ranges: []mib.Search{{Start: s.tree.Module().OID(mib.OpState, 0)}}})
		if reads != 1 {
			t.Errorf("Get was carried out %d times", reads)
		}
		six(packet{Header: header(pdu.TypeTestSet), Varbinds: []mib.Varbind{owner(s, "operator")}})
		six(packet{Header: header(pdu.TypeCommitSet)})
		m.cleanup(5)
		m.cleanup(5)
		if tests, undone, started := d.counts(); tests != 1 || undone != 0 || started != 1 {
			t.Errorf("%d tests, %d undone, %d started; want 1, 0, 1", tests, undone, started)
		}
		// The same identifiers with another payload are another request.
		m.packet--
		req := m.ask(packet{Header: pdu.Header{Type: pdu.TypeGetNext}, Ranges: []mib.Search{{}}})
		m.packet--
		if again := m.ask(packet{Header: pdu.Header{Type: pdu.TypeGetNext}}); len(req.Varbinds) == len(again.Varbinds) {
			t.Error("an answer was given to another request")
		}
	})
}

// TestForgottenSet lets a transaction wait for longer than any master needs.
func TestForgottenSet(t *testing.T) {
	ln, address := listen(t)
	clock := newFakeClock()
	d := newDevice()
	undone := make(chan struct{}, 1)
	d.onUndo = func() error { undone <- struct{}{}; return nil }
	s := start(t, Config{Address: address, Clock: clock}, d)
	m := accept(t, ln)
	m.open()
	s.awaitReady()
	// pass lets the session look at the time, which it does after a ping.
	pass := func() {
		clock.fire(t, defaultPingInterval, defaultPingInterval)
		m.reply(m.expect(pdu.TypePing), 0)
	}
	m.phase(pdu.TypeTestSet, 1, 0, owner(s, "first"))
	m.phase(pdu.TypeCommitSet, 1, 0)
	pass()
	m.phase(pdu.TypeTestSet, 2, mib.ResourceUnavailable, owner(s, "second"))
	clock.advance(setLimit)
	pass()
	<-undone
	if _, _, started := d.counts(); started != 0 {
		t.Errorf("%d started", started)
	}
	m.phase(pdu.TypeTestSet, 3, 0, owner(s, "third"))
	m.cleanup(3)
	m.conn.Close()
}

// TestForgottenSetUnderLoad: a transaction that is not continued ends also if there is never a
// moment without a request. One whose next phase only waits behind a slow request does not.
func TestForgottenSetUnderLoad(t *testing.T) {
	ln, address := listen(t)
	clock := newFakeClock()
	d := newDevice()
	s := start(t, Config{Address: address, Clock: clock}, d)
	m := accept(t, ln)
	m.open()
	s.awaitReady()

	m.phase(pdu.TypeTestSet, 1, 0, owner(s, "first"))
	d.onRead = func() { clock.advance(setLimit + time.Second) }
	m.ask(packet{Header: pdu.Header{Type: pdu.TypeGet}, Ranges: []mib.Search{{Start: s.tree.Module().OID(mib.OpState, 0)}}})
	d.onRead = nil
	m.ping()
	m.phase(pdu.TypeCommitSet, 1, 0)
	clock.advance(setLimit + time.Second)
	m.cleanup(1)
	if _, undone, started := d.counts(); undone != 0 || started != 1 {
		t.Fatalf("%d undone, %d started; want 0, 1", undone, started)
	}

	m.phase(pdu.TypeTestSet, 2, 0, owner(s, "second"))
	m.phase(pdu.TypeCommitSet, 2, 0)
	clock.advance(setLimit + time.Second)
	m.ping()
	if _, undone, started := d.counts(); undone != 1 || started != 1 {
		t.Errorf("%d undone, %d started; want 1, 1", undone, started)
	}
	m.phase(pdu.TypeTestSet, 3, 0, owner(s, "third"))
	m.cleanup(3)
	m.conn.Close()
}

// TestManySets opens more transactions than a master has any use for.
func TestManySets(t *testing.T) {
	ln, address := listen(t)
	s := start(t, Config{Address: address}, newDevice())
	m := accept(t, ln)
	m.open()
	s.awaitReady()
	for txn := range uint32(maxSets) {
		m.phase(pdu.TypeTestSet, txn, 0) // reserves nothing
	}
	m.phase(pdu.TypeTestSet, maxSets, mib.ResourceUnavailable)
	m.cleanup(0)
	m.phase(pdu.TypeTestSet, maxSets, 0)
	m.conn.Close()
}

// TestPrivate checks what the front end passes on about the way a SET came.
func TestPrivate(t *testing.T) {
	for _, private := range []bool{false, true} {
		ln, address := listen(t)
		d := newDevice()
		var got mib.Caller
		d.onTest = func(c mib.Caller, _ []mib.Assignment) error { got = c; return nil }
		s := start(t, Config{Address: address, Private: private}, d)
		m := accept(t, ln)
		m.open()
		s.awaitReady()
		m.phase(pdu.TypeTestSet, 1, 0, owner(s, "operator"))
		if got.Private != private {
			t.Errorf("Private %v arrived as %v", private, got.Private)
		}
		m.conn.Close()
		s.stop()
	}
}

// TestSlowCommit: a SET that takes longer than the time limit of a ping does not break the
// session. What the master sends meanwhile is read later, and counts.
func TestSlowCommit(t *testing.T) {
	ln, address := listen(t)
	clock := newFakeClock()
	d := newDevice()
	begun, end := make(chan struct{}), make(chan struct{})
	d.onCommit = func() error { close(begun); <-end; return nil }
	s := start(t, Config{Address: address, Clock: clock}, d)
	m := accept(t, ln)
	m.open()
	s.awaitReady()

	m.phase(pdu.TypeTestSet, 1, mib.NoError, owner(s, "somebody"))
	commit := m.request(packet{Header: pdu.Header{Type: pdu.TypeCommitSet, TransactionID: 1}})
	m.raw(encodePacket(commit))
	<-begun
	clock.fire(t, defaultPingInterval, defaultPingInterval)
	m.reply(m.expect(pdu.TypePing), pdu.ErrorNone)
	clock.fire(t, defaultTimeout, defaultTimeout)
	clock.fire(t, defaultTimeout, defaultTimeout)
	close(end)
	if answer := m.answerTo(commit); answer.Error != pdu.ErrorNone {
		t.Fatalf("the commit was answered with %v", answer.Error)
	}
	m.cleanup(1)
	m.ping()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.started != 1 || d.undone != 0 {
		t.Errorf("%d SETs were carried out and %d undone", d.started, d.undone)
	}
	clock.fire(t, defaultPingInterval, defaultPingInterval)
	m.reply(m.expect(pdu.TypePing), pdu.ErrorNone)
}
