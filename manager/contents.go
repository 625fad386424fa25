package manager

import (
	"context"
	"fmt"

	"example.com/iad/manager/device"
	"example.com/iad/manager/files"
	"example.com/iad/mib"
)

// identify finds out which software the device has at the beginning, and
// refuses what could end with other software than was meant.
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
		if err := u.expected(banks); err != nil {
			return err
		}
		if u.record.Stage == StageDone && !u.lasting() {
			u.note(0, fmt.Sprintf("the upgrade was finished, and is done once more: %s runs, with generation %d of the configuration data", running(banks), u.device.Generation))
			u.plan.Resume, u.record = false, u.newRecord()
			u.result = Result{Device: u.device.ID, OldVersion: u.device.Version}
		}
	}
	if b := running(banks); b != nil && !u.plan.Resume {
		u.record.OldDigest = b.Digest
	}
	return u.otherContents(u.plan.Image, banks)
}

func running(banks [2]device.Bank) *device.Bank {
	for i := range banks {
		if banks[i].Running {
			return &banks[i]
		}
	}
	return nil
}

// otherContents refuses an image of which the device has the version but not
// the contents: asked for the version it would say that it has that already.
func (u *upgrade) otherContents(img *files.Image, banks [2]device.Bank) error {
	if b := running(banks); u.plan.Force || b != nil && from(b, img) {
		return nil
	}
	for _, b := range banks {
		there := b.Running || b.State == mib.BankStateReady || b.State == mib.BankStateGood
		if there && b.Version == img.Version() && !b.Holds(img.Version(), img.ManifestDigest) {
			return &device.RefusalError{Device: u.device.ID, Kind: mib.OperationKindDownloadSoftware, Cause: mib.FailCauseAlreadyInstalled,
				Text: fmt.Sprintf("another %s, with other contents, is in bank %d: its manifest has the SHA-256 %x, that of %s has %x",
					b.Version, b.Number, b.Digest, img.FileName(), img.ManifestDigest)}
		}
	}
	return nil
}

// judgeContents is the part of the judgement that a version cannot tell: whether
// what runs came from this image.
func (u *upgrade) judgeContents(ctx context.Context, d *device.Device, step Step, kind mib.OperationKind) error {
	banks, err := u.plan.Client.Banks(ctx)
	if err != nil {
		return u.asFailure(step, kind, err)
	}
	img := u.plan.Image
	if b := running(banks); b != nil && !b.Holds(img.Version(), img.ManifestDigest) {
		return &Failure{Device: d.ID, Step: step, Kind: kind,
			Cause: mib.FailCauseVersionMismatch, Advice: mib.RetryAdviceFixFirst,
			Text: fmt.Sprintf("another %s runs: its manifest has the SHA-256 %x, that of %s has %x",
				b.Version, b.Digest, img.FileName(), img.ManifestDigest)}
	}
	return nil
}

// expected refuses to go on with an upgrade when the device runs other
// software than the upgrade had left there, for example because somebody took
// the old software back since: what the journal has next would harm it.
func (u *upgrade) expected(banks [2]device.Bank) error {
	b := running(banks)
	if b == nil {
		return nil // the verdict on each step tells
	}
	before := b.Holds(u.record.OldVersion, u.record.OldDigest)
	after := b.Holds(u.plan.Image.Version(), u.plan.Image.ManifestDigest)
	switch {
	case before && !u.finished(StageUpdate), after && u.record.Stage != StageBackup:
		return nil
	}
	want := u.plan.Image.Version()
	if !u.finished(StageUpdate) {
		want = u.record.OldVersion
	}
	return fmt.Errorf("%s runs %s, and the interrupted upgrade (stage %s) had left it with %s: it was changed since. "+
		"Nothing was done; see iadms status, or start a new upgrade without --resume", u.device.ID, b.Version, u.record.Stage, SoftwareText(want))
}
