package manager

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"

	"github.com/spf13/afero"

	"example.com/iad/internal/durable"
	"example.com/iad/mib"
)

// Modifier makes configuration data fit for the new software, at step 170.
type Modifier interface {
	// Modify changes the files in m.Draft. The error is shown to the operator.
	Modify(ctx context.Context, m Modification) error
}

// Modification is what a Modifier works on. Both folders hold a file for each
// kind of configuration data that was backed up, under the same names.
type Modification struct {
	Device   string
	From, To uint32 // formats
	Files    afero.Fs
	Original string // folder of the backup, which stays as it is
	Draft    string // folder with a copy of it or, later, of the last modification
	// Failure is why the last modification, or the device's conversion, was
	// not good; nil: there was none.
	Failure error
}

// canModify tells whether configuration data can be modified here.
func (u *upgrade) canModify() bool {
	return u.plan.Modifier != nil && len(u.record.Backup) > 0 && u.session.Local(u.record.Folder, u.record.Backup) != nil
}

// modify has the backup modified for the software that the device runs. Each
// modification is kept in a folder of its own, beside the backup.
func (u *upgrade) modify(ctx context.Context, d *Device) error {
	if !u.canModify() {
		return &Failure{Device: d.ID, Step: StepRecover, Kind: mib.OperationKindRecoverConfig, Cause: mib.FailCauseConvertToolMissing,
			Advice: mib.RetryAdviceFixFirst, Text: "the backup could not be read from the server, so it cannot be modified here"}
	}
	from := u.record.Backup[0].Format
	u.begin(StepRecover, fmt.Sprintf("modify the configuration data here, from format %d to %d", from, d.ConfigFormat))
	m := Modification{
		Device: d.ID, From: from, To: d.ConfigFormat, Failure: u.failure,
		Files: u.session.Local(u.record.Folder, u.record.Backup), Original: u.record.Folder,
	}
	var err error
	if m.Draft, err = u.draft(m.Files); err != nil {
		return fmt.Errorf("copy of the backup to be modified: %w", err)
	}
	err = u.plan.Modifier.Modify(ctx, m)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	cause := mib.FailCauseConvertFailed
	var files []BackupFile
	if err == nil {
		cause = mib.FailCauseConfigParseError
		files, err = u.checkDraft(m)
	}
	if err != nil {
		return &Failure{Device: d.ID, Step: StepRecover, Kind: mib.OperationKindRecoverConfig,
			Cause: cause, Advice: mib.RetryAdviceFixFirst, Text: "modified here: " + err.Error()}
	}
	u.record.Modified = &ModifiedBackup{Folder: m.Draft, Files: files}
	u.note(StepRecover, "modified: "+m.Draft)
	return u.save()
}

// draft copies the last modification, or else the backup, into a new folder.
func (u *upgrade) draft(files afero.Fs) (string, error) {
	from := u.record.Folder
	if u.lastDraft != "" {
		from = u.lastDraft
	} else if m := u.record.Modified; m != nil {
		from = m.Folder
	}
	folder := ""
	for n := 1; ; n++ {
		folder = fmt.Sprintf("%s%s%d", u.record.Folder, modifiedMark, n)
		err := files.Mkdir(folder, 0o700)
		if err == nil {
			break
		}
		if exists, _ := afero.DirExists(files, folder); !exists || n == 1000 {
			return "", err
		}
	}
	u.lastDraft = folder
	for _, f := range u.record.Backup {
		data, err := readAll(files, path.Join(from, f.Name))
		if err == nil {
			err = durable.ReplaceFile(files, path.Join(folder, f.Name), data, 0o600)
		}
		if err != nil {
			return "", err
		}
	}
	return folder, durable.SyncDir(files, path.Dir(folder))
}

// modifiedMark stands between the name of a backup's folder and the number of
// a modification of it.
const modifiedMark = ".modified-"

// maxConfig bounds a configuration file that is read as a whole, in octets.
const maxConfig = 16 << 20

func readAll(files afero.Fs, name string) ([]byte, error) {
	f, err := files.Open(name)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err == nil && len(data) > maxConfig {
		err = fmt.Errorf("%w: %s has more than %d bytes", errTooLarge, name, maxConfig)
	}
	return data, errors.Join(err, f.Close())
}

// checkDraft takes what was made only if it is complete and in the format of
// the new software.
func (u *upgrade) checkDraft(m Modification) ([]BackupFile, error) {
	files, err := ReadBackup(m.Files, m.Draft)
	if err != nil {
		return nil, err
	}
	for _, want := range u.record.Backup {
		i := slices.IndexFunc(files, func(f BackupFile) bool { return f.Kind == want.Kind })
		if i < 0 {
			return nil, fmt.Errorf("%s is missing in %s", want.Kind, m.Draft)
		}
		if files[i].Format != m.To {
			return nil, fmt.Errorf("%s has format %d in its first line, not %d", path.Join(m.Draft, files[i].Name), files[i].Format, m.To)
		}
	}
	return files, nil
}

// SetFormat writes another format into the first line of each configuration
// file in a folder.
func SetFormat(files afero.Fs, folder string, format uint32) error {
	backup, err := ReadBackup(files, folder)
	if err != nil {
		return err
	}
	for _, f := range backup {
		name := path.Join(folder, f.Name)
		data, err := readAll(files, name)
		if err != nil {
			return err
		}
		_, rest, _ := bytes.Cut(data, []byte("\n"))
		data = append(fmt.Appendf(nil, "iad-config %s %d\n", f.Kind, format), rest...)
		if err := durable.ReplaceFile(files, name, data, 0o600); err != nil {
			return err
		}
	}
	return nil
}
