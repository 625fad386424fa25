package bootscript

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/spf13/afero"

	"example.com/iad/bank"
	"example.com/iad/bank/uboot"
)

// places of the copies on the disk, as deploy/uboot/boot.cmd has them.
var places = [2]int64{0x10000, 0x20000}

// A scripted is a disk with the loader's state.
type scripted struct {
	fs     afero.Fs
	raw    bool    // FIT images on raw partitions
	rescue bool    // there is a recovery image
	whole  [2]bool // the banks that can be loaded
	broken bool    // writes fail
}

const diskName = "disk"

func newScripted(t *testing.T, states ...bank.LoaderState) *scripted {
	t.Helper()
	d := &scripted{fs: afero.NewMemMapFs(), whole: [2]bool{true, true}}
	if err := afero.WriteFile(d.fs, diskName, make([]byte, places[1]+copySize+2*rawSize), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, s := range states {
		if err := d.loader().Store(s); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

func (d *scripted) loader() *uboot.Loader {
	b := Script(d.fs, diskName)
	for i, offset := range places {
		b.Environment.Copies[i] = uboot.File{Fs: d.fs, Name: diskName, Offset: offset}
	}
	return &uboot.Loader{Environment: b.Environment, Scheme: b.Scheme}
}

func (d *scripted) ReadAt(p []byte, offset int64) (int, error) {
	f, err := d.fs.Open(diskName)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return f.ReadAt(p, offset)
}

func (d *scripted) WriteAt(p []byte, offset int64) (int, error) {
	if d.broken {
		return 0, errors.New("broken")
	}
	f, err := d.fs.OpenFile(diskName, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return f.WriteAt(p, offset)
}

// boot runs the boot script.
func (d *scripted) boot(t *testing.T) (bootargs string, err error) {
	t.Helper()
	text, err := os.ReadFile("../../deploy/uboot/boot.cmd")
	if err != nil {
		t.Fatal(err)
	}
	if d.raw {
		return d.bootRaw(t, ForPartitions(string(text)))
	}
	script := string(text)
	if d.rescue {
		script = strings.Replace(script, "#setenv iad_recover ", "setenv iad_recover ", 1)
	}
	return Run(t.Context(), script, Hardware{Disk: d, Load: func(partition int, name string) int {
		if d.rescue && partition == 1 {
			return 1 << 20
		}
		if name != "kernel" && name != "initrd" || partition < 2 || partition > 3 || !d.whole[partition-2] {
			return 0
		}
		return 1 << 20
	}})
}

// rawSize is the size of the raw partitions 5 and 6, behind the copies.
const rawSize = 4 * blockSize

// bootRaw runs the boot script for FIT images.
func (d *scripted) bootRaw(t *testing.T, script string) (bootargs string, err error) {
	t.Helper()
	f, err := d.fs.OpenFile(diskName, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	images := [2][]byte{bytes.Repeat([]byte{1}, rawSize), bytes.Repeat([]byte{2}, rawSize)}
	partition := func(n int) (begin, size int64) {
		if n < 5 || n > 6 {
			return 0, 0
		}
		return places[1] + copySize + int64(n-5)*rawSize, rawSize
	}
	for i, whole := range d.whole {
		data := bytes.Clone(images[i])
		if !whole {
			data[rawSize-1]++
		}
		begin, _ := partition(5 + i)
		if _, err := f.WriteAt(data, begin); err != nil {
			t.Fatal(err)
		}
	}
	return Run(t.Context(), script, Hardware{Disk: d, Partition: partition, Intact: func(data []byte) bool {
		return bytes.Equal(data, images[0]) || bytes.Equal(data, images[1])
	}})
}

// TestScript compares the boot script of deploy/uboot with what this package does in its
// place, from every state.
func TestScript(t *testing.T) {
	for next := 1; next <= 2; next++ {
		for _, left := range []int{bank.Uncounted, 0, 1, 3, 0x1f} {
			for fallback := 0; fallback <= 2; fallback++ {
				for broken := range 2 * 3 {
					raw, broken := broken >= 3, broken%3
					s := bank.LoaderState{Next: next, Left: left, Fallback: fallback}
					d := newScripted(t, bank.LoaderState{Next: 1, Left: bank.Uncounted}, s)
					b := &Board{Environment: d.loader().Environment, Scheme: uboot.Script{}, choose: runScript,
						Broken: func(n int) bool { return n == broken }}
					n, why, err := b.Start()
					if err != nil {
						t.Fatal(err)
					}
					want, _ := d.loader().Load()

					d = newScripted(t, bank.LoaderState{Next: 1, Left: bank.Uncounted}, s)
					d.raw = raw
					if broken > 0 {
						d.whole[broken-1] = false
					}
					args, err := d.boot(t)
					if suffix := fmt.Sprintf(" iad.bank=%d iad.why=%s", n, why); err != nil || !strings.HasSuffix(args, suffix) {
						t.Errorf("%+v, bank %d broken, raw partitions %v: the script starts %q, %v, want %q", s, broken, raw, args, err, suffix)
					}
					if got, err := d.loader().Load(); err != nil || got != want {
						t.Errorf("%+v: the script leaves %+v, %v, want %+v", s, got, err, want)
					}
				}
			}
		}
	}
}

// TestScriptWithout tests what only the script can do: without state, and without writes.
func TestScriptWithout(t *testing.T) {
	trial := bank.LoaderState{Next: 2, Left: 3, Fallback: 1}
	for _, c := range []struct {
		name   string
		states []bank.LoaderState
		change func(*scripted)
		starts []string // the ends of the kernel's command lines, "" for a reset
	}{
		{name: "no state", starts: []string{"iad.bank=1 iad.why=lost", "iad.bank=2 iad.why=tries"}},
		{name: "no state, nothing can be written", change: func(d *scripted) { d.broken = true }, starts: []string{"iad.bank=1 iad.why=lost"}},
		{name: "nothing can be written", states: []bank.LoaderState{trial}, change: func(d *scripted) { d.broken = true },
			starts: []string{"iad.bank=1 iad.why=unwritten"}},
		{name: "no bank can be loaded", states: []bank.LoaderState{trial}, change: func(d *scripted) { d.whole = [2]bool{} }, starts: []string{""}},
		{name: "no bank can be loaded, and there is a recovery image", states: []bank.LoaderState{trial},
			change: func(d *scripted) { d.whole, d.rescue = [2]bool{}, true }, starts: []string{"panic=1 iad.why=recovery", "panic=1 iad.why=recovery"}},
		{name: "a bank can be loaded, and there is a recovery image", states: []bank.LoaderState{trial},
			change: func(d *scripted) { d.whole[1], d.rescue = false, true }, starts: []string{"iad.bank=1 iad.why=load"}},
		{name: "the newer copy is damaged", states: []bank.LoaderState{{Next: 1, Left: bank.Uncounted}, trial}, change: func(d *scripted) {
			if _, err := d.WriteAt(bytes.Repeat([]byte{0xff}, 8), places[1]); err != nil {
				panic(err)
			}
		}, starts: []string{"iad.bank=1 iad.why=next"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newScripted(t, c.states...)
			if c.change != nil {
				c.change(d)
			}
			for _, want := range c.starts {
				args, err := d.boot(t)
				if want == "" && !errors.Is(err, ErrReset) || want != "" && (err != nil || !strings.HasSuffix(args, " "+want)) {
					t.Errorf("the script starts %q, %v, want %q", args, err, want)
				}
			}
		})
	}
}

// TestRunRefuses tests that a script with something unknown in it is not taken for one
// that works.
func TestRunRefuses(t *testing.T) {
	for _, script := range []string{"frobnicate", "if test; then", "setexpr a 1 * 2", "virtio read x 1 1", "load mmc 0:1 0 kernel", "bootm 1 1 1", "part start mmc 0 5 a"} {
		if args, err := Run(t.Context(), script, Hardware{Disk: newScripted(t)}); err == nil || errors.Is(err, ErrNoKernel) {
			t.Errorf("%s: %q, %v", script, args, err)
		}
	}
	if _, err := Run(t.Context(), "echo a", Hardware{}); !errors.Is(err, ErrNoKernel) {
		t.Error(err)
	}
}
