package uboot_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/spf13/afero"

	"example.com/iad/bank"
	"example.com/iad/bank/uboot"
	"example.com/iad/internal/crashfs"
)

var schemes = map[string]uboot.Scheme{
	"script":    uboot.Script{},
	"rauc":      uboot.RAUC{},
	"bootcount": uboot.Bootcount{Variable: "mender_boot_part", Values: [2]string{"2", "3"}},
}

var trial = bank.LoaderState{Next: 2, Left: 3, Fallback: 1}

var schemeVariables = map[string][]string{
	"script":    {"iad_next=2", "iad_left=3", "iad_fallback=1"},
	"rauc":      {"BOOT_ORDER=B A", "BOOT_A_LEFT=3", "BOOT_B_LEFT=3"},
	"bootcount": {"mender_boot_part=3", "upgrade_available=1", "bootcount=0", "bootlimit=3"},
}

// onDisk is an environment of two copies in a file of a crashfs or another file system.
func onDisk(fs afero.Fs, newer uboot.Newer) *uboot.Environment {
	e := uboot.Environment{
		Copies: []uboot.Copy{uboot.File{Fs: fs, Name: "env"}, uboot.File{Fs: fs, Name: "env", Offset: 0x800}},
		Size:   0x400, Order: binary.LittleEndian, Newer: newer, Create: true,
	}
	if newer == uboot.ByVariable {
		return uboot.ScriptEnvironment(e)
	}
	return &e
}

func TestStates(t *testing.T) {
	for name, scheme := range schemes {
		fs := afero.NewMemMapFs()
		if err := afero.WriteFile(fs, "env", make([]byte, 0x1000), 0o600); err != nil {
			t.Fatal(err)
		}
		l := &uboot.Loader{Environment: onDisk(fs, uboot.ByCounter), Scheme: scheme}
		if _, err := l.Load(); !errors.Is(err, bank.ErrLoaderLost) {
			t.Errorf("%s: an empty environment: %v", name, err)
		}
		for next := 1; next <= 2; next++ {
			for _, want := range []bank.LoaderState{
				{Next: next, Left: bank.Uncounted},
				{Next: next, Left: bank.Uncounted, Fallback: 3 - next},
				{Next: next, Left: 3, Fallback: 3 - next},
				{Next: next, Left: 1, Fallback: 3 - next},
				{Next: next, Left: 0, Fallback: 3 - next},
				{Next: next, Left: 2},
				{Next: next, Left: 10, Fallback: 3 - next},
				{Next: next, Left: 16, Fallback: 3 - next},
				{Next: next, Left: 200},
			} {
				if err := l.Store(want); err != nil {
					t.Fatal(err)
				}
				got, err := l.Load()
				if name == "bootcount" {
					want.Fallback = bank.FallbackNotKept
				}
				if err != nil || got != want {
					t.Errorf("%s: stored %+v, loaded %+v, %v", name, want, got, err)
				}
			}
		}
	}
}

// TestCountedByOthers: what the boot scripts and U-Boot do to the variables.
func TestCountedByOthers(t *testing.T) {
	good := bank.LoaderState{Next: 1, Left: bank.Uncounted, Fallback: 2}
	for _, c := range []struct {
		scheme  string
		stored  bank.LoaderState
		changes []string
		want    bank.LoaderState
	}{
		{"script", trial, []string{"iad_left=2"}, bank.LoaderState{Next: 2, Left: 2, Fallback: 1}},
		{"script", trial, []string{"iad_left=a"}, bank.LoaderState{Next: 2, Left: 10, Fallback: 1}},
		{"rauc", trial, []string{"BOOT_B_LEFT=2"}, bank.LoaderState{Next: 2, Left: 2, Fallback: 1}},
		{"rauc", bank.LoaderState{Next: 2, Left: 16, Fallback: 1}, []string{"BOOT_B_LEFT=f"}, bank.LoaderState{Next: 2, Left: 15, Fallback: 1}},
		{"rauc", trial, []string{"BOOT_B_LEFT=0x0"}, bank.LoaderState{Next: 2, Left: 0, Fallback: 1}},
		{"rauc", good, []string{"BOOT_A_LEFT=2"}, bank.LoaderState{Next: 1, Left: bank.Uncounted, Fallback: 2, Stale: true}},
		{"rauc", trial, []string{"BOOT_A_LEFT=1"}, bank.LoaderState{Next: 2, Left: 3, Fallback: 1, Stale: true}},
		{"bootcount", trial, []string{"bootcount=1"}, bank.LoaderState{Next: 2, Left: 2, Fallback: bank.FallbackNotKept}},
		{"bootcount", trial, []string{"bootcount=9"}, bank.LoaderState{Next: 2, Left: 0, Fallback: bank.FallbackNotKept}},
		{"bootcount", trial, []string{"mender_boot_part=2", "upgrade_available=0"}, bank.LoaderState{Next: 1, Left: bank.Uncounted, Fallback: bank.FallbackNotKept}},
	} {
		fs := afero.NewMemMapFs()
		if err := afero.WriteFile(fs, "env", nil, 0o600); err != nil {
			t.Fatal(err)
		}
		l := &uboot.Loader{Environment: onDisk(fs, uboot.ByCounter), Scheme: schemes[c.scheme]}
		if err := l.Store(c.stored); err != nil {
			t.Fatal(err)
		}
		change(t, l.Environment, c.changes)
		if got, err := l.Load(); err != nil || got != c.want {
			t.Errorf("%s, %v: %+v, %v; want %+v", c.scheme, c.changes, got, err, c.want)
		}
	}
}

func change(t *testing.T, e *uboot.Environment, changes []string) {
	t.Helper()
	err := e.Update(func(v *uboot.Variables) {
		for _, c := range changes {
			name, value, _ := strings.Cut(c, "=")
			v.Set(name, value)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestOddVariables: a state that makes no sense is a lost one, and names the variable.
func TestOddVariables(t *testing.T) {
	for _, c := range []struct{ scheme, variable string }{
		{"script", "iad_lost=1"}, {"script", "iad_next=3"}, {"script", "iad_next="}, {"script", "iad_left=many"}, {"script", "iad_left=fff"},
		{"script", "iad_fallback=-1"}, {"rauc", "BOOT_ORDER=C A"}, {"rauc", "BOOT_B_LEFT=x"}, {"rauc", "BOOT_A_LEFT="},
		{"bootcount", "mender_boot_part=1"}, {"bootcount", "bootlimit="}, {"bootcount", "bootcount=-1"},
	} {
		fs := afero.NewMemMapFs()
		if err := afero.WriteFile(fs, "env", nil, 0o600); err != nil {
			t.Fatal(err)
		}
		l := &uboot.Loader{Environment: onDisk(fs, uboot.ByCounter), Scheme: schemes[c.scheme]}
		if err := l.Store(trial); err != nil {
			t.Fatal(err)
		}
		change(t, l.Environment, []string{c.variable})
		name, _, _ := strings.Cut(c.variable, "=")
		if name == "iad_lost" {
			name = "boot script"
		}
		if s, err := l.Load(); !errors.Is(err, bank.ErrLoaderLost) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %+v, %v", c.variable, s, err)
		}
	}
}

// TestPowerCut cuts the power at every write of an update: one of the two environments is
// always found. Writing the copy in use must be noticed.
func TestPowerCut(t *testing.T) {
	for name, newer := range map[string]uboot.Newer{"counter": uboot.ByCounter, "active": uboot.ByActive, "variable": uboot.ByVariable} {
		for rounds := 1; rounds <= 3; rounds++ {
			if bad := cutUpdates(t, newer, rounds, nil); len(bad) > 0 {
				t.Errorf("%s, update %d: %d bad: %v", name, rounds, len(bad), bad[0])
			}
		}
		oneCopy := func(e *uboot.Environment) { e.Copies = e.Copies[:1] }
		if len(cutUpdates(t, newer, 2, oneCopy)) == 0 {
			t.Errorf("%s: the sweep does not notice that an environment in one copy can be lost", name)
		}
	}
}

// cutUpdates makes so many updates and cuts the power in the last one.
func cutUpdates(t *testing.T, newer uboot.Newer, rounds int, spoil func(*uboot.Environment)) (bad []error) {
	t.Helper()
	before := crashfs.NewDisk("dev").Write("dev", "env", make([]byte, 0x1000))
	update := func(m *crashfs.Machine, round int) error {
		e := onDisk(m.Fs("dev"), newer)
		if spoil != nil {
			spoil(e)
		}
		return e.Update(func(v *uboot.Variables) { v.Set("round", fmt.Sprint(round)) })
	}
	for round := range rounds {
		m := before.Start()
		if err := update(m, round); err != nil {
			t.Fatal(err)
		}
		before = m.Settled()
	}
	for op := 1; ; op++ {
		for _, when := range []crashfs.When{crashfs.Before, crashfs.Middle, crashfs.After} {
			m := before.Start()
			m.CutAt(op, when)
			if err := update(m, rounds); err == nil && !m.Down() {
				return bad
			}
			for _, found := range m.Disks(20, 1) {
				e := onDisk(found.Disk.Start().Fs("dev"), newer)
				if spoil != nil {
					spoil(e)
				}
				v, _, err := e.Load()
				if err != nil {
					bad = append(bad, fmt.Errorf("%s: %w", found.How, err))
				} else if r := v.Get("round"); r != fmt.Sprint(rounds) && r != fmt.Sprint(rounds-1) {
					bad = append(bad, fmt.Errorf("%s: found round %q", found.How, r))
				}
			}
		}
	}
}

// TestScriptOfRedundantUBoot: a U-Boot that was built for two copies exports a flags byte
// with each of a script's copies, and wants it in those that it imports.
func TestScriptOfRedundantUBoot(t *testing.T) {
	fs := afero.NewMemMapFs()
	if err := afero.WriteFile(fs, "env", make([]byte, 0x1000), 0o600); err != nil {
		t.Fatal(err)
	}
	theirs := onDisk(fs, uboot.ByCounter) // has the flags byte
	change(t, theirs, []string{"iad_seq=1", "iad_next=1", "iad_fallback=0"})
	l := &uboot.Loader{Environment: onDisk(fs, uboot.ByVariable), Scheme: uboot.Script{}}
	if s, err := l.Load(); err != nil || s.Next != 1 {
		t.Fatalf("%+v, %v", s, err)
	}
	for range 3 {
		if err := l.Store(trial); err != nil {
			t.Fatal(err)
		}
		if err := l.Store(bank.LoaderState{Next: 1, Left: bank.Uncounted}); err != nil {
			t.Fatal(err)
		}
	}
	v, findings, err := theirs.Load()
	if err != nil || len(findings) > 0 || v.Get("iad_next") == "" {
		t.Errorf("U-Boot reads %q, %q, %v", v.All(), findings, err)
	}
}

func TestConfigMistakes(t *testing.T) {
	for text, want := range map[string]string{
		"":                                 "names no environment",
		"/dev/x":                           "line 1",
		"/dev/x 0 zero":                    "line 1",
		"/dev/x -1 0x100":                  "line 1",
		"/dev/x 0 0xfffffffff":             "line 1",
		"/dev/x 0 0x100\n/dev/x 0 0x200":   "line 2",
		"#\n/x 0 9\n/x 0 9\n/x 0 9":        "3 copies",
		"/dev/mtd99 0 0x1000 0x1000 1 # c": "/dev/mtd99",
	} {
		if _, err := uboot.ReadConfig(strings.NewReader(text), binary.NativeEndian); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

func TestCmdline(t *testing.T) {
	for text, want := range map[string]string{
		"console=ttyS0 iad.bank=2 iad.why=load quiet\n": "2 load",
		"iad.bank=1 iad.bank=2":                         "2 ",
		"iad.bank=3 root=/dev/sda":                      "0 ",
		"":                                              "0 ",
	} {
		fs := afero.NewMemMapFs()
		if err := afero.WriteFile(fs, "/proc/cmdline", []byte(text), 0o400); err != nil {
			t.Fatal(err)
		}
		l := uboot.Loader{Cmdline: uboot.Cmdline{Fs: fs, Path: "/proc/cmdline", Parameter: "iad.bank", Values: [2]string{"1", "2"}, Why: "iad.why"}}
		n, why := l.Started()
		if got := fmt.Sprint(n, " ", why); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func FuzzLoad(f *testing.F) {
	fs := afero.NewMemMapFs()
	for name, scheme := range schemes {
		afero.WriteFile(fs, "env", nil, 0o600)
		l := &uboot.Loader{Environment: onDisk(fs, uboot.ByCounter), Scheme: scheme}
		if err := l.Store(trial); err != nil {
			f.Fatal(name, err)
		}
		data, _ := afero.ReadFile(fs, "env")
		f.Add(data, uint8(uboot.ByCounter))
	}
	f.Fuzz(func(t *testing.T, data []byte, newer uint8) {
		fs := afero.NewMemMapFs()
		afero.WriteFile(fs, "env", data, 0o600)
		for _, scheme := range schemes {
			l := &uboot.Loader{Environment: onDisk(fs, uboot.Newer(newer%3)), Scheme: scheme}
			s, err := l.Load()
			if err == nil && (s.Next < 1 || s.Next > 2 || s.Left < bank.Uncounted || s.Fallback < bank.FallbackNotKept || s.Fallback > 2) {
				t.Errorf("loaded %+v", s)
			}
			if err := l.Store(trial); err != nil {
				t.Skip() // full
			}
			if s, err := l.Load(); err != nil || s.Next != trial.Next || s.Left != trial.Left {
				t.Errorf("stored %+v, loaded %+v, %v", trial, s, err)
			}
		}
	})
}
