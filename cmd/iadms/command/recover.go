package command

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/afero"
	"github.com/spf13/cobra"

	"example.com/iad/internal/cli"
	"example.com/iad/manager"
	"example.com/iad/manager/files"
)

func newRecover(g *globals) *cobra.Command {
	o := &operationOptions{globals: g, transfersFiles: true}
	o.perform = o.recover
	cmd := &cobra.Command{
		Use:   "recover TARGET",
		Short: "Recover the configuration data of a device from a backup",
		Long: `Recover the configuration data of a device from a backup that this machine keeps. The
device converts data whose format differs from that of its software. Before anything is
sent, the files are compared with the digests recorded when the backup was made.

--from names a backup of the device, or the path of a directory in the store. To recover
something other than what was backed up, copy the backup's directory to another name
beside it, remove .complete from the copy, edit it, and name it with --from. Data that an
upgrade modified are in such a directory already.

A backup belongs to the device that it was made of: its device ID and, with SNMPv3, its
engine ID. To give a replacement unit the data of the unit that it replaces, name the
directory with --from and add --other-device.

A device gets back its own encrypted backup as it is. What another device has encrypted, or
what is plain, is encrypted for it first; to read the former, --identity names the file with
the operator's key.`,
		Example: `  iadms recover 192.0.2.10
  iadms recover 192.0.2.10 --from 20260102T030405Z-1
  iadms recover 192.0.2.11 --from backup/OLD-UNIT/20260102T030405Z-1 \
    --other-device --identity operator.key`,
	}
	o.register(cmd)
	cmd.Flags().StringVar(&o.from, "from", "", "`directory` of the backup (default: the newest complete one of the device that holds data)")
	o.registerOtherDevice(cmd)
	o.identity.register(cmd.Flags())
	return cmd
}

func (o *operationOptions) registerOtherDevice(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&o.otherDevice, "other-device", false, "permit a device whose identity differs from the recorded one")
}

func (o *operationOptions) recover(ctx context.Context, plan manager.Plan, operator manager.Operator, observe manager.Observer) (manager.Result, error) {
	if o.otherDevice && o.from == "" {
		return manager.Result{}, cli.Usage(errors.New("--other-device needs --from: name the directory of the backup"))
	}
	device, err := plan.Client.Device(ctx)
	if err != nil {
		return manager.Result{}, err
	}
	store := afero.NewBasePathFs(afero.NewOsFs(), o.store)
	dir, err := o.chooseBackup(store, device.ID)
	if err != nil {
		return manager.Result{}, err
	}
	list, err := plan.Keys.ReadBackup(store, dir)
	if err != nil {
		return manager.Result{}, err
	}
	return manager.Recover(ctx, plan, dir, list, operator, observe)
}

// chooseBackup returns the directory that --from names, or the newest complete one with
// data.
func (o *operationOptions) chooseBackup(store afero.Fs, device string) (string, error) {
	if strings.ContainsRune(strings.TrimRight(filepath.ToSlash(o.from), "/"), '/') {
		return o.backupAt(store)
	}
	dirs, err := files.Backups(store, device)
	if err != nil {
		return "", err
	}
	if len(dirs) == 0 {
		return "", fmt.Errorf("no backups of %s in %s", device, o.store)
	}
	if o.from == "" {
		for _, dir := range slices.Backward(dirs) {
			if files.Complete(store, dir) && files.HoldsData(store, dir) {
				return dir, nil
			}
		}
		return "", cli.Usage(fmt.Errorf("no backup of %s is known to be complete and to hold data; name one with --from:\n  %s", device, strings.Join(dirs, "\n  ")))
	}
	dir := path.Join(path.Dir(dirs[0]), filepath.ToSlash(o.from))
	if exists, err := afero.DirExists(store, dir); err == nil && exists && path.Dir(dir) == path.Dir(dirs[0]) {
		return dir, nil
	}
	return "", cli.Usage(fmt.Errorf("no backup %s of %s; there are:\n  %s", o.from, device, strings.Join(dirs, "\n  ")))
}

// backupAt returns the directory in the store for the path in --from: a path on this
// machine, or one within the store as iadms prints it.
func (o *operationOptions) backupAt(store afero.Fs) (string, error) {
	dir := strings.TrimPrefix(path.Clean("/"+filepath.ToSlash(o.from)), "/")
	if info, err := os.Stat(o.from); err == nil {
		within, ok := o.withinStore()
		if !info.IsDir() || !ok {
			return "", cli.Usage(fmt.Errorf("--from %s: not a directory of the store %s; copy it into backup/DEVICE/ there first", o.from, o.store))
		}
		dir = within
	}
	parts := strings.Split(dir, "/")
	exists, err := afero.DirExists(store, dir)
	if err != nil || !exists {
		return "", cli.Usage(fmt.Errorf("--from %s: no such directory, neither here nor in the store %s", o.from, o.store))
	}
	if len(parts) != 3 || parts[0] != "backup" || strings.HasPrefix(parts[2], ".") {
		return "", cli.Usage(fmt.Errorf("--from %s: not a backup; the store has them in backup/DEVICE/TIME-N", o.from))
	}
	return dir, nil
}

// withinStore returns the path of --from relative to the store.
func (o *operationOptions) withinStore() (string, bool) {
	from, err := filepath.Abs(o.from)
	if err == nil {
		from, err = filepath.EvalSymlinks(from)
	}
	store, storeErr := filepath.Abs(o.store)
	if storeErr == nil {
		store, storeErr = filepath.EvalSymlinks(store)
	}
	if err != nil || storeErr != nil {
		return "", false
	}
	rel, err := filepath.Rel(store, from)
	return filepath.ToSlash(rel), err == nil && filepath.IsLocal(rel)
}
