package agent

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/spf13/afero"

	"example.com/iad/agent/procedure"
	"example.com/iad/internal/agefile"
	"example.com/iad/internal/durable"
	"example.com/iad/mib"
)

// Encryption says what happens to configuration files between the device and file
// servers.
type Encryption struct {
	// Recipients can read the backups, besides the device itself; with none, backups are
	// plain text.
	Recipients []agefile.Recipient
	// AcceptPlain accepts files that are not encrypted although backups are.
	AcceptPlain bool
}

var backupKeyMagic = [4]byte{'I', 'A', 'D', 'B'}

const backupKeyRecord = "backup-key"

// maxEnvelope bounds what encryption adds to a configuration file of 1 MiB: a header for
// hundreds of recipients, and 16 bytes for every 64 KiB.
const maxEnvelope = 64 << 10

// openBackupKey returns the key of the device for its backups, nil if there is none. It is
// made, and stored before anybody can use it, when the device encrypts for the first time,
// and kept when it no longer does: there are backups that only it reads. findings name what
// was damaged. With an error and a key, the key could not be stored.
func openBackupKey(state afero.Fs, wanted bool) (key *agefile.Identity, findings []string, err error) {
	rec, data, findings, bad := durable.OpenRecord(state, backupKeyRecord, backupKeyMagic, stateVersion, checkBackupKey)
	if bad == nil && data != nil {
		id, err := agefile.IdentityOf(data)
		if err == nil && !bothCopies(state) {
			if err := rec.Write(data); err != nil {
				findings = append(findings, fmt.Sprintf("the second copy of the key for backups could not be stored: %v", err))
			}
		}
		return &id, findings, err
	}
	if !wanted {
		return nil, findings, nil
	}
	id, err := agefile.NewIdentity()
	if err != nil {
		return nil, findings, fmt.Errorf("agent: key for backups: %w", err)
	}
	if rec != nil {
		if bad = rec.Write(id.Bytes()); bad == nil {
			bad = rec.Write(id.Bytes()) // each write makes one copy, and nothing else ever writes this record
		}
	}
	if len(findings) > 0 {
		findings = append(findings, "the key for backups is lost, and there is another one; only the operator can decrypt earlier backups")
	}
	if bad != nil {
		bad = fmt.Errorf("the key for backups could not be stored, and after a restart only the operator can decrypt those made until then: %w", bad)
	}
	return &id, findings, bad
}

// bothCopies reports whether no copy of the key is missing, or was set aside as damaged.
func bothCopies(state afero.Fs) bool {
	for _, suffix := range []string{".a", ".b"} {
		if _, err := state.Stat(backupKeyRecord + suffix); errors.Is(err, fs.ErrNotExist) {
			return false
		}
	}
	return true
}

func checkBackupKey(data []byte) error {
	_, err := agefile.IdentityOf(data)
	return err
}

// seal encrypts the files of a backup, unless backups are plain.
func (s store) seal(files procedure.ConfigFiles) error {
	if len(s.encryption.Recipients) == 0 {
		return nil
	}
	recipients := append([]agefile.Recipient{s.backupKey.Recipient()}, s.encryption.Recipients...)
	for k, data := range files {
		sealed, err := agefile.Encrypt(data, recipients...)
		if err != nil {
			return &procedure.Failure{Code: mib.FailCauseConfigReadError, Text: fmt.Sprintf("%s could not be encrypted: %v", k, err)}
		}
		files[k] = sealed
	}
	return nil
}

// unseal returns the contents of a file that was fetched.
func (s store) unseal(k mib.FileType, data []byte) ([]byte, error) {
	fail := func(cause mib.FailCause, format string, args ...any) ([]byte, error) {
		return nil, &procedure.Failure{Code: cause, Text: k.String() + " " + fmt.Sprintf(format, args...)}
	}
	if !agefile.Is(data) {
		if len(s.encryption.Recipients) > 0 && !s.encryption.AcceptPlain {
			return fail(mib.FailCauseNotPermitted, "is not encrypted; encrypt it to this device, or set backup.accept_plain at the device")
		}
		return data, nil
	}
	if s.backupKey == nil {
		return fail(mib.FailCauseKeyMissing, "is encrypted, and this device has no key; decrypt it, or set backup.recipients at the device")
	}
	plain, err := agefile.Decrypt(data, *s.backupKey)
	switch {
	case errors.Is(err, agefile.ErrNotForKey):
		return fail(mib.FailCauseKeyMissing, "is not encrypted to this device; encrypt it to %s", s.backupKey.Recipient())
	case err != nil:
		return fail(mib.FailCauseBadFormat, "cannot be decrypted: %v", err)
	}
	return plain, nil
}
