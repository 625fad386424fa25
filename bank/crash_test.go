package bank

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"testing"
	"time"

	"github.com/spf13/afero"

	"example.com/iad/internal/crashfs"
)

// The sweeps cut the power at every operation of the work of the banks, and again
// at every operation of the recovery. IAD_CRASH=full tries every pair; otherwise the
// second cuts are a seeded sample.

// fullCrash tells whether every pair of cuts is wanted.
func fullCrash() bool { return os.Getenv("IAD_CRASH") == "full" }

// told is what the outside world knows of an upgrade: the versions for which each
// step was reported as done.
type told struct {
	ready, activated, confirmed, restored, givenUp bool
}

// crashImages are the images of the sweeps by version.
var crashImages = map[string][]byte{
	"1.0.0": crashImage("1.0.0"), "1.5.0": crashImage("1.5.0"), "2.0.0": crashImage("2.0.0"),
}

func crashPayloads(version string) map[string][]byte {
	return map[string][]byte{
		"app":      content(version, "app", 40_000), // two pieces
		"selftest": content(version, "selftest", 100),
	}
}

func crashImage(version string) []byte {
	var files []PayloadFile
	for _, name := range []string{"app", "selftest"} {
		data := crashPayloads(version)[name]
		files = append(files, PayloadFile{Name: name, Mode: 0o755, Open: func() (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(data)), nil
		}})
	}
	var b bytes.Buffer
	if err := Build(&b, manifest(version), files, testKey); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// mount makes the options for a machine; breakFs, which may be nil, spoils its file
// systems.
func mount(m *crashfs.Machine, breakFs func(part string, fs afero.Fs) afero.Fs) Options {
	get := func(part string) afero.Fs {
		fs := m.Fs(part)
		if breakFs != nil {
			fs = breakFs(part, fs)
		}
		return fs
	}
	return Options{
		Banks:    [2]afero.Fs{get("bank1"), get("bank2")},
		State:    get("state"),
		Trust:    trusted(testKey),
		Hardware: "IAD-4FXS",
		Now:      func() time.Time { return time.Unix(1_800_000_000, 0) },
	}
}

func blank() *crashfs.Disk { return crashfs.NewDisk("bank1", "bank2", "state") }

// after does work on a disk and returns the disk after an orderly shutdown.
func after(t testing.TB, d *crashfs.Disk, work func(opt Options) error) *crashfs.Disk {
	t.Helper()
	m := d.Start()
	if err := work(mount(m, nil)); err != nil {
		t.Fatal(err)
	}
	return m.Settled()
}

func provisioned(t testing.TB) *crashfs.Disk {
	return after(t, blank(), func(opt Options) error {
		return Provision(opt, bytes.NewReader(crashImages["1.0.0"]))
	})
}

// upgraded is a disk with version in bank 2, confirmed, and 1.0.0 in bank 1.
func upgraded(t testing.TB, version string) *crashfs.Disk {
	return after(t, provisioned(t), func(opt Options) error {
		var w told
		return upgrade(opt, version, &w)
	})
}

// start boots and checks what must hold after every boot.
func start(opt Options) (*Banks, BootReport, error) {
	b, report, err := Boot(opt)
	if err != nil {
		return nil, report, fmt.Errorf("nothing boots: %w", err)
	}
	if report.Rebuilt {
		return nil, report, fmt.Errorf("the record is lost: %q", report.Findings)
	}
	s := b.Status()
	if s.Running != report.Bank || s.Next != report.Bank {
		return nil, report, fmt.Errorf("bank %d boots, status says %+v", report.Bank, s)
	}
	return b, report, checkRunning(opt, s)
}

// checkRunning compares the running bank's payloads with what was once built.
func checkRunning(opt Options, s Status) error {
	version := s.Bank(s.Running).Version
	for name, want := range crashPayloads(version) {
		got, err := afero.ReadFile(opt.Banks[s.Running-1], name)
		if err != nil || !bytes.Equal(got, want) {
			return fmt.Errorf("bank %d runs damaged software %s: %s differs: %v", s.Running, version, name, err)
		}
	}
	return nil
}

// version is the running one.
func version(b *Banks) string {
	s := b.Status()
	return s.Bank(s.Running).Version
}

// upgrade brings the device to a version, from wherever it is, and confirms it.
func upgrade(opt Options, to string, w *told) error {
	b, report, err := start(opt)
	if err != nil {
		return err
	}
	s := b.Status()
	n := other(1)
	switch target := s.Bank(n); {
	case w.confirmed && (version(b) != to || target.State != StateGood):
		return fmt.Errorf("confirmed software is lost: %+v", s)
	case w.activated && version(b) != to:
		return fmt.Errorf("activated software does not start: %+v, %+v", report, s)
	case w.ready && (target.Version != to || target.State < StateReady || target.State > StateGood):
		return fmt.Errorf("downloaded software is lost: %+v", s)
	case report.RolledBack != 0:
		return fmt.Errorf("rolled back for no reason: %+v", report)
	}
	if version(b) != to {
		if err := fetchInto(b, to, w.ready); err != nil {
			return err
		}
		w.ready = true
		if err := b.Activate(n); err != nil {
			return err
		}
		w.activated = true
		if b, _, err = start(opt); err != nil {
			return err
		}
	}
	if version(b) != to {
		return fmt.Errorf("after activation %s runs", version(b))
	}
	if err := b.Confirm(); err != nil {
		return err
	}
	w.confirmed = true
	if s := b.Status(); s.Bank(n).State != StateGood || s.Fallback != other(n) {
		return fmt.Errorf("after confirmation: %+v", s)
	}
	return nil
}

// fetchInto installs a version; held says that the bank must have it already.
func fetchInto(b *Banks, version string, held bool) error {
	res, err := b.Install(context.Background(), serve("fw.iad", crashImages[version]), "fw.iad", InstallOptions{})
	if err != nil {
		return err
	}
	if held && !res.Already {
		return fmt.Errorf("downloaded again what was reported as ready")
	}
	return nil
}

// lives are the pieces of work that are swept, by name.
func lives(t testing.TB) map[string]crashfs.Sweep[told] {
	sweeps := map[string]crashfs.Sweep[told]{
		"provision": {Start: blank(), Life: life(provisionLife)},
		"upgrade":   {Start: provisioned(t), Life: life(func(opt Options, w *told) error { return upgrade(opt, "2.0.0", w) })},
		"upgrade over old software": {
			Start: after(t, upgraded(t, "1.5.0"), func(opt Options) error {
				return restoreLife(opt, new(told))
			}),
			Life: life(func(opt Options, w *told) error { return upgrade(opt, "2.0.0", w) }),
		},
		"download after activation": {Start: provisioned(t), Life: life(changedMindLife)},
		"tries used up":             {Start: onTrial(t), Life: life(neverConfirmedLife)},
		"split form":                {Start: provisioned(t), Life: life(splitLife)},
		"restore":                   {Start: upgraded(t, "2.0.0"), Life: life(restoreLife)},
		"give up":                   {Start: onTrial(t), Life: life(giveUpLife)},
		"take over without restart": {Start: provisioned(t), Life: life(takeOverLife)},
		"restore while on trial":    {Start: onTrial(t), Life: life(restoreLife)},
	}
	for name, s := range sweeps {
		s.Seed = 1
		if s.Depth, s.Limit = 2, 25; fullCrash() {
			s.Limit, s.Mixtures = 0, 6
		}
		sweeps[name] = s
	}
	return sweeps
}

func life(work func(opt Options, w *told) error) func(*crashfs.Machine, *told) error {
	return func(m *crashfs.Machine, w *told) error { return work(mount(m, nil), w) }
}

// onTrial is a disk with 2.0.0 activated in bank 2.
func onTrial(t testing.TB) *crashfs.Disk {
	return after(t, provisioned(t), func(opt Options) error {
		b, _, err := start(opt)
		if err != nil {
			return err
		}
		if err := fetchInto(b, "2.0.0", false); err != nil {
			return err
		}
		return b.Activate(2)
	})
}

func provisionLife(opt Options, w *told) error {
	// Without a record the software that is there starts all the same.
	_, _, err := Boot(opt)
	if w.ready && err != nil {
		return fmt.Errorf("provisioned device does not boot: %w", err)
	}
	if err != nil {
		if err := Provision(opt, bytes.NewReader(crashImages["1.0.0"])); err != nil {
			return err
		}
		w.ready = true
	}
	b, _, err := start(opt)
	if err != nil {
		return err
	}
	if s := b.Status(); s.Running != 1 || s.Banks[0].State != StateGood || s.Banks[1].State == StateGood {
		return fmt.Errorf("provisioned device: %+v", s)
	}
	return nil
}

func restoreLife(opt Options, w *told) error {
	b, _, err := start(opt)
	if err != nil {
		return err
	}
	if w.restored && version(b) != "1.0.0" {
		return fmt.Errorf("restored software does not start: %+v", b.Status())
	}
	if _, err := b.Restore(); err != nil {
		return err
	}
	w.restored = true
	if b, _, err = start(opt); err != nil {
		return err
	}
	if version(b) != "1.0.0" || b.Status().Banks[0].State != StateGood {
		return fmt.Errorf("after restore: %+v", b.Status())
	}
	return nil
}

func giveUpLife(opt Options, w *told) error {
	b, _, err := start(opt)
	if err != nil {
		return err
	}
	if version(b) == "2.0.0" {
		if w.givenUp {
			return fmt.Errorf("software that was given up starts again: %+v", b.Status())
		}
		if err := b.GiveUp(uint8(CauseOther), "self-test failed"); err != nil {
			return err
		}
		w.givenUp = true
		if b, _, err = start(opt); err != nil {
			return err
		}
	}
	if s := b.Status(); version(b) != "1.0.0" || s.Banks[1].State != StateFailed {
		return fmt.Errorf("after giving up: %+v", s)
	}
	return nil
}

// changedMindLife activates 2.0.0 and, before the restart, downloads 1.5.0 instead.
func changedMindLife(opt Options, w *told) error {
	b, _, err := start(opt)
	if err != nil {
		return err
	}
	if version(b) == "2.0.0" {
		// It was activated when the power failed.
		if w.ready {
			return fmt.Errorf("software that was overwritten starts: %+v", b.Status())
		}
		if _, err := b.Restore(); err != nil {
			return err
		}
		if b, _, err = start(opt); err != nil {
			return err
		}
	}
	if s := b.Status(); s.Banks[1].State == StateEmpty {
		if err := fetchInto(b, "2.0.0", false); err != nil {
			return err
		}
		if err := b.Activate(2); err != nil {
			return err
		}
	}
	if err := fetchInto(b, "1.5.0", w.ready); err != nil {
		return err
	}
	w.ready = true
	if s := b.Status(); s.Next != 1 || s.Banks[1].Version != "1.5.0" || s.Banks[1].State != StateReady {
		return fmt.Errorf("after the second download: %+v", s)
	}
	return nil
}

// neverConfirmedLife starts the software on trial until the device gives it up.
func neverConfirmedLife(opt Options, _ *told) error {
	for starts := 0; ; starts++ {
		b, report, err := start(opt)
		switch {
		case err != nil:
			return err
		case starts > Tries:
			return fmt.Errorf("started for ever: %+v", report)
		case report.Trial:
			continue
		}
		if s := b.Status(); s.Running != 1 || s.Banks[1].State != StateFailed {
			return fmt.Errorf("after the tries: %+v", s)
		}
		if n, err := b.Restore(); n != 1 || err != nil {
			return fmt.Errorf("the old software runs, restore says bank %d, %v", n, err)
		}
		return nil
	}
}

// splitLife downloads 2.0.0 in split form, from a server that breaks off once.
func splitLife(opt Options, w *told) error {
	b, _, err := start(opt)
	if err != nil {
		return err
	}
	src := splitServer(crashImages["2.0.0"])
	for _, src.cut = range []int64{35_000, 0} {
		_, err = b.Install(context.Background(), src, "dir/"+ManifestName, InstallOptions{})
	}
	if err != nil {
		return err
	}
	w.ready = true
	if s := b.Status(); s.Next != 1 || s.Banks[1].Version != "2.0.0" || s.Banks[1].State != StateReady {
		return fmt.Errorf("after the download: %+v", s)
	}
	return nil
}

// splitServer serves the files of an image in the folder dir.
func splitServer(image []byte) *server {
	s := &server{files: make(map[string][]byte)}
	for r := tar.NewReader(bytes.NewReader(image)); ; {
		h, err := r.Next()
		if err == io.EOF {
			return s
		}
		if err != nil {
			panic(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			panic(err)
		}
		s.files["dir/"+h.Name] = data
	}
}

func takeOverLife(opt Options, w *told) error {
	b, _, err := start(opt)
	if err != nil {
		return err
	}
	if w.confirmed && version(b) != "2.0.0" {
		return fmt.Errorf("confirmed software is lost: %+v", b.Status())
	}
	if version(b) != "2.0.0" {
		if err := fetchInto(b, "2.0.0", w.ready); err != nil {
			return err
		}
		w.ready = true
		if err := b.Activate(2); err != nil {
			return err
		}
		if err := b.TakeOver(2); err != nil {
			return err
		}
	}
	if err := b.Confirm(); err != nil {
		return err
	}
	w.confirmed = true
	if s := b.Status(); s.Running != 2 || s.Banks[1].State != StateGood {
		return fmt.Errorf("after taking over: %+v", s)
	}
	return nil
}

func TestCrashSweep(t *testing.T) {
	for name, sweep := range lives(t) {
		t.Run(name, func(t *testing.T) {
			result, err := sweep.Run()
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%s: %s", name, result)
			for _, f := range result.Faults {
				t.Error(f)
			}
		})
	}
}

// careless is a file system whose Sync does nothing for files, folders or both.
type careless struct {
	afero.Fs
	files, folders bool
}

func (c careless) wrap(f afero.File, err error) (afero.File, error) {
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.IsDir() && c.folders || !info.IsDir() && c.files {
		return unsynced{f}, nil
	}
	return f, nil
}

func (c careless) Open(name string) (afero.File, error)   { return c.wrap(c.Fs.Open(name)) }
func (c careless) Create(name string) (afero.File, error) { return c.wrap(c.Fs.Create(name)) }
func (c careless) OpenFile(name string, flag int, perm os.FileMode) (afero.File, error) {
	return c.wrap(c.Fs.OpenFile(name, flag, perm))
}

type unsynced struct{ afero.File }

func (unsynced) Sync() error { return nil }

// TestBrokenWriters shows that the sweep finds what it is there to find.
func TestBrokenWriters(t *testing.T) {
	everywhere := func(c careless) func(string, afero.Fs) afero.Fs {
		return func(_ string, fs afero.Fs) afero.Fs { c.Fs = fs; return c }
	}
	for _, broken := range []struct {
		name string
		fs   func(part string, fs afero.Fs) afero.Fs
	}{
		{"no file sync", everywhere(careless{files: true})},
		{"no folder sync", everywhere(careless{folders: true})},
		{"switch before the image is synced", func(part string, fs afero.Fs) afero.Fs {
			if part == "state" {
				return fs
			}
			return careless{Fs: fs, files: true, folders: true}
		}},
		{"in-place write of the record", func(part string, fs afero.Fs) afero.Fs {
			if part != "state" {
				return fs
			}
			return careless{Fs: oneCopy{fs, os.O_TRUNC}, files: true, folders: true}
		}},
		{"single-copy record", func(part string, fs afero.Fs) afero.Fs {
			if part != "state" {
				return fs
			}
			return oneCopy{fs, 0}
		}},
	} {
		t.Run(broken.name, func(t *testing.T) {
			result, err := crashfs.Sweep[told]{
				Start: provisioned(t),
				Life:  func(m *crashfs.Machine, w *told) error { return upgrade(mount(m, broken.fs), "2.0.0", w) },
			}.Run()
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%s: %s", broken.name, result)
			if result.Bad == 0 {
				t.Error("the sweep did not notice")
			}
		})
	}
}

// oneCopy makes both copies of the record one file, which is overwritten in place;
// with os.O_TRUNC as afero.WriteFile does.
type oneCopy struct {
	afero.Fs
	flag int
}

func (o oneCopy) OpenFile(name string, flag int, perm os.FileMode) (afero.File, error) {
	if name == recordBase+".b" {
		name = recordBase + ".a"
	}
	if flag&os.O_CREATE != 0 {
		flag |= o.flag
	}
	return o.Fs.OpenFile(name, flag, perm)
}

func (o oneCopy) Open(name string) (afero.File, error) { return o.OpenFile(name, os.O_RDONLY, 0) }
