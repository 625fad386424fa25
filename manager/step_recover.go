package manager

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"example.com/iad/manager/device"
	"example.com/iad/manager/files"
	"example.com/iad/mib"
)

// recover performs steps 170 to 190: it gives the configuration data back, modified if
// the new software uses another format, and then confirms software that waits for the
// manager. After a failure, repeatRecovery decides whether step 170 is repeated.
func (u *upgrade) recover(ctx context.Context) error {
	u.failure = nil
	if p := u.record.Parked; p != nil && p.Step == StepRestore {
		return u.giveUpNewSoftware(ctx, p.Failure)
	}
	repeat, modify := true, false
	for attempt := 1; repeat; attempt++ {
		err := u.once(ctx, StepRecover, func(ctx context.Context) error { return u.recoverOnce(ctx, modify) })
		if err == nil {
			return u.confirm(ctx)
		}
		if repeat, modify, err = u.repeatRecovery(ctx, attempt, err, modify); err != nil {
			return err
		}
	}
	return nil
}

// repeatRecovery has the operator decide, after a failure, whether step 170 is repeated
// and whether the configuration data are modified first. modified reports whether they
// just were. An error ends the procedure.
func (u *upgrade) repeatRecovery(ctx context.Context, attempt int, failed error, modified bool) (repeat, modify bool, err error) {
	if u.newer || u.offeredBackup != "" || u.unmodified != nil {
		u.performed = 0 // it is found out again before a command
	}
	switch {
	case u.newer:
		done, err := u.askNewer(ctx, attempt, failed)
		return !done, modified, err
	case u.offeredBackup != "":
		done, err := u.askLast(ctx, attempt, failed)
		return !done, modified, err
	}
	u.learnFailed(ctx)
	unmodified := u.unmodified
	u.unmodified = nil
	choices := []Choice{Retry}
	if unmodified != nil {
		choices = []Choice{UseAsIs}
	}
	if u.canModify() {
		choices = append(choices, Modify)
	}
	if u.plan.Image != nil && !u.beganInRescue() {
		choices = append(choices, RestoreOld)
	}
	answer, err := u.ask(ctx, StepRecoverJudge, attempt, failed, choices...)
	if err != nil {
		return false, false, err
	}
	// Data that were modified and turned out wrong are modified again.
	modify = answer.Choice == Modify || answer.Choice == Retry && u.record.Modified != nil && badData(failed)
	if err := u.startNewAttempt(failed); err != nil {
		return false, false, err
	}
	switch answer.Choice {
	case UseAsIs:
		err = u.useUnmodified(ctx, unmodified)
	case RestoreOld:
		err = u.giveUpNewSoftware(ctx, failed)
	}
	return err == nil, modify, err
}

// giveUpNewSoftware rolls back to the old software, step 160, after its configuration data
// could not be recovered with the new one. It always returns an error.
func (u *upgrade) giveUpNewSoftware(ctx context.Context, failed error) error {
	if err := u.restoreOld(ctx); err != nil {
		return err
	}
	failed = fmt.Errorf("%s is back on %s, and %s was given up: %w", u.device.ID, u.result.OldVersion, u.plan.Image.Version(), failed)
	if err := u.enter(StageUpdate); err != nil { // resumed later, it starts with 130
		return errors.Join(failed, err)
	}
	return failed
}

// badData reports whether the configuration data themselves caused a failure.
func badData(err error) bool {
	var f *Failure
	return errors.As(err, &f) && f.Cause >= mib.FailCauseConfigParseError && f.Cause <= mib.FailCauseConfigApplyError
}

func (u *upgrade) recoverOnce(ctx context.Context, modify bool) error {
	d, err := u.plan.Client.Device(ctx)
	if err != nil {
		return u.asFailure(StepRecover, mib.OperationKindRecoverConfig, err)
	}
	if u.plan.Image != nil {
		// Configuration data of the new software must not go to the old one.
		if d, err = u.judgeSoftware(ctx, StepRecover, mib.OperationKindRecoverConfig); err != nil {
			return err
		}
		if err := u.refuseToOverwriteNewer(ctx, d); err != nil {
			return err
		}
	}
	if u.record.OnDefaults {
		if done, err := u.recoverFromDefaults(ctx, d); done || err != nil {
			return err
		}
	}
	if !modify && u.backupStillInForce(d) {
		u.note(StepRecover, fmt.Sprintf("the configuration data that were backed up are in force: generation %d", d.Generation))
		return nil
	}
	if modify || u.record.Modified == nil && u.plan.ModifyFirst && u.otherFormat(d) {
		if err := u.modify(ctx, d); err != nil {
			return err
		}
	}
	request, err := u.recoverRequest(ctx, d)
	if err != nil {
		return err
	}
	if request.Kind == mib.OperationKindNone {
		u.note(StepRecover, "the device keeps its configuration data")
		return nil
	}
	if _, err := u.perform(ctx, StepRecover, StepRecoverWatch, u.plan.Limits.Recover, request); err != nil {
		return err
	}
	if err := u.resetIfNeeded(ctx, StepRecover, StepRecoverWatch); err != nil {
		return err
	}
	return u.judgeRecovery(ctx)
}

// otherFormat reports whether the device's software uses another format than
// the backup has.
func (u *upgrade) otherFormat(d *device.Device) bool {
	return slices.ContainsFunc(u.record.Backup, func(f files.BackupFile) bool { return f.Format != d.ConfigFormat })
}

// recoverRequest is step 170: it compares formats and decides how to recover the
// configuration data.
func (u *upgrade) recoverRequest(ctx context.Context, d *device.Device) (device.Request, error) {
	if u.plan.SkipBackup {
		if d.ConfigFormat == u.device.ConfigFormat {
			return device.Request{Kind: mib.OperationKindNone}, nil
		}
		u.begin(StepRecover, fmt.Sprintf("convert the configuration data on the device from format %d to %d", u.device.ConfigFormat, d.ConfigFormat))
		return device.Request{Kind: mib.OperationKindConvertConfig}, nil
	}
	dir, list, text := u.record.Directory, u.record.Backup, "recover the configuration data"
	if m := u.record.Modified; m != nil {
		dir, list, text = m.Directory, m.Files, "recover the configuration data as modified here"
	}
	if local := u.session.Local(dir, list); local != nil {
		if err := files.Unchanged(local, dir, list); err != nil { // not the server's fault
			return device.Request{}, &Failure{Device: d.ID, Step: StepRecover, Kind: mib.OperationKindRecoverConfig, Cause: mib.FailCauseDigestMismatch,
				Advice: mib.RetryAdviceFixFirst, Text: err.Error()}
		}
	}
	dir, list, err := u.encryptFor(d, dir, list)
	if err != nil {
		return device.Request{}, err
	}
	list, err = u.session.Provide(ctx, dir, list)
	switch {
	case ctx.Err() != nil:
		return device.Request{}, ctx.Err()
	case err != nil:
		return device.Request{}, &Failure{Device: d.ID, Step: StepRecover, Kind: mib.OperationKindRecoverConfig, Cause: mib.FailCauseAccessDenied,
			Advice: mib.RetryAdviceFixFirst, Text: err.Error()}
	}
	request := device.Request{
		Kind: mib.OperationKindRecoverConfig, Retries: u.plan.DeviceRetries,
		Server: &device.ServerRow{Index: 1, FileServerAddress: u.session.Address(), Path: u.session.Directory(dir)},
	}
	for _, f := range list {
		request.Files = append(request.Files, device.FileRow{Kind: f.Kind, Name: f.Name, ExpectSize: uint32(f.Size), ExpectDigest: f.DeviceDigest})
		if f.Format != d.ConfigFormat && len(request.Options) == 0 {
			request.Options = append(request.Options, device.ConvertFirst)
			text += fmt.Sprintf(", converted on the device from format %d to %d", f.Format, d.ConfigFormat)
		}
	}
	u.begin(StepRecover, text)
	return request, nil
}

// judgeRecovery is step 190.
func (u *upgrade) judgeRecovery(ctx context.Context) error {
	u.begin(StepRecoverJudge, "judge the recovery")
	d, err := u.plan.Client.Device(ctx)
	if err != nil {
		return u.asFailure(StepRecoverJudge, mib.OperationKindRecoverConfig, err)
	}
	u.learnConfig(d)
	if u.plan.Image != nil && d.Version != u.plan.Image.Version() {
		return &Failure{Device: d.ID, Step: StepRecoverJudge, Kind: mib.OperationKindRecoverConfig, Cause: mib.FailCauseBootFailed,
			Advice: mib.RetryAdviceRestoreFirst, Text: "the device " + RunsText(d.Version) + ", not " + u.plan.Image.Version()}
	}
	u.end(StepRecoverJudge, fmt.Sprintf("configuration data in force: generation %d, format %d, SHA-256 %x", d.Generation, d.ConfigFormat, d.ConfigDigest))
	return nil
}

// confirmLimit is how long a device may take to record that software is accepted.
const confirmLimit = 15 * time.Second

// confirm confirms software on trial if the device leaves that to a manager. After a failure the operator decides, because
// software that nobody confirms is given up.
func (u *upgrade) confirm(ctx context.Context) error {
	for attempt := 1; ; attempt++ {
		err := u.confirmOnce(ctx)
		if err == nil {
			return nil
		}
		if _, err := u.ask(ctx, StepRecoverJudge, attempt, err, Retry); err != nil {
			return err
		}
		if u.plan.Image != nil { // it may have been given up in the meantime
			if _, err := u.judgeSoftware(ctx, StepRecoverJudge, mib.OperationKindConfirm); err != nil {
				return err
			}
		}
	}
}

func (u *upgrade) confirmOnce(ctx context.Context) error {
	banks, err := u.plan.Client.Banks(ctx)
	if err != nil {
		return u.asFailure(StepRecoverJudge, mib.OperationKindConfirm, err)
	}
	i := slices.IndexFunc(banks[:], func(b device.Bank) bool { return b.Running && b.State == mib.BankStateTrial })
	if i < 0 {
		return nil
	}
	mode, err := u.plan.Client.ConfirmMode(ctx)
	if err != nil {
		return u.asFailure(StepRecoverJudge, mib.OperationKindConfirm, err)
	}
	if mode != mib.ConfirmModeManager {
		u.note(StepRecoverJudge, "the software is on trial until the device itself confirms it")
		return nil
	}
	request := device.Request{ID: device.NewReqID(), Owner: u.plan.Owner, Owns: u.owns}
	if err := u.plan.Client.Confirm(ctx, u.plan.Clock, request, banks[i], confirmLimit, u.plan.Poll); err != nil {
		err = fmt.Errorf("the software runs but stays on trial: %w", err)
		if failed := u.asFailure(StepRecoverJudge, mib.OperationKindConfirm, err); failed != err || ctx.Err() != nil {
			return failed
		}
		return &Failure{Device: u.device.ID, Step: StepRecoverJudge, Kind: mib.OperationKindConfirm, Cause: mib.FailCauseOther,
			Advice: mib.RetryAdviceRetryLater, Text: err.Error()}
	}
	u.note(StepRecoverJudge, "the new software is confirmed")
	return nil
}
