package worker

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"path"

	"github.com/spf13/afero"

	"example.com/iad/fleet"
	"example.com/iad/fleet/engine"
	"example.com/iad/internal/durable"
	"example.com/iad/manager"
	"example.com/iad/manager/device"
	"example.com/iad/manager/files"
	"example.com/iad/mib"
)

// fileServer is the worker's file servers for one run. What devices send is stored in the
// engine before step 120 passes.
type fileServer struct {
	*files.Servers
	run *run
}

var (
	_ files.FileServer = fileServer{}
	_ files.ShortLived = fileServer{}
)

// Open implements files.FileServer.
func (f fileServer) Open(p device.Protocol, deviceID, target string) (files.Session, error) {
	inner, err := f.Servers.OpenLimited(p, deviceID, target, f.run.worker.limit(f.run.campaign))
	if err != nil {
		return nil, err
	}
	return &session{Session: inner, run: f.run, deviceID: deviceID}, nil
}

// limit returns the limit of the transfers of a campaign on this worker, nil if there is none.
func (w *Worker) limit(c *fleet.Campaign) *files.Limit {
	bytes := int(c.Spec.Caps.BytesPerSecond)
	if bytes <= 0 {
		return nil
	}
	w.limitsMu.Lock()
	defer w.limitsMu.Unlock()
	if w.limits[c.ID] == nil {
		w.limits[c.ID] = files.NewLimit(c.ID, bytes)
	}
	return w.limits[c.ID]
}

type session struct {
	files.Session
	run      *run
	deviceID string
}

var _ files.SlotTaker = (*session)(nil)

// TakeSlot implements files.SlotTaker.
func (s *session) TakeSlot(ctx context.Context, waits func()) (release func(), err error) {
	if t, ok := s.Session.(files.SlotTaker); ok {
		return t.TakeSlot(ctx, waits)
	}
	return func() {}, nil
}

// Resume implements files.Session. The directory may be on the machine of another worker.
func (s *session) Resume(dir string, list []files.BackupFile) {
	if err := durable.MkdirAll(s.run.worker.local, dir, 0o700); err != nil {
		s.run.log.Warn("directory for the backup", "err", err)
	}
	s.Session.Resume(dir, list)
}

// Keep implements files.Session: the backup is in the engine, and its digests were read
// back.
func (s *session) Keep(dir string, list []files.BackupFile) error {
	if err := s.Session.Keep(dir, list); err != nil {
		return err
	}
	b, data, err := s.run.describe(s.deviceID, dir, list)
	if err != nil {
		return err
	}
	b.Good = true
	if err := s.run.worker.cfg.Store.AddBackup(s.run.ctx, b, data); err != nil {
		return fmt.Errorf("backup of %s not stored: %w", s.run.run.Device, err)
	}
	s.run.mu.Lock()
	s.run.run.Backup = b.ID // stored with the next change of the journal
	s.run.mu.Unlock()
	return nil
}

// describe reads the files of a local backup.
func (r *run) describe(deviceID, dir string, list []files.BackupFile) (*fleet.Backup, map[string][]byte, error) {
	b := &fleet.Backup{ID: path.Base(dir), Device: r.run.Device, DeviceID: deviceID, Campaign: r.run.Campaign}
	if record := r.run.Record; record != nil {
		b.Version = record.OldVersion
	}
	b.Time = r.run.Claim.Time
	data := make(map[string][]byte)
	for _, f := range list {
		content, err := files.ReadAll(r.worker.local, path.Join(dir, f.Name))
		if err != nil {
			return nil, nil, fmt.Errorf("backup: %w", err)
		}
		kind := f.Kind.String()
		data[kind] = content
		b.Format = f.Format
		b.Files = append(b.Files, fleet.BackupFile{Kind: kind, Size: f.Size, Digest: hex.EncodeToString(f.DeviceDigest)})
	}
	return b, data, nil
}

// fetchBackup copies the run's backup to this machine, if another worker has made it.
func (r *run) fetchBackup() error {
	record := r.run.Record
	if record.Directory == "" {
		return nil
	}
	if record.Modified != nil {
		if exists, err := afero.DirExists(r.worker.local, record.Modified.Directory); err == nil && !exists {
			r.forgetModified(record)
		}
	}
	b, _, err := r.worker.cfg.Store.Backups.Get(r.ctx, r.run.Device, path.Base(record.Directory))
	if errors.Is(err, engine.ErrNotFound) {
		return nil // step 120 has not passed: the manager makes it again
	}
	if err != nil {
		return err
	}
	return r.fetch(b, record.Directory)
}

// forgetModified has the data modified again that another worker has modified, unless the
// device has them already.
func (r *run) forgetModified(record *manager.Record) {
	for _, task := range record.Tasks {
		if task.Kind == mib.OperationKindRecoverConfig && task.Done {
			return
		}
	}
	record.Modified = nil
}

// fetch copies a backup into a local directory. What is there may be damaged after a loss
// of power.
func (r *run) fetch(b *fleet.Backup, dir string) error {
	local := r.worker.local
	if _, err := files.ReadBackup(local, dir); err == nil && files.Complete(local, dir) {
		return nil
	}
	if err := durable.MkdirAll(local, dir, 0o700); err != nil {
		return err
	}
	var lines []byte
	var encrypted []files.BackupFile
	for _, f := range b.Files {
		data, err := r.worker.cfg.Store.BackupFile(r.ctx, b, f.Kind)
		if err != nil {
			return err
		}
		if err := durable.ReplaceFile(local, path.Join(dir, f.Kind+".cfg"), data, 0o600); err != nil {
			return err
		}
		lines = fmt.Appendf(lines, "%s  %s.cfg\n", f.Digest, f.Kind)
		sealed, err := files.IsEncrypted(local, path.Join(dir, f.Kind+".cfg"))
		if err != nil {
			return err
		}
		if kind, ok := mib.ParseFileType(f.Kind); ok && sealed {
			encrypted = append(encrypted, files.BackupFile{Name: f.Kind + ".cfg", Kind: kind, Format: b.Format, Encrypted: true})
		}
	}
	if err := files.WriteEnvelope(local, dir, "", encrypted); err != nil {
		return err
	}
	return files.MarkComplete(local, dir, lines)
}
