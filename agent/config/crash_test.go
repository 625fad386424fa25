package config_test

import (
	"fmt"
	"os"
	"reflect"
	"testing"

	"github.com/spf13/afero"

	"example.com/iad/agent/config"
	"example.com/iad/internal/crashfs"
	"example.com/iad/mib"
)

// outside is what lies outside the store: what the software banks remember, in the
// order of their formats, and how many steps were reported as done.
type outside struct {
	steps      int
	remembered [3]uint32
	last       uint32 // highest number reported
}

// step is an import, or none, by software of a format.
type step struct {
	format uint32
	give   config.Set // what is imported; empty for no import
	before config.Set // in force when the software has started
	after  config.Set // in force when the import is done
}

// steps take two banks, of formats 1 and 2, to data of their own and back.
func steps() []step {
	with := func(set, more config.Set) config.Set {
		all := config.Set{}
		for _, s := range []config.Set{set, more} {
			for k, v := range s {
				all[k] = v
			}
		}
		return all
	}
	a, b, c, d := files(1, "a"), files(1, "b"), files(1, "c"), files(2, "d")
	part := files(1, "part", mib.FileTypeUserData, mib.FileTypeOtherData)
	return []step{
		{format: 1, give: a, before: config.Set{}, after: a},
		{format: 1, give: b, before: a, after: b},
		{format: 1, give: c, before: b, after: c},
		{format: 2, give: d, before: config.Set{}, after: d},
		{format: 1, give: part, before: c, after: with(c, part)},
		{format: 2, before: d, after: d},
		{format: 1, before: with(c, part), after: with(c, part)},
	}
}

// life starts the device and does those of the steps that were not yet reported.
func life(fs afero.Fs, steps []step, w *outside) error {
	for i, s := range steps {
		if i < w.steps {
			continue
		}
		store, findings, err := config.Open(fs, options())
		if err != nil || len(findings) > 0 {
			return fmt.Errorf("step %d: open: %w, findings %q", i, err, findings)
		}
		g, err := store.Boot(s.format, w.remembered[s.format])
		if err != nil {
			return fmt.Errorf("step %d: boot: %w", i, err)
		}
		found, err := store.Read(g.Number)
		if err != nil {
			return fmt.Errorf("step %d: %w", i, err)
		}
		if !reflect.DeepEqual(found, s.before) && !reflect.DeepEqual(found, s.after) {
			return fmt.Errorf("step %d: generation %d in force is neither the old nor the new one", i, g.Number)
		}
		if len(s.give) > 0 {
			if g, err = importOnce(store, s, w); err != nil {
				return fmt.Errorf("step %d: %w", i, err)
			}
		}
		w.steps, w.remembered[s.format], w.last = i+1, g.Number, max(w.last, g.Number)
		if err := store.Prune(w.remembered[:]...); err != nil {
			return fmt.Errorf("step %d: %w", i, err)
		}
	}
	return nil
}

func importOnce(store *config.Store, s step, w *outside) (config.Generation, error) {
	staged, err := store.Stage(s.give)
	if err != nil {
		return config.Generation{}, err
	}
	g, err := staged.Commit(noon)
	if err != nil {
		return config.Generation{}, err
	}
	if g.Number <= w.last {
		return g, fmt.Errorf("generation %d after %d was reported", g.Number, w.last)
	}
	found, err := store.Read(g.Number)
	if err == nil && !reflect.DeepEqual(found, s.after) {
		err = fmt.Errorf("generation %d is not what was imported", g.Number)
	}
	return g, err
}

// TestCrashSweep cuts the power at every operation of imports, changes of the
// software and deletions, and again at every operation of what follows: all
// pairs with IAD_CRASH=full, otherwise a seeded sample.
func TestCrashSweep(t *testing.T) {
	sweep := crashfs.Sweep[outside]{
		Start: crashfs.NewDisk("config"),
		Life:  func(m *crashfs.Machine, w *outside) error { return life(m.Fs("config"), steps(), w) },
		Depth: 2, Limit: 3, Seed: 1,
	}
	if os.Getenv("IAD_CRASH") == "full" {
		sweep.Limit = 0
	}
	result, err := sweep.Run()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("configuration data: %s", result)
	for _, fault := range result.Faults {
		t.Error(fault)
	}
}

// careless is a file system whose Sync does nothing, for files, directories or both.
type careless struct {
	afero.Fs
	files, directories bool
}

func (c careless) wrap(f afero.File, err error) (afero.File, error) {
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.IsDir() && c.directories || !info.IsDir() && c.files {
		return unsynced{f}, nil
	}
	return f, nil
}

func (c careless) Open(name string) (afero.File, error) { return c.wrap(c.Fs.Open(name)) }

func (c careless) OpenFile(name string, flag int, perm os.FileMode) (afero.File, error) {
	return c.wrap(c.Fs.OpenFile(name, flag, perm))
}

type unsynced struct{ afero.File }

func (unsynced) Sync() error { return nil }

// TestBrokenWriters shows that the sweep finds what it is there to find.
func TestBrokenWriters(t *testing.T) {
	for name, broken := range map[string]careless{
		"no file sync":      {files: true},
		"no directory sync": {directories: true},
	} {
		t.Run(name, func(t *testing.T) {
			result, err := crashfs.Sweep[outside]{
				Start: crashfs.NewDisk("config"),
				Life: func(m *crashfs.Machine, w *outside) error {
					broken.Fs = m.Fs("config")
					return life(broken, steps()[:2], w)
				},
				Workers: 1,
			}.Run()
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%s: %s", name, result)
			if result.Bad == 0 {
				t.Error("the sweep did not notice")
			}
		})
	}
}
