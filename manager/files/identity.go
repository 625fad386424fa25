package files

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"

	"github.com/spf13/afero"

	"example.com/iad/internal/durable"
	"example.com/iad/manager/device"
)

// identityFile is in the folder of each backup, and in the folder above, of all backups
// of a device. No name from the network is hidden.
const identityFile = ".identity"

// RecordedIdentity returns the identity that the store of [Servers] knows a device ID by;
// false if it does not know it, or has never reached it by SNMPv3 or by a configured name.
func RecordedIdentity(files afero.Fs, deviceID string) (device.Identity, bool, error) {
	return ReadIdentity(files, path.Join("backup", device.FolderName(deviceID)))
}

// ReadIdentity returns the identity that a folder records; false if it records none.
func ReadIdentity(files afero.Fs, folder string) (id device.Identity, known bool, err error) {
	return ReadIdentityFile(files, path.Join(folder, identityFile))
}

// ReadIdentityFile is ReadIdentity for the name of a file.
func ReadIdentityFile(files afero.Fs, name string) (id device.Identity, known bool, err error) {
	f, err := files.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return id, false, nil
	}
	if err != nil {
		return id, false, fmt.Errorf("identity: %w", err)
	}
	data, err := io.ReadAll(io.LimitReader(f, 4096))
	if err = errors.Join(err, f.Close()); err == nil {
		err = json.Unmarshal(data, &id)
	}
	if err != nil {
		return id, false, fmt.Errorf("identity: %s is damaged; remove it if the device is known to be the right one: %w", name, err)
	}
	return id, true, nil
}

// WriteIdentity records in a folder which device its backups are of.
func WriteIdentity(files afero.Fs, folder string, id device.Identity) error {
	return WriteIdentityFile(files, path.Join(folder, identityFile), id)
}

// WriteIdentityFile is WriteIdentity for the name of a file.
func WriteIdentityFile(files afero.Fs, name string, id device.Identity) error {
	data, err := json.Marshal(id)
	if err == nil {
		err = durable.MkdirAll(files, path.Dir(name), 0o700)
	}
	if err == nil {
		err = durable.ReplaceFile(files, name, append(data, '\n'), 0o600)
	}
	if err != nil {
		return fmt.Errorf("identity of the device: %w", err)
	}
	return nil
}

// ConfiguredTarget is a device of the operator's configuration, known by a name that stands for
// one unit wherever that is reached.
type ConfiguredTarget struct {
	// Name is what the configuration calls the device; empty: it was given by its
	// address, which is judged by nothing, because addresses change.
	Name string
	// StandsFor reports whether another name that a device ID was met under still is
	// a device of its own in the configuration; nil: each one is. A name that was
	// removed, or has the same address as this one, is not.
	StandsFor func(name string) bool
}

// TargetFile says which device a configured name stands for. The .identity of that
// device's backups names the target in turn; if the two disagree, this one counts.
func TargetFile(name string) string { return path.Join("target", device.FolderName(name)+".json") }
