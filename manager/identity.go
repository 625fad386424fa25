package manager

import (
	"context"
	"fmt"
	"path"
	"strings"

	"github.com/spf13/afero"

	"example.com/iad/manager/device"
	"example.com/iad/manager/files"
)

// identity is the identity of the device that the procedure is about.
func (u *upgrade) identity() device.Identity {
	id := u.plan.Client.Identity()
	id.Device, id.Target, id.Time = u.device.ID, u.plan.Target.Name, u.plan.Clock.Now().UTC()
	return id
}

// permitted returns an error if something belongs to another device, unless the plan or
// the operator permits that.
func (u *upgrade) permitted(ctx context.Context, what string, want device.Identity, remedy string) error {
	if want.Same(u.identity()) {
		return nil
	}
	return u.allow(ctx, what, want, remedy)
}

// allow asks the plan or the operator to permit a device that something does not belong
// to.
func (u *upgrade) allow(ctx context.Context, what string, want device.Identity, remedy string) error {
	got := u.identity()
	err := &device.IdentityError{What: what, Want: want, Got: got, Remedy: remedy}
	if u.plan.OtherDevice || u.plan.Accept != nil && u.plan.Accept(ctx, err.Error()) {
		u.warn(0, fmt.Sprintf("%s belongs to %s, and is used with %s", what, want, got))
		return nil
	}
	return err
}

// bind compares the device with the one that the backups of its device ID belong to, and
// with the one that the configured name stands for. The first identity seen is recorded.
func (u *upgrade) bind(ctx context.Context) error {
	home := path.Join("backup", device.DirectoryName(u.device.ID))
	store := u.session.Local(home, nil)
	if store == nil {
		return nil
	}
	known, found, err := files.ReadIdentity(store, home)
	if err != nil {
		return err
	}
	got := u.identity()
	if got.EngineID == "" {
		u.note(0, "SNMPv2c: the device is recognized by its device ID alone; two units with the same device ID cannot be distinguished")
	}
	if found {
		err := u.permitted(ctx, home, known, "use --other-device if this is the same unit with a new engine ID, or its replacement")
		if err != nil {
			return err
		}
	}
	if got.Target, err = u.bindTarget(ctx, store, known); err != nil || u.plan.CheckOnly {
		return err
	}
	if got.EngineID == "" {
		got.EngineID = known.EngineID
	}
	if got.EngineID != known.EngineID || got.Target != known.Target {
		if err := files.WriteIdentity(store, home, got); err != nil {
			return err
		}
	}
	return u.recordTarget(store)
}

// warnOfIdentity warns if the backups of the device's ID belong to another device. It is
// for commands that use no data of the store.
func (u *upgrade) warnOfIdentity() {
	store := u.session.Local(path.Join("backup", device.DirectoryName(u.device.ID)), nil)
	if store == nil {
		return
	}
	if text := IdentityWarning(store, u.identity()); text != "" {
		u.warn(0, text)
	}
}

// IdentityWarning says how a device differs from the one that the store of [Servers]
// records for its device ID or for its target's name. It is empty if they agree or
// nothing is recorded.
func IdentityWarning(disk afero.Fs, id device.Identity) string {
	known, found, err := files.RecordedIdentity(disk, id.Device)
	same := known.Same(id)
	if id.Target != "" && err == nil && (!found || same) {
		known, found, err = files.ReadIdentityFile(disk, files.TargetFile(id.Target))
		same = known.Device == id.Device
	}
	switch {
	case err != nil:
		return err.Error()
	case !found || same:
		return ""
	}
	return fmt.Sprintf("%s has another identity than recorded: %s", id, known)
}

// ownBackup refuses to send a device the data of another one.
func (u *upgrade) ownBackup(ctx context.Context, dir string) error {
	want := device.Identity{Device: u.device.ID}
	if store := u.session.Local(dir, nil); store != nil {
		for _, name := range []string{dir, files.Original(dir)} {
			id, found, err := files.ReadIdentity(store, name)
			if err != nil {
				return err
			}
			if found {
				want = id
				break
			}
		}
	}
	// The directory counts as well: earlier versions recorded nothing in it.
	if home := path.Base(path.Dir(dir)); want.Device == u.device.ID && strings.HasPrefix(dir, "backup/") && home != device.DirectoryName(u.device.ID) {
		want = device.Identity{Device: home}
	}
	return u.permitted(ctx, dir, want, "name the directory with --from and permit it with --other-device")
}

// bindTarget compares the device with the one that the target's name stood for when it
// was first used, and its device ID with those of other names. known is what is recorded
// for the device ID. It returns the name that the device ID belongs to.
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
	// An authentic engine ID proves that it is the same device under another name.
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

// recordTarget records which device the target's name stands for.
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
