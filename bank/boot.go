package bank

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/spf13/afero"

	"example.com/iad/bank/image"
	"example.com/iad/internal/durable"
	"example.com/iad/mib"
)

// Banks are the software banks of a running device. All methods may be called at
// the same time; one Install runs at a time.
//
// In rescue mode neither bank holds software that can be started, and none is running.
// Install and Activate work; Restore and GiveUp have nothing to return to.
type Banks struct {
	opt        Options
	store      *durable.Record
	trustStore *durable.Record // nil if the state cannot be used

	// ops is held to change the record, including while the record is written and while
	// a bank is checked before the change; its holder may read what mu guards. mu is
	// held only briefly, so that Status never waits for a medium.
	ops sync.Mutex
	mu  sync.Mutex

	trust      *image.Trust   // in force
	rec        Record         // in force
	disk       Record         // as last read or written
	heads      [2]*image.Head // what each bank holds or is getting, nil if not known
	running    int            // 0 in rescue mode
	unread     int            // the bank that Boot took for what the record says, until it is read; 0 none
	crossed    bool           // Boot found the partitions in each other's place
	reading    *reading       // the CheckUnread that is reading, nil for none
	intact     [2]int         // whole payloads of each bank, as found at the start; in rescue mode only
	unwritable bool           // the last write of the record has failed
	installing bool
	installed  chan struct{} // closed at the end of the Install that runs
	verifying  int           // the bank that Install reads back, 0 none
}

// A BootReport describes what Boot decided and found.
type BootReport struct {
	Bank       int           // the bank that starts, 0 in rescue mode
	Trial      bool          // it is on trial
	RolledBack int           // the bank that was to start and was given up now, 0 none
	Cause      mib.FailCause // why it was given up; 1 (none) if RolledBack is 0
	Text       string        // detail to Cause
	Rebuilt    bool          // both copies of the record were lost; it was rebuilt from the banks
	Doubtful   bool          // a copy of the record was lost; the other one may be a write behind, see Banks.RewriteRecord
	Rule       string        // name of the rule of BootTable that decided
	Findings   []string      // damage that was found, for the log and the event table
	// Restart means that the boot loader, which had lost its choice, started a bank that
	// must not run: restart the device, and use neither the banks nor the rest of this
	// report.
	Restart bool
}

// Boot makes the boot decision: it reads the record, checks every hash in the bank that is to
// start, unless that was verified, decides, and records what the decision changes (above all that a try is used up)
// before it returns. The other bank is read too if the decision depends on it; else
// [Banks.CheckUnread] reads it, once the software runs. Damage is reported and never fatal:
// if no software can be started, the banks are in rescue mode.
func Boot(opt Options) (*Banks, BootReport) {
	opt = opt.withDefaults()
	store, rec, findings, err := openRecord(opt.State)
	report := BootReport{Findings: findings, Doubtful: len(findings) > 0}
	if err != nil {
		// No state at all: the banks may start anyway.
		report.Findings = append(report.Findings, err.Error())
	}
	disk := rec
	if carried, err := decodeRecord(opt.Unsaved); err == nil {
		rec, report.Doubtful = carried, false
		disk.Banks = [2]BankRecord{} // what could not be written may be read, but not last
	}
	b := &Banks{opt: opt, store: store, rec: rec, disk: disk}
	untrusted, _ := b.openTrust() // the boot record reports a state that cannot be used
	lost := rec.lost()
	var loader loaderView
	if opt.Loader != nil {
		var err error
		if loader, err = view(opt.Loader); err != nil {
			report.Findings = append(report.Findings, err.Error())
		}
	}
	var checks [2]CheckResult
	var d Decision
	rec, d = b.decide(rec, loader, &checks)
	if b.crossed {
		report.Findings = append(report.Findings, fmt.Sprintf("the partition of bank 1 is %s and that of bank 2 %s: they have changed places; each bank is used where it is", b.opt.Partitions[0], b.opt.Partitions[1]))
	}
	if opt.Loader != nil {
		if report.Restart = mustRestart(d, loader); report.Restart {
			if err := b.write(d.Record); err == nil {
				return b, report
			}
			report.Restart = false
		}
		d = elsewhere(d, loader)
	}
	// What it comes to is said before what was found in which file.
	found := report.Findings
	report.Findings = damage(rec, d.Record)
	if report.Rebuilt = lost && d.Bank != 0; report.Rebuilt {
		report.Findings = append(report.Findings, fmt.Sprintf("boot record lost; rebuilt from the banks: %s", d.Rule))
	}
	b.syncBanks(d.Record, checks)
	b.adoptChains(checks)
	report.Findings = append(append(report.Findings, found...), untrusted...)
	if (d.Record != disk || b.loaderDiffers(d.Record)) && (!lost || report.Rebuilt) {
		if err := b.write(d.Record); err != nil {
			report.Findings = append(report.Findings, fmt.Sprintf("boot record could not be written: %v", err))
			if opt.Loader == nil && d.Trial { // a loader has counted the start
				b.read(b.unread, rec, &checks)
				d = withoutTrial(d, checks)
			}
		}
	}
	b.rec, b.running = d.Record, d.Bank
	if d.Bank == 0 {
		report.Doubtful = report.Doubtful && !lost
		report.Findings = append([]string{fmt.Sprintf("no usable software, rescue mode: %s; %s", b.whyUnusable(1), b.whyUnusable(2))}, report.Findings...)
		for i := range opt.Banks {
			b.intact[i] = intactPayloads(b.opt.medium(i+1), b.heads[i])
		}
	}
	report.Bank, report.Trial = d.Bank, d.Trial
	report.RolledBack, report.Cause, report.Text, report.Rule = d.RolledBack, d.Cause, d.Text, d.Rule
	for _, f := range report.Findings {
		opt.Log.Warn("boot", "finding", f)
	}
	opt.Log.Info("boot", "bank", d.Bank, "rule", d.Rule, "trial", d.Trial, "rolledBack", d.RolledBack)
	return b, report
}

// decide checks the banks, makes the record follow the loader, and decides. If the software to
// start is complete, and good or on trial, the other bank is taken for what the record says of
// it: that makes no difference to what starts.
func (b *Banks) decide(rec Record, loader loaderView, checks *[2]CheckResult) (Record, Decision) {
	first := rec.Next
	if b.opt.Loader != nil && (loader.lost || loader.started != first || loader.Loader.Next != first) {
		first = 0
	}
	if first != 0 && !rec.lost() {
		o := other(first)
		if !b.verified(first, rec, checks) {
			b.read(first, rec, checks)
		}
		if checks[first-1].Contents == ContentsDamaged && b.uncross(loader.started) {
			b.read(first, rec, checks)
		}
		var ok bool
		if checks[o-1], b.heads[o-1], ok = presume(b.opt.Banks[o-1], rec.bank(o)); ok {
			followed, d := b.follow(rec, loader, *checks)
			if d.Bank == first && (d.Rule == ruleGood || d.Rule == ruleTrial) && *d.Record.bank(o) == *rec.bank(o) {
				b.unread = o
				return followed, d
			}
		}
		b.read(o, rec, checks)
	} else {
		b.read(1, rec, checks)
		b.read(2, rec, checks)
		if (checks[0].Contents == ContentsDamaged || checks[1].Contents == ContentsDamaged) && b.uncross(loader.started) {
			b.read(1, rec, checks)
			b.read(2, rec, checks)
		}
	}
	return b.follow(rec, loader, *checks)
}

// verified takes bank n, which the loader has started, for what the record says of it, if its
// software was verified before it started. Otherwise it has to be read.
func (b *Banks) verified(n int, rec Record, checks *[2]CheckResult) bool {
	if !b.opt.Verified || b.opt.Loader == nil {
		return false
	}
	c, h, ok := presume(b.opt.Banks[n-1], rec.bank(n))
	if !ok || c.Contents != ContentsComplete {
		return false
	}
	checks[n-1], b.heads[n-1] = c, h
	return true
}

// follow makes the record follow the loader, if there is one, and decides.
func (b *Banks) follow(rec Record, loader loaderView, checks [2]CheckResult) (Record, Decision) {
	if b.opt.Loader != nil {
		var rule string
		rec, rule = reconcile(rec, loader, checks, b.heads)
		b.opt.Log.Info("boot loader", "started", loader.started, "why", loader.why, "next", loader.Loader.Next, "left", loader.Loader.Left, "rule", rule)
	}
	return rec, Decide(rec, checks)
}

// read checks all of bank n during Boot. It does nothing if n is 0.
func (b *Banks) read(n int, rec Record, checks *[2]CheckResult) {
	if n != 0 {
		checks[n-1], b.heads[n-1] = checkBank(b.opt.medium(n), rec.bank(n).Digest)
	}
	if n == b.unread {
		b.unread = 0
	}
}

// uncross gives each bank the partition that its software is on, and reports whether that changes anything.
func (b *Banks) uncross(started int) bool {
	if b.crossed = b.opt.crossed(started); b.crossed {
		b.opt.Partitions[0], b.opt.Partitions[1] = b.opt.Partitions[1], b.opt.Partitions[0]
	}
	return b.crossed
}

// presume returns what a check of a bank would find if its files are as the record says. ok
// reports whether its manifest agrees.
func presume(fs afero.Fs, r *BankRecord) (c CheckResult, h *image.Head, ok bool) {
	h, err := image.ReadInstalled(fs)
	if err != nil || h.Parse() != nil || h.Digest != r.Digest {
		return c, nil, false
	}
	c = CheckResult{Contents: ContentsDamaged, Digest: h.Digest, Version: h.Manifest.Version, Floor: h.Manifest.Floor, ConfigFormat: h.Manifest.ConfigFormat}
	if written(r.State) {
		c.Contents = ContentsComplete
	}
	return c, h, true
}

// CheckUnread reads and checks the bank that Boot did not read, if there is one: as Boot would
// have, it records a bank that is damaged as corrupt, and one that can be read again as good.
// It returns what it found and logged. It may be called while the banks are used; what is
// done to that bank meanwhile prevails. It waits for the end of an Install, which may end
// before it has written the bank. ctx ends it.
func (b *Banks) CheckUnread(ctx context.Context) (findings []string) {
	for {
		found, interrupted := b.checkUnread(ctx)
		if !interrupted {
			return found
		}
	}
}

func (b *Banks) checkUnread(ctx context.Context) (findings []string, interrupted bool) {
	b.ops.Lock()
	n := b.unread
	if n == 0 {
		b.ops.Unlock()
		return nil, false
	}
	if b.installing {
		installed := b.installed
		b.ops.Unlock()
		select {
		case <-installed:
			return nil, true
		case <-ctx.Done():
			return nil, false
		}
	}
	was := *b.rec.bank(n)
	reads, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan struct{})
	b.reading = &reading{cancel, ended}
	b.ops.Unlock()
	// Not under b.ops: this may take long, and nobody must wait for it.
	m := b.opt.medium(n)
	m.ctx = reads
	c, h := checkBank(m, was.Digest)
	close(ended)
	b.ops.Lock()
	defer b.ops.Unlock()
	b.reading = nil
	switch {
	case reads.Err() != nil:
		return nil, ctx.Err() == nil
	case b.unread != n || *b.rec.bank(n) != was || n == b.running:
		return nil, false
	}
	b.unread = 0
	found := &choice{Decision: Decision{Record: b.rec}}
	found.checks[n-1] = c
	if o := other(n); written(b.rec.bank(o).State) { // it was complete
		found.checks[o-1] = CheckResult{Contents: ContentsComplete, Digest: b.rec.bank(o).Digest}
	}
	found.prepare()
	next := found.Record
	b.setHead(n, h)
	b.syncBanks(next, found.checks)
	findings = damage(b.rec, next)
	for _, f := range findings {
		b.opt.Log.Warn("found after the start", "finding", f)
	}
	if err := b.record(next); err != nil {
		b.adopt(next) // what is damaged is not used, recorded or not
		b.opt.Log.Warn("this could not be recorded", "err", err)
	}
	return findings, false
}

// reading is a CheckUnread that can be ended.
type reading struct {
	cancel func()
	ended  <-chan struct{}
}

// stopReading ends a CheckUnread that is reading, and waits until it no longer does.
func (b *Banks) stopReading() {
	b.ops.Lock()
	r := b.reading
	b.ops.Unlock()
	if r != nil {
		r.cancel()
		<-r.ended
	}
}

// whyUnusable says why the software of bank n cannot be started.
func (b *Banks) whyUnusable(n int) string {
	r := b.rec.bank(n)
	return strings.TrimSuffix(fmt.Sprintf("bank %d is %s, %s", n, r.State, r.Text), ", ")
}

// intactPayloads counts the intact payloads of a bank. An absent bank gets a higher
// count than any other, so that nothing is written into it.
func intactPayloads(m medium, h *image.Head) (whole int) {
	m.drop = nil
	if absent(m.fs) != nil {
		return image.MaxPayloads + 1
	}
	if h == nil || h.Manifest == nil {
		return 0
	}
	for _, p := range h.Manifest.Payloads {
		if m.check(p) == nil {
			whole++
		}
	}
	return whole
}

// syncBanks makes the content of complete banks durable if next uses them and the
// record does not say that they were synced: the process that wrote them may have been
// killed before it did.
func (b *Banks) syncBanks(next Record, checks [2]CheckResult) {
	for n := 1; n <= 2; n++ {
		if checks[n-1].Contents != ContentsComplete || written(b.rec.bank(n).State) || !written(next.bank(n).State) {
			continue
		}
		if err := syncBank(b.opt.medium(n), b.heads[n-1].Manifest); err != nil {
			b.opt.Log.Warn("boot: bank could not be synced", "bank", n, "err", err)
		}
	}
}

// written reports whether a bank in state s holds software that was synced.
func written(s mib.BankStateEnum) bool { return s >= mib.BankStateReady && s <= mib.BankStateFailed }

func syncBank(to medium, m *image.Manifest) error {
	names := []string{image.ManifestName, image.SignatureName}
	for _, p := range m.Payloads {
		if p.Target == image.TargetFile {
			names = append(names, p.Name)
		} else if err := to.part.Sync(); err != nil {
			return err
		}
	}
	for _, name := range names {
		f, err := to.fs.Open(name)
		if err != nil {
			return err
		}
		err = f.Sync()
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			return err
		}
	}
	return durable.SyncDir(to.fs, ".")
}

// withoutTrial decides again when the decision could not be recorded: starts on trial
// that are not counted could repeat for ever, so the fallback starts, or whatever else
// can.
func withoutTrial(d Decision, checks [2]CheckResult) Decision {
	if !d.Trial {
		return d
	}
	uncounted := d.Record
	uncounted.bank(d.Bank).TriesLeft = 0
	again := Decide(uncounted, checks)
	if again.Bank != d.Bank {
		again.Cause, again.Text = mib.FailCauseBootFlagError, "the start on trial could not be recorded"
		r := again.Record.bank(d.Bank)
		r.Cause, r.Text = again.Cause, again.Text
	}
	return again
}

// damage lists the banks that the decision found corrupt, and those that no longer are.
func damage(before, after Record) (findings []string) {
	for n := 1; n <= 2; n++ {
		was, is := before.bank(n).State == mib.BankStateCorrupt, after.bank(n).State == mib.BankStateCorrupt
		switch {
		case is && !was:
			findings = append(findings, fmt.Sprintf("bank %d is corrupt: %s", n, after.bank(n).Text))
		case was && after.bank(n).State == mib.BankStateGood:
			findings = append(findings, fmt.Sprintf("bank %d is no longer corrupt", n))
		}
	}
	return findings
}

// write records r durably; b.rec is not changed. The boot loader's state commits it.
func (b *Banks) write(r Record) error {
	if b.loaderDiffers(r) {
		if err := b.opt.Loader.Store(r.loader()); err != nil {
			return fmt.Errorf("boot loader: %w", err)
		}
	}
	if b.store == nil {
		b.unwritable = true
		return errors.New("no file to write it to")
	}
	err := b.store.Write(encodeRecord(r))
	if b.unwritable = err != nil; err == nil {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.disk = r
	}
	return err
}

// loaderDiffers reports whether the boot loader would do something else than r says.
func (b *Banks) loaderDiffers(r Record) bool {
	if b.opt.Loader == nil || r.lost() {
		return false
	}
	s, err := b.opt.Loader.Load()
	return err != nil || !s.matches(r.loader())
}

// Unsaved returns the record if it could not be written. It returns nil if it was
// written, and in rescue mode if the record is only a substitute for a lost one.
func (b *Banks) Unsaved() []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.rec == b.disk || b.running == 0 && b.disk.lost() {
		return nil
	}
	return encodeRecord(b.rec)
}

// saveOrKeep is save for going back to the old software, which has to work where
// nothing can be written: then the record holds until the power is cut.
func (b *Banks) saveOrKeep(r Record) error {
	if r == b.rec && !b.loaderDiffers(r) {
		return nil
	}
	err := b.record(r)
	if err == nil {
		return nil
	}
	if !b.opt.PassesUnsaved && (b.opt.Loader == nil || b.loaderDiffers(r)) {
		return &Error{Code: mib.FailCauseBootFlagError, Text: "the change would not survive the restart", Err: err}
	}
	if b.opt.Loader != nil {
		b.opt.Log.Warn("the boot record could not be written; it follows the boot loader at the next start", "err", err)
		b.adopt(r)
		return nil
	}
	b.opt.Log.Warn("the choice of the bank could not be recorded; a power cut would undo it", "next", r.Next, "recorded", b.disk.Next, "err", err)
	b.adopt(r)
	return nil
}

// save records r and makes it the one in force. b.ops must be held. After an error
// the old one is in force, for the boot loader as well.
func (b *Banks) save(r Record) error {
	if b.opt.Loader == nil {
		return b.record(r)
	}
	if b.unwritable && r != b.rec && !b.rec.lost() {
		// Tried first: otherwise each attempt would switch the loader and put it back, and wear its medium.
		if err := b.write(b.rec); err != nil {
			return &Error{Code: mib.FailCauseBootFlagError, Text: "the boot record could not be written", Err: err}
		}
	}
	was, lerr := b.opt.Loader.Load()
	err := b.record(r)
	if err == nil || lerr != nil {
		return err
	}
	if now, lerr := b.opt.Loader.Load(); lerr == nil && now == was {
		return err
	}
	if lerr := b.opt.Loader.Store(was); lerr != nil {
		return &Error{Code: mib.FailCauseBootFlagError, Text: fmt.Sprintf("the boot loader was switched and could not be put back, it starts bank %d next: %v", r.Next, lerr), Err: err}
	}
	return err
}

// record is save that leaves the boot loader switched if only the loader could be written.
func (b *Banks) record(r Record) error {
	if r == b.rec && r == b.disk && !b.loaderDiffers(r) {
		return nil
	}
	if err := b.write(r); err != nil {
		return &Error{Code: mib.FailCauseBootFlagError, Text: "the boot record could not be written", Err: err}
	}
	b.adopt(r)
	return nil
}

// adopt makes r the record in force. It and the setters below are for the holder of
// b.ops.
func (b *Banks) adopt(r Record) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.rec = r
}

func (b *Banks) setHead(n int, h *image.Head) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.heads[n-1] = h
}

func (b *Banks) setInstalling(on bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.installing = on
}

func (b *Banks) setVerifying(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.verifying = n
}

// fs is the file system of bank n.
func (b *Banks) fs(n int) afero.Fs { return b.opt.Banks[n-1] }
