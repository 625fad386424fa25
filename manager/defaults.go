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

// errOnDefaults ends a backup of a device that has no configuration data in force: the
// files that it would send contain the defaults of its software, and would become the
// last backup in place of a real one.
func (u *upgrade) errOnDefaults() error {
	return fmt.Errorf("%s %s: there are no configuration data to back up, and no backup was made; "+
		"recover data from a backup with iadms recover, or convert what the device holds with iadms convert: %w", u.device.ID, u.dataless(), ErrDecision)
}

// dataless says why a device has nothing to back up.
func (u *upgrade) dataless() string {
	if u.device.Rescue() {
		return "is in rescue mode and has no configuration data in force"
	}
	return "runs on the defaults of its software"
}

// onDefaults is step 100 for a device that runs on the defaults of its software.
func (u *upgrade) onDefaults() error {
	if u.plan.Image == nil {
		return u.errOnDefaults()
	}
	u.record.OnDefaults, u.record.Config, u.record.Directory, u.record.Backup = true, nil, "", nil
	u.warn(StepBackup, "the device "+u.dataless()+": there are no configuration data to back up, and no backup is made")
	return u.save()
}

// recoverFromDefaults is steps 170 to 190 for a device that ran on defaults at step 100.
// The device converts what it still holds; if it holds nothing, the operator is offered
// the last real backup. done reports that nothing is left to do.
func (u *upgrade) recoverFromDefaults(ctx context.Context, d *device.Device) (done bool, err error) {
	task := u.record.task(mib.OperationKindConvertConfig)
	if task == nil && d.Generation != 0 {
		u.note(StepRecover, fmt.Sprintf("the device has configuration data in force again: generation %d", d.Generation))
		return true, nil
	}
	if task != nil || d.Supports(mib.OperationKindConvertConfig) {
		u.begin(StepRecover, fmt.Sprintf("convert the configuration data that the device still holds to format %d", d.ConfigFormat))
		_, err := u.perform(ctx, StepRecover, StepRecoverWatch, u.plan.Limits.Recover, device.Request{Kind: mib.OperationKindConvertConfig})
		var failure *Failure
		switch {
		case err == nil:
			if err := u.resetIfNeeded(ctx, StepRecover, StepRecoverWatch); err != nil {
				return false, err
			}
			return true, u.judgeRecovery(ctx)
		case !errors.As(err, &failure) || failure.Cause != mib.FailCausePreconditionMissing:
			return false, err
		}
		u.record.forget(mib.OperationKindConvertConfig) // the device holds nothing to convert
	}
	dir := u.lastBackup()
	if dir == "" {
		u.warn(StepRecover, "the device holds no configuration data and there is no backup with data: it stays on the defaults of its software")
		return true, nil
	}
	u.offeredBackup = dir
	return false, &Failure{Device: d.ID, Step: StepRecover, Kind: mib.OperationKindRecoverConfig, Cause: mib.FailCausePreconditionMissing,
		Advice: mib.RetryAdviceFixFirst, Decision: true,
		Text: fmt.Sprintf("the device runs on the defaults of its software and holds no data to convert; the last backup with data is %s", dir)}
}

// lastBackup is the newest complete backup of the device that holds data, empty if there
// is none on this machine.
func (u *upgrade) lastBackup() string {
	store := u.session.Local("backup/"+device.DirectoryName(u.device.ID), nil)
	if store == nil {
		return ""
	}
	dirs, err := files.Backups(store, u.device.ID)
	if err != nil {
		return ""
	}
	for _, dir := range slices.Backward(dirs) {
		if files.Complete(store, dir) && files.HoldsData(store, dir) {
			return dir
		}
	}
	return ""
}

// askLast has the operator choose between the last backup and the defaults. done reports
// that the device stays on the defaults, which ends the procedure.
func (u *upgrade) askLast(ctx context.Context, attempt int, failed error) (done bool, _ error) {
	dir := u.offeredBackup
	u.offeredBackup = ""
	answer, err := u.ask(ctx, StepRecover, attempt, failed, GiveLast, KeepDefaults)
	switch {
	case err != nil && ctx.Err() == nil && !errors.Is(err, ErrParked):
		// The new software passed step 150.
		if err := u.confirm(ctx); err != nil {
			u.warn(StepRecoverJudge, err.Error())
		}
		return false, err
	case err != nil:
		return false, err
	case answer.Choice == KeepDefaults:
		u.end(StepRecover, "the device stays on the defaults of its software")
		return true, u.confirm(ctx)
	}
	if err := u.ownBackup(ctx, dir); err != nil {
		return false, err
	}
	list, err := files.ReadBackup(u.session.Local(dir, nil), dir)
	if err != nil {
		return false, err
	}
	u.record.Directory, u.record.Backup, u.record.OnDefaults = dir, list, false
	u.result.Directory, u.result.Backup = dir, list
	return false, u.save()
}
