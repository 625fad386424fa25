package manager

import (
	"fmt"
	"os"
	"path"
	"slices"

	"github.com/spf13/afero"

	"example.com/iad/manager/device"
	"example.com/iad/manager/files"
	"example.com/iad/mib"
)

// EncryptedBackup is a copy of a backup that was encrypted for a device.
type EncryptedBackup struct {
	Of        string `json:"of"` // the directory that was copied
	Recipient string `json:"recipient"`
	ModifiedBackup
}

func isEncrypted(f files.BackupFile) bool { return f.Encrypted }

// encryptFor returns files that the device can read: those given or, if it needs them
// encrypted to itself and they are not, an encrypted copy. The copy is recorded: a device
// that is fetching it compares it with the digests it was given.
func (u *upgrade) encryptFor(d *device.Device, dir string, list []files.BackupFile) (string, []files.BackupFile, error) {
	local := u.session.Local(dir, list)
	if local == nil {
		return dir, list, nil // they are on the server alone, and the device decides
	}
	sealed := slices.ContainsFunc(list, isEncrypted)
	if !sealed && d.BackupRecipient == "" {
		return dir, list, nil
	}
	refuse := func(cause mib.FailCause, err error) (string, []files.BackupFile, error) {
		return "", nil, &Failure{Device: d.ID, Step: StepRecover, Kind: mib.OperationKindRecoverConfig, Cause: cause,
			Advice: mib.RetryAdviceFixFirst, Text: err.Error()}
	}
	if d.BackupRecipient == "" {
		return refuse(mib.FailCauseKeyMissing, fmt.Errorf("%s is encrypted, and the device has no key; set backup.recipients at the device, "+
			"or decrypt the backup with iadms config decrypt and recover the result", dir))
	}
	envelope, err := files.ReadEnvelope(local, dir)
	if err != nil {
		return "", nil, err
	}
	if all := !slices.ContainsFunc(list, func(f files.BackupFile) bool { return !f.Encrypted }); all {
		switch envelope.Recipient {
		case d.BackupRecipient:
			return dir, list, nil
		case "": // not known: a key makes a copy that the device can read, without one it may be the device's own
			if u.plan.Keys.Check(local, dir, list) != nil {
				return dir, list, nil
			}
		}
	}
	if e := u.record.Encrypted; e != nil && e.Of == dir && e.Recipient == d.BackupRecipient && files.Unchanged(local, e.Directory, e.Files) == nil {
		return e.Directory, e.Files, nil
	}
	copied, encrypted, err := u.plan.Keys.EncryptCopy(local, dir, list, d.BackupRecipient)
	if err != nil {
		return refuse(mib.FailCauseKeyMissing, fmt.Errorf("%s cannot be encrypted for the device: %w", dir, err))
	}
	u.record.Encrypted = &EncryptedBackup{dir, d.BackupRecipient, ModifiedBackup{copied, encrypted}}
	u.note(StepRecover, fmt.Sprintf("encrypted for %s: %s", d.ID, copied))
	return copied, encrypted, u.save()
}

// plainCopy returns a modification that a Modifier can work on: m itself or, if the backup
// is encrypted, one of decrypted files, in a directory that only this user can read, and
// which end removes.
func (u *upgrade) plainCopy(m Modification) (plain Modification, end func(), err error) {
	if !slices.ContainsFunc(u.record.Backup, isEncrypted) {
		return m, func() {}, nil
	}
	// If possible in memory, as the runtime directory of a user is.
	dir, err := os.MkdirTemp(os.Getenv("XDG_RUNTIME_DIR"), "iadms-")
	if err != nil {
		return m, nil, fmt.Errorf("directory for decrypted configuration data: %w", err)
	}
	end = func() {
		if err := os.RemoveAll(dir); err != nil {
			u.warn(StepRecover, fmt.Sprintf("decrypted configuration data could not be removed: %v", err))
		}
	}
	plain = m
	plain.Files, plain.Root = afero.NewBasePathFs(afero.NewOsFs(), dir), dir
	for _, name := range []string{m.Original, m.Source, m.Draft} {
		if err := u.plan.Keys.Decrypt(m.Files, name, u.record.Backup, plain.Files, name); err != nil {
			end()
			return m, nil, err
		}
	}
	return plain, end, nil
}

// keepDraft encrypts what a Modifier has made of a plain copy, if it had one, and returns
// the files of the draft in the store.
func (u *upgrade) keepDraft(d *device.Device, m, plain Modification, list []files.BackupFile) ([]files.BackupFile, error) {
	if plain.Root == "" {
		return list, nil
	}
	return u.plan.Keys.Encrypt(plain.Files, plain.Draft, list, d.BackupRecipient, m.Files, m.Draft)
}

// checkKeys returns an error if the backup will have to be modified here, for software of
// another format, and no key reads it: better now than when the device runs that software.
func (u *upgrade) checkKeys(local afero.Fs, d *device.Device, backup []files.BackupFile) error {
	img := u.plan.Image
	if !u.plan.ModifyFirst || img == nil || img.Manifest.ConfigFormat == d.ConfigFormat {
		return nil
	}
	err := u.plan.Keys.Check(local, u.record.Directory, backup)
	if err == nil {
		return nil
	}
	return &Failure{Device: d.ID, Step: StepBackupJudge, Kind: mib.OperationKindBackupConfig, Cause: mib.FailCauseKeyMissing, Advice: mib.RetryAdviceFixFirst,
		Text: fmt.Sprintf("the backup cannot be modified for format %d of the new software: %v", img.Manifest.ConfigFormat, err)}
}

// noteEncryption records which of the files that came are encrypted, to what device.
func (u *upgrade) noteEncryption(local afero.Fs, d *device.Device, backup []files.BackupFile) error {
	for i := range backup {
		encrypted, err := files.IsEncrypted(local, path.Join(u.record.Directory, backup[i].Name))
		if err != nil {
			return fmt.Errorf("backup: %w", err)
		}
		backup[i].Encrypted = encrypted
	}
	return files.WriteEnvelope(local, u.record.Directory, d.BackupRecipient, backup)
}
