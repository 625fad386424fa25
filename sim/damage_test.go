package sim

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/iad/agent"
	"example.com/iad/agent/procedure"
	"example.com/iad/agent/snmp"
	"example.com/iad/internal/crashfs"
	"example.com/iad/internal/durable"
	"example.com/iad/mib"
)

// The tests of this file start a whole virtual device on a disk that is damaged:
// it comes up, says what it found, keeps what is damaged, and can be used.

// settled is a disk on which a device lives that was upgraded: 2.0.0 runs in bank 2
// with the third set of its configuration data, 1.0.0 is in bank 1.
var settled = sync.OnceValues(func() (*crashfs.Disk, error) {
	script := []command{
		{kind: mib.OperationKindDownloadSoftware, options: procedure.ThenActivate | procedure.ThenReset, file: "2.0.0", version: "2.0.0"},
		{kind: mib.OperationKindRecoverConfig, format: 2, who: "second", version: "2.0.0", data: "second"},
		{kind: mib.OperationKindRecoverConfig, format: 2, who: "third", version: "2.0.0", data: "third"},
	}
	m := crashfs.NewDisk(crashParts...).Start()
	if err := crashDevice(m, nil).Provision(bytes.NewReader(crashImages["1.0.0"][softwareName]), crashSet(1, "old")); err != nil {
		return nil, err
	}
	if err := life(script, m, &world{}); err != nil {
		return nil, err
	}
	// Two starts with an SNMP engine and a setting each make both copies of all records.
	for i := range 2 {
		d, err := powerOn(m, nil)
		if err != nil {
			return nil, err
		}
		tx, refused := d.Tree().Set(mib.Caller{}, []mib.Varbind{
			{OID: d.Tree().Module().OID(mib.ConfirmWindow, 0), Value: mib.Uint32(uint32(300 + i))},
		})
		if refused != nil {
			return nil, refused
		}
		tx.Done()
		d.powerOff()
	}
	return m.Settled(), nil
})

func settledDisk(t testing.TB) *crashfs.Disk {
	t.Helper()
	d, err := settled()
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// live is a device that runs.
type live struct {
	*agent.Agent
	m      *crashfs.Machine
	step   command // what the file server serves
	world  world
	ear    *ear
	log    *lockedBuffer
	cancel context.CancelFunc
	ended  chan error
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// powerOn starts a device with an SNMP engine that has no sockets; change, which may
// be nil, alters its configuration.
func powerOn(m *crashfs.Machine, change func(*agent.Config)) (*live, error) {
	d := &live{m: m, ear: &ear{m: m}, log: &lockedBuffer{}, ended: make(chan error, 1)}
	cfg := crashDevice(m, memoryFiles{&d.world, &d.step, &hastyClock{}}).agentConfig()
	cfg.Fronts = []agent.FrontEnd{d.ear}
	cfg.SNMP = &snmp.Config{}
	cfg.Log = slog.New(slog.NewTextHandler(d.log, nil))
	if change != nil {
		change(&cfg)
	}
	var err error
	if d.Agent, err = agent.New(cfg); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	d.cancel = cancel
	go func() { d.ended <- d.Run(ctx) }()
	return d, nil
}

// powerOff ends it; what it wrote is kept.
func (d *live) powerOff() {
	d.cancel()
	d.ended <- <-d.ended
}

// wait waits until cond holds of a snapshot. The error is the device's restart if it
// does that first.
func (d *live) wait(cond func(*procedure.Snapshot) bool) error {
	changed, stop := d.Engine().Watch()
	defer stop()
	for {
		s := d.Engine().Snapshot()
		if cond(s) {
			return nil
		}
		select {
		case err := <-d.ended:
			d.ended <- err
			if err == nil {
				err = fmt.Errorf("stuck: operation %d %s is %s in %s: %s", s.Op.ID, s.Op.Kind, s.Op.State, s.Op.Phase, s.Op.Text)
			}
			return err
		case <-changed:
		}
	}
}

// carryOut commands an operation and waits for its end.
func (d *live) carryOut(c command) (procedure.Operation, error) {
	d.step = c
	if err := start(d.Agent, d.m, &c, &d.world); err != nil {
		return procedure.Operation{}, err
	}
	err := d.wait(func(s *procedure.Snapshot) bool { return s.Op.ID == d.world.opID && s.Op.State.Final() })
	return d.Engine().Snapshot().Op, err
}

func (d *live) version() string {
	v, _ := d.View().Value(mib.SoftwareVersion, mib.OID{0})
	return string(v.Bytes)
}

// owner is who the configuration data in force are of, "" for the defaults.
func (d *live) owner() (string, error) {
	set, err := inForce(d.Agent, d.m)
	for _, data := range set {
		_, who, _ := strings.Cut(string(data), "owner = ")
		return strings.TrimSpace(who), err
	}
	return "", err
}

// findings is the text of the last event restarted.
func (d *live) findings() string {
	events := d.Engine().Snapshot().Events
	for _, ev := range slices.Backward(events) {
		if ev.Type == mib.EventTypeRestarted {
			return ev.Text
		}
	}
	return ""
}

// usable shows that a device can be given configuration data and software.
func (d *live) usable() error {
	if err := d.wait(func(s *procedure.Snapshot) bool { return !s.Banks.OnTrial() && s.Sent == s.Seq }); err != nil {
		return err
	}
	file := map[string]string{"1.0.0": "2.0.0", "2.0.0": "1.0.0"}[d.version()]
	for _, c := range []command{
		{kind: mib.OperationKindRecoverConfig, format: crashFormats[d.version()], who: "fresh"},
		{kind: mib.OperationKindDownloadSoftware, options: procedure.Force | procedure.AllowDowngrade, file: file},
		{kind: mib.OperationKindBackupConfig},
	} {
		op, err := d.carryOut(c)
		if err != nil || op.State != mib.OperationStateSucceeded {
			return fmt.Errorf("%s: %s %d %s: %w", c.kind, op.State, op.Cause, op.Text, err)
		}
	}
	if who, err := d.owner(); err != nil || who != "fresh" {
		return fmt.Errorf("data of %q in force: %w", who, err)
	}
	return checkDevice(d.Agent, d.m)
}

// injury is a way to spoil a file.
type injury struct {
	name   string
	aside  string // how the name of what is kept goes on
	frames bool   // only for files that are frames
	spoil  func(d *crashfs.Disk, part, name string) *crashfs.Disk
}

var injuries = []injury{
	{"flipped bit", ".corrupt-1", false, func(d *crashfs.Disk, part, name string) *crashfs.Disk {
		data, _ := d.Read(part, name)
		return d.Flip(part, name, int64(len(data))*4)
	}},
	{"truncated", ".corrupt-1", false, func(d *crashfs.Disk, part, name string) *crashfs.Disk {
		data, _ := d.Read(part, name)
		return d.Write(part, name, data[:len(data)/2])
	}},
	{"empty", ".corrupt-1", false, func(d *crashfs.Disk, part, name string) *crashfs.Disk { return d.Write(part, name, nil) }},
	{"garbage", ".corrupt-1", false, func(d *crashfs.Disk, part, name string) *crashfs.Disk {
		return d.Write(part, name, bytes.Repeat([]byte{0xff, 0, '\n', 0x5a}, 500))
	}},
	{"replaced by a directory", ".corrupt-1", false, func(d *crashfs.Disk, part, name string) *crashfs.Disk {
		return d.Remove(part, name).Mkdir(part, name)
	}},
	{"of a newer version", ".newer-1", true, func(d *crashfs.Disk, part, name string) *crashfs.Disk {
		data, _ := d.Read(part, name)
		return d.Write(part, name, durable.EncodeFrame([4]byte(data[:4]), 1000, 1<<40, []byte("from the future")))
	}},
	{"whole, but not understood", ".corrupt-1", true, func(d *crashfs.Disk, part, name string) *crashfs.Disk {
		data, _ := d.Read(part, name)
		return d.Write(part, name, durable.EncodeFrame([4]byte(data[:4]), 1, 1<<40, []byte(`{"op":{"state":99},"number":"x","engine_id":7,"confirm_mode":9,"current":-1`)))
	}},
}

// Damage of every kind to every file of state, configuration data and software: what
// comes up is whole, the event restarted and the log name what was found, what is
// damaged is kept under a name that says so.
func TestDamage(t *testing.T) {
	for _, target := range []struct {
		name    string
		part    string
		files   []string // all of them are damaged
		keep    string   // what is renamed, if not the file; "-" if it stays
		version string   // that runs afterwards
		owner   string   // of the configuration data in force then
		silent  bool     // nobody needs the file
		late    bool     // the file is read after the start, and what is found is in the log only
		frames  bool
	}{
		{name: "boot.a", part: "state", files: []string{"boot.a"}, version: "2.0.0", owner: "third", frames: true},
		{name: "boot.b", part: "state", files: []string{"boot.b"}, version: "2.0.0", owner: "third", frames: true},
		{name: "boot record", part: "state", files: []string{"boot.a", "boot.b"}, version: "2.0.0", owner: "third", frames: true},
		{name: "journal.a", part: "state", files: []string{"journal.a"}, version: "2.0.0", owner: "third", frames: true},
		{name: "journal.b", part: "state", files: []string{"journal.b"}, version: "2.0.0", owner: "third", frames: true},
		{name: "journal", part: "state", files: []string{"journal.a", "journal.b"}, version: "2.0.0", owner: "third", frames: true},
		{name: "settings.a", part: "state", files: []string{"settings.a"}, version: "2.0.0", owner: "third", frames: true},
		{name: "settings.b", part: "state", files: []string{"settings.b"}, version: "2.0.0", owner: "third", frames: true},
		{name: "settings", part: "state", files: []string{"settings.a", "settings.b"}, version: "2.0.0", owner: "third", frames: true},
		{name: "identity.a", part: "state", files: []string{"identity.a"}, version: "2.0.0", owner: "third", frames: true},
		{name: "identity.b", part: "state", files: []string{"identity.b"}, version: "2.0.0", owner: "third", frames: true},
		{name: "identity", part: "state", files: []string{"identity.a", "identity.b"}, version: "2.0.0", owner: "third", frames: true},
		{name: "pointer", part: "data", files: []string{"current"}, version: "2.0.0", owner: "third", frames: true},
		{name: "data in force", part: "data", files: []string{"gen-00000003/portData"}, keep: "gen-00000003", version: "2.0.0", owner: "second"},
		{name: "their description", part: "data", files: []string{"gen-00000003/generation"}, keep: "gen-00000003", version: "2.0.0", owner: "second", frames: true},
		{name: "data of both", part: "data", files: []string{"gen-00000003/portData", "gen-00000002/userData"}, keep: "gen-00000003", version: "2.0.0"},
		{name: "data of the old software", part: "data", files: []string{"gen-00000001/otherData"}, keep: "gen-00000001", version: "2.0.0", owner: "third"},
		{name: "payload of the running software", part: "bank2", files: []string{"app"}, keep: "-", version: "1.0.0", owner: "old"},
		{name: "its manifest", part: "bank2", files: []string{"manifest.json"}, keep: "-", version: "1.0.0", owner: "old"},
		{name: "its signature", part: "bank2", files: []string{"manifest.json.minisig"}, keep: "-", version: "2.0.0", owner: "third", silent: true},
		{name: "payload of the old software", part: "bank1", files: []string{"selftest"}, keep: "-", version: "2.0.0", owner: "third", late: true},
		{name: "manifest of the old software", part: "bank1", files: []string{"manifest.json"}, keep: "-", version: "2.0.0", owner: "third"},
		{name: "everything but the old software", part: "state", version: "1.0.0", owner: "old"},
	} {
		for _, how := range injuries {
			if how.frames && !target.frames {
				continue
			}
			t.Run(target.name+" "+how.name, func(t *testing.T) {
				t.Parallel()
				disk, before := settledDisk(t), settledDisk(t)
				for _, file := range target.files {
					disk = how.spoil(disk, target.part, file)
				}
				if target.files == nil {
					for _, file := range append(disk.Files("state"), "bank2:app", "data:current", "data:gen-00000003/userData") {
						part, name, ok := strings.Cut(file, ":")
						if !ok {
							part, name = "state", file
						}
						disk = how.spoil(disk, part, name)
					}
				}
				d, err := powerOn(disk.Start(), nil)
				if err != nil {
					t.Fatal(err)
				}
				defer d.powerOff()
				if err := checkDevice(d.Agent, d.m); err != nil {
					t.Error(err)
				}
				if v := d.version(); v != target.version {
					t.Errorf("%s runs, want %s", v, target.version)
				}
				if who, err := d.owner(); err != nil || who != target.owner {
					t.Errorf("data of %q in force, want %q: %v", who, target.owner, err)
				}
				if target.late {
					if err := d.wait(func(s *procedure.Snapshot) bool { return s.Banks.Banks[0].State == mib.BankStateCorrupt }); err != nil {
						t.Fatal(err)
					}
				}
				text, log, found := d.findings(), d.log.String(), d.m.Settled()
				for _, file := range target.files {
					spoilt, _ := disk.Read(target.part, file)
					kept, speak := file+how.aside, file+how.aside
					switch target.keep {
					case "":
					case "-":
						kept, speak = file, target.part[:4]+" "+target.part[4:]+" is corrupt"
					default:
						directory, base, _ := strings.Cut(file, "/")
						kept, speak = directory+how.aside+"/"+base, directory+how.aside
					}
					if data, ok := found.Read(target.part, kept); !bytes.Equal(data, spoilt) || !ok && how.name != "replaced by a directory" {
						t.Errorf("%s is not kept as %s; there are %v", file, kept, found.Files(target.part))
					}
					if !target.silent && (!strings.Contains(log, speak) || !target.late && (len(target.files) == 1 && !strings.Contains(text, speak) || text == "")) {
						t.Errorf("nothing about %q in event %q or log\n%s", speak, text, log)
					}
				}
				if target.silent && text != "" {
					t.Errorf("event: %s", text)
				}
				nothingGone(t, before, found, target.files)
				if err := d.usable(); err != nil {
					t.Errorf("later: %v", err)
				}
			})
		}
	}
}

// nothingGone holds that what was whole before is still there, but for the records,
// which are written at every start.
func nothingGone(t *testing.T, before, after *crashfs.Disk, damaged []string) {
	t.Helper()
	for _, part := range []string{"bank1", "bank2", "data"} {
		for _, file := range before.Files(part) {
			directory, _, _ := strings.Cut(file, "/")
			moved := slices.ContainsFunc(damaged, func(d string) bool { return d == file || strings.HasPrefix(d, directory+"/") })
			was, _ := before.Read(part, file)
			needed := file != "current" && directory != "gen-00000002" // nobody remembers the second set
			if is, _ := after.Read(part, file); needed && !moved && damaged != nil && !bytes.Equal(is, was) {
				t.Errorf("%s: %s is not what it was", part, file)
			}
		}
	}
}

// The restarted event of a damaged device is the only one to speak; the next start has
// nothing to say.
func TestDamageIsToldOnce(t *testing.T) {
	for name, disk := range map[string]*crashfs.Disk{
		"damaged": settledDisk(t).Flip("state", "boot.a", 99).Flip("state", "settings.a", 99).Flip("state", "journal.b", 99).Flip("data", "current", 99),
		"missing": settledDisk(t).Remove("state", "boot.b").Remove("state", "settings.b").Remove("state", "journal.b"),
	} {
		for i := range 2 {
			d, err := powerOn(disk.Start(), nil)
			if err != nil {
				t.Fatal(err)
			}
			if text := d.findings(); (text == "") != (i == 1) {
				t.Errorf("%s, start %d: %q", name, i+1, text)
			}
			d.powerOff()
			disk = d.m.Settled()
		}
	}
}

// The event says something of each damage, however many there are.
func TestEveryDamageIsTold(t *testing.T) {
	disk := settledDisk(t).Flip("data", "gen-00000003/userData", 99).Flip("bank1", "app", 99)
	for _, name := range []string{"boot.a", "boot.b", "settings.a", "settings.b"} {
		disk = disk.Flip("state", name, 99)
	}
	text := on(t, disk.Start()).findings()
	for _, want := range []string{"bank 1 is", "boot recor", "boot.a.", "boot.b.", "generation", "settings.b"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in %q", want, text)
		}
	}
}

// A copy of the boot record that is missing is missed, and an import that was reported
// is in force though it was that copy that knew of it.
func TestBootCopyMissing(t *testing.T) {
	for _, name := range []string{"boot.a", "boot.b"} {
		d := on(t, settledDisk(t).Remove("state", name).Start())
		if who, err := d.owner(); err != nil || who != "third" || d.version() != "2.0.0" {
			t.Errorf("without %s %s runs with the data of %q: %v", name, d.version(), who, err)
		}
		if text := d.findings(); text != name+" is missing" {
			t.Errorf("event: %q", text)
		}
	}
}

// Configuration data that are gone without a trace are missed.
func TestDataGone(t *testing.T) {
	disk := settledDisk(t)
	for _, name := range []string{"current", "gen-00000001", "gen-00000002", "gen-00000003"} {
		disk = disk.Remove("data", name)
	}
	if left := disk.Files("data"); len(left) > 0 {
		t.Fatalf("still there: %v", left)
	}
	d, err := powerOn(disk.Start(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer d.powerOff()
	if text := d.findings(); !strings.Contains(text, "generation 3 are gone") {
		t.Errorf("event: %q", text)
	}
}

// A start in rescue mode destroys nothing.
func TestNoSoftwareLeft(t *testing.T) {
	disk := settledDisk(t).Flip("bank1", "app", 5).Flip("bank2", "app", 5)
	m := disk.Start()
	d, err := powerOn(m, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer d.powerOff()
	if text := d.findings(); text != "no usable software, rescue mode; bank 1 is corrupt; bank 2 is corrupt" {
		t.Errorf("%q", text)
	}
	for _, part := range []string{"bank1", "bank2", "data", "state"} {
		if !slices.Equal(disk.Files(part), m.Settled().Files(part)) {
			t.Errorf("%s: %v", part, m.Settled().Files(part))
		}
	}
}
