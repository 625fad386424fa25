package bank

import (
	"bytes"
	"context"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/spf13/afero"

	"example.com/iad/bank/image"
	"example.com/iad/internal/crashfs"
	"example.com/iad/internal/imagetest"
	"example.com/iad/mib"
)

// TestBadFlash has the errors of a medium, one at each operation of a download.
func TestBadFlash(t *testing.T) {
	disk := provisioned(t)
	download := func(m *crashfs.Machine, opt Options) (*Banks, error) {
		b, _ := boot(t, opt)
		_, err := b.Install(context.Background(), serve("fw.iad", crashImages["2.0.0"]), "fw.iad", InstallOptions{})
		return b, err
	}
	m := disk.Start()
	if _, err := download(m, mount(m, nil)); err != nil {
		t.Fatal(err)
	}
	for _, fault := range []struct {
		err  error
		want []mib.FailCause
	}{
		{syscall.EIO, []mib.FailCause{mib.FailCauseWriteError, mib.FailCauseEraseError, mib.FailCauseBootFlagError, mib.FailCauseReadBackMismatch}},
		{syscall.ENOSPC, []mib.FailCause{mib.FailCauseStorageFull, mib.FailCauseEraseError, mib.FailCauseBootFlagError, mib.FailCauseReadBackMismatch}},
		{io.ErrShortWrite, []mib.FailCause{mib.FailCauseWriteError, mib.FailCauseEraseError, mib.FailCauseBootFlagError, mib.FailCauseReadBackMismatch}},
	} {
		failed := 0
		for skip := range 200 {
			m := disk.Start()
			m.Fail(crashfs.Fault{Skip: skip, Times: 1, Part: "bank2", Err: fault.err})
			b, err := download(m, mount(m, nil))
			if err == nil {
				continue // in Boot, or past the end
			}
			failed++
			if !slices.Contains(fault.want, causeOf(err)) {
				t.Errorf("%v at %d: %v", fault.err, skip, err)
			}
			// Nothing is noted with a bank that was not touched.
			if s := b.Status(); s.Next != 1 || s.Banks[1].State >= mib.BankStateReady || s.Banks[1].State != mib.BankStateEmpty && s.Banks[1].Cause != causeOf(err) {
				t.Errorf("%v at %d: %+v", fault.err, skip, s)
			}
			// The next attempt succeeds, and what it leaves lasts.
			if _, err := download(m, mount(m, nil)); err != nil {
				t.Errorf("%v at %d, again: %v", fault.err, skip, err)
			}
			if c, _ := checkBank(medium{fs: m.Disks(0, 1)[0].Disk.Start().Fs("bank2")}, ""); c.Contents != ContentsComplete {
				t.Errorf("%v at %d: %+v", fault.err, skip, c)
			}
		}
		if failed < 20 {
			t.Errorf("%v: only %d operations failed", fault.err, failed)
		}
	}
}

// TestFullBank runs out of space in the middle although there was said to be enough.
func TestFullBank(t *testing.T) {
	m := provisioned(t).Start()
	m.Limit("bank2", 30_000)
	b, _ := boot(t, mount(m, nil))
	_, err := b.Install(context.Background(), serve("fw.iad", crashImages["2.0.0"]), "fw.iad", InstallOptions{})
	if causeOf(err) != mib.FailCauseStorageFull {
		t.Error(err)
	}
	m = provisioned(t).Start()
	m.ReadOnly("bank2")
	b, _ = boot(t, mount(m, nil))
	_, err = b.Install(context.Background(), serve("fw.iad", crashImages["2.0.0"]), "fw.iad", InstallOptions{})
	if causeOf(err) != mib.FailCauseWriteError && causeOf(err) != mib.FailCauseEraseError {
		t.Error(err)
	}
}

// TestRecordCannotBeWritten: then nothing is erased.
func TestRecordCannotBeWritten(t *testing.T) {
	disk := upgraded(t, "1.5.0")
	m := disk.Start()
	opt := mount(m, nil)
	b, _ := boot(t, opt)
	m.Fail(crashfs.Fault{Part: "state", Op: crashfs.OpSync, Err: syscall.EIO})
	_, err := b.Install(context.Background(), serve("fw.iad", crashImages["2.0.0"]), "fw.iad", InstallOptions{})
	if causeOf(err) != mib.FailCauseBootFlagError {
		t.Error(err)
	}
	for _, bank := range []string{"bank1", "bank2"} {
		for _, name := range disk.Files(bank) {
			was, _ := disk.Read(bank, name)
			is, _ := m.Settled().Read(bank, name)
			if !bytes.Equal(was, is) {
				t.Errorf("%s of %s was changed", name, bank)
			}
		}
	}
	if _, err := b.Restore(); causeOf(err) != mib.FailCauseBootFlagError {
		t.Errorf("restore: %v", err)
	}
	if s := b.Status(); s.Next != 2 {
		t.Errorf("%+v", s)
	}
}

// TestReadBack finds what was written but does not come back from the medium.
func TestReadBack(t *testing.T) {
	for _, name := range []string{"app", image.ManifestName, image.SignatureName} {
		opt := device(t)
		spoilt := false
		opt.DropCache = func(f afero.File) error {
			if strings.TrimPrefix(f.Name(), "/") != name || spoilt {
				return nil
			}
			spoilt = true
			w, err := opt.Banks[1].OpenFile(name, os.O_RDWR, 0)
			if err != nil {
				return nil // of bank 1
			}
			defer w.Close()
			_, err = w.WriteAt([]byte{0xFF}, 10)
			return err
		}
		b, _ := boot(t, opt)
		spoilt = false
		src := serve("fw.iad", imagetest.TakeApart(t, "2.0.0").Tar())
		_, err := b.Install(context.Background(), src, "fw.iad", InstallOptions{})
		if causeOf(err) != mib.FailCauseReadBackMismatch || !spoilt {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := b.Install(context.Background(), src, "fw.iad", InstallOptions{}); err != nil {
			t.Errorf("%s, again: %v", name, err)
		}
	}
	opt := device(t)
	b, _ := boot(t, opt)
	b.opt.DropCache = func(afero.File) error { return syscall.EIO }
	_, err := b.Install(context.Background(), serve("fw.iad", imagetest.TakeApart(t, "2.0.0").Tar()), "fw.iad", InstallOptions{})
	if causeOf(err) != mib.FailCauseReadBackMismatch {
		t.Error(err)
	}
}

// TestWear counts the writes of state for each step.
func TestWear(t *testing.T) {
	m := provisioned(t).Start()
	opt := mount(m, nil)
	var b *Banks
	for _, step := range []struct {
		name string
		do   func() error
		want int // writes of the boot record
	}{
		{"first start", func() error { b, _ = Boot(opt); return nil }, 1},
		{"start", func() error { b, _ = Boot(opt); return nil }, 0},
		{"download", func() error { return fetchInto(b, "2.0.0", false) }, 2},
		{"activate", func() error { return b.Activate(2) }, 1},
		{"activate again", func() error { return b.Activate(2) }, 0},
		{"start on trial", func() error { b, _ = Boot(opt); return nil }, 1},
		{"confirm", func() error { return b.Confirm() }, 1},
		{"confirm again", func() error { return b.Confirm() }, 0},
		{"remember the generation", func() error { return b.SetGeneration(2, 7) }, 1},
		{"remember it again", func() error { return b.SetGeneration(2, 7) }, 0},
		{"restore", func() error { _, err := b.Restore(); return err }, 1},
		{"start of the old software", func() error { b, _ = Boot(opt); return nil }, 1},
		{"restore again", func() error { _, err := b.Restore(); return err }, 0},
	} {
		before := len(m.Ops())
		if err := step.do(); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		writes := 0
		for _, op := range m.Ops()[before:] {
			if op.Part == "state" && op.Kind == crashfs.OpWrite {
				writes++
			}
		}
		if writes != step.want {
			t.Errorf("%s: %d writes of the record, want %d", step.name, writes, step.want)
		}
	}
}

// TestBoundedMemory installs an image far larger than what it may take in memory.
func TestBoundedMemory(t *testing.T) {
	const size = 24 << 20
	os, dir := afero.NewOsFs(), t.TempDir()
	big := image.PayloadFile{Name: "big", Mode: 0o644, Open: func() (io.ReadCloser, error) {
		return io.NopCloser(io.LimitReader(pattern{}, size)), nil
	}}
	f, err := os.Create(dir + "/fw.iad")
	if err != nil {
		t.Fatal(err)
	}
	m := imagetest.Manifest("2.0.0")
	m.SelfTest = ""
	if err := image.Build(f, m, []image.PayloadFile{big}, imagetest.Key); err != nil {
		t.Fatal(err)
	}
	f.Close()
	opt := device(t)
	opt.Banks[1] = afero.NewBasePathFs(os, t.TempDir())
	b, _ := boot(t, opt)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := b.Install(t.Context(), directory{afero.NewBasePathFs(os, dir)}, "fw.iad", InstallOptions{}); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if spent := after.TotalAlloc - before.TotalAlloc; spent > 1<<20 {
		t.Errorf("%d bytes allocated for an image of %d", spent, size)
	}
}

// pattern reads as endless data.
type pattern struct{}

// directory is a Source that opens files.
type directory struct{ fs afero.Fs }

func (f directory) Open(_ context.Context, name string, offset int64) (io.ReadCloser, int64, error) {
	file, err := f.fs.Open(name)
	if err != nil {
		return nil, 0, err
	}
	info, err := file.Stat()
	if err == nil {
		_, err = file.Seek(offset, io.SeekStart)
	}
	return file, info.Size(), err
}
