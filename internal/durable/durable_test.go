package durable

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/spf13/afero"

	"example.com/iad/internal/crashfs"
)

var magic = [4]byte{'T', 'E', 'S', 'T'}

func machine() *crashfs.Machine { return crashfs.NewDisk("p").Start() }

// sweep cuts the power at every operation of life, and once more in the recovery.
func sweep[T any](t *testing.T, start *crashfs.Disk, life func(fs afero.Fs, reported *T) error) {
	t.Helper()
	result, err := crashfs.Sweep[T]{
		Start: start, Depth: 2, Mixtures: 8,
		Life: func(m *crashfs.Machine, reported *T) error { return life(m.Fs("p"), reported) },
	}.Run()
	if err != nil {
		t.Fatal(err)
	}
	t.Log(result)
	if result.Cuts == 0 {
		t.Error("nothing was cut")
	}
	for _, f := range result.Faults {
		t.Error(f)
	}
}

func TestCrashReplaceFile(t *testing.T) {
	start := crashfs.NewDisk("p").Write("p", "f", []byte("the old content"))
	sweep(t, start, func(fs afero.Fs, done *bool) error {
		data, err := afero.ReadFile(fs, "f")
		if err != nil {
			return err
		}
		if s := string(data); s != "new" && (*done || s != "the old content") {
			return fmt.Errorf("found %q; reported as replaced: %v", s, *done)
		}
		if err := ReplaceFile(fs, "f", []byte("new"), 0o640); err != nil {
			return err
		}
		*done = true
		info, err := fs.Stat("f")
		if err == nil && info.Mode() != 0o640 {
			err = fmt.Errorf("mode %s", info.Mode())
		}
		return err
	})
}

func TestCrashSetAside(t *testing.T) {
	start := crashfs.NewDisk("p").Write("p", "f", []byte("precious"))
	for n := 1; n <= MaxQuarantined; n++ {
		start = start.Write("p", fmt.Sprintf("f.corrupt-%d", n), []byte("older"))
	}
	sweep(t, start, func(fs afero.Fs, _ *bool) error {
		if _, err := fs.Stat("f"); err == nil {
			if _, err := Quarantine(fs, "f"); err != nil {
				return err
			}
		}
		data, err := afero.ReadFile(fs, "f.corrupt-5")
		if err != nil || string(data) != "precious" {
			return fmt.Errorf("set aside: %q, %v", data, err)
		}
		return nil
	})
}

func TestCrashTree(t *testing.T) {
	sweep(t, crashfs.NewDisk("p"), func(fs afero.Fs, step *int) error {
		there := func(name string) bool { ok, _ := afero.Exists(fs, name); return ok }
		if *step == 1 && !there("a/b/c") && !there("a/moved") || *step == 3 && there("a") {
			return fmt.Errorf("step %d was reported and is lost", *step)
		}
		if *step == 3 {
			return nil
		}
		if *step < 2 && !there("a/moved") {
			if err := MkdirAll(fs, "a/b/c", 0o755); err != nil {
				return err
			}
			*step = 1
			if err := Rename(fs, "a/b/c", "a/moved"); err != nil {
				return err
			}
		}
		*step = 2
		if err := RemoveAll(fs, "a"); err != nil {
			return err
		}
		*step = 3
		return nil
	})
}

// TestKilledThenCut: a process is killed at each operation, another one does the work
// to its end, and then the power fails: what it did must have lasted although the
// first one left things unsynced.
func TestKilledThenCut(t *testing.T) {
	for name, work := range map[string]struct {
		do    func(fs afero.Fs) error
		there string
	}{
		"record": {func(fs afero.Fs) error {
			r, _, _, err := OpenRecord(fs, "r", magic, 1, nil)
			if err != nil {
				return err
			}
			return errors.Join(r.Write([]byte("x")), r.Write([]byte("x")))
		}, "r.a"},
		"directory and file": {func(fs afero.Fs) error {
			if err := MkdirAll(fs, "a/b", 0o755); err != nil {
				return err
			}
			return ReplaceFile(fs, "a/b/f", []byte("x"), 0o600)
		}, "a/b/f"},
		"frame": {func(fs afero.Fs) error {
			_, err := LoadFrame(fs, "f", magic, 1)
			if errors.Is(err, os.ErrNotExist) {
				err = SaveFrame(fs, "f", magic, 1, []byte("x"))
			}
			return err
		}, "f"},
		"growing": {func(fs afero.Fs) error {
			g, err := OpenAppender(fs, "g", 0o600)
			if err != nil {
				return err
			}
			_, err = g.Write([]byte("x"))
			return errors.Join(err, g.Close())
		}, "g"},
	} {
		for skip := range 40 {
			m := machine()
			m.Fail(crashfs.Fault{Skip: skip, Err: errors.New("killed")})
			_ = work.do(m.Fs("p"))
			m.Heal()
			if err := work.do(m.Fs("p")); err != nil {
				t.Fatal(err)
			}
			for _, d := range m.Disks(2, 1) {
				if data, _ := d.Disk.Read("p", work.there); len(data) == 0 {
					t.Errorf("%s, killed at %d, %s: %s is gone", name, skip, d.How, work.there)
				}
			}
		}
	}
}

func TestGrowing(t *testing.T) {
	m := machine()
	fs := m.Fs("p")
	for _, piece := range []string{"one ", "two ", "three"} {
		g, err := OpenAppender(fs, "f", 0o600)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(g, piece); err != nil {
			t.Fatal(err)
		}
		if err := g.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range m.Disks(4, 1) {
		if data, _ := d.Disk.Read("p", "f"); string(data) != "one two three" {
			t.Errorf("%s: %q", d.How, data)
		}
	}
}

func TestGrowingKeepsItsError(t *testing.T) {
	m := machine()
	g, err := OpenAppender(m.Fs("p"), "f", 0o600)
	if err != nil {
		t.Fatal(err)
	}
	m.Fail(crashfs.Fault{Op: crashfs.OpWrite, Times: 1, Err: syscall.EIO})
	for range 2 {
		if _, err := io.WriteString(g, "x"); !errors.Is(err, syscall.EIO) {
			t.Error(err)
		}
	}
	if err := g.Close(); !errors.Is(err, syscall.EIO) {
		t.Error(err)
	}
	if g.Size() != 0 {
		t.Error(g.Size())
	}
}

func TestErrorsAreReported(t *testing.T) {
	// Every operation of each call fails once: the call must say so, and what was
	// there before is there still.
	for name, call := range map[string]func(fs afero.Fs) error{
		"ReplaceFile": func(fs afero.Fs) error { return ReplaceFile(fs, "f", []byte("new"), 0o640) },
		"SaveFrame":   func(fs afero.Fs) error { return SaveFrame(fs, "f", magic, 1, []byte("new")) },
		"MkdirAll":    func(fs afero.Fs) error { return MkdirAll(fs, "x/y", 0o755) },
		"Remove":      func(fs afero.Fs) error { return Remove(fs, "g") },
		"RemoveAll":   func(fs afero.Fs) error { return RemoveAll(fs, "dir") },
		"Rename":      func(fs afero.Fs) error { return Rename(fs, "g", "dir/g") },
		"Clear":       func(fs afero.Fs) error { return Clear(fs, "dir", nil) },
		"Grow": func(fs afero.Fs) error {
			g, err := OpenAppender(fs, "new", 0o600)
			if err != nil {
				return err
			}
			_, err = g.Write([]byte("x"))
			return errors.Join(err, g.Close())
		},
		"Record": func(fs afero.Fs) error {
			r, _, _, err := OpenRecord(fs, "r", magic, 1, nil)
			if err != nil {
				return err
			}
			return r.Write([]byte("x"))
		},
		"SetAside": func(fs afero.Fs) error { _, err := Quarantine(fs, "g"); return err },
	} {
		t.Run(name, func(t *testing.T) {
			disk := crashfs.NewDisk("p").Write("p", "f", []byte("old")).Write("p", "g", []byte("g"))
			m := disk.Start()
			if err := MkdirAll(m.Fs("p"), "dir", 0o755); err != nil {
				t.Fatal(err)
			}
			disk = m.Settled().Write("p", "dir/file", nil)
			m = disk.Start()
			if err := call(m.Fs("p")); err != nil {
				t.Fatal(err)
			}
			for i, op := range m.Ops() {
				again := disk.Start()
				again.Fail(crashfs.Fault{Skip: opens(disk, call, i), Times: 1, Err: syscall.EIO})
				if err := call(again.Fs("p")); !errors.Is(err, syscall.EIO) {
					t.Errorf("error at %s: got %v", op, err)
				}
				if data, _ := again.Settled().Read("p", "f"); string(data) != "old" && op.Kind != crashfs.OpSync {
					t.Errorf("error at %s: the file is %q", op, data)
				}
			}
		})
	}
}

// opens counts the operations, the reading ones included, before the i-th changing
// one of call.
func opens(disk *crashfs.Disk, call func(fs afero.Fs) error, i int) int {
	for skip := 0; ; skip++ {
		m := disk.Start()
		m.Fail(crashfs.Fault{Skip: skip, Err: syscall.EIO})
		_ = call(m.Fs("p"))
		if len(m.Ops()) == i+1 {
			return skip - 1
		}
	}
}

func TestFrameRefusesDamage(t *testing.T) {
	frame := EncodeFrame(magic, 2, 7, []byte("payload"))
	version, seq, payload, err := DecodeFrame(magic, 2, frame)
	if version != 2 || seq != 7 || string(payload) != "payload" || err != nil {
		t.Fatal(version, seq, payload, err)
	}
	for n := range frame {
		if _, _, _, err := DecodeFrame(magic, 2, frame[:n]); !errors.Is(err, ErrCorrupt) {
			t.Errorf("cut to %d bytes: %v", n, err)
		}
		for bit := range 8 {
			bad := slices.Clone(frame)
			bad[n] ^= 1 << bit
			if _, _, _, err := DecodeFrame(magic, 2, bad); !errors.Is(err, ErrCorrupt) {
				t.Errorf("byte %d bit %d: %v", n, bit, err)
			}
		}
	}
	if _, _, _, err := DecodeFrame(magic, 2, append(frame, 0)); !errors.Is(err, ErrCorrupt) {
		t.Errorf("one more byte: %v", err)
	}
	if _, _, _, err := DecodeFrame(magic, 1, frame); !errors.Is(err, ErrNewer) {
		t.Errorf("newer: %v", err)
	}
	if _, _, _, err := DecodeFrame(magic, 1, EncodeFrame(magic, 0, 1, nil)); !errors.Is(err, ErrCorrupt) {
		t.Errorf("version 0: %v", err)
	}
}

func TestSaveAndLoadFrame(t *testing.T) {
	fs := afero.NewMemMapFs()
	if _, err := LoadFrame(fs, "f", magic, 1); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	if err := SaveFrame(fs, "f", magic, 1, []byte("x")); err != nil {
		t.Fatal(err)
	}
	if p, err := LoadFrame(fs, "f", magic, 1); string(p) != "x" || err != nil {
		t.Error(p, err)
	}
	if _, err := LoadFrame(fs, "f", [4]byte{}, 1); !errors.Is(err, ErrCorrupt) {
		t.Error(err)
	}
	large := make([]byte, MaxPayload+1)
	if err := SaveFrame(fs, "f", magic, 1, large); err == nil {
		t.Error("too large a payload was saved")
	}
	if err := afero.WriteFile(fs, "f", append(large, large...), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadFrame(fs, "f", magic, 1); !errors.Is(err, ErrCorrupt) {
		t.Error(err)
	}
}

func TestSetAsideIsBounded(t *testing.T) {
	fs := afero.NewMemMapFs()
	for i := range 2 * MaxQuarantined {
		if err := afero.WriteFile(fs, "d/f", []byte{byte(i)}, 0o600); err != nil {
			t.Fatal(err)
		}
		name, err := Quarantine(fs, "d/f")
		if want := fmt.Sprintf("d/f.corrupt-%d", i+1); filepath.ToSlash(name) != want || err != nil {
			t.Errorf("%s, %v, want %s", name, err, want)
		}
	}
	infos, err := afero.ReadDir(fs, "d")
	if err != nil || len(infos) != MaxQuarantined {
		t.Errorf("%d kept, %v", len(infos), err)
	}
	if data, err := afero.ReadFile(fs, "d/f.corrupt-8"); err != nil || data[0] != 7 {
		t.Error(data, err)
	}
	if _, err := Quarantine(fs, "missing"); err == nil {
		t.Error("a missing file was set aside")
	}
}

func FuzzFrame(f *testing.F) {
	f.Add([]byte{})
	f.Add(EncodeFrame(magic, 1, 1, nil))
	f.Add(EncodeFrame(magic, 1, 1<<63, []byte("payload")))
	f.Add(EncodeFrame(magic, 2, 5, []byte("newer")))
	f.Add(EncodeFrame(magic, 1, 1, []byte("cut"))[:22])
	f.Fuzz(func(t *testing.T, data []byte) {
		version, seq, payload, err := DecodeFrame(magic, 1, data)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrNewer) {
				t.Errorf("unexpected error %v", err)
			}
			return
		}
		if !bytes.Equal(EncodeFrame(magic, version, seq, payload), data) {
			t.Error("two frames for one content")
		}
	})
}
