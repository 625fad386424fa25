package memdisk

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/spf13/afero"
)

// kind is what callers can see of an error.
func kind(err error) string {
	for _, k := range []error{fs.ErrNotExist, syscall.ENOTDIR, syscall.EISDIR, syscall.ENOTEMPTY, fs.ErrExist, fs.ErrClosed, io.EOF, fs.ErrInvalid, syscall.EINVAL, syscall.EBADF} {
		if errors.Is(err, k) {
			return k.Error()
		}
	}
	if err != nil {
		return "other: " + err.Error()
	}
	return ""
}

// step does one random thing and returns what a caller sees of it.
func step(fsys afero.Fs, r *rand.Rand) string {
	names := []string{"a", "b", "dir", "dir/a", "dir/sub", "dir/sub/b", "other", "other/a", "a/below", "0"}
	name := func() string { return names[r.IntN(len(names))] }
	switch op := r.IntN(12); op {
	case 0:
		n := name()
		return fmt.Sprint("mkdir ", n, kind(fsys.Mkdir(n, 0o755)))
	case 1:
		n := name()
		return fmt.Sprint("mkdirall ", n, kind(fsys.MkdirAll(n, 0o755)))
	case 2:
		n := name()
		return fmt.Sprint("remove ", n, kind(fsys.Remove(n)))
	case 3:
		n := name()
		return fmt.Sprint("removeall ", n, fsys.RemoveAll(n) != nil)
	case 4, 5:
		from, to := name(), name()
		return fmt.Sprint("rename ", from, to, fsys.Rename(from, to) == nil)
	}
	flags := []int{os.O_RDONLY, os.O_RDWR, os.O_WRONLY | os.O_CREATE, os.O_RDWR | os.O_CREATE | os.O_TRUNC, os.O_WRONLY | os.O_APPEND | os.O_CREATE, os.O_RDWR | os.O_CREATE | os.O_EXCL}
	n, flag := name(), flags[r.IntN(len(flags))]
	out := fmt.Sprintf("open %s %#x ", n, flag)
	f, err := fsys.OpenFile(n, flag, 0o644)
	if err != nil {
		return out + kind(err)
	}
	defer f.Close()
	for range r.IntN(5) {
		size := []int{1, 100, 2000, pieceSize - 1, pieceSize, pieceSize + 1}[r.IntN(6)]
		offset := r.Int64N(3 * pieceSize)
		data := bytes.Repeat([]byte{byte(r.IntN(4)) + 1}, size)
		var n int
		switch op := r.IntN(7); op {
		case 0:
			n, err = f.Write(data)
			out += fmt.Sprint("write ", n, kind(err))
		case 1:
			if flag&os.O_APPEND != 0 {
				continue
			}
			n, err = f.WriteAt(data, offset)
			out += fmt.Sprint("writeat ", n, kind(err))
		case 2:
			out += fmt.Sprint("truncate ", kind(f.Truncate(offset)))
		case 3:
			at, err := f.Seek(offset/2, r.IntN(3))
			if info, e := f.Stat(); e == nil && !info.IsDir() {
				out += fmt.Sprint("seek ", at, kind(err))
			}
		case 4:
			n, err = io.ReadFull(f, data)
			out += fmt.Sprint("read ", n, sum(data[:n]), err)
			if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
				out = out[:strings.LastIndex(out, "read ")] + "not read" // the error depends on the position
			}
		case 5:
			n, err = f.ReadAt(data, offset)
			out += fmt.Sprint("readat ", n, sum(data[:n]), kind(err))
		case 6:
			list, err := f.Readdirnames(-1)
			slices.Sort(list)
			out += fmt.Sprint("list ", list, kind(err))
		}
		out += "; "
	}
	return out
}

func sum(data []byte) (s int) {
	for i, b := range data {
		s += int(b) * (i%7 + 1)
	}
	return s
}

// tree lists everything on a disk.
func tree(t *testing.T, fsys afero.Fs) (list []string) {
	t.Helper()
	err := afero.Walk(fsys, ".", func(name string, info fs.FileInfo, err error) error {
		if err != nil {
			return err
		}
		line := fmt.Sprint(name, " ", info.Name() == filepath.Base(name) || name == ".", info.IsDir(), info.Mode())
		if !info.IsDir() {
			data, err := afero.ReadFile(fsys, name)
			if err != nil {
				return err
			}
			line += fmt.Sprint(len(data), info.Size(), sum(data))
		}
		list = append(list, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(list, cmp.Compare[string])
	return list
}

// A disk behaves as a directory of the operating system does.
func TestLikeTheOperatingSystem(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the errors of other systems differ")
	}
	for seed := range uint64(10) {
		root := t.TempDir()
		if err := os.Chmod(root, 0o755); err != nil {
			t.Fatal(err)
		}
		disk, real := New(), afero.NewBasePathFs(afero.NewOsFs(), root)
		one, other := rand.New(rand.NewPCG(1, seed)), rand.New(rand.NewPCG(1, seed))
		for i := range 300 {
			want, got := step(real, other), step(disk, one)
			if got != want {
				t.Fatalf("seed %d, step %d:\n%s\nwant\n%s", seed, i, got, want)
			}
			if i%100 != 99 {
				continue
			}
			if got, want := tree(t, disk), tree(t, real); !slices.Equal(got, want) {
				t.Fatalf("seed %d, after step %d:\n%q\nwant\n%q", seed, i, got, want)
			}
		}
	}
}

// Equal contents of many disks take the memory of one, and a change of one leaves the
// others as they were.
func TestContentsAreShared(t *testing.T) {
	const size, disks = 1 << 20, 40
	data := make([]byte, size)
	for i := range data {
		data[i] = byte(i * i >> 8)
	}
	heap := func() int {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int(m.HeapAlloc)
	}
	before := heap()
	var all []*Disk
	for range disks {
		d := New()
		f, err := d.Create("firmware")
		if err != nil {
			t.Fatal(err)
		}
		for p := data; len(p) > 0; p = p[min(len(p), 5000):] {
			if _, err := f.Write(p[:min(len(p), 5000)]); err != nil {
				t.Fatal(err)
			}
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		all = append(all, d, d.Clone())
	}
	if used := heap() - before; used > 3*size {
		t.Errorf("%d disks with the same %d bytes take %d bytes", len(all), size, used)
	}
	f, err := all[1].OpenFile("firmware", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("changed"), size/2); err != nil {
		t.Fatal(err)
	}
	f.Close()
	for i, d := range all {
		got, err := afero.ReadFile(d, "firmware")
		want := data
		if i == 1 {
			want = slices.Concat(data[:size/2], []byte("changed"), data[size/2+7:])
		}
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("disk %d: %d bytes, %v", i, len(got), err)
		}
	}
	runtime.KeepAlive(all)
}

// Texts of each disk's own take a fraction of their size, and are what was written while
// several files have them open.
func TestTailsAreCompressed(t *testing.T) {
	const disks, size = 300, 12 << 10
	text := func(i, round int) []byte {
		var b bytes.Buffer
		for n := 0; b.Len() < size; n++ {
			fmt.Fprintf(&b, `{"seq":%d,"device":"SIM-%05d","kind":"downloadSoftware","state":"running","round":%d},`, n, i, round)
		}
		return b.Bytes()
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var all []*Disk
	for i := range disks {
		d := New()
		if err := afero.WriteFile(d, "journal", text(i, 0), 0o600); err != nil {
			t.Fatal(err)
		}
		all = append(all, d)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if each := int(after.HeapAlloc-before.HeapAlloc) / disks; each > size/3 {
		t.Errorf("a text of %d bytes takes %d", size, each)
	}
	for i, d := range all {
		reader, err := d.Open("journal")
		if err != nil {
			t.Fatal(err)
		}
		writer, err := d.OpenFile("journal", os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		want := text(i, 0)
		head := make([]byte, 100)
		if n, err := reader.Read(head); n != len(head) || err != nil || !bytes.Equal(head, want[:100]) {
			t.Fatalf("disk %d: %q, %v", i, head[:n], err)
		}
		// Each close packs what the other one still uses.
		reader.Close()
		want = text(i, 1)
		if _, err := writer.WriteAt(want, 0); err != nil {
			t.Fatal(err)
		}
		if other, err := afero.ReadFile(d, "journal"); err != nil || !bytes.Equal(other, want[:len(other)]) {
			t.Fatalf("disk %d: %d bytes, %v", i, len(other), err)
		}
		if err := writer.Truncate(int64(len(want) - 5000)); err != nil {
			t.Fatal(err)
		}
		writer.Close()
		if got, err := afero.ReadFile(d.Clone(), "journal"); err != nil || !bytes.Equal(got, want[:len(want)-5000]) {
			t.Fatalf("disk %d: %d bytes, %v", i, len(got), err)
		}
	}
	runtime.KeepAlive(all)
}
