package manager

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"example.com/iad/manager/device"
	"example.com/iad/manager/files"
	"example.com/iad/mib"
)

// backUp performs steps 100 to 120, and repeats them until the backup is good or the
// operator gives up.
func (u *upgrade) backUp(ctx context.Context) error {
	if u.plan.SkipBackup {
		u.warn(StepBackup, "no backup is made, as requested")
		return nil
	}
	for attempt := 1; ; attempt++ {
		err := u.once(ctx, StepBackup, u.backUpOnce)
		if err == nil {
			return nil
		}
		if _, askErr := u.ask(ctx, StepBackupJudge, attempt, err, Retry); askErr != nil {
			return askErr
		}
		if err := u.startNewAttempt(err); err != nil {
			return err
		}
	}
}

func (u *upgrade) backUpOnce(ctx context.Context) error {
	u.begin(StepBackup, "back up the configuration data")
	if u.record.task(mib.OperationKindBackupConfig) == nil {
		d, err := u.plan.Client.Device(ctx)
		if err != nil {
			return u.asFailure(StepBackup, mib.OperationKindBackupConfig, err)
		}
		if d.Generation == 0 {
			return u.onDefaults()
		}
		u.record.OnDefaults, u.record.Config = false, configState(d)
		if u.record.Directory, u.record.Backup, err = u.session.NewBackup(u.plan.Kinds); err != nil {
			return err
		}
	}
	var list []device.FileRow
	for _, f := range u.record.Backup {
		list = append(list, device.FileRow{Kind: f.Kind, Name: f.Name})
	}
	op, err := u.perform(ctx, StepBackup, StepBackupWatch, u.plan.Limits.Backup, device.Request{
		Kind: mib.OperationKindBackupConfig, Files: list, Retries: u.plan.DeviceRetries,
		Server: &device.ServerRow{Index: 1, FileServerAddress: u.session.Address(), Path: u.session.Directory(u.record.Directory)},
	})
	if err != nil {
		return err
	}
	return u.inTime(ctx, StepBackupJudge, mib.OperationKindBackupConfig, u.plan.Limits.Backup, func(ctx context.Context) error {
		return u.judgeBackup(ctx, op)
	})
}

// judgeBackup is step 120: what the device says it has sent must be what the server has.
func (u *upgrade) judgeBackup(ctx context.Context, op *device.Operation) error {
	u.begin(StepBackupJudge, "judge the backup")
	// First, so that what is judged is what is kept.
	u.session.Seal()
	d, err := u.plan.Client.Device(ctx)
	if err != nil {
		return u.asFailure(StepBackupJudge, op.Kind, err)
	}
	if was, now := u.record.Config, configState(d); was != nil && !was.equal(now) {
		return u.badBackup(op, mib.FailCauseConfigReadError, fmt.Sprintf("generation %d was replaced by %d in the meantime", was.Generation, now.Generation))
	}
	var backup []files.BackupFile
	var unread []string // files that could not be compared
	reason := ""        // why
	for _, file := range u.record.Backup {
		row, err := u.plan.Client.File(ctx, file.Kind)
		if err != nil {
			return u.asFailure(StepBackupJudge, op.Kind, err)
		}
		file.Size, file.Format, file.DeviceDigest = int64(row.LastSize), row.LastFormat, row.LastDigest
		size, digest, err := u.session.Digest(ctx, u.record.Directory, file.Name)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, files.ErrNoDigest):
			u.plan.Log.Info("backup not compared", "device", u.device.ID, "file", file.Name, "err", err)
			var unreadable *files.NoDigestError
			if reason = files.ErrNoDigest.Error(); errors.As(err, &unreadable) {
				reason = unreadable.Reason
			}
			unread = append(unread, file.Name)
		case err != nil:
			return u.badBackup(op, mib.FailCauseFileNotFound, fmt.Sprintf("%s is not on the server: %v", file.Name, err))
		case size != file.Size || !bytes.Equal(digest, file.DeviceDigest):
			return u.badBackup(op, mib.FailCauseDigestMismatch,
				fmt.Sprintf("%s: the device sent %d bytes, SHA-256 %x; the server has %d, %x", file.Name, file.Size, file.DeviceDigest, size, digest))
		default:
			file.ServerDigest = digest
		}
		backup = append(backup, file)
	}
	u.record.Backup, u.record.BackupReqID, u.result.Backup = backup, op.ReqID, backup
	u.result.Directory, u.result.Place = u.record.Directory, u.session.Place(u.record.Directory, backup)
	if u.session.Local(u.record.Directory, backup) == nil {
		u.result.Directory = u.session.Directory(u.record.Directory)
	}
	u.observe(Update{Kind: BackupListed, Time: u.plan.Clock.Now(), Device: u.device.ID, Step: StepBackupJudge, Backup: backup, Text: u.result.Place})
	if local := u.session.Local(u.record.Directory, backup); local != nil {
		if err := u.noteEncryption(local, d, backup); err != nil {
			return err
		}
		if err := u.checkKeys(local, d, backup); err != nil {
			return err
		}
		if err := files.WriteIdentity(local, u.record.Directory, u.identity()); err != nil {
			return err
		}
	}
	if err := u.session.Keep(u.record.Directory, backup); err != nil {
		return err
	}
	verdict := "good"
	if len(unread) > 0 {
		u.warn(StepBackupJudge, fmt.Sprintf("%s could not be compared: %s", strings.Join(unread, ", "), reason))
		verdict = "good according to the device"
	}
	u.end(StepBackupJudge, fmt.Sprintf("the backup is %s: %d files in %s", verdict, len(backup), u.result.Place))
	return nil
}

func (u *upgrade) badBackup(op *device.Operation, cause mib.FailCause, text string) error {
	return &Failure{Device: u.device.ID, Step: StepBackupJudge, Kind: op.Kind, Cause: cause, Text: text, Advice: mib.RetryAdviceRetryNow}
}
