package manager

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"example.com/iad/manager/device"
	"example.com/iad/manager/files"
	"example.com/iad/mib"
)

// update performs steps 130 to 160, and repeats them until the new software runs or the
// operator gives up. After a failure it restores the old software first.
func (u *upgrade) update(ctx context.Context) error {
	for attempt := 1; ; attempt++ {
		known := u.record.Failed != nil // by an earlier run
		err := u.once(ctx, StepUpdate, u.installOrFailed)
		if err == nil {
			return nil
		}
		var failure *Failure
		if ctx.Err() != nil || !errors.As(err, &failure) {
			return err
		}
		if softwareFailed(failure) {
			failure.Software, failure.Decision = true, true
		}
		u.fail(StepUpdateJudge, err)
		if failure.NoAnswer {
			if _, err := u.decide(ctx, StepUpdateJudge, attempt, err, Retry); err != nil {
				return err
			}
			continue
		}
		u.record.Failed = failure
		if err := u.save(); err != nil {
			return err
		}
		if restoreErr := u.restoreOld(ctx); restoreErr != nil {
			return fmt.Errorf("%w; and then: %w", err, restoreErr)
		}
		if known && u.plan.RetryFaulty {
			u.plan.RetryFaulty = false
			if err := u.startNewAttempt(nil); err != nil {
				return err
			}
			continue
		}
		u.performed = 0 // Failed is recorded
		answer, askErr := u.decide(ctx, StepRestore, attempt, err, Retry, OtherFile)
		if askErr != nil {
			return askErr
		}
		for answer.Choice == OtherFile {
			unfit := u.changeImage(ctx, answer.Image)
			if unfit == nil {
				break
			}
			u.warn(StepRestore, unfit.Error())
			if answer, askErr = u.decide(ctx, StepRestore, attempt, err, Retry, OtherFile); askErr != nil {
				return askErr
			}
		}
		if err := u.startNewAttempt(err); err != nil {
			return err
		}
	}
}

// softwareFailed reports whether the new software itself is at fault, by its self-test or
// by the operator's check.
func softwareFailed(f *Failure) bool {
	switch f.Cause {
	case mib.FailCauseSelfTestFailed, mib.FailCauseBootFailed, mib.FailCauseWatchdogReset:
		return true
	}
	return f.Software
}

// installOrFailed performs steps 130 to 150, unless an earlier run of the procedure found
// that they failed.
func (u *upgrade) installOrFailed(ctx context.Context) error {
	if u.record.Failed != nil {
		return u.record.Failed
	}
	return u.install(ctx)
}

// changeImage continues with another image.
func (u *upgrade) changeImage(ctx context.Context, img *files.Image) error {
	if err := u.checkImageFits(img); err != nil {
		return err
	}
	banks, err := u.plan.Client.Banks(ctx)
	if err != nil {
		return err
	}
	if err := u.refuseOtherContents(img, banks); err != nil {
		return err
	}
	u.plan.Image = img
	u.record.Image, u.record.ImageDigest = img.Path, img.Digest
	return nil
}

// install performs steps 130 to 150.
func (u *upgrade) install(ctx context.Context) error {
	if err := u.backUpAgain(ctx); err != nil {
		return err
	}
	bank, err := u.bankWithImage(ctx)
	if err == nil && bank == nil {
		bank, err = u.download(ctx)
	}
	if err != nil {
		return err
	}
	if bank != nil {
		u.ranAlready = true
		u.note(StepUpdate, fmt.Sprintf("the software is not installed again: %s runs already, from this image", bank))
	}
	if err := u.resetIfNeeded(ctx, StepUpdate, StepUpdateWatch); err != nil {
		return err
	}
	return u.judgeUpdate(ctx)
}

// download performs steps 130 and 140. It returns a bank if the device did nothing
// because it already runs this software.
func (u *upgrade) download(ctx context.Context) (*device.Bank, error) {
	img := u.plan.Image
	u.begin(StepUpdate, fmt.Sprintf("update the software: %s, %s to %s", img.FileName(), SoftwareText(u.result.OldVersion), img.Version()))
	request, err := u.downloadRequest(device.ThenActivate)
	if err != nil {
		return nil, err
	}
	if !img.Manifest.NoReset {
		request.Options = append(request.Options, device.ThenReset)
	}
	_, err = u.perform(ctx, StepUpdate, StepUpdateWatch, u.plan.Limits.Update, request)
	var failure *Failure
	if !errors.As(err, &failure) || failure.Cause != mib.FailCauseAlreadyInstalled {
		return nil, err
	}
	u.record.forget(mib.OperationKindDownloadSoftware)
	if bank, lookErr := u.bankWithImage(ctx); lookErr == nil && bank != nil {
		return bank, nil
	}
	return nil, err
}

// downloadRequest returns the request to download the image, in the newest format that the
// device reads.
func (u *upgrade) downloadRequest(options ...device.Option) (device.Request, error) {
	img, why, err := u.plan.Image.ForFormat(u.device.ImageFormat)
	if err != nil {
		return device.Request{}, err
	}
	if why != "" {
		u.note(StepUpdate, why)
	}
	dir, name, err := u.session.Publish(img)
	if err != nil {
		return device.Request{}, err
	}
	if u.plan.Force {
		options = append(options, device.Force)
	}
	if u.plan.AllowDowngrade {
		options = append(options, device.AllowDowngrade)
	}
	return device.Request{
		Kind: mib.OperationKindDownloadSoftware, Options: options, Version: img.Version(), Retries: u.plan.DeviceRetries,
		Server: &device.ServerRow{Index: 1, FileServerAddress: u.session.Address(), Path: dir},
		Files:  []device.FileRow{{Kind: mib.FileTypeSoftware, Name: name, ExpectSize: uint32(img.Size), ExpectDigest: img.RequestDigest(u.device.ImageFormat)}},
	}, nil
}

// resetIfNeeded restarts the device if a change waits for a restart.
func (u *upgrade) resetIfNeeded(ctx context.Context, command, watch Step) error {
	d, err := u.plan.Client.Device(ctx)
	if err != nil {
		return u.asFailure(command, mib.OperationKindReset, err)
	}
	if !d.ResetRequired {
		return nil
	}
	u.begin(command, "reset the device so that what was loaded takes effect")
	_, err = u.perform(ctx, command, watch, u.plan.Limits.Restore, device.Request{Kind: mib.OperationKindReset})
	return err
}

// judgeUpdate is step 150: the new software must be what runs.
func (u *upgrade) judgeUpdate(ctx context.Context) error {
	u.begin(StepUpdateJudge, "judge the update")
	d, err := u.judgeSoftware(ctx, StepUpdateJudge, mib.OperationKindDownloadSoftware)
	if err != nil {
		return err
	}
	if u.plan.Verify != nil && !u.verified {
		if err := u.verify(ctx, d); err != nil {
			return err
		}
		u.verified = true
		// The check may have taken longer than the trial lasts.
		if d, err = u.judgeSoftware(ctx, StepUpdateJudge, mib.OperationKindDownloadSoftware); err != nil {
			return err
		}
	}
	u.end(StepUpdateJudge, fmt.Sprintf("the device runs %s", d.Version))
	return nil
}

// judgeSoftware checks that the device runs the new software, from this image.
func (u *upgrade) judgeSoftware(ctx context.Context, step Step, kind mib.OperationKind) (*device.Device, error) {
	d, err := u.plan.Client.Device(ctx)
	if err != nil {
		return nil, u.asFailure(step, kind, err)
	}
	if want := u.plan.Image.Version(); d.Version != want {
		failure := &Failure{Device: d.ID, Step: step, Kind: kind, Cause: mib.FailCauseBootFailed,
			Advice: mib.RetryAdviceRestoreFirst, Text: "the device " + RunsText(d.Version) + ", not " + want}
		if banks, err := u.plan.Client.Banks(ctx); err == nil {
			for _, b := range banks {
				if b.Version == want && b.Error != mib.FailCauseNone && b.Error != 0 {
					failure.Cause, failure.Text = b.Error, b.ErrorText
				}
			}
		}
		return nil, failure
	}
	return d, u.judgeContents(ctx, d, step, kind)
}

// verify runs the operator's own check, part of step 150.
func (u *upgrade) verify(ctx context.Context, d *device.Device) error {
	u.note(StepUpdateJudge, "the operator's own check")
	if err := u.plan.Verify(ctx, d); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		failure := &Failure{Device: d.ID, Step: StepUpdateJudge, Kind: mib.OperationKindDownloadSoftware, Cause: mib.FailCauseOther,
			Software: true, Advice: mib.RetryAdviceRestoreFirst, Text: "the operator's check of " + d.Version + ": " + err.Error()}
		if errors.Is(err, ErrNotRun) { // it says nothing about the software
			failure.Software, failure.Advice = false, mib.RetryAdviceFixFirst
		}
		return failure
	}
	return nil
}

// restoreOld is step 160. It does nothing if the old software runs and boots next, or if
// there was none.
func (u *upgrade) restoreOld(ctx context.Context) error {
	if u.beganInRescue() {
		u.note(StepRestore, "the device was in rescue mode: there is no old software to go back to")
		return nil
	}
	u.begin(StepRestore, "roll back to the old software")
	for attempt := 1; ; attempt++ {
		err := u.once(ctx, StepRestore, u.restoreOnce)
		if err == nil {
			u.end(StepRestore, "the old software runs: "+u.result.OldVersion)
			return nil
		}
		if _, askErr := u.ask(ctx, StepRestore, attempt, err, Retry); askErr != nil {
			return askErr
		}
		if !noAnswer(err) {
			u.record.forget(mib.OperationKindRestoreOldSoftware)
		}
	}
}

func (u *upgrade) restoreOnce(ctx context.Context) error {
	banks, err := u.plan.Client.Banks(ctx)
	if err != nil {
		return u.asFailure(StepRestore, mib.OperationKindRestoreOldSoftware, err)
	}
	// Even if it is on trial, it is what the device had at the start.
	isOld := func(b device.Bank) bool {
		return b.Running && b.Next && b.Holds(u.result.OldVersion, u.record.OldDigest)
	}
	if i := slices.IndexFunc(banks[:], isOld); i >= 0 {
		u.note(StepRestore, fmt.Sprintf("%s runs already; nothing to restore", banks[i]))
		return nil
	}
	if _, err = u.perform(ctx, StepRestore, StepRestore, u.plan.Limits.Restore, device.Request{Kind: mib.OperationKindRestoreOldSoftware}); err != nil {
		return err
	}
	if banks, err = u.plan.Client.Banks(ctx); err != nil {
		return u.asFailure(StepRestore, mib.OperationKindRestoreOldSoftware, err)
	}
	if b := running(banks); b != nil && !isOld(*b) {
		return &Failure{Device: u.device.ID, Step: StepRestore, Kind: mib.OperationKindRestoreOldSoftware, Cause: mib.FailCauseRollbackFailed,
			Advice: mib.RetryAdviceFixFirst, Text: fmt.Sprintf("%s runs, not %s", b.Version, u.result.OldVersion)}
	}
	return nil
}

// check has the device check the image without changing anything.
func (u *upgrade) check(ctx context.Context) error {
	u.begin(StepUpdate, fmt.Sprintf("check %s, changing nothing", u.plan.Image.FileName()))
	if bank, err := u.bankWithImage(ctx); err != nil {
		return err
	} else if bank != nil {
		u.end(StepUpdateJudge, fmt.Sprintf("%s runs already, from this image: an upgrade would not install it again, only recover configuration data if necessary", bank))
		return nil
	}
	request, err := u.downloadRequest(device.CheckOnly)
	if err != nil {
		return err
	}
	if _, err := u.perform(ctx, StepUpdate, StepUpdateWatch, u.plan.Limits.Update, request); err != nil {
		return err
	}
	u.end(StepUpdateJudge, "the device would accept this image")
	return nil
}
