package manager

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/afero"

	"example.com/iad/mib"
)

// Backup is steps 100 to 120 alone.
func Backup(ctx context.Context, plan Plan, operator Operator, observe Observer) (Result, error) {
	return part(ctx, plan, operator, observe, (*upgrade).backUp)
}

// Recover is steps 170 to 190 alone, from a backup that ReadBackup describes.
func Recover(ctx context.Context, plan Plan, folder string, files []BackupFile, operator Operator, observe Observer) (Result, error) {
	return part(ctx, plan, operator, observe, func(u *upgrade, ctx context.Context) error {
		u.record.Folder, u.record.Backup, u.result.Folder = folder, files, folder
		u.note(StepRecover, fmt.Sprintf("from %s: %d files", folder, len(files)))
		return u.recover(ctx)
	})
}

// Convert has the device convert configuration data that it holds in another
// format than its software's.
func Convert(ctx context.Context, plan Plan, operator Operator, observe Observer) (Result, error) {
	return part(ctx, plan, operator, observe, func(u *upgrade, ctx context.Context) error {
		u.begin(StepRecover, "convert the configuration data on the device")
		_, err := u.perform(ctx, StepRecover, StepRecoverWatch, u.plan.Limits.Recover, Request{Kind: mib.OperationKindConvertConfig})
		return err
	})
}

// Rollback is step 160 alone: back to the software in the other bank.
func Rollback(ctx context.Context, plan Plan, operator Operator, observe Observer) (Result, error) {
	return part(ctx, plan, operator, observe, func(u *upgrade, ctx context.Context) error {
		before, err := u.plan.Client.Banks(ctx)
		if err != nil {
			return u.asFailure(StepRestore, mib.OperationKindRestoreOldSoftware, err)
		}
		u.begin(StepRestore, "go back to the software in the other bank")
		if _, err := u.perform(ctx, StepRestore, StepRestore, u.plan.Limits.Restore, Request{Kind: mib.OperationKindRestoreOldSoftware}); err != nil {
			return err
		}
		after, err := u.plan.Client.Banks(ctx)
		u.result.Unchanged = err == nil && sameRoles(before[0], after[0]) && sameRoles(before[1], after[1])
		return nil
	})
}

func sameRoles(a, b Bank) bool { return a.Running == b.Running && a.Next == b.Next }

// Reset restarts the device.
func Reset(ctx context.Context, plan Plan, operator Operator, observe Observer) (Result, error) {
	return part(ctx, plan, operator, observe, func(u *upgrade, ctx context.Context) error {
		u.begin(StepUpdate, "reset the device")
		request := Request{Kind: mib.OperationKindReset}
		if u.plan.Force {
			request.Options = []Option{Force}
		}
		_, err := u.perform(ctx, StepUpdate, StepUpdateWatch, u.plan.Limits.Restore, request)
		return err
	})
}

// Abort stops the operation that a device carries out and returns how it ended: it may
// have been quicker. Nil without an error: there was none to be stopped.
func Abort(ctx context.Context, c *Client, owner string) (*Operation, error) {
	op, err := c.Operation(ctx)
	if err != nil || op.ID == 0 || op.Final() {
		return nil, err
	}
	return c.abort(ctx, systemClock{}, owner, op, 15*time.Second, time.Second)
}

// Confirm accepts the software that is on trial and returns its bank. Nil without an
// error: none was on trial.
func Confirm(ctx context.Context, c *Client, owner string) (*Bank, error) {
	banks, err := c.Banks(ctx)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(banks[:], func(b Bank) bool { return b.State == mib.BankStateTrial })
	if i < 0 {
		return nil, nil
	}
	if err := c.Command(ctx, Request{Kind: mib.OperationKindConfirm, ID: NewReqID(), Owner: owner}); err != nil {
		return nil, err
	}
	return &banks[i], nil
}

func part(ctx context.Context, plan Plan, operator Operator, observe Observer, do func(*upgrade, context.Context) error) (Result, error) {
	plan.Journal, plan.Resume, plan.Image = nil, false, nil
	u, err := prepare(ctx, plan, operator, observe)
	if err != nil {
		return Result{}, err
	}
	defer u.close()
	err = do(u, ctx)
	last, cancel := afterwards(ctx)
	defer cancel()
	return u.summary(last), err
}

// Backups lists the folders with backups of a device in the files of
// [Servers], the oldest first.
func Backups(files afero.Fs, device string) ([]string, error) {
	home := path.Join("backup", folderName(device))
	list, err := afero.ReadDir(files, home)
	if err != nil {
		return nil, fmt.Errorf("no backups of %s: %w", device, err)
	}
	var folders []string
	for _, info := range list {
		if info.IsDir() && !strings.Contains(info.Name(), modifiedMark) {
			folders = append(folders, path.Join(home, info.Name()))
		}
	}
	slices.Sort(folders)
	return folders, nil
}

// Complete tells whether a backup was judged good when it was made (step 120); another
// may lack files.
func Complete(files afero.Fs, folder string) bool {
	exists, err := afero.Exists(files, path.Join(folder, completeMark))
	return err == nil && exists
}

// ReadBackup describes the files of a backup: kind and format as their first
// lines tell, size and digest as they are now.
func ReadBackup(files afero.Fs, folder string) ([]BackupFile, error) {
	list, err := afero.ReadDir(files, folder)
	if err != nil {
		return nil, fmt.Errorf("backup: %w", err)
	}
	var backup []BackupFile
	for _, info := range list {
		if !info.Mode().IsRegular() || !strings.HasSuffix(info.Name(), ".cfg") || strings.HasPrefix(info.Name(), ".") {
			continue
		}
		file, err := describeFile(files, path.Join(folder, info.Name()))
		if err != nil {
			return nil, err
		}
		backup = append(backup, file)
	}
	if len(backup) == 0 {
		return nil, fmt.Errorf("backup: %s holds no configuration files", folder)
	}
	slices.SortFunc(backup, func(a, b BackupFile) int { return int(a.Kind) - int(b.Kind) })
	return backup, nil
}

func describeFile(files afero.Fs, name string) (BackupFile, error) {
	f, err := files.Open(name)
	if err != nil {
		return BackupFile{}, err
	}
	head, err := io.ReadAll(io.LimitReader(f, 128))
	if err := errors.Join(err, f.Close()); err != nil {
		return BackupFile{}, fmt.Errorf("%s: %w", name, err)
	}
	kind, format, err := configHeader(head)
	if err != nil {
		return BackupFile{}, fmt.Errorf("%s: %w", name, err)
	}
	size, digest, err := digestFile(files, name)
	return BackupFile{Kind: kind, Name: path.Base(name), Size: size, Format: format, DeviceDigest: digest, ServerDigest: digest}, err
}

// configHeader reads the first line of a configuration file, "iad-config KIND
// FORMAT".
func configHeader(head []byte) (mib.FileType, uint32, error) {
	line, _, _ := bytes.Cut(head, []byte("\n"))
	words := strings.Fields(string(line))
	if len(words) == 3 && words[0] == "iad-config" {
		format, err := strconv.ParseUint(words[2], 10, 32)
		for _, kind := range ConfigKinds {
			if err == nil && words[1] == kind.String() {
				return kind, uint32(format), nil
			}
		}
	}
	return 0, 0, fmt.Errorf("the first line is %.60q, not \"iad-config KIND FORMAT\"", line)
}
