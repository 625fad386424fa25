package sim

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"example.com/iad/agent"
	"example.com/iad/agent/board"
	"example.com/iad/agent/procedure"
	"example.com/iad/bank"
	"example.com/iad/bank/image"
	"example.com/iad/internal/crashfs"
	"example.com/iad/mib"
)

// The tests of this file run a whole virtual device on partitions that are full,
// write-protected or broken.

// trouble is what is wrong with a partition.
type trouble struct {
	name string
	come func(m *crashfs.Machine, part string)
}

func failing(name string, f crashfs.Fault) trouble {
	return trouble{name, func(m *crashfs.Machine, part string) {
		f.Part = part
		m.Fail(f)
	}}
}

var (
	full = trouble{"full", func(m *crashfs.Machine, part string) {
		m.Limit(part, m.Used(part))
		m.Fail(crashfs.Fault{Op: crashfs.OpCreate, Part: part, Err: syscall.ENOSPC})
		m.Fail(crashfs.Fault{Op: crashfs.OpMkdir, Part: part, Err: syscall.ENOSPC})
	}}
	readOnly   = trouble{"read-only", (*crashfs.Machine).ReadOnly}
	writeError = failing("write error", crashfs.Fault{Op: crashfs.OpWrite, Err: syscall.EIO})
	shortWrite = failing("short write", crashfs.Fault{Op: crashfs.OpWrite, Err: io.ErrShortWrite})
	syncError  = failing("sync error", crashfs.Fault{Op: crashfs.OpSync, Err: syscall.EIO})
	readError  = failing("read error", crashfs.Fault{Op: crashfs.OpRead, Err: syscall.EIO})
	gone       = failing("gone", crashfs.Fault{Err: syscall.EIO})
)

// on starts a device on the machine and ends it with the test.
func on(t *testing.T, m *crashfs.Machine) *live {
	t.Helper()
	d, err := powerOn(m, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.powerOff)
	if err := checkDevice(d.Agent, m); err != nil {
		t.Error(err)
	}
	return d
}

// restart carries an operation out over the restart that it makes.
func restart(t *testing.T, d *live, c command) *live {
	t.Helper()
	_, err := d.carryOut(c)
	var again *procedure.RestartError
	if !errors.As(err, &again) {
		op := d.Engine().Snapshot().Op
		t.Fatalf("%s: no restart; %s %d %s, %v", c.kind, op.State, op.Cause, op.Text, err)
	}
	return on(t, d.m)
}

// A start that fails because the SNMP socket cannot be used is not the software's fault: it
// costs no try, and no event reports it.
func TestStartWithoutSocket(t *testing.T) {
	closed, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	m := settledDisk(t).Start()
	d := on(t, m)
	for _, c := range []command{
		{kind: mib.OperationKindDownloadSoftware, options: procedure.AllowDowngrade, file: "1.1.0"},
		{kind: mib.OperationKindActivate, options: procedure.AllowDowngrade},
	} {
		if op, err := d.carryOut(c); err != nil || op.State != mib.OperationStateSucceeded {
			t.Fatal(op.State, op.Text, err)
		}
	}
	d.powerOff()
	before := m.Settled()
	for range 2 * bank.Tries {
		_, err := powerOn(m, func(c *agent.Config) { c.SNMP.Conn = closed })
		if !errors.Is(err, net.ErrClosed) {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"boot.a", "boot.b", "journal.a", "journal.b"} {
		was, _ := before.Read("state", name)
		if is, _ := m.Settled().Read("state", name); !bytes.Equal(is, was) {
			t.Errorf("%s has changed", name)
		}
	}
	if d = on(t, m); d.version() != "1.1.0" {
		t.Errorf("%s runs", d.version())
	}
}

// Trouble with the state partition keeps no device from starting with its software
// and its configuration data.
func TestStartWithBrokenState(t *testing.T) {
	for _, bad := range []trouble{full, readOnly, writeError, shortWrite, syncError, gone} {
		t.Run(bad.name, func(t *testing.T) {
			m := settledDisk(t).Start()
			bad.come(m, "state")
			d := on(t, m)
			who, err := d.owner()
			version, owner := "2.0.0", "third"
			if bad.name == gone.name {
				// Which software was good is not known, and no start on trial can
				// be counted.
				version, owner = "1.0.0", "old"
			}
			if d.version() != version || who != owner || err != nil {
				t.Errorf("%s runs with the data of %q: %v", d.version(), who, err)
			}
			if op, err := d.carryOut(command{kind: mib.OperationKindBackupConfig}); err == nil && op.State != mib.OperationStateSucceeded {
				t.Errorf("%s %d %s", op.State, op.Cause, op.Text)
			} else if bad.name != full.name && err == nil {
				t.Error("an operation was accepted that could not be journaled")
			}
			d.powerOff()
			m.Heal()
			if d := on(t, m); d.version() != "2.0.0" {
				t.Errorf("healed, %s runs", d.version())
			} else if err := d.usable(); err != nil {
				t.Errorf("healed: %v", err)
			}
		})
	}
}

// The way back needs no room on the state and data partitions, and is remembered.
func TestBackOnFullPartitions(t *testing.T) {
	m := settledDisk(t).Start()
	full.come(m, "state")
	full.come(m, "data")
	d := on(t, m)
	for i, version := range []string{"1.0.0", "1.0.0"} {
		c := command{kind: mib.OperationKindRestoreOldSoftware}
		if i == 0 {
			d = restart(t, d, c)
		} else if op, err := d.carryOut(c); err != nil || op.State != mib.OperationStateSucceeded {
			t.Fatalf("again: %s %d %s %v", op.State, op.Cause, op.Text, err)
		}
		if err := d.wait(func(s *procedure.Snapshot) bool { return s.Op.State.Final() && s.Sent == s.Seq }); err != nil {
			t.Fatal(err)
		}
		op := d.Engine().Snapshot().Op
		if op.Kind != mib.OperationKindRestoreOldSoftware || op.State != mib.OperationStateSucceeded {
			t.Errorf("operation %d %s: %s %d %s", op.ID, op.Kind, op.State, op.Cause, op.Text)
		}
		if who, err := d.owner(); d.version() != version || who != "old" || err != nil {
			t.Errorf("%s runs with the data of %q: %v", d.version(), who, err)
		}
	}
	d = restart(t, d, command{kind: mib.OperationKindReset})
	if who, err := d.owner(); d.version() != "1.0.0" || who != "old" || err != nil {
		t.Errorf("after a reset %s runs with the data of %q: %v", d.version(), who, err)
	}
	m.Heal()
	if err := d.usable(); err != nil {
		t.Errorf("with room again: %v", err)
	}
}

// Where the boot record cannot be written, going back fails on a board that hands nothing
// over its restart (see TestBackWithoutState for others), and nothing is changed;
// software on trial gives way to the old one at the next start, because the start on
// trial could not be counted.
func TestBackWithoutBootRecord(t *testing.T) {
	for _, bad := range []trouble{readOnly, writeError, shortWrite, syncError} {
		t.Run(bad.name, func(t *testing.T) {
			m := settledDisk(t).Start()
			d := on(t, m)
			bad.come(m, "state")
			op, err := d.carryOut(command{kind: mib.OperationKindRestoreOldSoftware})
			if err != nil || op.Cause != mib.FailCauseBootFlagError || !strings.Contains(op.Text, "survive the restart") || d.version() != "2.0.0" {
				t.Errorf("%s %d %s, %v", op.State, op.Cause, op.Text, err)
			}
			m.Heal()
			if d := restart(t, d, command{kind: mib.OperationKindRestoreOldSoftware}); d.version() != "1.0.0" {
				t.Errorf("healed, %s runs", d.version())
			}
		})
		t.Run(bad.name+" in a trial", func(t *testing.T) {
			m := crashStart(t).Start()
			d := on(t, m)
			d = restart(t, d, command{kind: mib.OperationKindDownloadSoftware, options: procedure.ThenActivate | procedure.ThenReset, file: "3.0.0"})
			// 3.0.0 does not pass its self-test and is given up.
			bad.come(m, "state")
			if err := d.wait(func(s *procedure.Snapshot) bool { return false }); !errors.As(err, new(*procedure.RestartError)) {
				t.Fatal(err)
			}
			d = on(t, m)
			if who, err := d.owner(); d.version() != "1.0.0" || who != "old" || err != nil {
				t.Errorf("%s runs with the data of %q: %v", d.version(), who, err)
			}
			d.powerOff()
			m.Heal()
			// The record may still have tries left for the new software.
			if d = on(t, m); d.version() != "1.0.0" {
				if err := d.wait(func(s *procedure.Snapshot) bool { return false }); !errors.As(err, new(*procedure.RestartError)) {
					t.Fatalf("healed: %v", err)
				}
				d = on(t, m)
			}
			if d.version() != "1.0.0" {
				t.Errorf("healed, %s runs", d.version())
			}
			if err := d.usable(); err != nil {
				t.Errorf("healed: %v", err)
			}
		})
	}
}

// A download into a bank that is full or broken fails with its cause; the software that
// runs is untouched, and the download succeeds once the bank is well.
func TestDownloadIntoBrokenBank(t *testing.T) {
	for _, bad := range []struct {
		trouble
		want mib.FailCause
	}{
		{trouble{"full in the middle", func(m *crashfs.Machine, part string) { m.Limit(part, 3000) }}, mib.FailCauseStorageFull},
		{failing("no room for names", crashfs.Fault{Op: crashfs.OpCreate, Err: syscall.ENOSPC}), mib.FailCauseStorageFull},
		{readOnly, mib.FailCauseEraseError},
		{writeError, mib.FailCauseWriteError},
		{shortWrite, mib.FailCauseWriteError},
		{syncError, mib.FailCauseEraseError},
		{failing("sync error of a payload", crashfs.Fault{Op: crashfs.OpSync, Path: "app", Err: syscall.EIO}), mib.FailCauseWriteError},
		{failing("read error when all is there", crashfs.Fault{Op: crashfs.OpRead, Path: "app", Err: syscall.EIO}), mib.FailCauseReadBackMismatch},
	} {
		t.Run(bad.name, func(t *testing.T) {
			start := settledDisk(t)
			m := start.Start()
			d := on(t, m)
			bad.come(m, "bank1")
			c := command{kind: mib.OperationKindDownloadSoftware, options: procedure.Force | procedure.AllowDowngrade, file: "3.0.0"}
			op, err := d.carryOut(c)
			if err != nil || op.State != mib.OperationStateFailed || op.Cause != bad.want {
				t.Errorf("%s %d %s, %v; want cause %d", op.State, op.Cause, op.Text, err, bad.want)
			}
			samePart(t, "bank2", start, m.Settled())
			if bad.name == readOnly.name {
				samePart(t, "bank1", start, m.Settled())
				if n := d.Engine().Snapshot().Banks; n.Banks[0].State != mib.BankStateGood || n.Fallback != 1 {
					t.Errorf("the old software is lost: %+v", n)
				}
			}
			d.powerOff()
			// The bank stays broken over a start.
			if d := on(t, m); d.version() != "2.0.0" {
				t.Errorf("%s runs", d.version())
			} else {
				m.Heal()
				if op, err := d.carryOut(c); err != nil || op.State != mib.OperationStateSucceeded {
					t.Errorf("healed: %s %d %s, %v", op.State, op.Cause, op.Text, err)
				}
			}
		})
	}
}

func samePart(t *testing.T, part string, a, b *crashfs.Disk) {
	t.Helper()
	if !slices.Equal(a.Files(part), b.Files(part)) {
		t.Errorf("%s holds %v", part, b.Files(part))
	}
	for _, name := range a.Files(part) {
		was, _ := a.Read(part, name)
		if is, _ := b.Read(part, name); string(is) != string(was) {
			t.Errorf("%s: %s has changed", part, name)
		}
	}
}

// A medium that does not read once costs nothing; software that was good and could not be
// read for the time of a start is good again when it can.
func TestReadErrorsOfBanks(t *testing.T) {
	m := settledDisk(t).Start()
	for _, part := range []string{"bank1", "bank2"} {
		m.Fail(crashfs.Fault{Op: crashfs.OpRead, Part: part, Path: "app", Times: 1, Err: syscall.EIO})
		m.Fail(crashfs.Fault{Op: crashfs.OpOpen, Part: part, Path: image.ManifestName, Times: 1, Err: syscall.EIO})
	}
	d := on(t, m)
	if d.version() != "2.0.0" || d.findings() != "" {
		t.Errorf("%s runs, findings %q", d.version(), d.findings())
	}
	for _, part := range []string{"bank1", "bank2"} {
		d.powerOff()
		readError.come(m, part)
		d = on(t, m)
		d.powerOff()
		m.Heal()
		d = on(t, m)
		// The bank that does not run is read after the start.
		if err := d.wait(func(s *procedure.Snapshot) bool {
			return s.Banks.Banks[0].State == mib.BankStateGood && s.Banks.Banks[1].State == mib.BankStateGood
		}); err != nil {
			t.Fatal(err)
		}
		if part == "bank2" { // the fallback took over
			d = restart(t, d, command{kind: mib.OperationKindActivate, options: procedure.ThenReset})
			if err := d.wait(func(s *procedure.Snapshot) bool { return !s.Banks.OnTrial() }); err != nil {
				t.Fatal(err)
			}
		}
		s := d.Engine().Snapshot()
		if b := s.Banks; d.version() != "2.0.0" || b.Banks[0].State != mib.BankStateGood || b.Banks[1].State != mib.BankStateGood || b.Fallback == 0 {
			t.Errorf("%s could not be read: later %s runs, %+v", part, d.version(), b)
		}
		if part == "bank1" && !strings.Contains(d.log.String(), "bank 1 is no longer corrupt") {
			t.Errorf("the log does not say that bank 1 is no longer corrupt: %s", d.log.String())
		}
	}
}

// Nothing is erased before it is known that the new software fits and that the record
// says so.
func TestNothingErasedInVain(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*Device)
		come   func(m *crashfs.Machine)
		want   mib.FailCause
	}{
		{name: "no room", change: func(d *Device) { d.platform.hooks.Free = func(int) (int64, error) { return -5000, nil } }, want: mib.FailCauseStorageFull},
		{name: "no room left for configuration data", change: func(d *Device) {
			d.platform.hooks.Free = func(int) (int64, error) { return 200_000, nil }
			root, _ := board.RootIn(os.TempDir()) // all on one file system
			d.platform.disk.root = &root
		}, want: mib.FailCauseStorageFull},
		{name: "bank too small", change: func(d *Device) { d.platform.bankSize = 1000 }, want: mib.FailCauseFileTooLarge},
		{name: "room not known", change: func(d *Device) {
			d.platform.hooks.Free = func(int) (int64, error) { return 0, syscall.EIO }
		}, want: mib.FailCauseWriteError},
		{name: "boot record full", come: func(m *crashfs.Machine) {
			m.Fail(crashfs.Fault{Op: crashfs.OpWrite, Part: "state", Path: "boot*", Err: syscall.ENOSPC})
		}, want: mib.FailCauseBootFlagError},
		{name: "boot record not synced", come: func(m *crashfs.Machine) {
			m.Fail(crashfs.Fault{Op: crashfs.OpSync, Part: "state", Path: "boot*", Err: syscall.EIO})
		}, want: mib.FailCauseBootFlagError},
	} {
		t.Run(test.name, func(t *testing.T) {
			start := settledDisk(t)
			m := start.Start()
			d, err := powerOn(m, func(c *agent.Config) {
				if test.change != nil {
					device := crashDevice(m, nil)
					test.change(device)
					c.Platform = device.platform
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			defer d.powerOff()
			if test.come != nil {
				test.come(m)
			}
			op, err := d.carryOut(command{kind: mib.OperationKindDownloadSoftware, options: procedure.Force | procedure.AllowDowngrade, file: "3.0.0"})
			if err != nil || op.Cause != test.want {
				t.Errorf("%s %d %s, %v; want cause %d", op.State, op.Cause, op.Text, err, test.want)
			}
			if strings.HasSuffix(op.Text, "…") {
				t.Errorf("cut before its end: %s", op.Text)
			}
			for _, o := range m.Ops() {
				if strings.HasPrefix(o.Part, "bank") && o.Path != "probe.tmp" {
					t.Errorf("%s", o)
				}
			}
			samePart(t, "bank1", start, m.Settled())
			if _, err := d.carryOut(command{kind: mib.OperationKindBackupConfig}); err != nil {
				t.Error(err)
			}
		})
	}
}

// Configuration data that cannot be stored leave those in force as they are, also over
// a start.
func TestImportWithBrokenData(t *testing.T) {
	for _, bad := range []struct {
		trouble
		want []mib.FailCause
	}{
		{full, []mib.FailCause{mib.FailCauseStorageFull}},
		{readOnly, []mib.FailCause{mib.FailCauseWriteError, mib.FailCauseStorageFull}},
		{writeError, []mib.FailCause{mib.FailCauseWriteError}},
		{shortWrite, []mib.FailCause{mib.FailCauseWriteError}},
		{syncError, []mib.FailCause{mib.FailCauseWriteError}},
		{failing("sync error of the pointer", crashfs.Fault{Op: crashfs.OpSync, Path: "current*", Err: syscall.EIO}), []mib.FailCause{mib.FailCauseConfigSaveError}},
		{failing("rename error", crashfs.Fault{Op: crashfs.OpRename, Path: "current*", Err: syscall.EIO}), []mib.FailCause{mib.FailCauseConfigSaveError}},
		{readError, []mib.FailCause{mib.FailCauseConfigReadError}},
	} {
		t.Run(bad.name, func(t *testing.T) {
			m := settledDisk(t).Start()
			d := on(t, m)
			bad.come(m, "data")
			c := command{kind: mib.OperationKindRecoverConfig, format: 2, who: "fourth"}
			op, err := d.carryOut(c)
			if err != nil || op.State != mib.OperationStateFailed || !slices.Contains(bad.want, op.Cause) {
				t.Errorf("%s %d %s, %v; want cause %d", op.State, op.Cause, op.Text, err, bad.want)
			}
			d.powerOff()
			d, err = powerOn(m, nil)
			if err != nil {
				t.Fatalf("no start: %v", err)
			}
			if d.version() != "2.0.0" {
				t.Errorf("%s runs", d.version())
			}
			d.powerOff()
			m.Heal()
			d = on(t, m)
			if who, err := d.owner(); who != "third" || err != nil {
				t.Errorf("healed, the data of %q are in force: %v", who, err)
			}
			if op, err := d.carryOut(c); err != nil || op.State != mib.OperationStateSucceeded {
				t.Errorf("healed: %s %d %s, %v", op.State, op.Cause, op.Text, err)
			}
		})
	}
}

// A data partition that cannot be read at all does not keep the software from starting
// on its defaults, and nothing on it is lost.
func TestStartWithoutData(t *testing.T) {
	m := settledDisk(t).Start()
	gone.come(m, "data")
	d, err := powerOn(m, nil)
	if err != nil {
		t.Fatal(err)
	}
	if text := d.findings(); d.version() != "2.0.0" || !strings.Contains(text, "configuration data") {
		t.Errorf("%s runs; event: %s", d.version(), text)
	}
	op, err := d.carryOut(command{kind: mib.OperationKindRecoverConfig, format: 2, who: "fourth"})
	if err != nil || op.State != mib.OperationStateFailed {
		t.Errorf("%s %d %s, %v", op.State, op.Cause, op.Text, err)
	}
	d.powerOff()
	m.Heal()
	d = on(t, m)
	if who, err := d.owner(); who != "third" || err != nil {
		t.Errorf("healed, the data of %q are in force: %v", who, err)
	}
	if err := d.usable(); err != nil {
		t.Error(fmt.Errorf("healed: %w", err))
	}
}

// Configuration data that cannot be read at one start are in force again at the
// next; no import is lost by it.
func TestConfigurationUnreadableOnce(t *testing.T) {
	m := settledDisk(t).Start()
	d, err := powerOn(m, nil)
	if err != nil {
		t.Fatal(err)
	}
	op, err := d.carryOut(command{kind: mib.OperationKindRecoverConfig, format: 2, who: "fourth"})
	if err != nil || op.State != mib.OperationStateSucceeded {
		t.Fatalf("%v: %s, %v", op.State, op.Text, err)
	}
	d.powerOff()
	for i, want := range []string{"third", "fourth"} {
		m.Heal()
		if i == 0 {
			m.Fail(crashfs.Fault{Op: crashfs.OpRead, Part: "data", Path: "gen-00000004/userData", Err: syscall.EIO})
		}
		if d, err = powerOn(m, nil); err != nil {
			t.Fatal(err)
		}
		if who, err := d.owner(); who != want || err != nil {
			t.Errorf("start %d: the data of %q, %v; want %q", i+1, who, err, want)
		}
		if text := d.findings(); strings.Contains(text, "generation 4") != (i == 0) {
			t.Errorf("start %d reports %q", i+1, text)
		}
		d.powerOff()
	}
}
