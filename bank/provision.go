package bank

import (
	"context"
	"errors"
	"io"

	"example.com/iad/bank/image"
	"example.com/iad/mib"
)

// Provision makes a new device: it writes the image in tar form, which is judged as
// Install does, into bank 1 as good software, empties bank 2 and records, last of all,
// that bank 1 starts. data, which may be nil, is called before anything is erased: it
// stores the configuration data for the software that the manifest describes and
// returns their generation, 0 for none.
//
// A device that has started and has a complete bank is refused with bankUnavailable;
// one that has not started yet, perhaps because its provisioning was interrupted, or
// that has lost its software may be provisioned again.
func Provision(opt Options, img io.Reader, data func(m *image.Manifest) (generation uint32, err error)) error {
	return inOp("provision the device", provision(opt.withDefaults(), img, data))
}

func provision(opt Options, img io.Reader, data func(*image.Manifest) (uint32, error)) error {
	if hasStarted(opt) {
		return refuse(mib.FailCauseBankUnavailable, "the device already has a boot record and software")
	}
	ctx := context.Background()
	f := image.NewReader(ctx, once{img}, "image")
	defer f.Close()
	if err := f.ReadHead(); err != nil {
		return err
	}
	if !f.Tar {
		return refuse(mib.FailCauseBadFormat, "not an image in tar form")
	}
	b := &Banks{opt: opt}
	// A state that cannot be used is reported with the boot record.
	_, _ = b.openTrust()
	b.trust = opt.given() // what was recorded is of a provisioning that did not end
	trust, err := f.Verify(b.trust)
	if err != nil {
		return err
	}
	if err := opt.checkHardware(f.Head.Manifest); err != nil {
		return err
	}
	if err := opt.checkPartition(1, f.Head.Manifest); err != nil {
		return err
	}
	w := b.newWriter(ctx, f, 1, InstallOptions{Progress: func(InstallProgress) {}}, new(InstallResult))
	if w.opener, err = f.Head.Manifest.Opener(opt.Keys); err != nil {
		return err
	}
	if w.out, err = w.claim(); err != nil {
		return err
	}
	defer w.release()
	if err := b.checkSpace(1, f.Head, w.markerSize()); err != nil {
		return err
	}
	if err := w.chooseAll(nil); err != nil {
		return err
	}
	generation := uint32(0)
	if data != nil {
		if generation, err = data(f.Head.Manifest); err != nil {
			return err
		}
	}
	if err := b.keepTrust(trust); err != nil {
		return err
	}
	if err := clearBank(opt.medium(2)); err != nil {
		return err
	}
	if err := w.erase(nil); err != nil {
		return err
	}
	if _, err := w.write(); err != nil {
		return err
	}
	if err := w.readBack(); err != nil {
		return err
	}
	store, _, _, err := openRecord(opt.State)
	if err != nil {
		return &Error{Code: mib.FailCauseBootFlagError, Text: "the boot record could not be written", Err: err}
	}
	b.store = store
	return b.save(Record{
		Banks: [2]BankRecord{
			{State: mib.BankStateGood, Confirmed: true, Digest: f.Head.Digest, Generation: generation, Written: opt.Now().Unix(), Cause: mib.FailCauseNone},
			{State: mib.BankStateEmpty, Cause: mib.FailCauseNone},
		},
		Next:  1,
		Floor: f.Head.Manifest.Floor,
	})
}

// clearBank empties a bank and its partition.
func clearBank(m medium) (err error) {
	out, err := m.claim()
	if err != nil {
		return err
	}
	if out != nil {
		defer func() { err = errors.Join(err, out.Close()) }()
	}
	if err := clearPartition(out, 0); err != nil {
		return err
	}
	return eraseBank(m.fs, nil)
}

// hasStarted reports whether the device has started, according to its boot record, and
// has software that can start. A torn copy may be one that Provision was writing; if
// both are damaged, the record was written more than that.
func hasStarted(opt Options) bool {
	rec, findings := peekRecord(opt.State)
	rescue := !rec.lost() && rec.Banks[0].State != mib.BankStateGood && rec.Banks[1].State != mib.BankStateGood
	if rec.Running == 0 && !rescue && len(findings) < 2 {
		return false
	}
	opt.DropCache = nil
	for n := 1; n <= 2; n++ {
		if c, _ := checkBank(opt.medium(n), ""); c.Contents == ContentsComplete {
			return true
		}
	}
	return opt.crossed(0)
}

// once is the Source of an image that is read from front to end.
type once struct{ r io.Reader }

func (o once) Open(_ context.Context, _ string, offset int64) (io.ReadCloser, int64, error) {
	if offset != 0 {
		return nil, 0, image.ErrNoResume
	}
	return io.NopCloser(o.r), -1, nil
}
