package sim

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"example.com/iad/agent"
	"example.com/iad/agent/procedure"
	"example.com/iad/internal/crashfs"
	"example.com/iad/mib"
)

var update = flag.Bool("update", false, "write the golden files anew")

// What an operation costs the flash: docs/wear.md has the counts, and this test
// holds them. Progress and time write nothing.
func TestWear(t *testing.T) {
	whole := []command{
		{kind: mib.OperationKindBackupConfig, version: "1.0.0", data: "old"},
		{kind: mib.OperationKindDownloadSoftware, options: procedure.ThenActivate | procedure.ThenReset, file: "2.0.0", version: "2.0.0"},
		{kind: mib.OperationKindRecoverConfig, options: procedure.ConvertFirst, format: 1, who: "old", version: "2.0.0", data: "old"},
		{kind: mib.OperationKindReset, version: "2.0.0", data: "old"},
		{kind: mib.OperationKindRestoreOldSoftware, version: "1.0.0", data: "old"},
	}
	// The first start of all creates the records and notes that it was.
	m := crashStart(t).Start()
	if err := life(nil, m, &world{}); err != nil {
		t.Fatal(err)
	}
	start := m.Settled()
	var b strings.Builder
	b.WriteString(wearText)
	var before wear
	for i := range whole {
		m := start.Start()
		var w world
		if err := life(whole[:i+1], m, &w); err != nil {
			t.Fatal(err)
		}
		now := count(m.Ops())
		if i == 0 {
			// The start has its own line.
			m := start.Start()
			a, err := crashStartOnly(m)
			if err != nil {
				t.Fatal(err)
			}
			before = count(a)
			before.line(&b, "a start")
			rescueStart(t, start).line(&b, "a start in rescue mode, after the first")
		}
		now.minus(before).line(&b, whole[i].String())
		before = now
	}
	b.WriteString(wearTrial)
	const file = "../docs/wear.md"
	if *update {
		if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if b.String() != string(want) {
		t.Errorf("%s is not what was counted; go test ./sim -run TestWear -update rewrites it:\n%s", file, b.String())
	}
}

const wearText = `# What an operation writes to flash

State is written when it changes, never for progress or for time that passes (but see below for a trial). The boot record, the journal and the
settings are small files in two copies, of which the older one is overwritten in place. These are the counts for a small
image (manifest, signature, two payloads, and before them an empty file, to check that the bank can be written); each further payload adds its own file, and its bytes are written once.
A payload on a raw partition adds a marker file that is replaced twice, and once more for every 4 MiB; its first block is written twice.
Temporary files are those of a conversion; they may be in memory (paths.work in iad.toml).

| writes of files | boot record | journal | settings | configuration data | bank | temporary |
|---|---|---|---|---|---|---|
`

const wearTrial = `
While software is on trial and waits for a manager to confirm it, the journal is also written each time a tenth of
iadUpgConfirmWindow has passed, at most ten times in a trial, so that the window continues after a power cut. Each start in such a trial writes the boot record
twice: a start uses up a try, and the passed self-test restores it. A start uses up at least a twentieth of the window, so a
trial has at most 20 starts, and with them at most 40 writes of the boot record.
`

// wear counts writes by what they are for.
type wear struct{ boot, journal, settings, data, bank, work int }

func (w wear) minus(o wear) wear {
	return wear{w.boot - o.boot, w.journal - o.journal, w.settings - o.settings, w.data - o.data, w.bank - o.bank, w.work - o.work}
}

func (w wear) line(b *strings.Builder, name string) {
	fmt.Fprintf(b, "| %s | %d | %d | %d | %d | %d | %d |\n", name, w.boot, w.journal, w.settings, w.data, w.bank, w.work)
}

func count(ops []crashfs.Op) (w wear) {
	for _, op := range ops {
		name := strings.TrimPrefix(op.Path, "/")
		switch {
		case op.Kind != crashfs.OpClose: // of a file that was written
		case op.Part == "state" && strings.HasPrefix(name, "boot"):
			w.boot++
		case op.Part == "state" && strings.HasPrefix(name, "journal"):
			w.journal++
		case op.Part == "state" && strings.HasPrefix(name, "settings"):
			w.settings++
		case op.Part == "data":
			w.data++
		case op.Part == "work":
			w.work++
		default:
			w.bank++
		}
	}
	return w
}

func (c command) String() string {
	s := c.kind.String()
	if c.options != 0 {
		s += " (" + c.options.String() + ")"
	}
	return s
}

// rescueStart counts the writes of a start without usable software.
func rescueStart(t *testing.T, disk *crashfs.Disk) wear {
	m := disk.Flip("bank1", "app", 99).Start()
	var ops [2]int
	for i := range ops {
		ops[i] = len(m.Ops())
		if _, err := agent.New(crashDevice(m, nil).agentConfig()); err != nil {
			t.Fatal(err)
		}
	}
	return count(m.Ops()[ops[1]:])
}

// crashStartOnly starts a device that has nothing to do.
func crashStartOnly(m *crashfs.Machine) ([]crashfs.Op, error) {
	_, err := boot(nil, &command{}, m, &world{}, crashDevice(m, nil), &hastyClock{})
	return m.Ops(), err
}
