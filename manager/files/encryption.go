package files

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"

	"github.com/spf13/afero"

	"example.com/iad/internal/agefile"
	"example.com/iad/internal/durable"
	"example.com/iad/mib"
)

// Keys are the operator's private keys, which encrypted backups can be read with.
type Keys []agefile.Identity

// ErrEncrypted says that a file is encrypted, and that no key can read it.
var ErrEncrypted = errors.New("it is encrypted, and none of the keys given can decrypt it; name the file with the key (--identity)")

// EncryptedMark comes between the name of a backup's directory and the number of a copy
// that was encrypted for a device.
const EncryptedMark = ".encrypted-"

// Original returns the directory of the backup that a modified or encrypted copy was made
// of, or else dir itself.
func Original(dir string) string {
	dir, _, _ = strings.Cut(dir, EncryptedMark)
	dir, _, _ = strings.Cut(dir, ModifiedMark)
	return dir
}

// envelopeFile is a file in a directory with encrypted files: what can be known of them
// without a key.
const envelopeFile = ".encrypted"

// Envelope describes the encrypted files of a directory.
type Envelope struct {
	// Recipient is the device that they are encrypted to; empty: not known.
	Recipient string          `json:"recipient,omitempty"`
	Files     []EnvelopeEntry `json:"files"`
}

// EnvelopeEntry is one file.
type EnvelopeEntry struct {
	Name   string `json:"name"`
	Kind   string `json:"kind"`
	Format uint32 `json:"format"`
}

// WriteEnvelope records in a directory of the store what its encrypted files are, and
// which device they are encrypted to; without encrypted files it does nothing.
func WriteEnvelope(store afero.Fs, dir, recipient string, list []BackupFile) error {
	e := Envelope{Recipient: recipient}
	for _, f := range list {
		if f.Encrypted {
			e.Files = append(e.Files, EnvelopeEntry{f.Name, f.Kind.String(), f.Format})
		}
	}
	if len(e.Files) == 0 {
		return nil
	}
	data, err := json.Marshal(e)
	if err == nil {
		err = durable.ReplaceFile(store, path.Join(dir, envelopeFile), append(data, '\n'), 0o600)
	}
	if err != nil {
		return fmt.Errorf("backup %s: %w", dir, err)
	}
	return nil
}

// ReadEnvelope returns what WriteEnvelope recorded, and nothing if it recorded nothing.
func ReadEnvelope(store afero.Fs, dir string) (e Envelope, err error) {
	name := path.Join(dir, envelopeFile)
	f, err := store.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return e, nil
	}
	if err == nil {
		var data []byte
		data, err = io.ReadAll(io.LimitReader(f, maxMark))
		if err = errors.Join(err, f.Close()); err == nil {
			err = json.Unmarshal(data, &e)
		}
	}
	if err != nil {
		return e, fmt.Errorf("%s: %w", name, err)
	}
	return e, nil
}

// IsEncrypted reports whether a file is an age file.
func IsEncrypted(store afero.Fs, name string) (bool, error) {
	f, err := store.Open(name)
	if err != nil {
		return false, err
	}
	head, err := io.ReadAll(io.LimitReader(f, 128))
	return agefile.Is(head), errors.Join(err, f.Close())
}

// sealedHeader is configHeader for an encrypted file: the directory knows it or, if that has
// no description, a key reads it.
func (k Keys) sealedHeader(store afero.Fs, dir, name string) (mib.FileType, uint32, error) {
	e, err := ReadEnvelope(store, dir)
	if err != nil {
		return 0, 0, err
	}
	for _, entry := range e.Files {
		for _, kind := range ConfigKinds {
			if entry.Name == name && entry.Kind == kind.String() {
				return kind, entry.Format, nil
			}
		}
	}
	data, err := ReadAll(store, path.Join(dir, name))
	if err == nil {
		data, err = k.decrypt(data)
	}
	if err != nil {
		return 0, 0, err
	}
	return configHeader(data[:min(len(data), 128)])
}

// Check returns an error if files of a backup are encrypted and no key reads them.
func (k Keys) Check(store afero.Fs, dir string, list []BackupFile) error {
	for _, f := range list {
		if _, err := k.open(store, path.Join(dir, f.Name)); err != nil {
			return err
		}
	}
	return nil
}

// open returns the contents of a configuration file, decrypted if it is encrypted.
func (k Keys) open(store afero.Fs, name string) ([]byte, error) {
	data, err := ReadAll(store, name)
	if err != nil || !agefile.Is(data) {
		return data, err
	}
	if data, err = k.decrypt(data); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return data, nil
}

// decrypt returns the contents of an age file.
func (k Keys) decrypt(data []byte) ([]byte, error) {
	plain, err := agefile.Decrypt(data, k...)
	if errors.Is(err, agefile.ErrNotForKey) {
		err = ErrEncrypted
	}
	return plain, err
}

// Decrypt writes the contents of the files in a directory, plain text, to a directory of
// another file system, readable by its owner only.
func (k Keys) Decrypt(store afero.Fs, dir string, list []BackupFile, to afero.Fs, toDir string) error {
	if err := to.MkdirAll(toDir, 0o700); err != nil {
		return err
	}
	for _, f := range list {
		data, err := k.open(store, path.Join(dir, f.Name))
		if err == nil {
			err = durable.ReplaceFile(to, path.Join(toDir, f.Name), data, 0o600)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Encrypt writes the files in a directory, which may be encrypted to these keys, to a
// directory of the store, encrypted to a device and to the keys, and returns them as they
// are there. The device is an age recipient; empty: the keys only.
func (k Keys) Encrypt(from afero.Fs, dir string, list []BackupFile, device string, store afero.Fs, toDir string) ([]BackupFile, error) {
	var to []agefile.Recipient
	if device != "" {
		r, err := agefile.ParseRecipient(device)
		if err != nil {
			return nil, fmt.Errorf("iadUpgBackupRecipient of the device: %w", err)
		}
		to = append(to, r)
	}
	for _, id := range k {
		to = append(to, id.Recipient())
	}
	sealed := make([]BackupFile, len(list))
	for i, f := range list {
		data, err := k.open(from, path.Join(dir, f.Name))
		if err != nil {
			return nil, err
		}
		if f.Kind, f.Format, err = configHeader(data[:min(len(data), 128)]); err != nil {
			return nil, fmt.Errorf("%s: %w", path.Join(dir, f.Name), err)
		}
		if data, err = agefile.Encrypt(data, to...); err != nil {
			return nil, fmt.Errorf("%s: %w", path.Join(dir, f.Name), err)
		}
		name := path.Join(toDir, f.Name)
		if err := durable.ReplaceFile(store, name, data, 0o600); err != nil {
			return nil, err
		}
		if f.Size, f.DeviceDigest, err = digestFile(store, name); err != nil {
			return nil, err
		}
		f.ServerDigest, f.Encrypted = f.DeviceDigest, true
		sealed[i] = f
	}
	return sealed, WriteEnvelope(store, toDir, device, sealed)
}

// EncryptCopy is Encrypt into a new directory beside dir.
func (k Keys) EncryptCopy(store afero.Fs, dir string, list []BackupFile, device string) (copied string, sealed []BackupFile, err error) {
	for n := 1; ; n++ {
		copied = fmt.Sprintf("%s%s%d", dir, EncryptedMark, n)
		err := store.Mkdir(copied, 0o700)
		if err == nil {
			break
		}
		if exists, _ := afero.DirExists(store, copied); !exists || n == 1000 {
			return "", nil, fmt.Errorf("encrypted copy of the backup: %w", err)
		}
	}
	if sealed, err = k.Encrypt(store, dir, list, device, store, copied); err != nil {
		return "", nil, err
	}
	return copied, sealed, durable.SyncDir(store, path.Dir(copied))
}

// Open returns the contents of the files of a backup by their kind, decrypted.
func (k Keys) Open(store afero.Fs, dir string) (map[mib.FileType][]byte, error) {
	list, err := k.ReadBackup(store, dir)
	if err != nil {
		return nil, err
	}
	contents := make(map[mib.FileType][]byte)
	for _, f := range list {
		if contents[f.Kind], err = k.open(store, path.Join(dir, f.Name)); err != nil {
			return nil, err
		}
		kind, format, err := configHeader(contents[f.Kind])
		if err == nil && (kind != f.Kind || format != f.Format) {
			err = fmt.Errorf("it holds %s of format %d, recorded is %s of format %d", kind, format, f.Kind, f.Format)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path.Join(dir, f.Name), err)
		}
	}
	return contents, nil
}

// copyEnvelope copies what is known of encrypted files, if anything is.
func copyEnvelope(store afero.Fs, from, to string) error {
	data, err := afero.ReadFile(store, path.Join(from, envelopeFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = durable.ReplaceFile(store, path.Join(to, envelopeFile), data, 0o600)
	}
	return err
}
