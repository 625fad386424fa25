package files

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"path"

	"github.com/spf13/afero"

	"example.com/iad/internal/durable"
	"example.com/iad/manager/device"
	"example.com/iad/mib"
)

// serverSession is one device's part of the embedded servers.
type serverSession struct {
	servers *Servers
	target  string // where the device is reached by SNMP
	home    string // of all backups of its device ID
	server  device.FileServerAddress
	grant   *grant
}

func (s *serverSession) Address() device.FileServerAddress { return s.server }

func (s *serverSession) NewBackup(kinds []mib.FileType) (string, []BackupFile, error) {
	store, stamp := s.servers.store, s.servers.cfg.Now().UTC().Format("20060102T150405Z")
	dir := ""
	for n := 1; ; n++ {
		dir = path.Join(s.home, fmt.Sprintf("%s-%d", stamp, n))
		err := store.files.Mkdir(dir, 0o700)
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrExist) || n == 1000 {
			return "", nil, fmt.Errorf("directory for the backup: %w", err)
		}
	}
	if err := durable.SyncDir(store.files, s.home); err != nil {
		return "", nil, fmt.Errorf("directory for the backup: %w", err)
	}
	files := make([]BackupFile, len(kinds))
	for i, kind := range kinds {
		files[i] = BackupFile{Kind: kind, Name: kind.String() + ".cfg"}
	}
	s.Resume(dir, files)
	return dir, files, nil
}

func (s *serverSession) Resume(dir string, files []BackupFile) {
	final := make(map[string]bool, len(files))
	for _, f := range files {
		final[f.Name] = true
	}
	s.servers.store.mu.Lock()
	defer s.servers.store.mu.Unlock()
	s.grant.directory, s.grant.final = dir, final
}

func (s *serverSession) Seal() {
	s.servers.store.mu.Lock()
	defer s.servers.store.mu.Unlock()
	s.grant.directory, s.grant.final = "", nil
}

func (s *serverSession) Offer(dir string) {
	s.servers.store.mu.Lock()
	defer s.servers.store.mu.Unlock()
	s.grant.offered = dir
}

func (s *serverSession) Keep(dir string, files []BackupFile) error {
	return markComplete(s.servers.store.files, dir, files)
}

func (s *serverSession) Directory(dir string) string { return dir }

func (s *serverSession) Local(string, []BackupFile) afero.Fs { return s.servers.store.files }

func (s *serverSession) Place(dir string, _ []BackupFile) string { return dir }

func (s *serverSession) Provide(_ context.Context, dir string, files []BackupFile) ([]BackupFile, error) {
	s.Offer(dir)
	return files, nil
}

func (s *serverSession) Publish(img *Image) (dir, name string, err error) {
	return s.servers.publish(img, s.grant.limit), img.FileName(), nil
}

func (s *serverSession) Digest(_ context.Context, dir, name string) (int64, []byte, error) {
	return digestFile(s.servers.store.files, path.Join(dir, name))
}

func (s *serverSession) Close() {
	s.servers.store.mu.Lock()
	defer s.servers.store.mu.Unlock()
	s.grant.closed = true
	delete(s.servers.store.grants, s.grant.user)
}

var _ SlotTaker = (*serverSession)(nil)

func (s *serverSession) TakeSlot(ctx context.Context, waits func()) (release func(), err error) {
	host, _, err := net.SplitHostPort(s.target)
	if err != nil {
		host = s.target
	}
	if address, err := netip.ParseAddr(host); err == nil {
		host = hostOf(address).String()
	}
	return s.servers.slots.take(ctx, host, waits)
}
