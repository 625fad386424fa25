package manager

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"

	"github.com/spf13/afero"

	"example.com/iad/internal/durable"
	"example.com/iad/manager/device"
	"example.com/iad/manager/files"
	"example.com/iad/mib"
)

// Modifier adapts configuration data to the new software, at step 170.
type Modifier interface {
	// Modify changes the files in m.Draft. Its error is shown to the operator; after one
	// that wraps ErrUnchanged the operator decides whether the device gets the data as they
	// are.
	Modify(ctx context.Context, m Modification) error
}

// Modification describes what a Modifier works on. Original, Source and Draft each hold a
// file for every kind of configuration data that was backed up, under the same names.
type Modification struct {
	Device   string
	From, To uint32 // formats
	Files    afero.Fs
	Original string // directory of the backup, which stays as it is
	Source   string // directory that Draft is a copy of: the backup or, later, the last modification
	Draft    string // directory to be changed
	// Root is the directory of this machine that Files stands for, if that is not the store:
	// an encrypted backup is modified in a copy that is decrypted. Otherwise empty.
	Root string
	// Failure is why the last modification, or the device's conversion, failed; nil: there
	// was none.
	Failure error
}

// Unchanged reports whether Draft still has the settings of Source: all lines but the
// first are equal.
func (m Modification) Unchanged() (bool, error) { return m.same(m.Source, settings) }

// same reports whether Draft holds the same files as a directory; part selects what is
// compared of each.
func (m Modification) same(dir string, part func([]byte) []byte) (bool, error) {
	list, err := files.ReadBackup(m.Files, m.Original)
	if err != nil {
		return false, err
	}
	for _, f := range list {
		draft, draftErr := files.ReadAll(m.Files, path.Join(m.Draft, f.Name))
		other, err := files.ReadAll(m.Files, path.Join(dir, f.Name))
		if err := errors.Join(draftErr, err); err != nil {
			return false, err
		}
		if !bytes.Equal(part(draft), part(other)) {
			return false, nil
		}
	}
	return true, nil
}

// settings are a configuration file without its first line.
func settings(file []byte) []byte {
	_, rest, _ := bytes.Cut(file, []byte("\n"))
	return rest
}

// canModify reports whether configuration data can be modified here.
func (u *upgrade) canModify() bool {
	return u.plan.Modifier != nil && len(u.record.Backup) > 0 && u.session.Local(u.record.Directory, u.record.Backup) != nil
}

// modify calls the Modifier for the software that the device runs. Each modification is
// kept in a directory of its own, beside the backup.
func (u *upgrade) modify(ctx context.Context, d *device.Device) error {
	if !u.canModify() {
		return &Failure{Device: d.ID, Step: StepRecover, Kind: mib.OperationKindRecoverConfig, Cause: mib.FailCauseConvertToolMissing,
			Advice: mib.RetryAdviceFixFirst, Text: "the backup could not be read from the server, so it cannot be modified here"}
	}
	from := u.record.Backup[0].Format
	u.begin(StepRecover, fmt.Sprintf("modify the configuration data here, from format %d to %d", from, d.ConfigFormat))
	m := Modification{
		Device: d.ID, From: from, To: d.ConfigFormat, Failure: u.failure,
		Files: u.session.Local(u.record.Directory, u.record.Backup), Original: u.record.Directory,
	}
	var err error
	if m.Source, m.Draft, err = u.draft(m.Files); err != nil {
		return notGood(m, mib.FailCauseOther, fmt.Errorf("copy of the backup: %w", err))
	}
	plain, end, err := u.plainCopy(m)
	if err != nil {
		return notGood(m, mib.FailCauseKeyMissing, err)
	}
	defer end()
	err = u.plan.Modifier.Modify(ctx, plain)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err == nil {
		err = plain.refuseUntouched()
	}
	if errors.Is(err, ErrUnchanged) {
		return u.notModified(m, err)
	}
	if err != nil {
		return notGood(m, mib.FailCauseConvertFailed, err)
	}
	return u.useDraft(d, m, plain)
}

// useDraft makes the data in a draft those that the device is given.
func (u *upgrade) useDraft(d *device.Device, m, plain Modification) error {
	list, err := u.checkDraft(plain)
	if err != nil {
		return notGood(m, mib.FailCauseConfigParseError, err)
	}
	if list, err = u.keepDraft(d, m, plain, list); err != nil {
		return notGood(m, mib.FailCauseOther, err)
	}
	u.record.Modified = &ModifiedBackup{Directory: m.Draft, Files: list}
	u.note(StepRecover, "modified: "+m.Draft)
	return u.save()
}

func notGood(m Modification, cause mib.FailCause, err error) *Failure {
	return &Failure{Device: m.Device, Step: StepRecover, Kind: mib.OperationKindRecoverConfig,
		Cause: cause, Advice: mib.RetryAdviceFixFirst, Text: "modified here: " + err.Error()}
}

// refuseUntouched returns ErrUnchanged if the program did nothing. One that changed only
// the first lines did that on purpose.
func (m Modification) refuseUntouched() error {
	same, err := m.same(m.Original, func(file []byte) []byte { return file })
	if same && err == nil {
		return ErrUnchanged
	}
	return nil // checkDraft finds what cannot be read
}

// notModified ends with a decision for the operator if the data were not modified: marked
// with another format, they may mean something else to the new software.
func (u *upgrade) notModified(m Modification, cause error) error {
	// Nothing that is kept here may claim a format that it does not have.
	if err := files.CopyFiles(m.Files, u.record.Backup, m.Source, m.Draft); err != nil {
		return notGood(m, mib.FailCauseOther, fmt.Errorf("copy of the backup: %w", err))
	}
	u.unmodified, u.lastDraft = &m, m.Source
	why := ""
	switch {
	case m.Source != m.Original:
		why = ": they are those of the last modification"
	case m.From != m.To:
		why = fmt.Sprintf(": they are of format %d and would only be marked as format %d", m.From, m.To)
	}
	return &Failure{Device: m.Device, Step: StepRecover, Kind: mib.OperationKindRecoverConfig, Cause: mib.FailCauseConvertFailed,
		Advice: mib.RetryAdviceFixFirst, Decision: true,
		Text: fmt.Sprintf("%s; the configuration data were not given to the device%s; modify them, or use them as they are, "+
			"with iadms upgrade --resume at a terminal", cause, why)}
}

// useUnmodified makes data that were not modified those that the device is given.
func (u *upgrade) useUnmodified(ctx context.Context, m *Modification) error {
	d, err := u.plan.Client.Device(ctx)
	if err != nil {
		return u.asFailure(StepRecover, mib.OperationKindRecoverConfig, err)
	}
	plain, end, err := u.plainCopy(*m)
	if err != nil {
		return err
	}
	defer end()
	if err := files.SetFormat(plain.Files, plain.Draft, m.To); err != nil {
		return err
	}
	return u.useDraft(d, *m, plain)
}

// draft copies the last modification, or else the backup, to a new directory.
func (u *upgrade) draft(disk afero.Fs) (from, dir string, _ error) {
	from = u.record.Directory
	if u.lastDraft != "" {
		from = u.lastDraft
	} else if m := u.record.Modified; m != nil {
		from = m.Directory
	}
	for n := 1; ; n++ {
		dir = fmt.Sprintf("%s%s%d", u.record.Directory, files.ModifiedMark, n)
		err := disk.Mkdir(dir, 0o700)
		if err == nil {
			break
		}
		if exists, _ := afero.DirExists(disk, dir); !exists || n == 1000 {
			return "", "", err
		}
	}
	u.lastDraft = dir
	if err := files.CopyFiles(disk, u.record.Backup, from, dir); err != nil {
		return "", "", err
	}
	return from, dir, durable.SyncDir(disk, path.Dir(dir))
}

// checkDraft accepts a draft only if it is complete and in the format of the new
// software.
func (u *upgrade) checkDraft(m Modification) ([]files.BackupFile, error) {
	list, err := files.ReadBackup(m.Files, m.Draft)
	if err != nil {
		return nil, err
	}
	for _, want := range u.record.Backup {
		i := slices.IndexFunc(list, func(f files.BackupFile) bool { return f.Kind == want.Kind })
		if i < 0 {
			return nil, fmt.Errorf("%s is missing in %s", want.Kind, m.Draft)
		}
		if list[i].Format != m.To {
			return nil, fmt.Errorf("%s has format %d in its first line, not %d", path.Join(m.Draft, list[i].Name), list[i].Format, m.To)
		}
	}
	return list, nil
}
