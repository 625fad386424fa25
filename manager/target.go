package manager

import (
	"context"
	"path"

	"github.com/spf13/afero"
)

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

// targetFile says which device a configured name stands for. The .identity of that
// device's backups names the target in turn; if the two disagree, this one counts.
func targetFile(name string) string { return path.Join("target", folderName(name)+".json") }

// bindTarget compares the device with the one that the name of the plan's target stood
// for when it was used first, and its device ID with those that other names stand for.
// known is what is recorded of the device ID. It returns the name that holds it.
func (u *upgrade) bindTarget(ctx context.Context, store afero.Fs, known Identity) (holder string, _ error) {
	target, got := u.plan.Target, u.identity()
	if target.Name == "" {
		return known.Target, nil
	}
	was, found, err := readIdentityFile(store, targetFile(target.Name))
	if err != nil {
		return "", err
	}
	if found && was.Device != got.Device {
		err := u.allow(ctx, "the name "+quoted(target.Name), was,
			"correct the address in the configuration, or use --other-device if this device has replaced the other one")
		if err != nil {
			return "", err
		}
	}
	// An authentic engine ID says that it is that device, by another name.
	same := got.EngineID != "" && got.EngineID == known.EngineID
	other := known.Target
	if other == "" || other == target.Name || same || target.StandsFor != nil && !target.StandsFor(other) {
		return target.Name, nil
	}
	if held, found, err := readIdentityFile(store, targetFile(other)); err != nil || !found || held.Device != got.Device {
		return target.Name, err
	}
	err = u.allow(ctx, "its device ID", known, "give each unit a device ID of its own, or use --other-device if this is the same unit or its replacement")
	return target.Name, err
}

// recordTarget keeps which device the name of the plan's target stands for.
func (u *upgrade) recordTarget(store afero.Fs) error {
	name, got := u.plan.Target.Name, u.identity()
	if name == "" {
		return nil
	}
	was, found, err := readIdentityFile(store, targetFile(name))
	if err != nil || found && was.Device == got.Device && was.Address == got.Address {
		return err
	}
	return writeIdentityFile(store, targetFile(name), got)
}
