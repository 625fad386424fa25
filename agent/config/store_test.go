package config_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/afero"

	"example.com/iad/agent/config"
	"example.com/iad/mib"
)

var noon = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func options() config.Options {
	return config.Options{Now: func() time.Time { return noon }}
}

// open opens the store and fails the test on an error or a finding.
func open(t *testing.T, fs afero.Fs) *config.Store {
	t.Helper()
	s, findings, err := config.Open(fs, options())
	if err != nil || len(findings) > 0 {
		t.Fatalf("open: %v, findings %q", err, findings)
	}
	return s
}

// files returns a set of the given kinds with text in each.
func files(format uint32, text string, kinds ...mib.FileType) config.Set {
	if len(kinds) == 0 {
		kinds = config.Kinds()
	}
	set := config.Set{}
	for _, k := range kinds {
		set[k] = config.WithHeader(k, format, []byte(k.String()+" "+text+"\n"))
	}
	return set
}

// put imports a set.
func put(t *testing.T, s *config.Store, set config.Set) config.Generation {
	t.Helper()
	staged, err := s.Stage(set)
	if err != nil {
		t.Fatal(err)
	}
	g, err := staged.Commit(noon)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func boot(t *testing.T, s *config.Store, format, remembered uint32) config.Generation {
	t.Helper()
	g, err := s.Boot(format, remembered)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func read(t *testing.T, s *config.Store, number uint32) config.Set {
	t.Helper()
	set, err := s.Read(number)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func TestDefaultsAtFirst(t *testing.T) {
	s := open(t, afero.NewMemMapFs())
	want := config.Generation{Format: 1}
	if diff := cmp.Diff(want, boot(t, s, 1, 0)); diff != "" {
		t.Error(diff)
	}
	if set := read(t, s, 0); len(set) != 0 {
		t.Errorf("the defaults have files: %v", set)
	}
}

func TestImportSurvivesRestart(t *testing.T) {
	for name, fs := range map[string]afero.Fs{
		"memory": afero.NewMemMapFs(),
		"disk":   afero.NewBasePathFs(afero.NewOsFs(), t.TempDir()),
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, fs)
			boot(t, s, 1, 0)
			first := files(1, "first")
			want := config.Generation{Number: 1, Format: 1, Digest: first.Digest(), Applied: noon, Kinds: config.Kinds()}
			if diff := cmp.Diff(want, put(t, s, first)); diff != "" {
				t.Error(diff)
			}
			s = open(t, fs)
			if diff := cmp.Diff(want, boot(t, s, 1, 0)); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(first, read(t, s, 1)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestPartialImportIsCompleted(t *testing.T) {
	fs := afero.NewMemMapFs()
	s := open(t, fs)
	boot(t, s, 1, 0)
	put(t, s, files(1, "old", mib.FileTypeUserData, mib.FileTypePortData))
	g := put(t, s, files(1, "new", mib.FileTypePortData, mib.FileTypeOtherData))
	want := files(1, "old", mib.FileTypeUserData)
	for k, v := range files(1, "new", mib.FileTypePortData, mib.FileTypeOtherData) {
		want[k] = v
	}
	if diff := cmp.Diff(want, read(t, s, g.Number)); diff != "" {
		t.Error(diff)
	}
	if want := []mib.FileType{mib.FileTypeUserData, mib.FileTypePortData, mib.FileTypeOtherData}; !slices.Equal(g.Kinds, want) {
		t.Errorf("kinds %v, want %v", g.Kinds, want)
	}
}

func TestStagedIsNotInForce(t *testing.T) {
	fs := afero.NewMemMapFs()
	s := open(t, fs)
	boot(t, s, 1, 0)
	put(t, s, files(1, "old"))
	staged, err := s.Stage(files(1, "new"))
	if err != nil {
		t.Fatal(err)
	}
	if n := staged.Generation().Number; n != 2 {
		t.Errorf("staged as generation %d, want 2", n)
	}
	if n := s.InForce().Number; n != 1 {
		t.Errorf("generation %d in force, want 1", n)
	}
	s = open(t, fs) // power lost before the commit
	if n := boot(t, s, 1, 0).Number; n != 1 {
		t.Errorf("generation %d in force after a restart, want 1", n)
	}
	if found, _ := afero.DirExists(fs, "gen-00000002"); found {
		t.Error("what was staged and not committed was not removed")
	}
	if _, err := staged.Commit(noon); err != nil {
		t.Errorf("the old store: %v", err)
	}
}

func TestFirstImportInterrupted(t *testing.T) {
	fs := afero.NewMemMapFs()
	s := open(t, fs)
	boot(t, s, 1, 0)
	if _, err := s.Stage(files(1, "first")); err != nil {
		t.Fatal(err)
	}
	s = open(t, fs)
	if n := boot(t, s, 1, 0).Number; n != 0 {
		t.Errorf("generation %d in force, want the defaults", n)
	}
}

func TestDiscard(t *testing.T) {
	fs := afero.NewMemMapFs()
	s := open(t, fs)
	boot(t, s, 1, 0)
	staged, err := s.Stage(files(1, "a"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(files(1, "a"), staged.Set()); diff != "" {
		t.Error(diff)
	}
	if err := staged.Discard(); err != nil {
		t.Fatal(err)
	}
	if found, _ := afero.DirExists(fs, "gen-00000001"); found {
		t.Error("discarded data are still there")
	}
	if _, err := staged.Commit(noon); cause(err) != mib.FailCauseConfigSaveError {
		t.Errorf("commit of discarded data: %v", err)
	}
	replaced, err := s.Stage(files(1, "b"))
	if err != nil {
		t.Fatal(err)
	}
	put(t, s, files(1, "c"))
	if err := replaced.Discard(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(files(1, "c"), read(t, s, 1)); diff != "" {
		t.Errorf("a late discard hit other data: %s", diff)
	}
}

func TestStageRefuses(t *testing.T) {
	checked := errors.New("key without value")
	for name, c := range map[string]struct {
		set   config.Set
		check error
		want  mib.FailCause
	}{
		"nothing":       {set: config.Set{}, want: mib.FailCauseConfigReadError},
		"bad header":    {set: config.Set{mib.FileTypeUserData: []byte("x")}, want: mib.FailCauseConfigParseError},
		"two formats":   {set: config.Set{mib.FileTypeUserData: files(1, "x")[mib.FileTypeUserData], mib.FileTypePortData: files(2, "x")[mib.FileTypePortData]}, want: mib.FailCauseConfigFormatMismatch},
		"other format":  {set: files(2, "x"), want: mib.FailCauseConfigFormatMismatch},
		"too large":     {set: files(1, strings.Repeat("x", 5000), mib.FileTypeUserData), want: mib.FailCauseFileTooLarge},
		"check":         {set: files(1, "x"), check: checked, want: mib.FailCauseConfigParseError},
		"check's cause": {set: files(1, "x"), check: &config.Error{Code: mib.FailCauseStorageFull, Err: checked}, want: mib.FailCauseStorageFull},
	} {
		t.Run(name, func(t *testing.T) {
			fs := afero.NewMemMapFs()
			opt := options()
			opt.MaxFile = 4096
			s, _, err := config.Open(fs, opt)
			if err != nil {
				t.Fatal(err)
			}
			boot(t, s, 1, 0)
			put(t, s, files(1, "good"))
			opt.Check = func(config.Set) error { return c.check }
			if s, _, err = config.Open(fs, opt); err != nil {
				t.Fatal(err)
			}
			boot(t, s, 1, 0)
			if err := s.Check(c.set); cause(err) != c.want {
				t.Errorf("check: %v, want cause %d", err, c.want)
			}
			_, err = s.Stage(c.set)
			if cause(err) != c.want {
				t.Errorf("%v, want cause %d", err, c.want)
			}
			if c.check != nil && !errors.Is(err, c.check) {
				t.Errorf("%v does not say what the check said", err)
			}
			if g := s.InForce(); g.Number != 1 {
				t.Errorf("generation %d in force after a refusal", g.Number)
			}
		})
	}
}

func TestBootChooses(t *testing.T) {
	fs := afero.NewMemMapFs()
	s := open(t, fs)
	boot(t, s, 1, 0)
	put(t, s, files(1, "one"))
	put(t, s, files(1, "two")) // old software last ran with this
	// New software meets data in another format: its own defaults.
	s = open(t, fs)
	if diff := cmp.Diff(config.Generation{Format: 2, Applied: noon}, boot(t, s, 2, 0)); diff != "" {
		t.Error(diff)
	}
	if g, ok := s.Newest(func(f uint32) bool { return f != 2 }); !ok || g.Number != 2 || g.Format != 1 {
		t.Errorf("newest data in another format: %+v, %t", g, ok)
	}
	if _, ok := s.Newest(func(f uint32) bool { return f != 1 }); ok {
		t.Error("data in a format other than 1 found where there are none")
	}
	put(t, s, files(2, "three"))
	// The same software again, and its bank has not noted the import.
	s = open(t, fs)
	if n := boot(t, s, 2, 0).Number; n != 3 {
		t.Errorf("generation %d, want 3", n)
	}
	// Back to the old software.
	s = open(t, fs)
	if n := boot(t, s, 1, 2).Number; n != 2 {
		t.Errorf("generation %d, want 2", n)
	}
	// And it lasts.
	s = open(t, fs)
	if n := s.InForce().Number; n != 2 {
		t.Errorf("generation %d, want 2", n)
	}
	// Software that remembers data which are gone gets what fits.
	if n := boot(t, s, 1, 77).Number; n != 2 {
		t.Errorf("generation %d, want 2", n)
	}
	// Data in force for the first time get a new number, whatever went before.
	if n := put(t, s, files(1, "four")).Number; n != 4 {
		t.Errorf("generation %d, want 4", n)
	}
}

func TestPruneKeepsWhatIsNeeded(t *testing.T) {
	fs := afero.NewMemMapFs()
	s := open(t, fs)
	boot(t, s, 1, 0)
	for i := range 6 {
		put(t, s, files(1, fmt.Sprint(i)))
	}
	if err := s.Prune(2, 0); err != nil {
		t.Fatal(err)
	}
	for _, s := range []*config.Store{s, open(t, fs)} {
		for n := uint32(1); n <= 6; n++ {
			_, err := s.Read(n)
			if kept := n == 2 || n == 5 || n == 6; kept != (err == nil) {
				t.Errorf("generation %d: %v", n, err)
			}
		}
	}
}

// The defaults are not data that Prune could keep instead of the last ones.
func TestPruneAfterDefaults(t *testing.T) {
	fs := afero.NewMemMapFs()
	s := open(t, fs)
	boot(t, s, 1, 0)
	put(t, s, files(1, "old"))
	boot(t, s, 2, 0)
	put(t, s, files(2, "new"))
	if err := s.Prune(); err != nil {
		t.Fatal(err)
	}
	read(t, s, 1)
}

func TestHalfDeletedIsRemoved(t *testing.T) {
	fs := afero.NewMemMapFs()
	s := open(t, fs)
	boot(t, s, 1, 0)
	put(t, s, files(1, "old"))
	if err := fs.Mkdir("gen-00000001.deleted", 0o700); err != nil {
		t.Fatal(err)
	}
	open(t, fs)
	if found, _ := afero.DirExists(fs, "gen-00000001.deleted"); found {
		t.Error("leftover still there")
	}
}

// defaults is what a backup of software on its defaults consists of.
func defaults(format uint32) config.Set {
	set := config.Set{}
	for _, k := range config.Kinds() {
		set[k] = config.WithHeader(k, format, nil)
	}
	return set
}

// What an operator has set is not given up for files without any settings,
// however often those are put in force, nor after a restart.
func TestDefaultsDoNotPushOutSettings(t *testing.T) {
	fs := afero.NewMemMapFs()
	s := open(t, fs)
	boot(t, s, 1, 0)
	put(t, s, files(1, "precious"))
	for range 3 {
		boot(t, s, 2, 0) // the software does not read them: defaults
		put(t, s, defaults(2))
		if err := s.Prune(0, 0); err != nil {
			t.Fatal(err)
		}
		s = open(t, fs)
	}
	if g, ok := s.Before(); !ok || g.Number != 1 || g.Bare {
		t.Errorf("before: %+v, %t", g, ok)
	}
	if g, ok := s.Newest(func(f uint32) bool { return f != 2 }); !ok || g.Number != 1 {
		t.Errorf("newest in another format: %+v, %t", g, ok)
	}
	if diff := cmp.Diff(files(1, "precious"), read(t, s, 1)); diff != "" {
		t.Error(diff)
	}
	// Settings of an operator take their place as ever.
	boot(t, s, 2, 0)
	put(t, s, files(2, "new"))
	put(t, s, files(2, "newer"))
	if err := s.Prune(0, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Read(1); err == nil {
		t.Error("the first generation is still there after two newer ones of an operator")
	}
}

// Earlier software took a generation without settings for the one before.
func TestPruneKeepsTheNewestSettings(t *testing.T) {
	fs := afero.NewMemMapFs()
	s := open(t, fs)
	boot(t, s, 1, 0)
	put(t, s, defaults(1))
	put(t, s, files(1, "old"))
	put(t, s, files(1, "precious"))
	put(t, s, defaults(1))
	if err := fs.Remove("current"); err != nil { // the pointer is lost: the newest is in force, nothing was before
		t.Fatal(err)
	}
	s, _, err := config.Open(fs, options())
	if err != nil {
		t.Fatal(err)
	}
	boot(t, s, 1, 4)
	if err := s.Prune(); err != nil {
		t.Fatal(err)
	}
	for n, kept := range map[uint32]bool{1: false, 2: false, 3: true, 4: true} {
		if _, err := s.Read(n); kept != (err == nil) {
			t.Errorf("generation %d: %v", n, err)
		}
	}
}

// Software in the format of what an operator set last gets it, although other
// software ran on its defaults in between.
func TestSettingsOutliveDefaults(t *testing.T) {
	s := open(t, afero.NewMemMapFs())
	boot(t, s, 1, 0)
	put(t, s, files(1, "precious"))
	if n := boot(t, s, 2, 0).Number; n != 0 {
		t.Fatalf("generation %d, want the defaults", n)
	}
	if n := boot(t, s, 1, 0).Number; n != 1 {
		t.Errorf("generation %d, want 1", n)
	}
}
