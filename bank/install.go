package bank

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash/maphash"

	"github.com/spf13/afero"

	"example.com/iad/bank/image"
	"example.com/iad/mib"
)

// InstallProgress reports how far Install has got.
type InstallProgress struct {
	Phase mib.OperationPhase
	Done  int64 // bytes of this phase
	Total int64 // bytes of this phase, 0 if not known
}

// InstallOptions control what Install does. The zero value installs whatever is newer
// than the running software into the other bank.
type InstallOptions struct {
	// Bank to write, 0 for the one that is not running: in rescue mode Status.Spare.
	Bank int
	// Force writes the bank even if the version is running or in the bank already.
	Force bool
	// AllowDowngrade accepts a version below the running one, or one that cannot be
	// compared with it (see Manifest), but never one below the floor.
	AllowDowngrade bool
	// CheckOnly stops before anything is changed.
	CheckOnly bool
	// Version that the software must have, "" for any.
	Version string
	// ExpectSize in bytes and ExpectDigest (SHA-256) that the file commanded must
	// have, 0 and nil for any. In split form that file is the manifest; in tar form its
	// manifest may have the digest instead of the file.
	ExpectSize   int64
	ExpectDigest []byte
	// Progress is called from Install's goroutine after each piece of work.
	Progress func(InstallProgress)
}

// InstallResult describes what Install did.
type InstallResult struct {
	Bank         int
	Version      string
	ConfigFormat uint32
	Size         int64  // bytes of the file commanded
	Digest       []byte // its SHA-256; in tar form nil unless it was expected and compared
	Fetched      int64  // bytes that came over the network
	Already      bool   // the bank held this version; nothing was written
	// Notes say, for payloads that have encodings, which was fetched, and why not another.
	Notes []string
}

// Install fetches an image into the bank that is not running; name is the file of src
// that contains the image or its manifest. The manifest is checked before anything is
// changed. Then the record says durably that the running bank is next (in rescue mode,
// that none is), the bank is erased, the payloads are stored while they are hashed, and
// everything is read back before the bank is ready.
//
// Install may be called again after an interruption or failure: payloads already in the
// bank with the right hash are kept, and a partial one is continued if src can start at
// an offset.
//
// An *Error has the cause; errors of src, and the cause of ctx, are returned wrapped.
func (b *Banks) Install(ctx context.Context, src image.Source, name string, opt InstallOptions) (InstallResult, error) {
	n, err := b.reserve(opt.Bank)
	if err != nil {
		return InstallResult{}, inOp("download software", err)
	}
	defer b.release()
	if opt.Progress == nil {
		opt.Progress = func(InstallProgress) {}
	}
	opt.Progress(InstallProgress{Phase: mib.OperationPhaseChecking})
	f := image.NewReader(ctx, src, name)
	defer f.Close()
	res, err := b.install(ctx, f, n, opt)
	res.Fetched = f.Fetched
	return res, inOp(fmt.Sprintf("download software into bank %d", n), err)
}

// reserve chooses the bank to write and keeps other Installs out.
func (b *Banks) reserve(n int) (int, error) {
	b.ops.Lock()
	defer b.ops.Unlock()
	if n == 0 {
		n = b.rec.spare(b.running, b.intact)
	}
	if err := b.checkOther(n); err != nil {
		return 0, err
	}
	if err := absent(b.fs(n)); err != nil {
		return 0, &Error{Code: mib.FailCauseBankUnavailable, Text: "the bank is missing", Err: err}
	}
	switch s := b.rec.bank(b.running).State; {
	case s == mib.BankStateTrial && b.rec.Fallback != 0:
		return 0, refuse(mib.FailCauseBankUnavailable, "the bank holds the only fallback of the software on trial: confirm it or restore the old one first")
	case b.running != 0 && s != mib.BankStateGood && b.rec.Next != b.running:
		return 0, refuse(mib.FailCauseBankUnavailable, "the bank holds the software to go back to: restart first")
	}
	b.setInstalling(true)
	b.installed = make(chan struct{})
	return n, nil
}

// absent returns the error of a bank that is not there.
func absent(fs afero.Fs) error {
	if _, err := fs.Stat("."); mib.CauseOf(err, 0) == mib.FailCauseBankUnavailable {
		return err
	}
	return nil
}

// spare is the bank to write where none is named: the one that is not running. If none
// runs, it is the one with least to lose: what was begun already, else fewer whole
// payloads, and software that is ready last.
func (r *Record) spare(running int, intact [2]int) int {
	if running != 0 {
		return other(running)
	}
	loss := func(n int) int {
		switch s := r.bank(n).State; {
		case s == mib.BankStateWriting && intact[n-1] <= image.MaxPayloads:
			return -1
		case s >= mib.BankStateReady && s <= mib.BankStateGood:
			return image.MaxPayloads + 2
		}
		return intact[n-1]
	}
	if o := other(r.Next); loss(o) <= loss(r.Next) {
		return o
	}
	return r.Next
}

func (b *Banks) release() {
	b.ops.Lock()
	defer b.ops.Unlock()
	b.setVerifying(0)
	b.setInstalling(false)
	close(b.installed)
}

func (b *Banks) install(ctx context.Context, f *image.Reader, n int, opt InstallOptions) (InstallResult, error) {
	opt.Progress(InstallProgress{Phase: mib.OperationPhaseConnecting})
	if err := f.ReadHead(); err != nil {
		return InstallResult{}, err
	}
	trust, err := f.Verify(b.trustHeld())
	if err != nil {
		return InstallResult{}, err
	}
	m := f.Head.Manifest
	res := InstallResult{Bank: n, Version: m.Version, ConfigFormat: m.ConfigFormat, Size: f.FileSize()}
	if !f.Tar {
		res.Digest, _ = hex.DecodeString(f.Head.Digest)
	}
	already, err := b.admit(f, n, opt, trust)
	res.Already = already
	if err == nil && already && !opt.CheckOnly {
		err = b.keepTrust(trust)
	}
	if err != nil || already {
		return res, err
	}
	w := b.newWriter(ctx, f, n, opt, &res)
	if w.opener, err = m.Opener(b.opt.Keys); err != nil {
		return res, err
	}
	b.stopReading() // a UBI volume that somebody reads cannot be written
	if w.out, err = w.claim(); err != nil {
		return res, err
	}
	defer w.release()
	if err := b.checkSpace(n, f.Head, w.markerSize()); err != nil {
		return res, err
	}
	keep := w.survey()
	if opt.Force && !b.interrupted(n) || w.sum != nil && f.Head.Manifest.Format != image.PlainFormat {
		keep = nil // all of it is wanted once more
	}
	if err := w.chooseAll(keep); err != nil || opt.CheckOnly {
		return res, err
	}
	// Recorded first: the software that is written next must be trusted when it is activated.
	if err := b.keepTrust(trust); err != nil {
		return res, err
	}
	if err := b.fill(w, n, keep, opt, &res); err != nil {
		b.noteFailure(n, err)
		return res, err
	}
	return res, nil
}

// newWriter returns a writer of bank n.
func (b *Banks) newWriter(ctx context.Context, f *image.Reader, n int, opt InstallOptions, res *InstallResult) *writer {
	w := &writer{ctx: ctx, medium: b.opt.medium(n), fetch: f, progress: opt.Progress, sources: make(map[int]*payloadSource),
		seed: maphash.MakeSeed(), stored: make(map[string]uint64), behind: make(map[string]*readBehind)}
	// A second hash over every byte costs time, and with encodings it can only be computed by
	// fetching the whole file at once. That is done if somebody expects the digest.
	if f.Tar && expectsFile(f, opt) {
		w.sum = sha256.New()
	}
	if b.running != 0 {
		b.ops.Lock()
		w.running, w.base = b.opt.medium(b.running), b.head(b.running)
		b.ops.Unlock()
	}
	w.note = func(text string) {
		res.Notes = append(res.Notes, text)
		b.opt.Log.Info(text, "bank", n)
	}
	return w
}

// expectsFile reports whether the digest that is expected of an image in tar form is to be
// compared with the whole file: it is not that of the manifest.
func expectsFile(f *image.Reader, opt InstallOptions) bool {
	return len(opt.ExpectDigest) != 0 && hex.EncodeToString(opt.ExpectDigest) != f.Head.Digest
}

// admit judges the manifest by the rules that need no payload. already says that the
// bank holds this version and nothing need be done.
func (b *Banks) admit(f *image.Reader, n int, opt InstallOptions, trust *image.Trust) (already bool, err error) {
	b.ops.Lock()
	defer b.ops.Unlock()
	m := f.Head.Manifest
	if opt.Version != "" && opt.Version != m.Version {
		return false, refuse(mib.FailCauseVersionMismatch, "the file holds version %s, not %s", m.Version, opt.Version)
	}
	size := f.FileSize()
	if f.AnnouncedSize >= 0 && f.AnnouncedSize != size || opt.ExpectSize != 0 && opt.ExpectSize != size {
		return false, refuse(mib.FailCauseSizeMismatch, "%s should have %d bytes by its manifest; announced %d, expected %d", f.Name, size, f.AnnouncedSize, opt.ExpectSize)
	}
	if !f.Tar && len(opt.ExpectDigest) != 0 && hex.EncodeToString(opt.ExpectDigest) != f.Head.Digest {
		return false, refuse(mib.FailCauseDigestMismatch, "%s is not the file that was expected", f.Name)
	}
	if err := b.opt.checkHardware(m); err != nil {
		return false, err
	}
	if err := b.opt.checkPartition(n, m); err != nil {
		return false, err
	}
	if err := checkFloor(m, b.rec.Floor); err != nil {
		return false, err
	}
	if h := b.head(b.running); h != nil {
		if err := checkVersions(m, h.Manifest.Version, opt); err != nil {
			return false, err
		}
	}
	if opt.Force {
		return false, nil
	}
	if s := b.rec.bank(n).State; s != mib.BankStateReady && s != mib.BankStateGood || b.rec.bank(n).Digest != f.Head.Digest {
		return false, nil
	}
	// What is found damaged now is written again, and so is what is signed by keys that are not trusted any more.
	h, damaged := b.checkContent(n)
	return damaged == nil && h.VerifySignature(trust) == nil, nil
}

// checkVersions compares the software with the one that is running.
func checkVersions(m *image.Manifest, running string, opt InstallOptions) error {
	switch {
	case m.Version == running && !opt.Force:
		return refuse(mib.FailCauseAlreadyInstalled, "version %s is running", running)
	case downgrades(m.Version, running) && !opt.AllowDowngrade:
		return refuse(mib.FailCauseDowngradeRefused, "version %s is not newer than the running %s", m.Version, running)
	case m.MinVersion != "" && image.Older(running, m.MinVersion):
		return refuse(mib.FailCausePreconditionMissing, "version %[1]s can be installed over %[2]s or newer, but %[3]s is running: install %[2]s or newer first", m.Version, m.MinVersion, running)
	}
	return nil
}

// clusterSize is what files are taken to occupy multiples of.
const clusterSize = 4096

func clusters(n int64) int64 { return (n + clusterSize - 1) / clusterSize * clusterSize }

// checkSpace refuses software whose files will not fit, while the bank is still untouched.
// marker is the size in bytes of the marker that it needs there.
func (b *Banks) checkSpace(n int, h *image.Head, marker int64) error {
	size := h.StoredSize() + marker
	if p := h.Manifest.Partition(); p != nil {
		size -= p.Size
	}
	if limit := b.opt.capacity(n); limit > 0 && size > limit {
		return refuse(mib.FailCauseFileTooLarge, "the software takes %d bytes, the bank holds %d", size, limit)
	}
	if b.opt.Free == nil {
		return nil
	}
	free, err := b.opt.Free(n)
	if err != nil {
		return storeError(err, "the free space of the bank is not known")
	}
	used, err := usedSpace(b.fs(n))
	if err != nil {
		return storeError(err, "the bank cannot be read")
	}
	need := clusters(int64(len(h.Raw))) + clusters(int64(len(h.Signature))) + 2*clusters(marker) // one is replaced by another
	for _, p := range h.Manifest.Payloads {
		if p.Target == image.TargetFile {
			need += clusters(p.Size)
		}
	}
	if need > free+used {
		return refuse(mib.FailCauseStorageFull, "%d bytes needed, %d free once erased", need, free+used)
	}
	if b.opt.Reserve == nil {
		return nil
	}
	if kept := b.opt.Reserve(n); kept > 0 && need > free+used-kept {
		return refuse(mib.FailCauseStorageFull, "%d bytes needed, %d free once erased; configuration data need %d of these", need, free+used, kept)
	}
	return nil
}

// fill writes the bank: after the running bank is durably the next one.
func (b *Banks) fill(w *writer, n int, keep map[string]bool, opt InstallOptions, res *InstallResult) error {
	opt.Progress(InstallProgress{Phase: mib.OperationPhaseErasing})
	if err := w.probe(); err != nil {
		return err
	}
	if err := b.markWriting(n, w.fetch.Head); err != nil {
		return err
	}
	if err := w.erase(keep); err != nil {
		return err
	}
	sum, err := w.write()
	if err != nil {
		return err
	}
	if w.fetch.Tar {
		res.Digest = sum
		if expectsFile(w.fetch, opt) && string(sum) != string(opt.ExpectDigest) {
			return refuse(mib.FailCauseDigestMismatch, "%s is not the file that was expected", w.fetch.Name)
		}
	}
	w.fetch.Close()
	b.markVerifying(n)
	if err := w.readBack(); err != nil {
		return err
	}
	return b.markReady(n)
}

// interrupted reports whether the writing of bank n was begun and not ended.
func (b *Banks) interrupted(n int) bool {
	b.ops.Lock()
	defer b.ops.Unlock()
	return b.rec.bank(n).State == mib.BankStateWriting
}

// markWriting records that the running bank is next and bank n not bootable. Without a
// running bank n is next: it will be when it is ready.
func (b *Banks) markWriting(n int, h *image.Head) error {
	b.ops.Lock()
	defer b.ops.Unlock()
	next := b.rec
	next.Next, next.Fallback = cmp.Or(b.running, n), b.running
	if r := next.bank(n); r.State != mib.BankStateWriting || r.Digest != h.Digest {
		*r = BankRecord{State: mib.BankStateWriting, Digest: h.Digest, Cause: mib.FailCauseNone}
	}
	if err := b.save(next); err != nil {
		return err
	}
	b.unread = 0
	b.setHead(n, h)
	return nil
}

func (b *Banks) markVerifying(n int) {
	b.ops.Lock()
	defer b.ops.Unlock()
	b.setVerifying(n)
}

func (b *Banks) markReady(n int) error {
	b.ops.Lock()
	defer b.ops.Unlock()
	next := b.rec
	r := next.bank(n)
	r.State, r.Cause, r.Text = mib.BankStateReady, mib.FailCauseNone, ""
	r.Written = b.opt.Now().Unix()
	if err := b.save(next); err != nil {
		return err
	}
	b.setVerifying(0)
	return nil
}

// noteFailure records what went wrong with the content of a bank that was being
// written. Failing to is not worth more than a line in the log.
func (b *Banks) noteFailure(n int, err error) {
	b.ops.Lock()
	defer b.ops.Unlock()
	next := b.rec
	r := next.bank(n)
	if r.State != mib.BankStateWriting {
		return
	}
	r.Cause, r.Text = mib.CauseOf(err, mib.FailCauseOther), shorten(err.Error())
	if err := b.save(next); err != nil {
		b.opt.Log.Warn("failure of a download could not be recorded", "bank", n, "err", err)
	}
}
