package manager

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"example.com/iad/internal/clock"
	"example.com/iad/manager/device"
	"example.com/iad/manager/files"
	"example.com/iad/mib"
)

// Backup performs steps 100 to 120 alone.
func Backup(ctx context.Context, plan Plan, operator Operator, observe Observer) (Result, error) {
	return runStandalone(ctx, plan, operator, observe, func(u *upgrade, ctx context.Context) error {
		if err := u.bind(ctx); err != nil {
			return err
		}
		return u.backUp(ctx)
	})
}

// Recover performs steps 170 to 190 alone, from a backup that ReadBackup has described.
func Recover(ctx context.Context, plan Plan, dir string, list []files.BackupFile, operator Operator, observe Observer) (Result, error) {
	return runStandalone(ctx, plan, operator, observe, func(u *upgrade, ctx context.Context) error {
		u.record.Directory, u.record.Backup, u.result.Directory = dir, list, dir
		if err := u.ownBackup(ctx, dir); err != nil {
			return err
		}
		if err := u.bind(ctx); err != nil {
			return err
		}
		u.note(StepRecover, fmt.Sprintf("from %s: %d files", dir, len(list)))
		return u.recover(ctx)
	})
}

// Convert has the device convert configuration data that it holds in another format than
// that of its software. It does nothing if the device holds none and others are in force.
func Convert(ctx context.Context, plan Plan, operator Operator, observe Observer) (Result, error) {
	return runStandalone(ctx, plan, operator, observe, func(u *upgrade, ctx context.Context) error {
		if err := u.bind(ctx); err != nil {
			return err
		}
		u.begin(StepRecover, "convert the configuration data on the device")
		_, err := u.perform(ctx, StepRecover, StepRecoverWatch, u.plan.Limits.Recover, device.Request{Kind: mib.OperationKindConvertConfig})
		var refused *Failure
		if errors.As(err, &refused) && refused.Refused && refused.Cause == mib.FailCausePreconditionMissing && u.device.Generation != 0 && !u.device.Rescue() {
			u.result.Unchanged = true // data are in force, and the device holds none in another format
			return nil
		}
		return err
	})
}

// Rollback performs step 160 alone: it returns to the software in the other bank.
func Rollback(ctx context.Context, plan Plan, operator Operator, observe Observer) (Result, error) {
	return runStandalone(ctx, plan, operator, observe, func(u *upgrade, ctx context.Context) error {
		if err := u.bind(ctx); err != nil {
			return err
		}
		// An earlier run may have rolled back already.
		if u.record.Roles == nil && u.record.task(mib.OperationKindRestoreOldSoftware) == nil {
			banks, err := u.plan.Client.Banks(ctx)
			if err != nil {
				return u.asFailure(StepRestore, mib.OperationKindRestoreOldSoftware, err)
			}
			roles := rolesOf(banks)
			u.record.Roles = &roles // stored with the command
		}
		u.begin(StepRestore, "roll back to the software in the other bank")
		if _, err := u.perform(ctx, StepRestore, StepRestore, u.plan.Limits.Restore, device.Request{Kind: mib.OperationKindRestoreOldSoftware}); err != nil {
			return err
		}
		after, err := u.plan.Client.Banks(ctx)
		u.result.Unchanged = err == nil && u.record.Roles != nil && rolesOf(after) == *u.record.Roles
		return nil
	})
}

// Reset restarts the device.
func Reset(ctx context.Context, plan Plan, operator Operator, observe Observer) (Result, error) {
	return runStandalone(ctx, plan, operator, observe, func(u *upgrade, ctx context.Context) error {
		u.warnOfIdentity()
		u.begin(StepUpdate, "reset the device")
		request := device.Request{Kind: mib.OperationKindReset}
		if u.plan.Force {
			request.Options = []device.Option{device.Force}
		}
		_, err := u.perform(ctx, StepUpdate, StepUpdateWatch, u.plan.Limits.Restore, request)
		return err
	})
}

// Abort aborts the operation that a device is carrying out and returns how it ended,
// which may be success. It returns nil if there is no operation to abort.
func Abort(ctx context.Context, c *device.Client, owner string) (*device.Operation, error) {
	op, err := c.Operation(ctx)
	if err != nil || op.ID == 0 || op.Final() {
		return nil, err
	}
	return c.AbortOperation(ctx, clock.System{}, owner, op, 15*time.Second, time.Second)
}

// Confirm confirms the software on trial and returns its bank, nil if no software is on
// trial.
func Confirm(ctx context.Context, c *device.Client, owner string) (*device.Bank, error) {
	banks, err := c.Banks(ctx)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(banks[:], func(b device.Bank) bool { return b.State == mib.BankStateTrial })
	if i < 0 {
		return nil, nil
	}
	if err := c.Confirm(ctx, clock.System{}, device.Request{ID: device.NewReqID(), Owner: owner}, banks[i], confirmLimit, time.Second); err != nil {
		return nil, err
	}
	return &banks[i], nil
}

func runStandalone(ctx context.Context, plan Plan, operator Operator, observe Observer, do func(*upgrade, context.Context) error) (Result, error) {
	plan.Image = nil
	u, err := prepare(ctx, plan, operator, observe)
	if err != nil {
		return Result{}, err
	}
	defer u.close()
	err = do(u, ctx)
	if err == nil {
		u.enterLater(StageDone)
	}
	err = u.recordEnd(ctx, err)
	last, cancel := cleanupContext(ctx)
	defer cancel()
	return u.summary(last), err
}
