package manager

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"example.com/iad/manager/device"
	"example.com/iad/mib"
)

// ConfigState identifies the configuration data that are in force on a device.
type ConfigState struct {
	Generation uint32 `json:"generation"` // 0: the software's defaults
	Format     uint32 `json:"format"`
	Digest     []byte `json:"digest,omitempty"`
}

func configState(d *device.Device) *ConfigState {
	return &ConfigState{Generation: d.Generation, Format: d.ConfigFormat, Digest: d.ConfigDigest}
}

func (s *ConfigState) equal(other *ConfigState) bool {
	return s.Generation == other.Generation && bytes.Equal(s.Digest, other.Digest)
}

// replacedBy reports whether other data than s are in force that the procedure does not
// account for. New software with another format starts on its defaults, or on an older
// generation of its format: neither is a change.
func (s *ConfigState) replacedBy(now *ConfigState) bool {
	switch {
	case now.Generation == 0 || s.equal(now):
		return false
	case now.Generation >= s.Generation:
		return true
	}
	return now.Format == s.Format // the device counts from the beginning again
}

// backUpAgain makes another backup if the configuration data were changed since the last
// one: step 170 must give the device what it has now.
func (u *upgrade) backUpAgain(ctx context.Context) error {
	for range 3 {
		if u.plan.SkipBackup || u.record.Config == nil || u.record.task(mib.OperationKindDownloadSoftware) != nil {
			return nil
		}
		d, err := u.plan.Client.Device(ctx)
		if err != nil {
			return u.asFailure(StepUpdate, mib.OperationKindDownloadSoftware, err)
		}
		now := configState(d)
		if d.Version != u.result.OldVersion || now.Generation == 0 || u.record.Config.equal(now) {
			return nil
		}
		u.warn(StepUpdate, fmt.Sprintf("the configuration data were changed after the backup (generation %d, now %d); they are backed up again",
			u.record.Config.Generation, now.Generation))
		if err := u.enter(StageBackup); err != nil {
			return err
		}
		if err := u.backUp(ctx); err != nil {
			return err
		}
		if err := u.enter(StageUpdate); err != nil {
			return err
		}
	}
	return &Failure{Device: u.device.ID, Step: StepUpdate, Kind: mib.OperationKindDownloadSoftware, Cause: mib.FailCausePreconditionMissing,
		Advice: mib.RetryAdviceRetryLater, Text: "the configuration data change faster than they can be backed up"}
}

// refuseToOverwriteNewer refuses to overwrite configuration data that were put in force after the
// backup. The error is a *Failure that needs a decision.
func (u *upgrade) refuseToOverwriteNewer(ctx context.Context, d *device.Device) error {
	was := u.record.Config
	commanded := u.record.task(mib.OperationKindRecoverConfig) != nil || u.record.task(mib.OperationKindConvertConfig) != nil
	if was == nil || u.overwrite || commanded || !was.replacedBy(configState(d)) {
		return nil
	}
	if d.Version != u.result.OldVersion && !u.changedSinceBackup(ctx) {
		return nil // the new software had these from an earlier time that it ran
	}
	u.newer = true
	return &Failure{Device: d.ID, Step: StepRecover, Kind: mib.OperationKindRecoverConfig, Cause: mib.FailCausePreconditionMissing,
		Advice: mib.RetryAdviceFixFirst, Decision: true,
		Text: fmt.Sprintf("the configuration data were changed after the backup: generation %d is in force, the backup is of generation %d; "+
			"the newer data were kept and the backup was not recovered; compare both, then continue with iadms upgrade --resume at a terminal, or recover the backup with iadms recover",
			d.Generation, was.Generation)}
}

// askNewer has the operator choose between the newer data and the backup. done reports
// that the newer data stay in force, which ends the procedure.
func (u *upgrade) askNewer(ctx context.Context, attempt int, err error) (done bool, _ error) {
	u.newer = false
	answer, askErr := u.ask(ctx, StepRecover, attempt, err, KeepNewer, Overwrite)
	switch {
	case askErr != nil && ctx.Err() == nil && !errors.Is(askErr, ErrParked):
		// The new software passed step 150 and the newer data are in force with it. If it
		// stayed on trial, it would be rolled back, and the data with it.
		if err := u.confirm(ctx); err != nil {
			u.warn(StepRecoverJudge, err.Error())
		}
		return false, askErr
	case askErr != nil:
		return false, askErr
	case answer.Choice == KeepNewer:
		u.end(StepRecover, "the newer configuration data stay in force")
		return true, u.confirm(ctx)
	}
	u.overwrite = true
	return false, nil
}

// learnConfig records that the procedure itself has put data in force.
func (u *upgrade) learnConfig(d *device.Device) {
	if u.record.Config != nil && d.Generation != 0 {
		u.record.Config = configState(d)
	}
}

// learnFailed records that an operation of the procedure which has failed put its data in
// force all the same, as one does whose end a loss of power hid: nobody else has changed them.
func (u *upgrade) learnFailed(ctx context.Context) {
	for _, kind := range []mib.OperationKind{mib.OperationKindRecoverConfig, mib.OperationKindConvertConfig} {
		task := u.record.task(kind)
		if task == nil {
			continue
		}
		d, err := u.plan.Client.Device(ctx)
		if err != nil {
			return // not known: the data count as somebody else's
		}
		history, err := u.plan.Client.History(ctx)
		if err != nil {
			return
		}
		for _, op := range history {
			if op.Kind == kind && op.Owner == u.plan.Owner && op.ReqID == task.ReqID && !d.ConfigApplied.Before(op.Started) && !d.ConfigApplied.After(op.Ended) {
				u.learnConfig(d)
			}
		}
	}
}

// changedSinceBackup reports whether the device's history has another operation on
// configuration data after the backup, or does not reach back to it.
func (u *upgrade) changedSinceBackup(ctx context.Context) bool {
	history, err := u.plan.Client.History(ctx)
	if err != nil {
		return true
	}
	var backup uint32
	for _, op := range history {
		if op.Kind == mib.OperationKindBackupConfig && op.Owner == u.plan.Owner && op.ReqID == u.record.BackupReqID {
			backup = op.OpID
		}
	}
	if backup == 0 {
		return true
	}
	for _, op := range history {
		switch op.Kind {
		case mib.OperationKindRecoverConfig, mib.OperationKindConvertConfig:
			if int32(op.OpID-backup) > 0 {
				return true
			}
		}
	}
	return false
}
