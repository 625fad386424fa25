package manager

import (
	"context"
	"errors"
	"fmt"

	"example.com/iad/manager/device"
	"example.com/iad/manager/files"
	"example.com/iad/mib"
)

// identify reads which software the device has at the start, and returns an error if the
// upgrade could leave other software than intended.
func (u *upgrade) identify(ctx context.Context) error {
	banks, err := u.plan.Client.Banks(ctx)
	if err != nil {
		return err
	}
	u.banks = banks
	if b := running(banks); u.replaced && b != nil {
		u.record.OldDigest = b.Digest
	}
	if u.plan.Resume {
		if err := u.checkUnchangedSince(banks); err != nil {
			return err
		}
		if u.record.Stage == StageDone && !u.stillDone() {
			u.note(0, fmt.Sprintf("the upgrade was finished, and is done once more: %s runs, with generation %d of the configuration data", running(banks), u.device.Generation))
			u.plan.Resume, u.record = false, u.newRecord()
			u.result = Result{Device: u.device.ID, OldVersion: u.device.Version}
		}
	}
	if b := running(banks); b != nil && !u.plan.Resume {
		u.record.OldDigest = b.Digest
	}
	return u.refuseOtherContents(u.plan.Image, banks)
}

func running(banks [2]device.Bank) *device.Bank {
	for i := range banks {
		if banks[i].Running {
			return &banks[i]
		}
	}
	return nil
}

// refuseOtherContents refuses an image whose version the device already has with other
// contents: the device would only compare the version.
func (u *upgrade) refuseOtherContents(img *files.Image, banks [2]device.Bank) error {
	if b := running(banks); u.plan.Force || b != nil && cameFrom(b, img) {
		return nil
	}
	for _, b := range banks {
		alreadyInBank := b.Running || b.State == mib.BankStateReady || b.State == mib.BankStateGood
		if alreadyInBank && b.Version == img.Version() && !b.Holds(img.Version(), img.ManifestDigests()...) {
			return &device.RefusalError{Device: u.device.ID, Kind: mib.OperationKindDownloadSoftware, Cause: mib.FailCauseAlreadyInstalled,
				Text: fmt.Sprintf("another %s, with other contents, is in bank %d: its manifest has the SHA-256 %x, that of %s has %x",
					b.Version, b.Number, b.Digest, img.FileName(), img.ManifestDigest)}
		}
	}
	return nil
}

// judgeContents checks what a version does not show: whether the running software came
// from this image.
func (u *upgrade) judgeContents(ctx context.Context, d *device.Device, step Step, kind mib.OperationKind) error {
	banks, err := u.plan.Client.Banks(ctx)
	if err != nil {
		return u.asFailure(step, kind, err)
	}
	img := u.plan.Image
	if b := running(banks); b != nil && !b.Holds(img.Version(), img.ManifestDigests()...) {
		return &Failure{Device: d.ID, Step: step, Kind: kind,
			Cause: mib.FailCauseVersionMismatch, Advice: mib.RetryAdviceFixFirst,
			Text: fmt.Sprintf("another %s runs: its manifest has the SHA-256 %x, that of %s has %x",
				b.Version, b.Digest, img.FileName(), img.ManifestDigest)}
	}
	return nil
}

// checkUnchangedSince refuses to continue an upgrade if the device runs other software
// than the upgrade had left there, for example because somebody rolled it back: the next
// steps of the journal would do harm.
func (u *upgrade) checkUnchangedSince(banks [2]device.Bank) error {
	b := running(banks)
	if b == nil {
		return nil // each step finds out by itself
	}
	before := b.Holds(u.record.OldVersion, u.record.OldDigest)
	after := b.Holds(u.plan.Image.Version(), u.plan.Image.ManifestDigests()...)
	switch {
	case before && !u.finished(StageUpdate), after && u.record.Stage != StageBackup:
		return nil
	}
	want := u.plan.Image.Version()
	if !u.finished(StageUpdate) {
		want = u.record.OldVersion
	}
	return fmt.Errorf("%s runs %s, and the interrupted upgrade (stage %s) had left it with %s: it has been changed since. "+
		"Nothing was done; see iadms status, or start a new upgrade without --resume", u.device.ID, b.Version, u.record.Stage, SoftwareText(want))
}

// cameFrom reports whether the bank holds the software of this image. A bank without a
// digest does not count.
func cameFrom(b *device.Bank, img *files.Image) bool {
	return len(b.Digest) > 0 && b.Holds(img.Version(), img.ManifestDigests()...)
}

// nothingToDo reports whether an upgrade, even a resumed one, would change nothing: the
// software of the image runs and is good, configuration data are in force, and no upgrade
// of the device is unfinished.
func (u *upgrade) nothingToDo(journal Journal) bool {
	b := running(u.banks)
	switch {
	case u.plan.Force, b == nil || !cameFrom(b, u.plan.Image), b.State != mib.BankStateGood, !b.Next:
		return false
	case u.device.Generation == 0, u.device.ResetRequired:
		return false
	}
	if journal != nil {
		r, err := journal.Load()
		if !errors.Is(err, ErrNoRecord) && (err != nil || r.Stage != StageDone) {
			return false
		}
	}
	u.result = Result{Device: u.device.ID, OldVersion: u.device.Version, Unchanged: true}
	u.note(0, fmt.Sprintf("unchanged: %s runs already, from this image", b))
	return true
}

// stillDone reports whether the device still has what a finished upgrade gave it.
func (u *upgrade) stillDone() bool {
	b := running(u.banks)
	return u.device.Generation != 0 && b != nil && b.State == mib.BankStateGood
}

// bankWithImage returns the bank that runs the software of the image and boots next,
// because installing it again would fail; nil if it has to be, or was, installed.
func (u *upgrade) bankWithImage(ctx context.Context) (*device.Bank, error) {
	if u.plan.Force || u.record.task(mib.OperationKindDownloadSoftware) != nil {
		return nil, nil
	}
	banks, err := u.plan.Client.Banks(ctx)
	if err != nil {
		return nil, u.asFailure(StepUpdate, mib.OperationKindDownloadSoftware, err)
	}
	b := running(banks)
	if b == nil || !b.Next || !cameFrom(b, u.plan.Image) || b.State != mib.BankStateGood && b.State != mib.BankStateTrial {
		return nil, nil
	}
	return b, nil
}

// backupStillInForce reports whether the data of the backup are still in force because no
// software was installed.
func (u *upgrade) backupStillInForce(d *device.Device) bool {
	return u.ranAlready && u.record.Config != nil && u.record.Config.equal(configState(d)) && !u.otherFormat(d) &&
		u.record.Modified == nil && u.record.task(mib.OperationKindRecoverConfig) == nil
}

// Runs reports whether the device runs the software of an image.
func Runs(ctx context.Context, c *device.Client, img *files.Image) (bool, error) {
	banks, err := c.Banks(ctx)
	if err != nil {
		return false, err
	}
	b := running(banks)
	return b != nil && cameFrom(b, img), nil
}
