package files_test

import (
	"bytes"
	"fmt"
	"path"
	"strings"
	"testing"

	"github.com/spf13/afero"

	"example.com/iad/internal/iadtest"
	"example.com/iad/manager/device"
	"example.com/iad/manager/files"
	"example.com/iad/mib"
)

// As iadms serve does: the directories of one device, one for each protocol.
func TestServersTFTPSeesWhatIsForIt(t *testing.T) {
	s, disk := iadtest.StartServers(t, nil)
	dirs := make(map[device.Protocol]string)
	var anonymous files.Session
	for _, p := range []device.Protocol{device.FTP, device.FTPS, device.TFTP} {
		session, err := s.Open(p, "A", "127.0.0.1:161")
		if err != nil {
			t.Fatal(err)
		}
		defer session.Close()
		if dirs[p], _, err = session.NewBackup(iadtest.OneKind); err != nil {
			t.Fatal(err)
		}
		anonymous = session
	}
	_, c := open(t, s, device.TFTP, "B")
	for _, p := range []device.Protocol{device.FTP, device.FTPS} {
		secret := dirs[p] + "/userData.cfg"
		if err := c.put(secret, []byte("x")); err == nil {
			t.Errorf("%s: wrote by TFTP", p)
		}
		if err := afero.WriteFile(disk, secret, []byte("secret"), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := c.get(secret); err == nil {
			t.Errorf("%s: read by TFTP: %q", p, got)
		}
	}
	for range 20 { // in whatever order the grants are looked at
		if err := c.put(dirs[device.TFTP]+"/userData.cfg", []byte("data")); err != nil {
			t.Fatal(err)
		}
	}
	anonymous.Offer(dirs[device.FTP])
	if got, err := c.get(dirs[device.FTP] + "/userData.cfg"); err != nil || string(got) != "secret" {
		t.Errorf("what is recovered: %q, %v", got, err)
	}
}

func TestServersKeepWhatWasSetAside(t *testing.T) {
	s, disk := iadtest.StartServers(t, nil)
	session, client := open(t, s, device.FTP, "A")
	c := client.(ftpClient)
	dir, _, err := session.NewBackup(iadtest.OneKind)
	if err != nil {
		t.Fatal(err)
	}
	name := dir + "/userData.cfg"
	for _, text := range []string{"earlier", "later"} {
		if err := c.put(name, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	aside := name + "~1"
	for what, err := range map[string]error{
		"appended":    c.Append(aside, bytes.NewReader([]byte("x"))),
		"written":     c.put(aside, []byte("x")),
		"went on":     c.StorFrom(aside, bytes.NewReader([]byte("x")), 3),
		"deleted":     c.Delete(aside),
		"renamed":     c.Rename(aside, dir+"/x"),
		"another one": c.put(name+"~7", []byte("x")),
	} {
		if err == nil {
			t.Errorf("a file set aside: %s", what)
		}
	}
	for name, want := range map[string]string{name: "later", aside: "earlier"} {
		if got, err := afero.ReadFile(disk, name); err != nil || string(got) != want {
			t.Errorf("%s holds %q, %v", name, got, err)
		}
	}
	for i := range 2 { // names that only look like it
		if err := c.put(dir+"/draft~1", fmt.Append(nil, i)); err != nil {
			t.Error(err)
		}
	}
}

func TestServersForgetUser(t *testing.T) {
	s, _ := iadtest.StartServers(t, nil)
	session, client := open(t, s, device.FTP, "A")
	c := client.(ftpClient)
	dir, _, err := session.NewBackup(iadtest.OneKind)
	if err != nil {
		t.Fatal(err)
	}
	name := dir + "/userData.cfg"
	if err := c.put(name, []byte("data")); err != nil {
		t.Fatal(err)
	}
	session.Close()
	if err := c.put(name, []byte("other")); err == nil {
		t.Error("written after the run")
	}
	if got, err := c.get(name); err == nil {
		t.Errorf("read after the run: %q", got)
	}
	if list, err := c.List(dir); err == nil && len(list) > 0 {
		t.Errorf("%d files listed after the run", len(list))
	}
}

// A device that claims the device ID of another one reads none of its backups, by
// whichever protocol, until one of them is given to it on purpose.
func TestServersClaimedIdentity(t *testing.T) {
	s, disk := iadtest.StartServers(t, nil)
	for _, p := range []device.Protocol{device.TFTP, device.FTP} {
		secret := "backup/A/" + p.String() + "/userData.cfg"
		if err := afero.WriteFile(disk, secret, []byte("secret"), 0o600); err != nil {
			t.Fatal(err)
		}
		session, c := open(t, s, p, "A")
		if _, _, err := session.NewBackup(iadtest.OneKind); err != nil {
			t.Fatal(err)
		}
		if got, err := c.get(secret); err == nil {
			t.Errorf("%s: %q", p, got)
		}
		session.Offer(path.Dir(secret))
		if got, err := c.get(secret); err != nil || string(got) != "secret" {
			t.Errorf("%s: what is recovered: %q, %v", p, got, err)
		}
	}
}

// Whatever device ID a device claims, its directory is one of its own below backup/.
func TestServersHostileIdentity(t *testing.T) {
	s, disk := iadtest.StartServers(t, nil)
	for id, home := range map[string]string{
		"": "", strings.Repeat("A", 33): "", "A\x1b[2J": "", "A\n": "", "A\u202eB": "", "A\xff": "", "A\x00": "",
		"..": "%2E%2E", "../A": "%2E%2E%2FA", "/": "%2F", "A/../B": "A%2F%2E%2E%2FB", "a%2F": "a%252F", ".identity": "%2Eidentity", strings.Repeat("A", 32): strings.Repeat("A", 32),
	} {
		p := iadtest.NewPeer(t)
		p.Put(mib.DeviceId, mib.Str(id))
		_, err := p.Client().Device(t.Context())
		session, openErr := s.Open(device.TFTP, id, "127.0.0.1:161")
		if home == "" {
			if err == nil || openErr == nil {
				t.Errorf("%q: %v; %v", id, err, openErr)
			}
			continue
		}
		if err != nil || openErr != nil {
			t.Errorf("%q: %v; %v", id, err, openErr)
			continue
		}
		defer session.Close()
		if dir, _, err := session.NewBackup(iadtest.OneKind); err != nil || path.Dir(dir) != "backup/"+home {
			t.Errorf("%q: %s, %v", id, dir, err)
		}
	}
	for name, want := range map[string]int{"": 2, "backup": 7} { // with tls/
		if list, err := afero.ReadDir(disk, name); err != nil || len(list) != want {
			t.Errorf("%s holds %v, %v", name, list, err)
		}
	}
}
