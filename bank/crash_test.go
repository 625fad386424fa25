package bank

import (
	"bytes"
	"errors"
	"io"
	"os"
	"testing"
	"time"

	"github.com/spf13/afero"

	"example.com/iad/bank/image"
	"example.com/iad/internal/agefile"
	"example.com/iad/internal/crashfs"
	"example.com/iad/internal/durable"
	"example.com/iad/internal/iadtest"
	"example.com/iad/internal/imagetest"
)

// The sweeps cut the power at every operation of the work of the banks, and again
// at every operation of the recovery. IAD_CRASH=full tries every pair; otherwise the
// second cuts are a seeded sample.

// fullCrash reports whether every pair of cuts is wanted.
func fullCrash() bool { return os.Getenv("IAD_CRASH") == "full" }

// crashImages are the images of the sweeps by version, rawImages those whose app is for
// the partition.
var crashImages, rawImages = crashImagesFor(image.TargetFile), crashImagesFor(image.TargetPartition)

func crashImagesFor(app image.Target) map[string][]byte {
	images := map[string][]byte{}
	for _, version := range []string{"1.0.0", "1.5.0", "2.0.0"} {
		images[version] = crashImage(version, app)
	}
	return images
}

// imagesOf are the images for a device.
func imagesOf(opt Options) map[string][]byte {
	if opt.Partitions[0] != nil {
		return rawImages
	}
	return crashImages
}

func crashPayloads(version string) map[string][]byte {
	return map[string][]byte{
		"app":      imagetest.Content(version, "app", 40_000), // two pieces
		"selftest": imagetest.Content(version, "selftest", 100),
	}
}

func crashFiles(version string, app image.Target) (files []image.PayloadFile) {
	for _, name := range []string{"app", "selftest"} {
		data := crashPayloads(version)[name]
		file := image.PayloadFile{Name: name, Mode: 0o755, Open: func() (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(data)), nil
		}}
		if name == "app" {
			file.Target = app
		}
		files = append(files, file)
	}
	return files
}

func crashImage(version string, app image.Target) []byte {
	var b bytes.Buffer
	if err := image.Build(&b, imagetest.Manifest(version), crashFiles(version, app), imagetest.Key); err != nil {
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
		Banks:      [2]afero.Fs{get("bank1"), get("bank2")},
		State:      get("state"),
		Partitions: partitionsOf(get),
		Loader:     loaderOf(m),
		Trust:      imagetest.Trust(imagetest.Key),
		Keys:       []agefile.Identity{imagetest.ModelKey},
		Hardware:   "IAD-4FXS",
		Now:        func() time.Time { return time.Unix(1_800_000_000, 0) },
	}
}

func blank() *crashfs.Disk {
	return crashfs.NewDisk("bank1", "bank2", "state", "loader", "raw1", "raw2")
}

// after does work on a disk and returns the disk after an orderly shutdown.
func after(t testing.TB, d *crashfs.Disk, work func(opt Options) error) *crashfs.Disk {
	t.Helper()
	m := d.Start()
	if err := work(mount(m, nil)); err != nil {
		t.Fatal(err)
	}
	return m.Settled()
}

func provisioned(t testing.TB) *crashfs.Disk { return provisionedOn(t, blank()) }

func provisionedOn(t testing.TB, d *crashfs.Disk) *crashfs.Disk {
	return after(t, d, func(opt Options) error {
		return Provision(opt, bytes.NewReader(imagesOf(opt)["1.0.0"]), nil)
	})
}

// upgraded is a disk with version in bank 2, confirmed, and 1.0.0 in bank 1.
func upgraded(t testing.TB, version string) *crashfs.Disk {
	return upgradedOn(t, provisioned(t), version)
}

func upgradedOn(t testing.TB, d *crashfs.Disk, version string) *crashfs.Disk {
	return after(t, d, func(opt Options) error {
		var w reported
		return upgrade(opt, version, &w)
	})
}

// lives are the pieces of work that are swept, by name.
func lives(t testing.TB) map[string]crashfs.Sweep[reported] {
	sweeps := map[string]crashfs.Sweep[reported]{
		"provision": {Start: blank(), Life: life(provisionLife)},
		"upgrade":   {Start: provisioned(t), Life: life(func(opt Options, w *reported) error { return upgrade(opt, "2.0.0", w) })},
		"upgrade over old software": {
			Start: after(t, upgraded(t, "1.5.0"), func(opt Options) error {
				return restoreLife(opt, new(reported))
			}),
			Life: life(func(opt Options, w *reported) error { return upgrade(opt, "2.0.0", w) }),
		},
		"download after activation": {Start: provisioned(t), Life: life(changedMindLife)},
		"tries used up":             {Start: onTrial(t, provisioned(t)), Life: life(neverConfirmedLife)},
		"split form":                {Start: provisioned(t), Life: life(splitLife)},
		"restore":                   {Start: upgraded(t, "2.0.0"), Life: life(restoreLife)},
		"give up":                   {Start: onTrial(t, provisioned(t)), Life: life(giveUpLife)},
		"take over without restart": {Start: provisioned(t), Life: life(takeOverLife)},
		"restore while on trial":    {Start: onTrial(t, provisioned(t)), Life: life(restoreLife)},
		"trust document":            {Start: provisioned(t), Life: life(rotateLife)},
		"rescue":                    {Start: damaged(t), Life: life(rescueLife)},
	}
	for name, s := range sweeps {
		s.Seed = 1
		switch s.Depth, s.Limit = 2, 20; {
		case fullCrash():
			s.Limit, s.Mixtures = 0, 6
		case iadtest.RaceDetector:
			s.Limit = 2
		}
		sweeps[name] = s
	}
	return sweeps
}

func life(work func(opt Options, w *reported) error) func(*crashfs.Machine, *reported) error {
	return func(m *crashfs.Machine, w *reported) error { return work(mount(m, nil), w) }
}

// onTrial is a provisioned disk on which 2.0.0 was then activated in bank 2.
func onTrial(t testing.TB, provisioned *crashfs.Disk) *crashfs.Disk {
	return after(t, provisioned, func(opt Options) error {
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

func (unsynced) Sync() error { return nil }

// TestRecordBeforeErase: nothing of a bank is changed before the record says durably that
// it is not bootable.
func TestRecordBeforeErase(t *testing.T) {
	disk := after(t, upgraded(t, "1.5.0"), func(opt Options) error { return restoreLife(opt, new(reported)) })
	m := disk.Start()
	b, _ := boot(t, mount(m, nil))
	before := len(m.Ops())
	if err := fetchInto(b, "2.0.0", false); err != nil {
		t.Fatal(err)
	}
	recorded := false
	for _, op := range m.Ops()[before:] {
		recorded = recorded || op.Part == "state" && op.Kind == crashfs.OpSync
		if op.Part == "bank2" && op.Path != "probe"+durable.TempSuffix && !recorded {
			t.Errorf("%s before the record", op)
		}
	}
}

// TestCrashAfterKill kills the process at every third operation, with IAD_CRASH=full at
// each; another one does the work to
// its end; then the power fails. What was reported must have lasted although the first
// process left things unsynced.
func TestCrashAfterKill(t *testing.T) {
	all := lives(t)
	for name, sweep := range partitionLives(t, "") {
		if fullCrash() || name == "split form" {
			all["partition, "+name] = sweep
		}
	}
	for name, sweep := range all {
		t.Run(name, func(t *testing.T) {
			disks, step := 0, 3
			switch {
			case fullCrash():
				step = 1
			case name == "rescue":
				step = 2 // one write alone leaves a bank that is complete and not synced
			}
			for skip, killed := 0, true; killed; skip += step {
				m, w := sweep.Start.Start(), reported{}
				m.Fail(crashfs.Fault{Skip: skip, Err: errKilled})
				killed = sweep.Life(m, &w) != nil
				m.Heal()
				if err := sweep.Life(m, &w); err != nil {
					t.Fatalf("killed at %d: %v", skip, err)
				}
				for _, d := range m.Disks(1, 1) {
					disks++
					again := w
					if err := sweep.Life(d.Disk.Start(), &again); err != nil {
						t.Errorf("killed at %d, %s: %v", skip, d.How, err)
					}
				}
			}
			t.Logf("%s: %d disks", name, disks)
		})
	}
}

var errKilled = errors.New("killed")
