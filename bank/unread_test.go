package bank

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/spf13/afero"

	"example.com/iad/bank/image"
	"example.com/iad/internal/crashfs"
	"example.com/iad/internal/imagetest"
	"example.com/iad/mib"
)

// readsFs counts how often payloads are opened.
type readsFs struct {
	afero.Fs
	opened map[string]int
	read   func(name string) // called before a file is opened
}

func (f *readsFs) Open(name string) (afero.File, error) {
	f.opened[name]++
	if f.read != nil {
		f.read(name)
	}
	return f.Fs.Open(name)
}

func countReads(opt *Options) (reads [2]*readsFs) {
	for i := range opt.Banks {
		reads[i] = &readsFs{Fs: opt.Banks[i], opened: make(map[string]int)}
		opt.Banks[i] = reads[i]
	}
	return reads
}

// bothGood returns a device with good software in both banks, of which the second runs.
func bothGood(t *testing.T) Options {
	opt := device(t)
	b, _ := boot(t, opt)
	install(t, b, "2.0.0")
	if err := b.Activate(2); err != nil {
		t.Fatal(err)
	}
	b, _ = boot(t, opt)
	if err := b.Confirm(); err != nil {
		t.Fatal(err)
	}
	return opt
}

// TestStartReadsOneBank: a start reads the software that runs once, and the other bank not
// before CheckUnread, which reads it once.
func TestStartReadsOneBank(t *testing.T) {
	opt := bothGood(t)
	reads := countReads(&opt)
	b, report := boot(t, opt)
	if report.Bank != 2 || reads[1].opened["app"] != 1 || reads[0].opened["app"] != 0 {
		t.Errorf("%+v: bank 1 %v, bank 2 %v", report, reads[0].opened, reads[1].opened)
	}
	if s := b.Status(); s.Banks[0].Version != "1.0.0" || s.Banks[0].State != mib.BankStateGood {
		t.Errorf("%+v", s)
	}
	for range 2 {
		if found := b.CheckUnread(t.Context()); len(found) != 0 || reads[0].opened["app"] != 1 || reads[1].opened["app"] != 1 {
			t.Errorf("%q: bank 1 %v, bank 2 %v", found, reads[0].opened, reads[1].opened)
		}
	}
}

// TestStartReadsBothBanks: where the other bank may be the one to start, it is read before the
// decision.
func TestStartReadsBothBanks(t *testing.T) {
	for name, change := range map[string]func(t *testing.T, opt Options){
		"the next one is damaged":            func(t *testing.T, opt Options) { spoil(t, opt.Banks[1], "app") },
		"the other one has another manifest": func(t *testing.T, opt Options) { spoil(t, opt.Banks[0], "manifest.json") },
		"no record": func(t *testing.T, opt Options) {
			for _, name := range []string{recordBase + ".a", recordBase + ".b"} {
				if err := opt.State.Remove(name); err != nil {
					t.Fatal(err)
				}
			}
		},
	} {
		opt := bothGood(t)
		change(t, opt)
		reads := countReads(&opt)
		b, report := boot(t, opt)
		first := maps.Clone(reads[0].opened)
		if found := b.CheckUnread(t.Context()); len(found) != 0 || !maps.Equal(first, reads[0].opened) {
			t.Errorf("%s: %+v: %q, then %v, was %v", name, report, found, reads[0].opened, first)
		}
	}
}

// TestCheckUnread: what Boot would have found in the other bank is recorded once it is read.
func TestCheckUnread(t *testing.T) {
	opt := bothGood(t)
	good, err := afero.ReadFile(opt.Banks[0], "app")
	if err != nil {
		t.Fatal(err)
	}
	spoil(t, opt.Banks[0], "app")
	b, report := boot(t, opt)
	if len(report.Findings) != 0 || b.Status().Fallback != 1 {
		t.Errorf("%+v %+v", report, b.Status())
	}
	found := b.CheckUnread(t.Context())
	if len(found) != 1 || !strings.Contains(found[0], "bank 1 is corrupt") {
		t.Errorf("%q", found)
	}
	for range 2 {
		if s := b.Status(); s.Banks[0].State != mib.BankStateCorrupt || s.Banks[0].Cause != mib.FailCauseDigestMismatch || s.Fallback != 0 {
			t.Errorf("%+v", s)
		}
		b, _ = boot(t, opt) // it was recorded
	}
	if err := afero.WriteFile(opt.Banks[0], "app", good, 0o755); err != nil {
		t.Fatal(err)
	}
	b, _ = boot(t, opt)
	if found := b.CheckUnread(t.Context()); len(found) != 1 || !strings.Contains(found[0], "no longer corrupt") {
		t.Errorf("%q", found)
	}
	if s := b.Status(); s.Banks[0].State != mib.BankStateGood || s.Fallback != 1 {
		t.Errorf("%+v", s)
	}
}

// TestCheckUnreadYields: what happens to the bank while it is read prevails.
func TestCheckUnreadYields(t *testing.T) {
	var installing sync.WaitGroup
	for name, happens := range map[string]func(t *testing.T, b *Banks, cancel func()){
		"download": func(t *testing.T, b *Banks, _ func()) { // it waits until nobody reads the bank
			canceled := willCancel(b)
			installing.Go(func() { install(t, b, "3.0.0") })
			<-canceled
		},
		"the end": func(_ *testing.T, _ *Banks, cancel func()) { cancel() },
	} {
		opt := bothGood(t)
		spoil(t, opt.Banks[0], "app")
		reads := countReads(&opt)
		b, _ := boot(t, opt)
		ctx, cancel := context.WithCancel(t.Context())
		var once bool
		reads[0].read = func(file string) {
			if file == "app" && !once {
				once = true
				happens(t, b, cancel)
			}
		}
		if found := b.CheckUnread(ctx); len(found) != 0 || !once {
			t.Errorf("%s: %q", name, found)
		}
		installing.Wait()
		if s := b.Status().Banks[0].State; s == mib.BankStateCorrupt {
			t.Errorf("%s: bank 1 is %v", name, s)
		}
		cancel()
	}
}

// willCancel returns a channel that is closed when the CheckUnread that reads is to end.
func willCancel(b *Banks) <-chan struct{} {
	canceled := make(chan struct{})
	b.ops.Lock()
	defer b.ops.Unlock()
	cancel := b.reading.cancel
	b.reading.cancel = func() { cancel(); close(canceled) }
	return canceled
}

// readPartition calls read before it is opened.
type readPartition struct {
	Partition
	read func()
}

func (p *readPartition) Open() (PartitionReader, error) {
	p.read()
	return p.Partition.Open()
}

// TestCheckUnreadAfterRefusal: a bank whose reading was ended for a download that then did not write it is read after all.
func TestCheckUnreadAfterRefusal(t *testing.T) {
	m := upgradedOn(t, provisionedOn(t, withPartitions(blank(), "")), "1.5.0").Start()
	opt := mount(m, nil)
	spoilAt(t, m.Fs("raw1"), rawName, 30_000)
	opt.Partitions[0].(*sectors).held = "it is mounted"
	read := &readPartition{opt.Partitions[0], func() {}}
	opt.Partitions[0] = read
	b, _ := boot(t, opt)
	var once sync.Once
	var installing sync.WaitGroup
	read.read = func() {
		once.Do(func() {
			canceled := willCancel(b)
			installing.Go(func() {
				if err := fetchInto(b, "2.0.0", false); causeOf(err) != mib.FailCauseBankUnavailable {
					t.Error(err)
				}
			})
			<-canceled
		})
	}
	if found := b.CheckUnread(t.Context()); len(found) != 1 || !strings.Contains(found[0], "bank 1 is corrupt") {
		t.Errorf("%q", found)
	}
	installing.Wait()
	if s := b.Status(); s.Banks[0].State != mib.BankStateCorrupt || s.Fallback != 0 {
		t.Errorf("%+v", s)
	}
}

// TestUnreadFallback: software that nobody has read since the start is read before the device
// goes back to it.
func TestUnreadFallback(t *testing.T) {
	opt := bothGood(t)
	spoil(t, opt.Banks[0], "app")
	b, _ := boot(t, opt)
	if _, err := b.Restore(); causeOf(err) != mib.FailCauseNoFallback {
		t.Error(err)
	}
	if s := b.Status(); s.Banks[0].State != mib.BankStateCorrupt || s.Next != 2 {
		t.Errorf("%+v", s)
	}
	if found := b.CheckUnread(t.Context()); len(found) != 0 {
		t.Errorf("read again: %q", found)
	}
}

// TestUncountedTrialReadsFallback: if a start on trial cannot be recorded, the fallback starts
// only if it is complete.
func TestUncountedTrialReadsFallback(t *testing.T) {
	opt, b := readyDevice(t)
	if err := b.Activate(2); err != nil {
		t.Fatal(err)
	}
	spoil(t, opt.Banks[0], "app")
	opt.State = afero.NewReadOnlyFs(opt.State)
	b, report := Boot(opt)
	if report.Bank == 1 || b.Status().Banks[0].State != mib.BankStateCorrupt {
		t.Errorf("%+v", report)
	}
	if !slices.ContainsFunc(report.Findings, func(f string) bool { return strings.Contains(f, "could not be written") }) || errors.Is(b.RewriteRecord(), nil) {
		t.Errorf("%q", report.Findings)
	}
}

// TestVerifiedStart: what a boot loader verifies and has started is not read again; the other bank is, and so is one of which the
// record or its manifest says something else, or that no boot loader has started.
func TestVerifiedStart(t *testing.T) {
	for name, c := range map[string]struct {
		verified bool
		spoil    string // in the bank that is started
		loader   bool
		want     int // readings of it
	}{
		"verified":         {true, "", true, 0},
		"damaged":          {true, "app", true, 0}, // never gets this far
		"another manifest": {true, image.ManifestName, true, 1},
		"not verified":     {false, "", true, 1},
		"no loader":        {true, "", false, 1},
	} {
		disk := blank()
		if c.loader {
			disk = withLoader()
		}
		m := upgradedOn(t, provisionedOn(t, disk), "2.0.0").Start()
		if c.spoil != "" {
			spoil(t, m.Fs("bank2"), c.spoil)
		}
		opt := mount(m, nil)
		opt.Verified = c.verified
		reads := countReads(&opt)
		if l, ok := opt.Loader.(*scriptedLoader); ok {
			if err := l.choose(); err != nil {
				t.Fatal(err)
			}
		}
		b, report := Boot(opt)
		if c.spoil == image.ManifestName {
			if report.Bank == 2 {
				t.Errorf("%s: %+v", name, report)
			}
			continue
		}
		if got := min(reads[1].opened["app"], 1); report.Bank != 2 || got != c.want || reads[0].opened["app"] != 0 {
			t.Errorf("%s: %+v, read bank 1 %v, bank 2 %v", name, report, reads[0].opened, reads[1].opened)
		}
		if found := b.CheckUnread(t.Context()); name == "verified" && (len(found) != 0 || reads[0].opened["app"] != 1 || reads[1].opened["app"] != 0) {
			t.Errorf("%s: %q, read bank 1 %v, bank 2 %v", name, found, reads[0].opened, reads[1].opened)
		}
	}
}

// TestUnwritableStateReadsOneBank: good software starts without the other bank being read although the record cannot be written.
func TestUnwritableStateReadsOneBank(t *testing.T) {
	opt := bothGood(t)
	rec, _ := peekRecord(opt.State)
	carried := encodeRecord(rec)
	opt.State, opt.Unsaved = afero.NewReadOnlyFs(opt.State), carried
	reads := countReads(&opt)
	b, report := boot(t, opt)
	if !slices.ContainsFunc(report.Findings, func(f string) bool { return strings.Contains(f, "could not be written") }) {
		t.Errorf("%q", report.Findings)
	}
	if report.Bank != 2 || reads[0].opened["app"] != 0 || reads[1].opened["app"] != 1 {
		t.Errorf("%+v: bank 1 %v, bank 2 %v", report, reads[0].opened, reads[1].opened)
	}
	if found := b.CheckUnread(t.Context()); len(found) != 0 || reads[0].opened["app"] != 1 {
		t.Errorf("%q: bank 1 %v", found, reads[0].opened)
	}
}

// TestDamagedFallbackLeavesTheLoader: the boot loader does not start a fallback that is found damaged either, whether or not the boot
// record can be written.
func TestDamagedFallbackLeavesTheLoader(t *testing.T) {
	for _, unwritable := range []bool{false, true} {
		m := upgradedOn(t, provisionedOn(t, withLoader()), "2.0.0").Start()
		spoil(t, m.Fs("bank1"), "app")
		b, _, err := start(mount(m, nil))
		if err != nil {
			t.Fatal(err)
		}
		if unwritable {
			m.Fail(crashfs.Fault{Part: "state", Op: crashfs.OpWrite, Err: errKilled})
		}
		if found := b.CheckUnread(t.Context()); len(found) != 1 {
			t.Errorf("%q", found)
		}
		if s, err := b.opt.Loader.Load(); err != nil || s.Fallback != 0 || s.Next != 2 {
			t.Errorf("unwritable %v: the loader has %+v, %v", unwritable, s, err)
		}
	}
}

// TestGiveUpShowsLife: who gives software up reads the other bank first, and shows meanwhile that it is alive.
func TestGiveUpShowsLife(t *testing.T) {
	const size = 5 << 20
	payload := imagetest.Content("1.0.0", "app", size)
	var img bytes.Buffer
	file := image.PayloadFile{Name: "app", Mode: 0o755, Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(payload)), nil }}
	if err := image.Build(&img, imagetest.Manifest("1.0.0"), []image.PayloadFile{file, imagetest.Payloads("1.0.0")[1]}, imagetest.Key); err != nil {
		t.Fatal(err)
	}
	opt := mount(blank().Start(), nil)
	if err := Provision(opt, bytes.NewReader(img.Bytes()), nil); err != nil {
		t.Fatal(err)
	}
	b, _ := boot(t, opt)
	install(t, b, "2.0.0")
	if err := b.Activate(2); err != nil {
		t.Fatal(err)
	}
	alive := 0
	opt.Alive = func() { alive++ }
	b, report := boot(t, opt)
	if report.Bank != 2 || alive != 0 {
		t.Fatalf("%+v, %d", report, alive)
	}
	if err := b.GiveUp(mib.FailCauseSelfTestFailed, "no dial tone"); err != nil {
		t.Fatal(err)
	}
	if alive < size>>20 {
		t.Errorf("showed life %d times while %d bytes were read", alive, size)
	}
}
