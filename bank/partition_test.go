package bank

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"testing"

	"github.com/spf13/afero"

	"example.com/iad/bank/image"
	"example.com/iad/internal/crashfs"
	"example.com/iad/internal/iadtest"
	"example.com/iad/internal/imagetest"
	"example.com/iad/mib"
)

const (
	// rawName is the file that stands for a partition on a disk of its own.
	rawName   = "partition"
	rawSize   = 48 << 10
	rawSector = 8192
)

// A sectors is a partition whose sectors are written one by one, and get lost one by one.
type sectors struct {
	fs    afero.Fs
	plant string // an error in the order of the writes, see TestPlantedPartitionErrors
	// held, if not "", keeps others from claiming it.
	held string
}

func (s *sectors) String() string { return "raw partition" }

func (s *sectors) Capacity() (int64, error) {
	info, err := s.fs.Stat(rawName)
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

func (s *sectors) Open() (PartitionReader, error) { return s.fs.Open(rawName) }

func (s *sectors) Sync() error {
	f, err := s.fs.Open(rawName)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func (s *sectors) Claim() (PartitionWriter, error) {
	if s.held != "" {
		return nil, errors.New(s.held)
	}
	f, err := s.fs.OpenFile(rawName, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	return &sectorWriter{f, s.plant}, nil
}

type sectorWriter struct {
	f     afero.File
	plant string
}

func (w *sectorWriter) Block() int64 { return rawSector }

func (w *sectorWriter) Clear(int64) error {
	if w.plant == "not cleared" {
		return nil
	}
	if _, err := w.f.WriteAt(make([]byte, rawSector), 0); err != nil {
		return err
	}
	return w.Sync()
}

func (w *sectorWriter) WriteAt(p []byte, at int64) (n int, err error) {
	if at%rawSector != 0 {
		return 0, fmt.Errorf("write at %d", at)
	}
	if w.plant == "first block first" && at > 0 {
		for _, version := range []string{"1.5.0", "2.0.0"} {
			if app := crashPayloads(version)["app"]; bytes.Contains(app, p) {
				if _, err := w.f.WriteAt(app[:rawSector], 0); err != nil {
					return 0, err
				}
			}
		}
	}
	for sector := range slices.Chunk(p, rawSector) {
		k, err := w.f.WriteAt(sector, at+int64(n))
		if n += k; err != nil {
			return n, err
		}
	}
	return n, nil
}

func (w *sectorWriter) Sync() error {
	if w.plant == "not synced" {
		return nil
	}
	return w.f.Sync()
}

func (w *sectorWriter) Close() error { return w.f.Close() }

// withPartitions adds partitions to a disk, with something on them. plant is an error in
// writing to them.
func withPartitions(d *crashfs.Disk, plant string) *crashfs.Disk {
	junk := bytes.Repeat([]byte("junk"), rawSize/4)
	return d.Write("raw1", rawName, junk).Write("raw2", rawName, junk).Write("raw1", "plant", []byte(plant))
}

// partitionsOf are the partitions of a machine, if it has any.
func partitionsOf(get func(part string) afero.Fs) (parts [2]Partition) {
	plant, err := afero.ReadFile(get("raw1"), "plant")
	if err != nil {
		return parts
	}
	for i, part := range []string{"raw1", "raw2"} {
		parts[i] = &sectors{fs: get(part), plant: string(plant)}
	}
	return parts
}

// readPayload reads a payload of the sweeps, wherever it is.
func readPayload(opt Options, n int, name string) ([]byte, error) {
	part := opt.Partitions[n-1]
	if part == nil || name != "app" {
		return afero.ReadFile(opt.Banks[n-1], name)
	}
	r, err := part.Open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(io.LimitReader(r, int64(len(crashPayloads("1.0.0")["app"]))))
}

// firstBlock returns of which version a partition has the first block, "" of none.
func firstBlock(opt Options, n int) (version string, err error) {
	got, err := readPayload(opt, n, "app")
	if err != nil {
		return "", err
	}
	for _, v := range []string{"1.0.0", "1.5.0", "2.0.0"} {
		if bytes.Equal(got[:rawSector], crashPayloads(v)["app"][:rawSector]) {
			return v, nil
		}
	}
	return "", nil
}

// checkFirstBlocks checks that all of a payload is on a partition that has its first
// block: many boot loaders look at no more.
func checkFirstBlocks(opt Options) error {
	for n := 1; n <= 2 && opt.Partitions[0] != nil; n++ {
		v, err := firstBlock(opt, n)
		if err != nil {
			return err
		}
		got, err := readPayload(opt, n, "app")
		if err != nil {
			return err
		}
		if v != "" && !bytes.Equal(got, crashPayloads(v)["app"]) {
			return fmt.Errorf("the partition of bank %d has the first block of %s, and not the rest", n, v)
		}
	}
	return nil
}

// partitionLives are pieces of work with an app on a partition, the last ones with a boot
// loader. plant is an error in writing.
func partitionLives(t testing.TB, plant string) map[string]crashfs.Sweep[reported] {
	raw := withPartitions(blank(), plant)
	fresh := provisionedOn(t, raw)
	upgradeLife := func(opt Options, w *reported) error { return upgrade(opt, "2.0.0", w) }
	back := func(opt Options) error { return restoreLife(opt, new(reported)) }
	lives := map[string]crashfs.Sweep[reported]{
		"provision":                 {Start: raw, Life: life(provisionLife)},
		"upgrade":                   {Start: fresh, Life: life(upgradeLife)},
		"upgrade over old software": {Start: after(t, upgradedOn(t, fresh, "1.5.0"), back), Life: life(upgradeLife)},
		"download after activation": {Start: fresh, Life: life(changedMindLife)},
		"split form":                {Start: fresh, Life: life(splitLife)},
	}
	for name, s := range loaderLivesFrom(t, provisionedOn(t, withPartitions(withLoader(), plant))) {
		switch name {
		case "upgrade", "upgrade over old software", "both copies of the loader lost while a bank is half written", "download after activation":
			lives["loader: "+name] = s
		}
	}
	return lives
}

func TestCrashPartition(t *testing.T) {
	for name, sweep := range partitionLives(t, "") {
		switch name {
		case "upgrade", "upgrade over old software", "download after activation", "loader: upgrade":
			if !fullCrash() {
				continue // with a loader they do the same and more
			}
		}
		t.Run(name, func(t *testing.T) {
			sweep.Seed, sweep.Depth, sweep.Limit, sweep.Sample = 1, 2, 3, 40
			switch {
			case fullCrash():
				sweep.Limit, sweep.Sample, sweep.Mixtures = 0, 0, 6
			case iadtest.RaceDetector:
				sweep.Depth, sweep.Sample = 1, 20
			}
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

// TestPlantedPartitionErrors shows that the sweeps notice writes in a wrong order.
func TestPlantedPartitionErrors(t *testing.T) {
	for plant, name := range map[string]string{
		"first block first": "upgrade",
		"not cleared":       "upgrade over old software",
		"not synced":        "upgrade",
	} {
		sweep := partitionLives(t, plant)[name]
		sweep.Enough = 1
		result, err := sweep.Run()
		if err == nil && len(result.Faults) == 0 {
			t.Errorf("%s: %s: nothing was noticed: %s", plant, name, result)
		}
	}
}

// rawDevice is a device with partitions and 1.0.0 in bank 1.
func rawDevice(t testing.TB) (Options, *crashfs.Machine) {
	m := provisionedOn(t, withPartitions(blank(), "")).Start()
	return mount(m, nil), m
}

// TestPartitionResume continues a download on the partition, also after bytes that were
// written have changed, or got lost.
func TestPartitionResume(t *testing.T) {
	for _, form := range []string{"fw.iad", "dir/manifest.json"} {
		for _, test := range []struct {
			name     string
			spoil    int64 // byte of the partition that changes meanwhile, 0 none
			noResume bool
		}{{"whole", 0, false}, {"damaged", 20_000, false}, {"server cannot resume", 0, true}} {
			t.Run(form+" "+test.name, func(t *testing.T) {
				opt, _ := rawDevice(t)
				b, _ := boot(t, opt)
				src := splitServer(rawImages["2.0.0"])
				src.files["fw.iad"], src.noResume, src.cut = rawImages["2.0.0"], test.noResume, 39_000
				if _, err := b.Install(t.Context(), src, form, InstallOptions{}); !errors.Is(err, errBroken) {
					t.Fatal(err)
				}
				if v, err := firstBlock(opt, 2); v != "" || err != nil {
					t.Errorf("the first block of %s is there before the rest, %v", v, err)
				}
				if test.spoil != 0 {
					spoilAt(t, opt.Partitions[1].(*sectors).fs, rawName, test.spoil)
				}
				b, _ = boot(t, opt)
				src.cut, src.opened = 0, nil
				res, err := b.Install(t.Context(), src, form, InstallOptions{})
				if err != nil {
					t.Fatal(err)
				}
				if less := res.Fetched < 20_000; less != (test.spoil == 0 && !test.noResume) {
					t.Errorf("%d bytes were fetched", res.Fetched)
				}
				if got, err := readPayload(opt, 2, "app"); err != nil || !bytes.Equal(got, crashPayloads("2.0.0")["app"]) {
					t.Errorf("the partition differs, %v", err)
				}
				if err := b.Activate(2); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

func spoilAt(t *testing.T, fs afero.Fs, name string, at int64) {
	t.Helper()
	f, err := fs.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte{0xFF}, at); err != nil {
		t.Fatal(err)
	}
}

// TestPartitionRefusals: whatever is wrong with the partition, nothing is changed.
func TestPartitionRefusals(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(opt *Options)
		want   mib.FailCause
	}{
		{"none", func(opt *Options) { opt.Partitions = [2]Partition{} }, mib.FailCauseIncompatibleHardware},
		{"too small", func(opt *Options) {
			opt.Partitions[1] = tooSmall{opt.Partitions[1]}
		}, mib.FailCauseFileTooLarge},
		{"missing", func(opt *Options) { opt.Partitions[1] = &sectors{fs: afero.NewMemMapFs()} }, mib.FailCauseBankUnavailable},
		{"mounted", func(opt *Options) { opt.Partitions[1].(*sectors).held = "it is mounted" }, mib.FailCauseBankUnavailable},
	} {
		t.Run(test.name, func(t *testing.T) {
			opt, m := rawDevice(t)
			b, _ := boot(t, opt)
			test.change(&b.opt)
			before := len(m.Ops())
			for _, checkOnly := range []bool{true, false} {
				_, err := b.Install(t.Context(), serve("fw.iad", rawImages["2.0.0"]), "fw.iad", InstallOptions{CheckOnly: checkOnly})
				if causeOf(err) != test.want {
					t.Errorf("check only %v: %v, want cause %d", checkOnly, err, test.want)
				}
			}
			for _, op := range m.Ops()[before:] {
				if op.Kind != crashfs.OpClose {
					t.Errorf("%s", op)
				}
			}
		})
	}
}

type tooSmall struct{ Partition }

func (tooSmall) Capacity() (int64, error) { return 39_999, nil }

// TestPartitionIsChecked: damage on a partition is damage of the bank.
func TestPartitionIsChecked(t *testing.T) {
	opt, m := rawDevice(t)
	b, _ := boot(t, opt)
	if err := fetchInto(b, "2.0.0", false); err != nil {
		t.Fatal(err)
	}
	opt.Capacity = func(int) int64 { return 1000 }
	if s := mustBoot(t, opt); s.Banks[1].State != mib.BankStateReady || s.Banks[1].Capacity != 1000+rawSize {
		t.Errorf("%+v", s.Banks[1])
	}
	spoilAt(t, m.Fs("raw2"), rawName, 30_000)
	if err := b.Activate(2); causeOf(err) != mib.FailCauseDigestMismatch {
		t.Error(err)
	}
	if _, err := b.Open(2, "app"); causeOf(err) != mib.FailCauseBadRequest {
		t.Error(err)
	}
	// Without the partition the software is not complete.
	opt.Partitions = [2]Partition{}
	if b, report := Boot(opt); report.Bank != 0 {
		t.Errorf("%+v, %+v", report, b.Status())
	}
}

func mustBoot(t *testing.T, opt Options) Status {
	b, _ := boot(t, opt)
	return b.Status()
}

// TestFilesClearThePartition: software of files alone leaves nothing on the partition that a
// boot loader could start, and the other way round.
func TestFilesClearThePartition(t *testing.T) {
	opt, _ := rawDevice(t)
	b, _ := boot(t, opt)
	if err := fetchInto(b, "1.5.0", false); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Install(t.Context(), serve("fw.iad", crashImages["2.0.0"]), "fw.iad", InstallOptions{}); err != nil {
		t.Fatal(err)
	}
	if v, err := firstBlock(opt, 2); v != "" || err != nil {
		t.Errorf("the partition starts %s, %v", v, err)
	}
	if err := fetchInto(b, "1.5.0", false); err != nil {
		t.Fatal(err)
	}
	if _, err := opt.Banks[1].Stat("app"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file is still there: %v", err)
	}
	if err := b.Activate(2); err != nil {
		t.Error(err)
	}
}

// TestPartitionKept: a payload that the partition holds already is neither fetched nor
// written again.
func TestPartitionKept(t *testing.T) {
	opt, m := rawDevice(t)
	b, _ := boot(t, opt)
	if err := fetchInto(b, "2.0.0", false); err != nil {
		t.Fatal(err)
	}
	p := imagetest.ReadHead(t, rawImages["2.0.0"])
	parts := &imagetest.Parts{Head: p, Files: crashPayloads("2.0.0")}
	src := split(parts.Resign(t, func(m *image.Manifest) { m.Version = "2.0.1" }, imagetest.Key))
	delete(src.files, "dir/app")
	before := len(m.Ops())
	if _, err := b.Install(t.Context(), src, "dir/manifest.json", InstallOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, op := range m.Ops()[before:] {
		if op.Part == "raw2" && op.Kind == crashfs.OpWrite {
			t.Error(op)
		}
	}
	if err := b.Activate(2); err != nil {
		t.Error(err)
	}
	// By force all of it is written again.
	before = len(m.Ops())
	if _, err := b.Install(t.Context(), serve("fw.iad", rawImages["2.0.0"]), "fw.iad", InstallOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(m.Ops()[before:], func(op crashfs.Op) bool { return op.Part == "raw2" && op.Kind == crashfs.OpWrite }) {
		t.Error("nothing was written by force")
	}
}

// stuck is a partition with a sector that cannot be written, although the medium says so.
// With cached, reading returns what was written all the same.
type stuck struct {
	*sectors
	cached bool
	memory map[int64][]byte
}

func (s *stuck) Claim() (PartitionWriter, error) {
	w, err := s.sectors.Claim()
	if err != nil {
		return nil, err
	}
	return &stuckWriter{w, s}, nil
}

func (s *stuck) Open() (PartitionReader, error) {
	r, err := s.sectors.Open()
	if err != nil || !s.cached {
		return r, err
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	for at, piece := range s.memory {
		copy(data[at:], piece)
	}
	return struct {
		*bytes.Reader
		io.Closer
	}{bytes.NewReader(data), io.NopCloser(nil)}, err
}

type stuckWriter struct {
	PartitionWriter
	of *stuck
}

func (w *stuckWriter) WriteAt(p []byte, at int64) (int, error) {
	w.of.memory[at] = bytes.Clone(p)
	const sector = 3 * rawSector
	if at > sector || at+int64(len(p)) <= sector {
		return w.PartitionWriter.WriteAt(p, at)
	}
	broken := bytes.Clone(p)
	broken[sector-at] ^= 1
	return w.PartitionWriter.WriteAt(broken, at)
}

// TestPartitionReadBack: what is not on the medium is noticed at once, if the medium is
// read. A partition that read from a cache would not notice.
func TestPartitionReadBack(t *testing.T) {
	for _, cached := range []bool{false, true} {
		opt, _ := rawDevice(t)
		opt.Partitions[1] = &stuck{opt.Partitions[1].(*sectors), cached, map[int64][]byte{}}
		b, _ := boot(t, opt)
		_, err := b.Install(t.Context(), serve("fw.iad", rawImages["2.0.0"]), "fw.iad", InstallOptions{})
		want := mib.FailCauseReadBackMismatch
		if cached {
			want = mib.FailCauseOther // no error
		}
		if causeOf(err) != want || cached != (err == nil) {
			t.Errorf("cached %v: %v", cached, err)
		}
		if s := b.Status(); !cached && (s.Banks[1].State != mib.BankStateWriting || s.Next != 1) {
			t.Errorf("%+v", s)
		}
	}
}

// TestPartitionManifest has what no manifest may say of targets.
func TestPartitionManifest(t *testing.T) {
	p := imagetest.TakeApart(t, "2.0.0")
	for name, change := range map[string]func(m *image.Manifest){
		"unknown target":   func(m *image.Manifest) { m.Payloads[0].Target = "floppy" },
		"two for the same": func(m *image.Manifest) { m.Payloads[0].Target, m.Payloads[3].Target = "partition", "partition" },
		"empty":            func(m *image.Manifest) { m.Payload("empty").Target = "partition" },
		"self-test":        func(m *image.Manifest) { m.Payload("selftest").Target = "partition" },
		"converter": func(m *image.Manifest) {
			m.Payloads[0].Target = "partition"
			m.Converters = []image.Converter{{From: 1, To: 2, Payload: "app"}}
		},
		"device without a partition": func(m *image.Manifest) { m.Payloads[0].Target = "partition" },
	} {
		t.Run(name, func(t *testing.T) {
			want := mib.FailCauseBadFormat
			if name == "device without a partition" {
				want = mib.FailCauseIncompatibleHardware
			}
			bad := p.Resign(t, change, imagetest.Key)
			refused(t, serve("fw.iad", bad.Tar()), "fw.iad", want, true)
			refused(t, split(bad), "dir/manifest.json", want, true)
		})
	}
}
