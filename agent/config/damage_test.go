package config_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/spf13/afero"

	"example.com/iad/agent/config"
	"example.com/iad/internal/durable"
	"example.com/iad/mib"
)

func TestDamageIsSetAside(t *testing.T) {
	overwrite := func(name, text string) func(*testing.T, afero.Fs) {
		return func(t *testing.T, fs afero.Fs) {
			if err := afero.WriteFile(fs, name, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	remove := func(name string) func(*testing.T, afero.Fs) {
		return func(t *testing.T, fs afero.Fs) {
			if err := fs.RemoveAll(name); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, c := range map[string]struct {
		damage func(*testing.T, afero.Fs)
		aside  string
		want   uint32 // generation in force after booting in format 1
		next   uint32
	}{
		"file changed":        {overwrite("gen-00000003/userData", "iad-config userData 1\nother\n"), "gen-00000003.corrupt-1", 2, 4},
		"file lost":           {remove("gen-00000003/userData"), "gen-00000003.corrupt-1", 2, 4},
		"description lost":    {remove("gen-00000003/generation"), "gen-00000003.corrupt-1", 2, 4},
		"description changed": {overwrite("gen-00000003/generation", "x"), "gen-00000003.corrupt-1", 2, 4},
		"directory lost":      {remove("gen-00000003"), "", 2, 4},
		"another changed":     {overwrite("gen-00000001/userData", ""), "gen-00000001.corrupt-1", 3, 4},
		"pointer changed":     {overwrite("current", "x"), "current.corrupt-1", 3, 4},
		"pointer lost":        {remove("current"), "", 3, 4},
	} {
		t.Run(name, func(t *testing.T) {
			fs := afero.NewMemMapFs()
			s := open(t, fs)
			boot(t, s, 1, 0)
			for i := range 3 {
				put(t, s, files(1, fmt.Sprint(i+1)))
			}
			c.damage(t, fs)
			s, findings, err := config.Open(fs, options())
			if err != nil || len(findings) == 0 {
				t.Fatalf("%v, findings %q", err, findings)
			}
			if c.aside != "" {
				if _, err := fs.Stat(c.aside); err != nil {
					t.Error(err)
				}
				if !strings.Contains(strings.Join(findings, "\n"), c.aside) {
					t.Errorf("findings %q do not name %s", findings, c.aside)
				}
			}
			if g := boot(t, s, 1, 0); g.Number != c.want {
				t.Fatalf("generation %d in force, want %d", g.Number, c.want)
			}
			if !bytes.Contains(read(t, s, c.want)[mib.FileTypeUserData], fmt.Append(nil, c.want)) {
				t.Error("data of another generation")
			}
			s = open(t, fs) // speaks once
			boot(t, s, 1, 0)
			if n := put(t, s, files(1, "next")).Number; n != c.next {
				t.Errorf("next generation %d, want %d", n, c.next)
			}
		})
	}
}

func TestNewerFormatOnDiskIsKept(t *testing.T) {
	fs := afero.NewMemMapFs()
	s := open(t, fs)
	boot(t, s, 1, 0)
	put(t, s, files(1, "x"))
	newer := newerFrame(t, fs, "current")
	s, findings, err := config.Open(fs, options())
	if err != nil || len(findings) != 1 {
		t.Fatalf("%v, findings %q", err, findings)
	}
	if kept, err := afero.ReadFile(fs, "current.newer-1"); err != nil || !bytes.Equal(kept, newer) {
		t.Errorf("the newer pointer is not kept: %v", err)
	}
	if n := boot(t, s, 1, 0).Number; n != 1 {
		t.Errorf("generation %d in force", n)
	}
}

func TestReadDamagedLater(t *testing.T) {
	fs := afero.NewMemMapFs()
	s := open(t, fs)
	boot(t, s, 1, 0)
	put(t, s, files(1, "x"))
	if err := afero.WriteFile(fs, "gen-00000001/userData", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Read(1); cause(err) != mib.FailCauseConfigReadError {
		t.Errorf("read: %v", err)
	}
	if _, err := s.Stage(files(1, "y", mib.FileTypePortData)); cause(err) != mib.FailCauseConfigReadError {
		t.Errorf("stage on damaged data: %v", err)
	}
	if _, err := s.Read(9); cause(err) != mib.FailCauseConfigReadError {
		t.Errorf("read of what is not there: %v", err)
	}
}

// faulty fails operations on names that contain match.
type faulty struct {
	afero.Fs
	match string
	err   error
}

func (f *faulty) fails(op, name string) error {
	if f.match != "" && strings.Contains(name, f.match) {
		return &os.PathError{Op: op, Path: name, Err: f.err}
	}
	return nil
}

func (f *faulty) Open(name string) (afero.File, error) {
	if err := f.fails("open", name); err != nil {
		return nil, err
	}
	return f.Fs.Open(name)
}

func (f *faulty) OpenFile(name string, flag int, perm os.FileMode) (afero.File, error) {
	if err := f.fails("open", name); err != nil {
		return nil, err
	}
	return f.Fs.OpenFile(name, flag, perm)
}

func (f *faulty) Rename(from, to string) error {
	if err := f.fails("rename", to); err != nil {
		return err
	}
	return f.Fs.Rename(from, to)
}

func (f *faulty) RemoveAll(name string) error {
	if err := f.fails("remove", name); err != nil {
		return err
	}
	return f.Fs.RemoveAll(name)
}

func TestWriteErrors(t *testing.T) {
	fs := &faulty{Fs: afero.NewMemMapFs()}
	s := open(t, fs)
	boot(t, s, 1, 0)
	fs.match, fs.err = "current", syscall.EIO
	if _, err := s.Stage(files(1, "a")); cause(err) != mib.FailCauseWriteError {
		t.Errorf("stage without a pointer: %v", err)
	}
	fs.match = ""
	put(t, s, files(1, "a"))
	fs.match = filepath.Join("gen-00000002", "userData")
	if _, err := s.Stage(files(1, "b")); cause(err) != mib.FailCauseWriteError {
		t.Errorf("stage: %v", err)
	}
	if _, err := fs.Stat("gen-00000002"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what was written before the error: %v", err)
	}
	fs.err = syscall.ENOSPC
	if _, err := s.Stage(files(1, "b")); cause(err) != mib.FailCauseStorageFull {
		t.Errorf("stage on a full disk: %v", err)
	}
	fs.match = ""
	staged, err := s.Stage(files(1, "b"))
	if err != nil {
		t.Fatal(err)
	}
	fs.match, fs.err = "current", syscall.EIO
	if _, err := staged.Commit(noon); cause(err) != mib.FailCauseConfigSaveError {
		t.Errorf("commit: %v", err)
	}
	if n := s.InForce().Number; n != 1 {
		t.Errorf("generation %d in force after a failed commit", n)
	}
	// The pointer on disk may be either now, so generation 2 must stay.
	fs.match = ""
	if err := staged.Discard(); err != nil {
		t.Fatal(err)
	}
	if _, err := fs.Stat("gen-00000002/generation"); err != nil {
		t.Error(err)
	}
	if n := put(t, s, files(1, "c")).Number; n != 3 {
		t.Errorf("generation %d, want 3", n)
	}
	fs.match, fs.err = "deleted", syscall.EROFS
	put(t, s, files(1, "d"))
	if err := s.Prune(); cause(err) != mib.FailCauseWriteError {
		t.Errorf("prune: %v", err)
	}
	if staged, err = s.Stage(files(1, "e")); err != nil {
		t.Fatal(err)
	}
	fs.match = "gen-0000"
	if err := staged.Discard(); cause(err) != mib.FailCauseWriteError {
		t.Errorf("discard: %v", err)
	}
}

func TestBootOnFullDisk(t *testing.T) {
	fs := &faulty{Fs: afero.NewMemMapFs()}
	s := open(t, fs)
	boot(t, s, 1, 0)
	put(t, s, files(1, "a"))
	boot(t, s, 2, 0)
	fs.match, fs.err = "current", syscall.ENOSPC
	g, err := s.Boot(1, 1)
	if g.Number != 1 || cause(err) != mib.FailCauseStorageFull {
		t.Errorf("generation %d, %v", g.Number, err)
	}
	if n := s.InForce().Number; n != 1 {
		t.Errorf("generation %d in force", n)
	}
}

// A generation that cannot be read at one start is in force again at the next, and
// nothing is given up in between.
func TestReadErrorOfOneStart(t *testing.T) {
	for name, c := range map[string]struct {
		unread             string // "gen-" for all
		format, remembered uint32
		want, healed       uint32 // in force then, and at the next start
	}{
		"in force and remembered": {"gen-00000003", 1, 3, 2, 3},
		"in force":                {"gen-00000003", 1, 0, 2, 3},
		"remembered":              {"gen-00000002", 1, 2, 3, 2},
		"neither":                 {"gen-00000001", 1, 3, 3, 3},
		"all":                     {"gen-", 1, 3, 0, 3},
		"of other software":       {"gen-00000003", 2, 0, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			start := func(fs afero.Fs, format uint32) *config.Store {
				t.Helper()
				s, _, err := config.Open(fs, options())
				if err != nil {
					t.Fatal(err)
				}
				boot(t, s, format, c.remembered)
				return s
			}
			fs := &faulty{Fs: afero.NewMemMapFs(), err: syscall.EIO}
			s := open(t, fs)
			boot(t, s, 1, 0)
			for i := range 3 {
				put(t, s, files(1, fmt.Sprint(i+1)))
			}
			fs.match = filepath.Join(c.unread, "userData")
			if c.unread == "gen-" {
				fs.match = "userData"
			}
			s = start(fs, c.format)
			if n := s.InForce().Number; n != c.want || s.StandsIn() != (name != "neither") {
				t.Errorf("generation %d in force, stands in: %t; want %d", n, s.StandsIn(), c.want)
			}
			if err := s.Prune(c.remembered); err != nil {
				t.Error(err)
			}
			fs.match = ""
			s = start(fs, c.format)
			if n := s.InForce().Number; n != c.healed || s.StandsIn() {
				t.Errorf("then generation %d in force, stands in: %t; want %d", n, s.StandsIn(), c.healed)
			}
			for n := uint32(1); n <= 3; n++ {
				read(t, s, n)
			}
		})
	}
	// An import ends it.
	fs := &faulty{Fs: afero.NewMemMapFs(), err: syscall.EIO}
	s := open(t, fs)
	boot(t, s, 1, 0)
	put(t, s, files(1, "1"))
	put(t, s, files(1, "2"))
	fs.match = filepath.Join("gen-00000002", "userData")
	s, _, err := config.Open(fs, options())
	if err != nil {
		t.Fatal(err)
	}
	boot(t, s, 1, 2)
	g := put(t, s, files(1, "3", mib.FileTypePortData))
	if g.Number != 3 || s.StandsIn() || s.InForce().Number != 3 || !bytes.Contains(read(t, s, 3)[mib.FileTypeUserData], []byte("1\n")) {
		t.Errorf("after the import: generation %d, %+v, stands in: %t", g.Number, s.InForce(), s.StandsIn())
	}
	fs.match = ""
	if n := boot(t, open(t, fs), 1, 3).Number; n != 3 {
		t.Errorf("then generation %d in force", n)
	}
}

func TestOpenErrors(t *testing.T) {
	missing := afero.NewBasePathFs(afero.NewOsFs(), filepath.Join(t.TempDir(), "none"))
	if _, _, err := config.Open(missing, config.Options{}); cause(err) != mib.FailCauseConfigReadError {
		t.Errorf("open without a directory: %v", err)
	}
	// What cannot be read now stays where it is.
	fs := &faulty{Fs: afero.NewMemMapFs()}
	s := open(t, fs)
	boot(t, s, 1, 0)
	put(t, s, files(1, "a"))
	fs.match, fs.err = "portData", syscall.EIO
	if _, findings, err := config.Open(fs, options()); err != nil || len(findings) == 0 {
		t.Errorf("%v, findings %q", err, findings)
	}
	fs.match = ""
	if n := boot(t, open(t, fs), 1, 0).Number; n != 1 {
		t.Errorf("generation %d in force, want 1", n)
	}
	// Damage that cannot be set aside, leftovers that cannot be removed.
	if err := afero.WriteFile(fs, "gen-00000001/userData", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := fs.Mkdir("gen-00000002", 0o700); err != nil {
		t.Fatal(err)
	}
	fs.match, fs.err = "gen-", syscall.EROFS
	fs.Fs, fs.match = afero.NewReadOnlyFs(fs.Fs), ""
	if _, findings, err := config.Open(fs, options()); err != nil || len(findings) != 3 {
		t.Errorf("%v, findings %q", err, findings)
	}
}

// newerFrame replaces the frame in file name by one of a version that does not
// exist yet, and returns it.
func newerFrame(t *testing.T, fs afero.Fs, name string) []byte {
	t.Helper()
	data, err := afero.ReadFile(fs, name)
	if err != nil {
		t.Fatal(err)
	}
	frame := durable.EncodeFrame([4]byte(data[:4]), 1000, 1, []byte("?"))
	if err := afero.WriteFile(fs, name, frame, 0o600); err != nil {
		t.Fatal(err)
	}
	return frame
}
