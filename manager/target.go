package manager

import (
	"context"

	"github.com/spf13/afero"

	"example.com/iad/manager/device"
	"example.com/iad/manager/files"
)

// bindTarget compares the device with the one that the name of the plan's target stood
// for when it was used first, and its device ID with those that other names stand for.
// known is what is recorded of the device ID. It returns the name that holds it.
func (u *upgrade) bindTarget(ctx context.Context, store afero.Fs, known device.Identity) (holder string, _ error) {
	target, got := u.plan.Target, u.identity()
	if target.Name == "" {
		return known.Target, nil
	}
	was, found, err := files.ReadIdentityFile(store, files.TargetFile(target.Name))
	if err != nil {
		return "", err
	}
	if found && was.Device != got.Device {
		err := u.allow(ctx, "the name "+device.Quoted(target.Name), was,
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
	if held, found, err := files.ReadIdentityFile(store, files.TargetFile(other)); err != nil || !found || held.Device != got.Device {
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
	was, found, err := files.ReadIdentityFile(store, files.TargetFile(name))
	if err != nil || found && was.Device == got.Device && was.Address == got.Address {
		return err
	}
	return files.WriteIdentityFile(store, files.TargetFile(name), got)
}
