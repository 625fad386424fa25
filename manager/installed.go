package manager

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"example.com/iad/manager/device"
	"example.com/iad/manager/files"
	"example.com/iad/mib"
)

// from reports whether the bank holds the software of this very image. A digest that the
// device does not show is not taken for equal.
func from(b *device.Bank, img *files.Image) bool {
	return b.Version == img.Version() && len(b.Digest) > 0 && bytes.Equal(b.Digest, img.ManifestDigest)
}

// unchanged reports whether there is nothing to do, also for an upgrade that is resumed: the software of the image runs and is
// good, with configuration data in force, and no upgrade of the device is unfinished.
func (u *upgrade) unchanged(journal *Journal) bool {
	b := running(u.banks)
	switch {
	case u.plan.Force, b == nil || !from(b, u.plan.Image), b.State != mib.BankStateGood, !b.Next:
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

// lasting reports whether the result of an upgrade that is done is what the device still has.
func (u *upgrade) lasting() bool {
	b := running(u.banks)
	return u.device.Generation != 0 && b != nil && b.State == mib.BankStateGood
}

// installed returns the bank with the software of the image if that runs and starts next:
// to install it once more would fail. Nil if it has to be, or was, installed.
func (u *upgrade) installed(ctx context.Context) (*device.Bank, error) {
	if u.plan.Force || u.record.task(mib.OperationKindDownloadSoftware) != nil {
		return nil, nil
	}
	banks, err := u.plan.Client.Banks(ctx)
	if err != nil {
		return nil, u.asFailure(StepUpdate, mib.OperationKindDownloadSoftware, err)
	}
	b := running(banks)
	if b == nil || !b.Next || !from(b, u.plan.Image) || b.State != mib.BankStateGood && b.State != mib.BankStateTrial {
		return nil, nil
	}
	return b, nil
}

// inForce reports whether the data of the backup never went out of force, because no
// software was installed.
func (u *upgrade) inForce(d *device.Device) bool {
	return u.ranAlready && u.record.Config != nil && u.record.Config.equal(configState(d)) && !u.otherFormat(d) &&
		u.record.Modified == nil && u.record.task(mib.OperationKindRecoverConfig) == nil
}

// Runs reports whether the software of an image is what runs on the device.
func Runs(ctx context.Context, c *device.Client, img *files.Image) (bool, error) {
	banks, err := c.Banks(ctx)
	if err != nil {
		return false, err
	}
	b := running(banks)
	return b != nil && from(b, img), nil
}
