package crashfs

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/spf13/afero"
)

// put writes a file by the operations create, write, and as asked sync and close.
func put(t *testing.T, fs afero.Fs, name, data string, sync bool) {
	t.Helper()
	f, err := fs.Create(name)
	if err == nil {
		_, err = f.WriteString(data)
	}
	if err == nil && sync {
		err = f.Sync()
	}
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
}

func syncDir(t *testing.T, fs afero.Fs, name string) {
	t.Helper()
	d, err := fs.Open(name)
	if err == nil {
		err = d.Sync()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// contents shows a disk as "name=content" for every file.
func contents(d *Disk) string {
	var all []string
	for _, name := range d.Files("p") {
		data, _ := d.Read("p", name)
		all = append(all, fmt.Sprintf("%s=%q", name, data))
	}
	return strings.Join(all, " ")
}

// possible is the set of disks that could be found.
func possible(m *Machine) (all []string) {
	for _, f := range m.Disks(20, 1) {
		if c := contents(f.Disk); !slices.Contains(all, c) {
			all = append(all, c)
		}
	}
	slices.Sort(all)
	return all
}

func TestWhatLasts(t *testing.T) {
	old := NewDisk("p").Write("p", "f", []byte("old"))
	for _, test := range []struct {
		name string
		work func(t *testing.T, fs afero.Fs)
		want []string // exactly these disks
	}{
		{"nothing done", func(*testing.T, afero.Fs) {}, []string{`f="old"`}},
		{"synced file and directory", func(t *testing.T, fs afero.Fs) {
			put(t, fs, "g", "new", true)
			syncDir(t, fs, ".")
		}, []string{`f="old" g="new"`}},
		{"synced file, name not", func(t *testing.T, fs afero.Fs) { put(t, fs, "g", "new", true) },
			[]string{`f="old"`, `f="old" g="new"`}},
		{"synced name, content not", func(t *testing.T, fs afero.Fs) {
			put(t, fs, "g", "new", false)
			syncDir(t, fs, "/")
		}, []string{`f="old" g=""`, `f="old" g="\x00\x00\x00"`, `f="old" g="ne"`, `f="old" g="new"`}},
		{"rename over", func(t *testing.T, fs afero.Fs) {
			put(t, fs, "g", "new", true)
			syncDir(t, fs, ".")
			if err := fs.Rename("g", "f"); err != nil {
				t.Fatal(err)
			}
		}, []string{`f="new"`, `f="old" g="new"`}},
		{"remove", func(t *testing.T, fs afero.Fs) {
			if err := fs.Remove("f"); err != nil {
				t.Fatal(err)
			}
		}, []string{"", `f="old"`}},
		{"overwrite in place", func(t *testing.T, fs afero.Fs) {
			if err := afero.WriteFile(fs, "f", []byte("NEW"), 0o644); err != nil {
				t.Fatal(err)
			}
		}, []string{`f=""`, `f="NE"`, `f="NEW"`, `f="NEd"`, `f="\x00\x00\x00"`, `f="old"`}},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := old.Start()
			test.work(t, m.Fs("p"))
			if got := possible(m); !slices.Equal(got, test.want) {
				t.Errorf("got  %q\nwant %q", got, test.want)
			}
		})
	}
}

func TestCutInEveryPlace(t *testing.T) {
	work := func(m *Machine) error {
		f, err := m.Fs("p").Create("f")
		if err != nil {
			return err
		}
		if _, err := f.WriteString("abcd"); err != nil {
			return err
		}
		return f.Sync()
	}
	for _, test := range []struct {
		op   int
		when When
		kept string
	}{
		{1, Before, ""}, {1, After, `f=""`},
		{2, Before, `f=""`}, {2, Middle, `f="ab"`}, {2, After, `f="abcd"`},
		{3, Before, `f="abcd"`}, {3, After, `f="abcd"`},
	} {
		m := NewDisk("p").Start()
		m.CutAt(test.op, test.when)
		err := work(m)
		if test.op == 3 && test.when == After {
			if err != nil {
				t.Errorf("after the last operation: %v", err)
			}
		} else if !errors.Is(err, ErrPowerLost) {
			t.Errorf("%s %d: %v", test.when, test.op, err)
		}
		if !m.Down() || len(m.Ops()) != test.op {
			t.Errorf("%s %d: down %v after %v", test.when, test.op, m.Down(), m.Ops())
		}
		if _, err := m.Fs("p").Stat("."); !errors.Is(err, ErrPowerLost) {
			t.Errorf("a call without power: %v", err)
		}
		if got := contents(m.Settled()); got != test.kept {
			t.Errorf("%s %d: all kept is %s, want %s", test.when, test.op, got, test.kept)
		}
	}
}

func TestTornWriteWithGarbage(t *testing.T) {
	m := NewDisk("p").Write("p", "f", nil).Start()
	f, err := m.Fs("p").OpenFile("f", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	m.CutAt(1, Middle)
	if n, err := f.WriteString("abcd"); n != 0 || !errors.Is(err, ErrPowerLost) {
		t.Fatal(n, err)
	}
	garbage := slices.ContainsFunc(m.Disks(0, 1), func(f Outcome) bool {
		data, _ := f.Disk.Read("p", "f")
		return len(data) == 4 && string(data[:2]) == "ab" && string(data) != "abcd"
	})
	if !garbage {
		t.Error("no disk with garbage after the prefix")
	}
}

func TestFaults(t *testing.T) {
	start := NewDisk("p", "q").Write("p", "f", []byte("data"))
	write := func(fs afero.Fs) error {
		f, err := fs.OpenFile("f", os.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		if n, err := f.WriteAt([]byte("1234"), 4); err != nil {
			return fmt.Errorf("%d bytes: %w", n, err)
		}
		return f.Sync()
	}
	for _, test := range []struct {
		name string
		set  func(m *Machine)
		do   func(fs afero.Fs) error
		want error
		left string
	}{
		{"write error by path", func(m *Machine) { m.Fail(Fault{Op: OpWrite, Part: "p", Path: "f*", Err: syscall.EIO}) }, write, syscall.EIO, "data"},
		{"short write", func(m *Machine) { m.Fail(Fault{Op: OpWrite, Err: io.ErrShortWrite}) }, write, io.ErrShortWrite, "data12"},
		{"sync error", func(m *Machine) { m.Fail(Fault{Op: OpSync, Times: 1, Err: syscall.EIO}) }, write, syscall.EIO, "data1234"},
		{"full", func(m *Machine) { m.Limit("p", 7) }, write, syscall.ENOSPC, "data"},
		{"not full", func(m *Machine) { m.Limit("p", 8) }, write, nil, "data1234"},
		{"read-only", func(m *Machine) { m.ReadOnly("p") }, write, syscall.EROFS, "data"},
		{"read error", func(m *Machine) { m.Fail(Fault{Op: OpRead, Err: syscall.EIO}) }, func(fs afero.Fs) error {
			_, err := afero.ReadFile(fs, "f")
			return err
		}, syscall.EIO, "data"},
		{"open error, second time only", func(m *Machine) { m.Fail(Fault{Op: OpOpen, Skip: 1, Times: 1, Err: syscall.EIO}) }, func(fs afero.Fs) error {
			for range 3 {
				if _, err := fs.Open("f"); err != nil {
					return err
				}
			}
			return nil
		}, syscall.EIO, "data"},
		{"other partition", func(m *Machine) { m.Fail(Fault{Part: "q", Err: syscall.EIO}) }, write, nil, "data1234"},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := start.Start()
			test.set(m)
			if err := test.do(m.Fs("p")); !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
			if data, _ := m.Settled().Read("p", "f"); string(data) != test.left {
				t.Errorf("left %q, want %q", data, test.left)
			}
			m.Heal()
			if err := write(m.Fs("p")); err != nil {
				t.Errorf("healed: %v", err)
			}
		})
	}
}

func TestFlip(t *testing.T) {
	d := NewDisk("p").Write("p", "f", []byte{0, 0})
	if data, _ := d.Flip("p", "f", 9).Read("p", "f"); data[0] != 0 || data[1] != 2 {
		t.Errorf("%v", data)
	}
	if data, _ := d.Read("p", "f"); data[1] != 0 {
		t.Error("the disk itself has changed")
	}
	if d.Key() == d.Flip("p", "f", 9).Key() || d.Key() != d.Flip("p", "f", 9).Flip("p", "f", 9).Key() {
		t.Error("disks with different contents have the same key")
	}
}

// TestLikeOs compares the file system with the real one.
func TestLikeOs(t *testing.T) {
	ours, real := NewDisk("p").Start().Fs("p"), afero.NewBasePathFs(afero.NewOsFs(), t.TempDir())
	for _, step := range []struct {
		name string
		do   func(fs afero.Fs) error
	}{
		{"open missing", func(fs afero.Fs) error { _, err := fs.Open("x"); return err }},
		{"create in missing directory", func(fs afero.Fs) error { _, err := fs.Create("no/x"); return err }},
		{"mkdir", func(fs afero.Fs) error { return fs.Mkdir("dir", 0o755) }},
		{"mkdir again", func(fs afero.Fs) error { return fs.Mkdir("dir", 0o755) }},
		{"mkdir all", func(fs afero.Fs) error { return fs.MkdirAll("dir/a/b", 0o755) }},
		{"create", func(fs afero.Fs) error { return afero.WriteFile(fs, "dir/f", []byte("12345"), 0o640) }},
		{"mkdir all over file", func(fs afero.Fs) error { return fs.MkdirAll("dir/f", 0o755) }},
		{"exclusive", func(fs afero.Fs) error {
			_, err := fs.OpenFile("dir/f", os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
			return err
		}},
		{"write to directory", func(fs afero.Fs) error { _, err := fs.OpenFile("dir", os.O_RDWR, 0); return err }},
		{"remove full directory", func(fs afero.Fs) error { return fs.Remove("dir") }},
		{"rename over full directory", func(fs afero.Fs) error {
			if err := fs.Mkdir("e", 0o755); err != nil {
				return err
			}
			return fs.Rename("e", "dir")
		}},
		{"rename file over directory", func(fs afero.Fs) error { return fs.Rename("dir/f", "e") }},
		{"rename directory over file", func(fs afero.Fs) error { return fs.Rename("e", "dir/f") }},
		{"rename into itself", func(fs afero.Fs) error { return fs.Rename("dir", "dir/a/dir") }},
		{"rename missing", func(fs afero.Fs) error { return fs.Rename("x", "y") }},
		{"rename directory", func(fs afero.Fs) error { return fs.Rename("dir/a", "e/a") }},
		{"chmod", func(fs afero.Fs) error { return fs.Chmod("dir/f", 0o600) }},
		{"append", func(fs afero.Fs) error {
			f, err := fs.OpenFile("dir/f", os.O_WRONLY|os.O_APPEND, 0)
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = f.WriteString("678")
			return err
		}},
		{"hole", func(fs afero.Fs) error {
			f, err := fs.OpenFile("dir/f", os.O_RDWR, 0)
			if err != nil {
				return err
			}
			defer f.Close()
			if _, err := f.Seek(3, io.SeekEnd); err != nil {
				return err
			}
			if _, err := f.WriteString("end"); err != nil {
				return err
			}
			return f.Truncate(13)
		}},
		{"write a file open for reading", func(fs afero.Fs) error {
			f, err := fs.Open("dir/f")
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = f.WriteString("x")
			return err
		}},
		{"read a directory", func(fs afero.Fs) error { _, err := afero.ReadFile(fs, "dir"); return err }},
		{"closed", func(fs afero.Fs) error {
			f, err := fs.Open("dir/f")
			if err != nil {
				return err
			}
			f.Close()
			_, err = f.Read(make([]byte, 1))
			return err
		}},
		{"remove all", func(fs afero.Fs) error { return fs.RemoveAll("e") }},
		{"remove all missing", func(fs afero.Fs) error { return fs.RemoveAll("e") }},
		{"stat", func(fs afero.Fs) error {
			info, err := fs.Stat("dir/f")
			if err != nil {
				return err
			}
			return fmt.Errorf("%s %d %s", info.Name(), info.Size(), info.Mode())
		}},
		{"list", func(fs afero.Fs) error {
			f, err := fs.Open("dir")
			if err != nil {
				return err
			}
			defer f.Close()
			names, err := f.Readdirnames(1)
			if err != nil {
				return err
			}
			_, end := f.Readdirnames(1)
			return fmt.Errorf("%v, then %w", names, end)
		}},
		{"content", func(fs afero.Fs) error {
			data, err := afero.ReadFile(fs, "dir/f")
			return fmt.Errorf("%q %w", data, err)
		}},
	} {
		if got, want := reason(step.do(ours)), reason(step.do(real)); got != want {
			t.Errorf("%s: got %q, the real one %q", step.name, got, want)
		}
	}
}

// reason is an error without the path that file systems name differently.
func reason(err error) string {
	var path *os.PathError
	var link *os.LinkError
	switch {
	case errors.As(err, &path):
		return path.Err.Error()
	case errors.As(err, &link):
		return link.Err.Error()
	}
	return fmt.Sprint(err)
}

func TestSweepFindsAndMisses(t *testing.T) {
	// Replacing a file in place is found out, by renaming it is not.
	for _, test := range []struct {
		name  string
		write func(fs afero.Fs, data string) error
		bad   bool
	}{
		{"in place", func(fs afero.Fs, data string) error { return afero.WriteFile(fs, "f", []byte(data), 0o644) }, true},
		{"by rename", func(fs afero.Fs, data string) error {
			f, err := fs.Create("t")
			if err == nil {
				_, err = f.WriteString(data)
			}
			if err == nil {
				err = f.Sync()
			}
			if err == nil {
				err = f.Close()
			}
			if err == nil {
				err = fs.Rename("t", "f")
			}
			d, derr := fs.Open(".")
			if err == nil && derr == nil {
				err = d.Sync()
			}
			return errors.Join(err, derr)
		}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			result, err := Sweep[bool]{
				Start: NewDisk("p").Write("p", "f", []byte("old data")),
				Depth: 2,
				Life: func(m *Machine, done *bool) error {
					data, err := afero.ReadFile(m.Fs("p"), "f")
					if err != nil {
						return err
					}
					if s := string(data); s != "new data" && (*done || s != "old data") {
						return fmt.Errorf("found %q, reported as done: %v", s, *done)
					}
					err = test.write(m.Fs("p"), "new data")
					*done = err == nil
					return err
				},
			}.Run()
			if err != nil {
				t.Fatal(err)
			}
			t.Log(result)
			if (result.Bad > 0) != test.bad || result.Cuts == 0 || result.Disks < result.Tried || len(result.Faults) == 0 == test.bad {
				t.Errorf("%s %v", result, result.Faults)
			}
		})
	}
}

func TestSweepNeedsGoodWork(t *testing.T) {
	_, err := Sweep[bool]{Start: NewDisk("p"), Life: func(*Machine, *bool) error { return os.ErrInvalid }}.Run()
	if !errors.Is(err, os.ErrInvalid) {
		t.Error(err)
	}
}
