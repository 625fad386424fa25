// Package archive copies backups to plain files, for people and for the day on which the
// service does not run: DIR/DEVICE/ID/KIND.cfg, and SHA256SUMS beside them.
package archive

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path"

	"github.com/spf13/afero"

	"example.com/iad/fleet"
	"example.com/iad/fleet/engine"
	"example.com/iad/fleet/store"
	"example.com/iad/internal/durable"
	"example.com/iad/manager/device"
)

// sums is the file that says that the backup beside it was copied completely. sha256sum -c
// reads it.
const sums = "SHA256SUMS"

// Copy copies the good backups that exist and those that are made, until ctx ends. What
// retention removes from the service is removed here too.
func Copy(ctx context.Context, s *store.Store, dir afero.Fs, log *slog.Logger) error {
	known := make(map[string]string) // directories by key
	return s.Backups.Watch(ctx, func(c store.Change[fleet.Backup]) error {
		switch {
		case c.Synced:
			return nil
		case c.Damaged: // its copy may be the last, and stays when the entry is removed
			delete(known, c.Key)
			return nil
		case c.Value == nil:
			if old, ok := known[c.Key]; ok {
				if err := dir.RemoveAll(old); err != nil {
					log.Warn("copy of a backup not removed", "directory", old, "err", err)
				}
				delete(known, c.Key)
			}
			return nil
		}
		to := path.Join(device.DirectoryName(c.Value.Device), device.DirectoryName(c.Value.ID))
		known[c.Key] = to
		err := copyOne(ctx, s, dir, to, c.Value)
		if err != nil && ctx.Err() == nil && !errors.Is(err, engine.ErrNotFound) {
			log.Error("backup not copied to a plain file; it is copied at the next start", "device", c.Value.Device, "backup", c.Value.ID, "err", err)
		}
		return nil
	})
}

// copyOne copies a backup, unless it is there.
func copyOne(ctx context.Context, s *store.Store, dir afero.Fs, to string, b *fleet.Backup) error {
	if _, err := dir.Stat(path.Join(to, sums)); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := durable.MkdirAll(dir, to, 0o700); err != nil {
		return err
	}
	var list []byte
	for _, f := range b.Files {
		data, err := s.BackupFile(ctx, b, f.Kind)
		if err != nil {
			return err
		}
		name := device.DirectoryName(f.Kind) + ".cfg"
		if err := durable.ReplaceFile(dir, path.Join(to, name), data, 0o600); err != nil {
			return err
		}
		list = fmt.Appendf(list, "%s  %s\n", f.Digest, name)
	}
	return durable.ReplaceFile(dir, path.Join(to, sums), list, 0o600)
}
