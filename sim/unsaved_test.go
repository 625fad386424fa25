package sim

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"example.com/iad/agent"
	"example.com/iad/agent/procedure"
	"example.com/iad/internal/crashfs"
	"example.com/iad/mib"
)

// carrying makes a device hand over its restarts what it could not write.
func carrying(from *live) func(*agent.Config) {
	return func(c *agent.Config) {
		c.PassesUnsaved = true
		if from != nil {
			c.Unsaved = from.Unsaved()
		}
	}
}

// carried carries an operation out over the restart that it makes, to its success.
func carried(t *testing.T, d *live, kind mib.OperationKind) (*live, procedure.Operation) {
	t.Helper()
	_, err := d.carryOut(command{kind: kind})
	if !errors.As(err, new(*procedure.RestartError)) {
		t.Fatalf("%s: no restart: %v, %s", kind, err, d.Engine().Snapshot().Op.Text)
	}
	id := d.world.opID
	next := begin(t, d.m, carrying(d))
	if err := next.wait(func(s *procedure.Snapshot) bool { return s.Op.State.Final() && s.Sent == s.Seq }); err != nil {
		t.Fatal(err)
	}
	op := next.Engine().Snapshot().Op
	if op.ID != id || op.Kind != kind || op.State != mib.OperationStateSucceeded {
		t.Fatalf("operation %d, %s, is %s: %d %s; want %d, %s, succeeded", op.ID, op.Kind, op.State, op.Cause, op.Text, id, kind)
	}
	return next, op
}

// begin starts a device on the machine and ends it with the test.
func begin(t *testing.T, m *crashfs.Machine, change func(*agent.Config)) *live {
	t.Helper()
	d, err := powerOn(m, change)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.powerOff)
	return d
}

// Where the state cannot be written, reset and going back work as long as the power
// stays on, and the device says so; then it starts what is recorded.
func TestBackWithoutState(t *testing.T) {
	for _, bad := range []trouble{readOnly, writeError, shortWrite, syncError} {
		t.Run(bad.name, func(t *testing.T) {
			m := settledDisk(t).Start()
			d := begin(t, m, carrying(nil))
			bad.come(m, "state")
			check := func(op procedure.Operation, version, owner, text string) {
				t.Helper()
				who, err := d.owner()
				if d.version() != version || who != owner || err != nil {
					t.Errorf("%s: %s runs with the data of %q: %v", op.Kind, d.version(), who, err)
				}
				if bad.name == syncError.name {
					text = "a power cut" // what it finds is not known
				}
				if !strings.Contains(op.Text, text) || !strings.Contains(d.findings(), text[:11]) {
					t.Errorf("%s: operation says %q, event %q", op.Kind, op.Text, d.findings())
				}
			}
			var op procedure.Operation
			d, op = carried(t, d, mib.OperationKindReset)
			check(op, "2.0.0", "third", "a power cut would undo this")
			d, op = carried(t, d, mib.OperationKindRestoreOldSoftware)
			check(op, "1.0.0", "old", "after a power cut, bank 2 would start")
			d, op = carried(t, d, mib.OperationKindReset)
			check(op, "1.0.0", "old", "after a power cut, bank 2 would start")
			if _, err := d.carryOut(command{kind: mib.OperationKindBackupConfig}); err == nil {
				t.Error("an operation was accepted that could not be journaled")
			}
			d.powerOff()
			peeked := strings.Join(agent.Peek(crashDevice(m, nil).agentConfig()).Findings, "\n")
			if strings.Contains(peeked, "the state is read-only") != (bad.name == readOnly.name) {
				t.Errorf("peeked: %s", peeked)
			}
			m = m.Settled().Start()
			if d = begin(t, m, carrying(nil)); d.version() != "2.0.0" && bad.name != syncError.name {
				t.Errorf("after a power cut %s runs", d.version())
			} else if err := d.usable(); err != nil {
				t.Errorf("healed: %v", err)
			}
		})
	}
}

// What could not be written is written when that is possible again, without a command.
func TestStateWritableAgain(t *testing.T) {
	for name, restarts := range map[string]bool{"by itself": false, "at a restart": true} {
		t.Run(name, func(t *testing.T) {
			m := settledDisk(t).Start()
			clock := &hastyClock{}
			hasty := func(from *live) func(*agent.Config) {
				return func(c *agent.Config) { carrying(from)(c); c.Clock = clock }
			}
			d := begin(t, m, hasty(nil))
			readOnly.come(m, "state")
			if _, err := d.carryOut(command{kind: mib.OperationKindRestoreOldSoftware}); !errors.As(err, new(*procedure.RestartError)) {
				t.Fatal(err)
			}
			if restarts {
				m.Heal()
			}
			d = begin(t, m, hasty(d))
			if err := d.wait(func(s *procedure.Snapshot) bool { return s.Op.State.Final() && s.Sent == s.Seq }); err != nil {
				t.Fatal(err)
			}
			if op := d.Engine().Snapshot().Op; op.State != mib.OperationStateSucceeded || (op.Text == "") != restarts {
				t.Errorf("%s %q", op.State, op.Text)
			}
			if !restarts {
				if !d.Engine().Snapshot().Banks.Unsaved {
					t.Fatal("the boot record was written to a read-only partition")
				}
				m.Heal()
				clock.jump(time.Minute)
				if err := d.wait(func(s *procedure.Snapshot) bool { return !s.Banks.Unsaved }); err != nil {
					t.Fatal(err)
				}
			}
			d.powerOff()
			if d.Unsaved() != nil {
				t.Error("something is not written")
			}
			d = begin(t, m.Settled().Start(), nil)
			op := d.Engine().Snapshot().Op
			if who, err := d.owner(); d.version() != "1.0.0" || who != "old" || err != nil || op.Kind != mib.OperationKindRestoreOldSoftware {
				t.Errorf("after a power cut %s runs with the data of %q, %v; the last operation was %s", d.version(), who, err, op.Kind)
			}
		})
	}
}

// What is handed over is not believed if it is not what a device hands over; the disk
// counts then.
func TestCarriedNonsense(t *testing.T) {
	for _, text := range []string{"", "nonsense", "{}", `{"boot":{"next":7},"journal":{"seq":-1}}`, `{"boot":"x","journal":[]}`, `{"boot":{"banks":[]}}`} {
		m := settledDisk(t).Start()
		d := begin(t, m, func(c *agent.Config) { c.PassesUnsaved, c.Unsaved = true, []byte(text) })
		if s := d.Engine().Snapshot(); d.version() != "2.0.0" || s.Op.Kind != mib.OperationKindRecoverConfig {
			t.Errorf("%q: %s runs, the last operation was %s", text, d.version(), s.Op.Kind)
		}
		d.powerOff()
		if text := d.Unsaved(); text != nil {
			t.Errorf("not written: %s", text)
		}
	}
}

// Software on trial that is given up stays so over restarts, with the true cause.
func TestGivenUpWithoutState(t *testing.T) {
	m := crashStart(t).Start()
	d := begin(t, m, carrying(nil))
	_, err := d.carryOut(command{kind: mib.OperationKindDownloadSoftware, options: procedure.ThenActivate | procedure.ThenReset, file: "3.0.0"})
	if !errors.As(err, new(*procedure.RestartError)) {
		t.Fatal(err)
	}
	d = begin(t, m, carrying(d))
	readOnly.come(m, "state") // so its trial cannot be journaled
	if err := d.wait(func(*procedure.Snapshot) bool { return false }); !errors.As(err, new(*procedure.RestartError)) {
		t.Fatal(err)
	}
	if size := len(d.Unsaved()); size == 0 || size > 128<<10-64 || !json.Valid(d.Unsaved()) {
		t.Errorf("%d bytes are handed over", size)
	}
	d = begin(t, m, carrying(d))
	s := d.Engine().Snapshot()
	if d.version() != "1.0.0" || s.Op.State != mib.OperationStateFailed || s.Op.Cause != mib.FailCauseStorageFull ||
		s.Banks.Bank(2).State != mib.BankStateFailed || s.Banks.Bank(2).Cause != mib.FailCauseStorageFull || s.Reason != mib.RestartReasonRollback {
		t.Errorf("%s runs, the operation is %s %d %s, bank 2 %+v", d.version(), s.Op.State, s.Op.Cause, s.Op.Text, s.Banks.Bank(2))
	}
}
