package iadtest

import (
	"testing"
	"time"

	"github.com/spf13/afero"
	"go.uber.org/goleak"

	"example.com/iad/manager/device"
	"example.com/iad/manager/files"
	"example.com/iad/mib"
	"example.com/iad/transfer"
)

// OneKind is for backups of one file.
var OneKind = []mib.FileType{mib.FileTypeUserData}

// StartServers starts servers for a test that does not run beside others: they leave
// nothing running behind.
func StartServers(t testing.TB, change func(*files.ServersConfig)) (*files.Servers, afero.Fs) {
	t.Helper()
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, before) })
	return StartServersBeside(t, change)
}

// StartServersBeside is StartServers for parallel tests.
func StartServersBeside(t testing.TB, change func(*files.ServersConfig)) (*files.Servers, afero.Fs) {
	t.Helper()
	cfg := files.ServersConfig{
		Files: afero.NewMemMapFs(), TFTP: "127.0.0.1:0", FTP: "127.0.0.1:0", MaxUpload: 100_000,
		Now: func() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC) },
	}
	if change != nil {
		change(&cfg)
	}
	s, err := files.StartServers(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s, cfg.Files
}

// DeviceClient is the client that devices use.
func DeviceClient(t testing.TB, s *files.Servers, a device.FileServerAddress, port int, o transfer.Options) *transfer.Client {
	t.Helper()
	o.Pin = s.Fingerprint()
	c, err := transfer.New(transfer.Server{
		Protocol: a.Protocol, Host: a.Host, Port: port, User: a.User, Password: a.Password, Timeout: a.Timeout,
	}, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// OpenBackup opens a session of device A and a backup of one file in it.
func OpenBackup(t testing.TB, s *files.Servers, p device.Protocol) (session files.Session, dir string) {
	t.Helper()
	session, err := s.Open(p, "A", "127.0.0.1:161")
	if err != nil {
		t.Fatal(err)
	}
	if dir, _, err = session.NewBackup(OneKind); err != nil {
		t.Fatal(err)
	}
	return session, dir
}
