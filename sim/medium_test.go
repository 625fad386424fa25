package sim

import (
	"fmt"
	"os"
	"testing"

	"github.com/spf13/afero"
)

// written is a medium with a file that was synced and changes that were not.
func written(t *testing.T) (*medium, afero.Fs) {
	t.Helper()
	d := Memory()
	m := newMedium(&d)
	state := m.disk(&d).State
	put := func(name, text string, sync bool) {
		f, err := state.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o640)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString(text); err != nil {
			t.Fatal(err)
		}
		if sync {
			dir, err := state.Open(".")
			if err != nil {
				t.Fatal(err)
			}
			if f.Sync() != nil || dir.Sync() != nil || dir.Close() != nil {
				t.Fatal("sync")
			}
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	put("before", "before", false)
	// A file that is open for writing keeps the disk as it is until it is closed.
	open, err := state.OpenFile("open", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.distinguish(true); err != nil || m.machine != nil {
		t.Fatalf("%v, %v", m.machine, err)
	}
	if _, err := open.WriteString("open"); err != nil || open.Close() != nil || m.machine == nil {
		t.Fatalf("%v, %v", m.machine, err)
	}
	put("synced", "synced", true)
	put("unsynced", "unsynced", false)
	if err := state.Remove("before"); err != nil {
		t.Fatal(err)
	}
	return m, d.State
}

// contents are the files of a file system.
func contents(fs afero.Fs) (all string) {
	for _, name := range []string{"before", "open", "synced", "unsynced"} {
		if data, err := afero.ReadFile(fs, name); err == nil {
			all += fmt.Sprintf("%s=%q ", name, data)
		}
	}
	return all
}

// A power cut leaves what was synced, and of the rest what it is to leave.
func TestUnsyncedWrites(t *testing.T) {
	for how, want := range map[string]string{
		UnsyncedLost: `before="before" open="open" synced="synced" `,
		UnsyncedKept: `open="open" synced="synced" unsynced="unsynced" `,
		"":           `open="open" synced="synced" unsynced="unsynced" `,
	} {
		m, base := written(t)
		if err := m.cut("SIM-00001", how); err != nil || contents(base) != want {
			t.Errorf("%q: %s, %v, want %s", how, contents(base), err, want)
		}
		if info, err := base.Stat("synced"); err != nil || info.Mode().Perm() != 0o640 {
			t.Errorf("%q: %v, %v", how, info, err)
		}
	}
	found := map[string]int{}
	for i := range 40 {
		var twice [2]string
		for k := range twice {
			m, base := written(t)
			if err := m.cut(fmt.Sprint("SIM-", i), UnsyncedMixed); err != nil {
				t.Fatal(err)
			}
			if data, err := afero.ReadFile(base, "synced"); err != nil || string(data) != "synced" {
				t.Fatalf("what was synced is %q, %v", data, err)
			}
			twice[k] = contents(base)
		}
		if twice[0] != twice[1] {
			t.Errorf("the same device is left with %s and with %s", twice[0], twice[1])
		}
		found[twice[0]]++
	}
	if len(found) < 4 {
		t.Errorf("40 devices are left with %v", found)
	}
}
