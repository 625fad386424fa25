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

// identityFile is in the directory of each backup, and for all backups of a device in the
// directory above. Names from the network never begin with a dot.
const identityFile = ".identity"

// RecordedIdentity returns the identity that the store of [Servers] records for a device
// ID. It returns false if there is none, because the device was never reached by SNMPv3
// or under a configured name.
func RecordedIdentity(files afero.Fs, deviceID string) (device.Identity, bool, error) {
	return ReadIdentity(files, path.Join("backup", device.DirectoryName(deviceID)))
}

// ReadIdentity returns the identity that a directory records; false if it records none.
func ReadIdentity(files afero.Fs, dir string) (id device.Identity, known bool, err error) {
	return ReadIdentityFile(files, path.Join(dir, identityFile))
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

// WriteIdentity records in a directory which device its backups belong to.
func WriteIdentity(files afero.Fs, dir string, id device.Identity) error {
	return WriteIdentityFile(files, path.Join(dir, identityFile), id)
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

// ConfiguredTarget is a device in the operator's configuration, under a name that stands
// for one unit wherever it is reached.
type ConfiguredTarget struct {
	// Name is the name in the configuration. It is empty if the device was given by its
	// address, from which nothing is concluded, because addresses change.
	Name string
	// StandsFor reports whether another name, recorded for a device ID, still is a
	// different device in the configuration; nil: every name is. A name that was removed or
	// has the same address is not.
	StandsFor func(name string) bool
}

// TargetFile returns the file with the device that a configured name stands for. The
// .identity of that device's backups names the target; if the two disagree, the target's
// file counts.
func TargetFile(name string) string { return path.Join("target", device.DirectoryName(name)+".json") }
