package files_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/jlaffaye/ftp"
	"github.com/pin/tftp/v3"
	"github.com/spf13/afero"

	"example.com/iad/bank/image"
	"example.com/iad/internal/iadtest"
	"example.com/iad/internal/imagetest"
	"example.com/iad/manager/device"
	"example.com/iad/manager/files"
	"example.com/iad/mib"
)

// fileClient is one protocol of the two, as the tests use it.
type fileClient interface {
	put(name string, data []byte) error
	get(name string) ([]byte, error)
}

type tftpClient struct{ *tftp.Client }

func (c tftpClient) put(name string, data []byte) error {
	w, err := c.Send(name, "octet")
	if err != nil {
		return err
	}
	_, err = w.ReadFrom(bytes.NewReader(data))
	return err
}

func (c tftpClient) get(name string) ([]byte, error) {
	r, err := c.Receive(name, "octet")
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	_, err = r.WriteTo(&b)
	return b.Bytes(), err
}

type ftpClient struct{ *ftp.ServerConn }

func (c ftpClient) put(name string, data []byte) error { return c.Stor(name, bytes.NewReader(data)) }

func (c ftpClient) get(name string) ([]byte, error) {
	r, err := c.Retr(name)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(r)
	return data, errors.Join(err, r.Close())
}

// open opens a session for a device and connects a client with it.
func open(t *testing.T, s *files.Servers, p device.Protocol, deviceID string) (files.Session, fileClient) {
	t.Helper()
	return openLimited(t, s, p, deviceID, nil)
}

func openLimited(t *testing.T, s *files.Servers, p device.Protocol, deviceID string, limit *files.Limit) (files.Session, fileClient) {
	t.Helper()
	session, err := s.OpenLimited(p, deviceID, "127.0.0.1:161", limit)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(session.Close)
	a := session.Address()
	address := net.JoinHostPort(a.Host, fmt.Sprint(a.Port))
	if p == device.TFTP {
		c, err := tftp.NewClient(address)
		if err != nil {
			t.Fatal(err)
		}
		c.SetBlockSize(1400)
		return session, tftpClient{c}
	}
	return session, login(t, a)
}

// login is a connection of its own for FTP.
func login(t *testing.T, a device.FileServerAddress) fileClient {
	t.Helper()
	c, err := ftp.Dial(net.JoinHostPort(a.Host, fmt.Sprint(a.Port)), ftp.DialWithTimeout(5*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Quit() })
	if err := c.Login(a.User, a.Password); err != nil {
		t.Fatal(err)
	}
	return ftpClient{c}
}

func eachProtocol(t *testing.T, test func(t *testing.T, p device.Protocol)) {
	for _, p := range []device.Protocol{device.TFTP, device.FTP} {
		t.Run(p.String(), func(t *testing.T) { test(t, p) })
	}
}

func TestServersBackup(t *testing.T) {
	eachProtocol(t, func(t *testing.T, p device.Protocol) {
		s, disk := iadtest.StartServers(t, nil)
		session, c := open(t, s, p, "dev/../1")
		dir, backup, err := session.NewBackup(iadtest.OneKind)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(dir, "..") || path.Dir(path.Dir(dir)) != "backup" {
			t.Errorf("directory %s", dir)
		}
		name := path.Join(dir, backup[0].Name)
		data := bytes.Repeat([]byte("0123456789"), 5000)
		if err := c.put(name, data); err != nil {
			t.Fatal(err)
		}
		want := sha256.Sum256(data)
		size, digest, err := session.Digest(t.Context(), dir, backup[0].Name)
		if err != nil || size != int64(len(data)) || !bytes.Equal(digest, want[:]) {
			t.Errorf("digest %x, size %d, %v", digest, size, err)
		}
		if got, err := c.get(name); err != nil || !bytes.Equal(got, data) {
			t.Errorf("read back %d bytes, %v", len(got), err)
		}
		// A repeat with the same contents is fine, other contents do not
		// destroy what was there.
		if err := c.put(name, data); err != nil {
			t.Errorf("the same again: %v", err)
		}
		if err := c.put(name, []byte("other")); err != nil {
			t.Errorf("other contents: %v", err)
		}
		for _, f := range []struct{ name, want string }{{name, "other"}, {name + "~1", string(data)}} {
			if got, err := afero.ReadFile(disk, f.name); err != nil || string(got) != f.want {
				t.Errorf("%s holds %.20q, %v", f.name, got, err)
			}
		}
		other, _, err := session.NewBackup(iadtest.OneKind)
		if err != nil || other == dir {
			t.Errorf("the next directory: %s, %v", other, err)
		}
	})
}

func TestServersConfine(t *testing.T) {
	eachProtocol(t, func(t *testing.T, p device.Protocol) {
		s, disk := iadtest.StartServers(t, nil)
		for _, name := range []string{"secret", "backup/B/1/userData.cfg", "journal/x.json"} {
			if err := afero.WriteFile(disk, name, []byte("secret"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		session, c := open(t, s, p, "A")
		dir, _, err := session.NewBackup(iadtest.OneKind)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{
			"secret", "/secret", "../secret", "backup/B/1/userData.cfg", "journal/x.json",
			dir + "/../../B/1/userData.cfg", dir + "/../../../secret", "backup", "", ".",
			dir + "\\..\\secret",
		} {
			if got, err := c.get(name); err == nil {
				t.Errorf("read %q: %q", name, got)
			}
		}
		for _, name := range []string{
			"new", "../new", "backup/new", "backup/B/1/userData.cfg", "backup/A/new", dir + "/sub/new",
			dir + "/../new", dir + "/.hidden", dir + "/a\x01b", dir,
		} {
			if err := c.put(name, []byte("x")); err == nil {
				t.Errorf("wrote %q", name)
			}
		}
		session.Close()
		if err := c.put(dir+"/userData.cfg", []byte("x")); err == nil && p == device.TFTP {
			t.Error("wrote after the session was closed")
		}
	})
}

func TestServersLimitSize(t *testing.T) {
	eachProtocol(t, func(t *testing.T, p device.Protocol) {
		s, disk := iadtest.StartServers(t, nil)
		session, c := open(t, s, p, "A")
		dir, _, err := session.NewBackup(iadtest.OneKind)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.put(dir+"/userData.cfg", make([]byte, 100_001)); err == nil {
			t.Error("a file above the limit was taken")
		}
		if err := c.put(dir+"/userData.cfg", make([]byte, 100_000)); err != nil {
			t.Errorf("a file at the limit: %v", err)
		}
		if list, err := afero.ReadDir(disk, dir); err != nil || len(list) != 1 {
			t.Errorf("the directory holds %d files, %v", len(list), err)
		}
	})
}

func TestServersFTPNames(t *testing.T) {
	s, _ := iadtest.StartServers(t, nil)
	session, c := open(t, s, device.FTP, "A")
	conn := c.(ftpClient)
	dir, _, err := session.NewBackup(iadtest.OneKind)
	if err != nil {
		t.Fatal(err)
	}
	temporary, final := dir+"/userData.cfg.part", dir+"/userData.cfg"
	if err := c.put(temporary, []byte("data")); err != nil {
		t.Fatal(err)
	}
	if err := conn.Rename(temporary, final); err != nil {
		t.Errorf("rename to the final name: %v", err)
	}
	if err := conn.Rename(final, dir+"/elsewhere"); err == nil {
		t.Error("a final name was taken away")
	}
	if err := conn.Delete(final); err == nil {
		t.Error("a final name was deleted")
	}
	if got, err := c.get(final); err != nil || string(got) != "data" {
		t.Errorf("%q, %v", got, err)
	}
	if err := conn.MakeDir("new"); err == nil {
		t.Error("a directory was made")
	}
	a := session.Address()
	other, err := ftp.Dial(net.JoinHostPort(a.Host, fmt.Sprint(a.Port)), ftp.DialWithTimeout(5*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Quit()
	if other.Login(a.User, "wrong") == nil || other.Login("anonymous", "") == nil {
		t.Error("logged in without the password")
	}
}

func TestServersLimitBandwidth(t *testing.T) {
	eachProtocol(t, func(t *testing.T, p device.Protocol) {
		s, _ := iadtest.StartServers(t, func(c *files.ServersConfig) { c.Bandwidth = 200_000 })
		session, c := open(t, s, p, "A")
		dir, _, err := session.NewBackup(iadtest.OneKind)
		if err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		if err := c.put(dir+"/userData.cfg", make([]byte, 60_000)); err != nil {
			t.Fatal(err)
		}
		// 60,000 bytes less the burst of 10,000 take a quarter of a second.
		if took := time.Since(begun); took < 200*time.Millisecond {
			t.Errorf("60,000 bytes at 200,000 a second took %v", took)
		}
	})
}

// TestServersLimitOfSome: the transfers of sessions with one limit share it, whatever they read and
// write; those of others, also of the same image, do not count.
func TestServersLimitOfSome(t *testing.T) {
	eachProtocol(t, func(t *testing.T, p device.Protocol) {
		s, disk := iadtest.StartServers(t, nil)
		img := iadtest.OpenImage(t, disk, "fw.iad", iadtest.BuildImage(t, imagetest.Key, image.Manifest{Version: "2.0.0", Hardware: []string{"H"}, ConfigFormat: 1}))
		limit := files.NewLimit("spring", 200_000)
		begun, passed := time.Now(), -10_000 // less the burst
		var dirs []string
		for _, id := range []string{"A", "B"} {
			session, c := openLimited(t, s, p, id, limit)
			dir, _, err := session.NewBackup(iadtest.OneKind)
			if err != nil {
				t.Fatal(err)
			}
			if err := c.put(dir+"/userData.cfg", make([]byte, 40_000)); err != nil {
				t.Fatal(err)
			}
			dir, name, err := session.Publish(img)
			if err != nil {
				t.Fatal(err)
			}
			dirs = append(dirs, dir)
			data, err := c.get(dir + "/" + name)
			if err != nil {
				t.Fatal(err)
			}
			passed += 40_000 + len(data)
		}
		if took, least := time.Since(begun), time.Duration(passed)*time.Second/200_000*9/10; took < least {
			t.Errorf("%d bytes at 200,000 a second took %v", passed, took)
		}
		session, _ := open(t, s, p, "C")
		if dir, _, err := session.Publish(img); err != nil || dirs[0] != dirs[1] || dir == dirs[0] {
			t.Errorf("published in %q and, without a limit, in %q, %v", dirs, dir, err)
		}
	})
}

func TestBackupsAreFound(t *testing.T) {
	s, disk := iadtest.StartServers(t, nil)
	session, c := open(t, s, device.TFTP, "A")
	for range 2 {
		dir, backup, err := session.NewBackup(files.ConfigKinds)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range backup {
			if err := c.put(path.Join(dir, f.Name), fmt.Appendf(nil, "iad-config %s 7\nx = 1\n", f.Kind)); err != nil {
				t.Fatal(err)
			}
		}
	}
	dirs, err := files.Backups(disk, "A")
	if err != nil || len(dirs) != 2 || dirs[0] >= dirs[1] {
		t.Fatalf("%v, %v", dirs, err)
	}
	backup, err := files.ReadBackup(disk, dirs[1])
	if err != nil || len(backup) != 5 || backup[4].Kind != mib.FileTypeOtherData || backup[4].Format != 7 {
		t.Errorf("%+v, %v", backup, err)
	}
	if _, err := files.Backups(disk, "B"); err == nil {
		t.Error("backups of a device that never had any")
	}
}
