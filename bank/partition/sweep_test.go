package partition

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/afero"

	"example.com/iad/bank"
	"example.com/iad/bank/image"
	"example.com/iad/bank/image/encode"
	"example.com/iad/bank/image/frame"
	"example.com/iad/internal/crashfs"
	"example.com/iad/internal/iadtest"
	"example.com/iad/internal/imagetest"
	"example.com/iad/mib"
)

// The sweeps cut the power at every write to simulated flash memory. Package bank has those of
// block devices.

const (
	flashName  = "flash"
	badName    = "bad" // a byte for each erase block
	eraseBlock = 4096
	writeUnit  = 512
	blocks     = 12
	// weak is an erase block that can be erased and never written.
	weak       = 5
	kernelSize = 18_001
)

// chip is NAND flash memory of a machine. What it has written lasts; a cut leaves the erase
// block that was being erased or written with anything in it.
type chip struct {
	fs    afero.Fs
	flash afero.File
}

func openChip(fs afero.Fs) (nand, error) {
	f, err := fs.OpenFile(flashName, os.O_RDWR, 0)
	return &chip{fs, f}, err
}

func (c *chip) Size() int64       { return blocks * eraseBlock }
func (c *chip) EraseBlock() int64 { return eraseBlock }
func (c *chip) WriteUnit() int64  { return writeUnit }
func (c *chip) Close() error      { return c.flash.Close() }

func (c *chip) Bad(at int64) (bool, error) {
	table, err := afero.ReadFile(c.fs, badName)
	return err == nil && table[at/eraseBlock] != 0, err
}

func (c *chip) MarkBad(at int64) error {
	f, err := c.fs.OpenFile(badName, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt([]byte{1}, at/eraseBlock)
	return errors.Join(err, f.Sync(), f.Close())
}

func (c *chip) use(at int64) error {
	bad, err := c.Bad(at)
	if bad {
		err = errors.New("a bad erase block is used")
	}
	return err
}

func (c *chip) Erase(at int64) error {
	if err := c.use(at); err != nil {
		return err
	}
	return c.put(bytes.Repeat([]byte{0xFF}, eraseBlock), at)
}

func (c *chip) put(p []byte, at int64) error {
	if _, err := c.flash.WriteAt(p, at); err != nil {
		return err
	}
	return c.flash.Sync()
}

func (c *chip) WriteAt(p []byte, at int64) (int, error) {
	was := make([]byte, len(p))
	if _, err := c.flash.ReadAt(was, at); err != nil {
		return 0, err
	}
	switch {
	case len(p)%writeUnit != 0 || at%writeUnit != 0:
		return 0, fmt.Errorf("write of %d bytes at %#x", len(p), at)
	case slices.ContainsFunc(was, func(b byte) bool { return b != 0xFF }):
		return 0, fmt.Errorf("write at %#x to what is not erased", at)
	case at/eraseBlock == weak:
		return 0, syscall.EIO
	}
	return len(p), c.put(p, at)
}

func (c *chip) ReadAt(p []byte, at int64) (int, error) {
	if err := c.use(at); err != nil {
		return 0, err
	}
	return c.flash.ReadAt(p, at)
}

// volumes is UBI with one volume, a file. While the file updating exists, its content cannot
// be read.
type volumes struct {
	fs   afero.Fs
	used bool // by a file system
}

const updating = "updating"

func (v volumes) Size(string) (int64, error) { return 64 << 10, nil }

func (v volumes) Open(string) (bank.PartitionReader, error) {
	if _, err := v.fs.Stat(updating); err == nil {
		return nil, syscall.EBADF
	}
	return v.fs.Open(flashName)
}

func (v volumes) InUse(name string) error {
	if v.used {
		return fmt.Errorf("%s is mounted", name)
	}
	return nil
}

func (v volumes) Update(_ string, size int64) (io.WriteCloser, error) {
	mark, err := v.fs.Create(updating)
	if err != nil {
		return nil, err
	}
	f, err := v.fs.OpenFile(flashName, os.O_RDWR|os.O_TRUNC, 0)
	u := &update{File: f, of: v, left: size}
	if err = errors.Join(err, mark.Close(), v.sync()); err == nil && size == 0 {
		err = u.end()
	}
	return u, err
}

func (v volumes) sync() error {
	d, err := v.fs.Open(".")
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

type update struct {
	afero.File
	of   volumes
	left int64
}

func (u *update) Write(p []byte) (int, error) {
	if int64(len(p)) > u.left {
		return 0, errors.New("more than was announced")
	}
	n, err := u.File.Write(p)
	if u.left -= int64(n); err == nil && u.left == 0 {
		err = u.end()
	}
	return n, err
}

func (u *update) end() error {
	if err := u.Sync(); err != nil {
		return err
	}
	if err := u.of.fs.Remove(updating); err != nil {
		return err
	}
	return u.of.sync()
}

// kernelOf is the payload of a version for the partition.
func kernelOf(version string) []byte {
	data := imagetest.Content(version, "kernel", kernelSize)
	for i := 0; i+4 <= len(data); i += 64 {
		binary.BigEndian.PutUint32(data[i:], uint32(i)) // no two erase blocks are equal
	}
	return data
}

func imageOf(version string) []byte {
	file := func(name string, data []byte, target image.Target) image.PayloadFile {
		return image.PayloadFile{Name: name, Mode: 0o755, Target: target, Open: func() (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(data)), nil
		}}
	}
	m := imagetest.Manifest(version)
	var b bytes.Buffer
	if err := image.Build(&b, m, []image.PayloadFile{
		file("kernel", kernelOf(version), image.TargetPartition), file("selftest", []byte(version), image.TargetFile),
	}, imagetest.Key); err != nil {
		panic(err)
	}
	return b.Bytes()
}

var images = map[string][]byte{"1.0.0": imageOf("1.0.0"), "1.5.0": imageOf("1.5.0"), "2.0.0": imageOf("2.0.0")}

// served is a server with one file, whose connection breaks once.
type served struct {
	data []byte
	cut  int64 // after so many bytes, 0 never
}

var errBroken = errors.New("connection lost")

func (s *served) Open(_ context.Context, _ string, offset int64) (io.ReadCloser, int64, error) {
	var r io.Reader = bytes.NewReader(s.data[offset:])
	if s.cut > 0 {
		r, s.cut = io.MultiReader(io.LimitReader(r, s.cut), brokenReader{}), 0
	}
	return io.NopCloser(r), int64(len(s.data)), nil
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, errBroken }

// board is a device with flash memory of one kind.
type board struct {
	disk  *crashfs.Disk
	parts func(m *crashfs.Machine) [2]bank.Partition
}

func nandBoard() board {
	table := make([]byte, blocks)
	table[0], table[3] = 1, 1
	d := crashfs.NewDisk("bank1", "bank2", "state", "raw1", "raw2")
	for _, part := range []string{"raw1", "raw2"} {
		d = d.Write(part, flashName, bytes.Repeat([]byte{0xA5}, blocks*eraseBlock)).Write(part, badName, table)
	}
	return board{d, func(m *crashfs.Machine) (p [2]bank.Partition) {
		for i, part := range []string{"raw1", "raw2"} {
			p[i] = Flash{Name: part, open: func(string, bool) (nand, error) { return openChip(m.Fs(part)) }}
		}
		return p
	}}
}

func ubiBoard() board {
	d := crashfs.NewDisk("bank1", "bank2", "state", "raw1", "raw2").Write("raw1", flashName, nil).Write("raw2", flashName, nil)
	return board{d, func(m *crashfs.Machine) (p [2]bank.Partition) {
		for i, part := range []string{"raw1", "raw2"} {
			p[i] = Volume{Name: part, device: volumes{fs: m.Fs(part)}}
		}
		return p
	}}
}

// blockBoard has files that stand for block devices. They outlast a power cut as they are.
func blockBoard(t *testing.T) board {
	var p [2]bank.Partition
	for i := range p {
		name := filepath.Join(t.TempDir(), "device")
		if err := os.WriteFile(name, make([]byte, 64<<10), 0o600); err != nil {
			t.Fatal(err)
		}
		p[i] = Block{Name: name}
	}
	return board{crashfs.NewDisk("bank1", "bank2", "state"), func(*crashfs.Machine) [2]bank.Partition { return p }}
}

func (b board) options(m *crashfs.Machine) bank.Options {
	return bank.Options{
		Banks: [2]afero.Fs{m.Fs("bank1"), m.Fs("bank2")}, State: m.Fs("state"), Partitions: b.parts(m),
		Trust: imagetest.Trust(imagetest.Key), Hardware: "IAD-4FXS", Now: func() time.Time { return time.Unix(1_800_000_000, 0) },
	}
}

// provisioned is the board with 1.0.0 in bank 1 and, if version is not "", that in bank 2.
func (b board) provisioned(t *testing.T, version string) board {
	t.Helper()
	m := b.disk.Start()
	opt := b.options(m)
	if err := bank.Provision(opt, bytes.NewReader(images["1.0.0"]), nil); err != nil {
		t.Fatal(err)
	}
	if version != "" {
		banks, _ := bank.Boot(opt)
		if _, err := banks.Install(t.Context(), &served{data: images[version]}, "fw.iad", bank.InstallOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	b.disk = m.Settled()
	return b
}

// done is what was reported before the power failed.
type done struct{ ready, confirmed bool }

// upgrade brings a board to 2.0.0, wherever it was cut, through a connection that breaks.
func (b board) upgrade(m *crashfs.Machine, w *done) error {
	opt := b.options(m)
	banks, report := bank.Boot(opt)
	if report.Bank == 0 || report.Rebuilt {
		return fmt.Errorf("nothing boots: %q", report.Findings)
	}
	s := banks.Status()
	if err := b.check(opt, s); err != nil {
		return err
	}
	if w.confirmed && s.Running != 2 || w.ready && s.Banks[1].Version != "2.0.0" {
		return fmt.Errorf("what was reported is lost: %+v", s)
	}
	if s.Running == 1 {
		src := &served{data: images["2.0.0"], cut: 15_000}
		_, err := banks.Install(context.Background(), src, "fw.iad", bank.InstallOptions{})
		if errors.Is(err, errBroken) {
			_, err = banks.Install(context.Background(), src, "fw.iad", bank.InstallOptions{})
		}
		if err != nil {
			return err
		}
		w.ready = true
		if err := banks.Activate(2); err != nil {
			return err
		}
		if banks, report = bank.Boot(opt); report.Bank != 2 {
			return fmt.Errorf("2.0.0 does not start: %+v", report)
		}
		if err := b.check(opt, banks.Status()); err != nil {
			return err
		}
	}
	w.confirmed = true
	return banks.Confirm()
}

// check looks at the flash memory as a boot loader does: what runs is complete, and what has a
// first block has the rest.
func (b board) check(opt bank.Options, s bank.Status) error {
	for n := 1; n <= 2; n++ {
		got := make([]byte, kernelSize)
		r, err := opt.Partitions[n-1].Open()
		if err == nil {
			_, err = io.ReadFull(r, got)
			r.Close()
		}
		want := kernelOf(s.Bank(n).Version)
		if s.Running == n && (err != nil || !bytes.Equal(got, want)) {
			return fmt.Errorf("bank %d runs %s, and its partition has something else: %v", n, s.Bank(n).Version, err)
		}
		for version := range images {
			want := kernelOf(version)
			if err == nil && bytes.Equal(got[:eraseBlock], want[:eraseBlock]) && !bytes.Equal(got, want) {
				return fmt.Errorf("the partition of bank %d has the first block of %s, and not the rest", n, version)
			}
		}
	}
	return nil
}

func TestCrashFlash(t *testing.T) {
	for name, b := range map[string]board{
		"flash": nandBoard().provisioned(t, ""), "flash over old software": nandBoard().provisioned(t, "1.5.0"),
		"UBI over old software": ubiBoard().provisioned(t, "1.5.0"),
	} {
		t.Run(name, func(t *testing.T) {
			sweep := crashfs.Sweep[done]{Start: b.disk, Life: b.upgrade, Seed: 1, Depth: 2, Limit: 3, Sample: 40}
			switch {
			case os.Getenv("IAD_CRASH") == "full":
				sweep.Limit, sweep.Mixtures, sweep.Sample = 0, 6, 0
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

// earlyFlash writes its first erase block as soon as it writes anything.
type earlyFlash struct{ bank.Partition }

func (e earlyFlash) Claim() (bank.PartitionWriter, error) {
	w, err := e.Partition.Claim()
	return &earlyWriter{w}, err
}

type earlyWriter struct{ bank.PartitionWriter }

func (w *earlyWriter) Clear(int64) error {
	_, err := w.PartitionWriter.WriteAt(kernelOf("2.0.0")[:eraseBlock], 0)
	return err
}

// TestPlantedError shows that the sweep notices a first block that is there too early.
func TestPlantedError(t *testing.T) {
	good := nandBoard().provisioned(t, "1.5.0")
	bad := board{good.disk, func(m *crashfs.Machine) [2]bank.Partition {
		parts := good.parts(m)
		return [2]bank.Partition{parts[0], earlyFlash{parts[1]}}
	}}
	result, err := crashfs.Sweep[done]{Start: bad.disk, Life: bad.upgrade, Enough: 1}.Run()
	if err != nil || result.Bad == 0 {
		t.Errorf("nothing was noticed: %v, %s", err, result)
	}
}

// TestBadBlocks writes past bad erase blocks, and marks one more.
func TestBadBlocks(t *testing.T) {
	b := nandBoard()
	m := b.disk.Start()
	part := b.parts(m)[0]
	if n, err := part.Capacity(); n != (blocks-2)*eraseBlock || err != nil {
		t.Errorf("capacity %d, %v", n, err)
	}
	if err := bank.Provision(b.options(m), bytes.NewReader(images["1.0.0"]), nil); err != nil {
		t.Fatal(err)
	}
	if n, err := part.Capacity(); n != (blocks-3)*eraseBlock || err != nil {
		t.Errorf("capacity %d, %v; the weak erase block is not marked", n, err)
	}
	flash, err := afero.ReadFile(m.Fs("raw1"), flashName)
	if err != nil {
		t.Fatal(err)
	}
	var got []byte
	for _, i := range []int{1, 2, 4, 6, 7} { // not 0 and 3, which are bad, nor the weak one
		got = append(got, flash[i*eraseBlock:(i+1)*eraseBlock]...)
	}
	if !bytes.Equal(got[:kernelSize], kernelOf("1.0.0")) {
		t.Error("the payload is not in the good erase blocks")
	}
}

// TestFlashTooSmall: bad erase blocks make flash memory too small, before anything is
// erased or, if they show up only now, while it is written.
func TestFlashTooSmall(t *testing.T) {
	b := nandBoard()
	for _, test := range []struct {
		bad  []int
		want mib.FailCause
	}{{[]int{0, 1, 2, 3, 4, 6, 7, 8}, mib.FailCauseFileTooLarge}, {[]int{0, 1, 2, 3, 6, 7, 8}, mib.FailCauseStorageFull}} {
		table := make([]byte, blocks)
		for _, i := range test.bad {
			table[i] = 1
		}
		was := b.disk.Write("raw1", badName, table)
		m := was.Start()
		err := bank.Provision(b.options(m), bytes.NewReader(images["1.0.0"]), nil)
		if cause := mib.CauseOf(err, mib.FailCauseOther); cause != test.want {
			t.Errorf("bad %v: %v", test.bad, err)
		}
		now, _ := m.Settled().Read("raw1", flashName)
		if then, _ := was.Read("raw1", flashName); test.want == mib.FailCauseFileTooLarge && !bytes.Equal(now, then) {
			t.Error("something was erased")
		}
	}
}

// TestWeakFirstBlock: the erase block that is written last fails. It is marked bad, and the
// next attempt starts one further.
func TestWeakFirstBlock(t *testing.T) {
	b := nandBoard()
	table := make([]byte, blocks)
	copy(table, []byte{1, 1, 1, 1, 1})
	m := b.disk.Write("raw1", badName, table).Start()
	err := bank.Provision(b.options(m), bytes.NewReader(images["1.0.0"]), nil)
	if mib.CauseOf(err, mib.FailCauseOther) != mib.FailCauseWriteError {
		t.Error(err)
	}
	if err := bank.Provision(b.options(m), bytes.NewReader(images["1.0.0"]), nil); err != nil {
		t.Error(err)
	}
	if _, report := bank.Boot(b.options(m)); report.Bank != 1 {
		t.Errorf("%+v", report)
	}
}

// TestInterruptedVolume: an update of a UBI volume that broke off is damage of the bank, and
// starts again from the beginning.
func TestInterruptedVolume(t *testing.T) {
	b := ubiBoard().provisioned(t, "1.5.0")
	m := b.disk.Start()
	opt := b.options(m)
	banks, _ := bank.Boot(opt)
	src := &served{data: images["2.0.0"], cut: 15_000}
	if _, err := banks.Install(t.Context(), src, "fw.iad", bank.InstallOptions{}); !errors.Is(err, errBroken) {
		t.Fatal(err)
	}
	if r, err := opt.Partitions[1].Open(); err == nil {
		r.Close()
		t.Error("the volume can be read")
	}
	banks, report := bank.Boot(opt)
	if s := banks.Status(); report.Bank != 1 || s.Banks[1].State != mib.BankStateWriting {
		t.Errorf("%+v, %+v", report, s)
	}
	res, err := banks.Install(t.Context(), src, "fw.iad", bank.InstallOptions{})
	if err != nil || res.Fetched < kernelSize {
		t.Errorf("%+v, %v", res, err)
	}
	if err := banks.Activate(2); err != nil {
		t.Error(err)
	}
}

// TestVolumeInUse: a volume that is in use is refused before anything is changed: the old
// software in its bank stays the fallback.
func TestVolumeInUse(t *testing.T) {
	b := ubiBoard().provisioned(t, "1.5.0")
	m := b.disk.Start()
	opt := b.options(m)
	for i := range opt.Partitions {
		v := opt.Partitions[i].(Volume)
		v.device = volumes{v.device.(volumes).fs, true}
		opt.Partitions[i] = v
	}
	banks, _ := bank.Boot(opt)
	before := banks.Status()
	_, err := banks.Install(t.Context(), &served{data: images["2.0.0"]}, "fw.iad", bank.InstallOptions{})
	if mib.CauseOf(err, 0) != mib.FailCauseBankUnavailable {
		t.Error(err)
	}
	if after := banks.Status(); after.Banks[1].State != before.Banks[1].State || after.Banks[1].Version != before.Banks[1].Version {
		t.Errorf("%+v, and before %+v", after, before)
	}
	if r, err := opt.Partitions[1].Open(); err != nil {
		t.Error(err)
	} else {
		r.Close()
	}
}

// files is a server with several files.
type files struct {
	all map[string][]byte
	// damaged is a byte, counted from the end of a file, that is wrong whenever the file is
	// opened in the middle; 0 none.
	damaged int
}

func (s files) Open(_ context.Context, name string, offset int64) (io.ReadCloser, int64, error) {
	data := bytes.Clone(s.all[name])
	if offset > 0 && s.damaged > 0 {
		data[len(data)-s.damaged] ^= 1
	}
	return io.NopCloser(bytes.NewReader(data[offset:])), int64(len(data)), nil
}

// TestStartAgain: a damaged frame in the middle of an encoding makes a partition of each kind
// start again with another encoding, or with a server that starts at the beginning.
func TestStartAgain(t *testing.T) {
	// It is so long that most of it is written before the last frame comes.
	payload, base := imagetest.Content("2.0.0", "kernel", 36_000), kernelOf("1.0.0")
	file := func(name string, data []byte, target image.Target, encodings ...image.EncodedFile) image.PayloadFile {
		open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }
		return image.PayloadFile{Name: name, Mode: 0o755, Target: target, Open: open, Encodings: encodings}
	}
	selftest := file("selftest", []byte("2.0.0"), image.TargetFile)
	delta, err := encode.XZDelta(t.Context(), "kernel.d-1.0.0", payload, base, frame.MinSize)
	if err != nil {
		t.Fatal(err)
	}
	full, err := encode.XZ(t.Context(), "kernel.xz", payload, frame.MinSize)
	if err != nil {
		t.Fatal(err)
	}
	kernel := file("kernel", payload, image.TargetPartition, delta, full)
	split := imagetest.SplitFiles(t, imagetest.Manifest("2.0.0"), []image.PayloadFile{selftest, kernel})
	// The last byte of the last frame.
	split["dir/kernel.d-1.0.0"][delta.Size-1] ^= 1
	kernel = file("kernel", payload, image.TargetPartition, delta)
	tar := imagetest.Tar(t, imagetest.Manifest("2.0.0"), []image.PayloadFile{selftest, kernel})
	padding := int(-delta.Size&511) + 1024

	for boardName, b := range map[string]board{"flash": nandBoard(), "UBI": ubiBoard(), "block device": blockBoard(t)} {
		for form, test := range map[string]struct {
			src  files
			name string
			note string
		}{
			"split": {files{all: split}, "dir/" + image.ManifestName, "fetching kernel.xz"},
			"tar":   {files{map[string][]byte{"fw.iad": tar}, padding + 1}, "fw.iad", "the difference from the running 1.0.0"},
		} {
			t.Run(boardName+"/"+form, func(t *testing.T) {
				opt := b.options(b.provisioned(t, "").disk.Start())
				banks, _ := bank.Boot(opt)
				res, err := banks.Install(t.Context(), test.src, test.name, bank.InstallOptions{})
				if err != nil {
					t.Fatal(err)
				}
				if notes := strings.Join(res.Notes, "\n"); !strings.Contains(notes, test.note) {
					t.Errorf("%q, want %q", notes, test.note)
				}
				if err := banks.Activate(2); err != nil {
					t.Fatal(err)
				}
				if _, report := bank.Boot(opt); report.Bank != 2 {
					t.Errorf("%+v", report)
				}
				r, err := opt.Partitions[1].Open()
				if err != nil {
					t.Fatal(err)
				}
				defer r.Close()
				got := make([]byte, len(payload))
				if _, err := io.ReadFull(r, got); err != nil || !bytes.Equal(got, payload) {
					t.Errorf("the partition has something else, %v", err)
				}
			})
		}
	}
}
