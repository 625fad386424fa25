package files_test

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/textproto"
	"os/exec"
	"path"
	"strings"
	"testing"
	"time"

	"aead.dev/minisign"
	"github.com/jlaffaye/ftp"
	"github.com/spf13/afero"

	"example.com/iad/bank/image"
	"example.com/iad/internal/iadtest"
	"example.com/iad/internal/peers"
	"example.com/iad/manager/device"
	"example.com/iad/manager/files"
)

// controlConn is the control connection of an FTP client that sends what it likes.
type controlConn struct {
	t *testing.T
	*textproto.Conn
}

// dialControl logs in, over TLS for FTPS.
func dialControl(t *testing.T, a device.FileServerAddress) controlConn {
	t.Helper()
	raw, err := net.DialTimeout("tcp", net.JoinHostPort(a.Host, fmt.Sprint(a.Port)), 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { raw.Close() })
	if err := raw.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	c := controlConn{t, textproto.NewConn(raw)}
	if _, _, err := c.ReadResponse(220); err != nil {
		t.Fatal(err)
	}
	if a.Protocol == device.FTPS {
		c.expect("AUTH TLS", 234)
		c.Conn = textproto.NewConn(tls.Client(raw, &tls.Config{InsecureSkipVerify: true}))
	}
	c.expect("USER "+a.User, 331)
	c.expect("PASS "+a.Password, 230)
	return c
}

// expect sends a command and returns the text of the reply, which has this code.
func (c controlConn) expect(command string, code int) string {
	c.t.Helper()
	if _, err := c.Cmd("%s", command); err != nil {
		c.t.Fatal(err)
	}
	got, text, err := c.ReadResponse(code)
	if err != nil {
		c.t.Errorf("%s: %d %s, %v, want %d", command, got, text, err, code)
	}
	return text
}

// TestServersNoActiveMode: the server connects to nobody, and a client that asks for it
// goes on with passive mode on the same connection.
func TestServersNoActiveMode(t *testing.T) {
	for p, refusal := range map[device.Protocol]int{device.FTP: 502, device.FTPS: 501} {
		t.Run(p.String(), func(t *testing.T) {
			s, _ := iadtest.StartServers(t, nil)
			session, err := s.Open(p, "A", "127.0.0.1:161")
			if err != nil {
				t.Fatal(err)
			}
			victim, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer victim.Close()
			port := victim.Addr().(*net.TCPAddr).Port
			c := dialControl(t, session.Address())
			if p == device.FTPS {
				if text := c.expect("RETR x", 550); !strings.Contains(text, "PROT P") {
					t.Errorf("without PROT P: %s", text)
				}
				c.expect("PBSZ 0", 200)
				c.expect("PROT P", 200)
			}
			for _, command := range []string{
				fmt.Sprintf("PORT 127,0,0,1,%d,%d", port>>8, port&0xff), fmt.Sprintf("port 127,0,0,1,%d,%d", port>>8, port&0xff),
				fmt.Sprintf("EPRT |1|127.0.0.1|%d|", port), fmt.Sprintf("EPRT |2|::1|%d|", port),
			} {
				c.expect(command, refusal)
				c.expect("LIST", 550) // there is no connection to send it on
			}
			c.expect("EPRT nonsense", 501)
			c.expect("PASV", 227)
			c.expect("QUIT", 221)
			// Had the server connected, its connection would come before this one.
			own, err := net.Dial("tcp", victim.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer own.Close()
			first, err := victim.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer first.Close()
			if first.RemoteAddr().String() != own.LocalAddr().String() {
				t.Errorf("%v connected", first.RemoteAddr())
			}
		})
	}
}

// TestServersPassiveIPv6: PASV has no place for an IPv6 address, and is no reason to hang up.
func TestServersPassiveIPv6(t *testing.T) {
	s, _ := iadtest.StartServers(t, func(c *files.ServersConfig) { c.FTP = "[::1]:0" })
	session, err := s.Open(device.FTP, "A", "[::1]:161")
	if err != nil {
		t.Fatal(err)
	}
	c := dialControl(t, session.Address())
	if text := c.expect("PASV", 227); !strings.Contains(text, "(0,0,0,0,") {
		t.Error(text)
	}
	c.expect("EPSV", 229)
}

// TestServersListImages: ordinary clients find a published image from the top down, with
// its size and age, and nothing of other devices.
func TestServersListImages(t *testing.T) {
	s, disk := iadtest.StartServers(t, nil)
	session, client := open(t, s, device.FTP, "A")
	other, _ := open(t, s, device.FTP, "B")
	for _, of := range []files.Session{session, other} {
		if _, _, err := of.NewBackup(iadtest.OneKind); err != nil {
			t.Fatal(err)
		}
	}
	_, key, err := minisign.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	images := afero.NewMemMapFs()
	img := iadtest.OpenImage(t, images, "fw-2.0.0.iad", iadtest.BuildImage(t, key, image.Manifest{Version: "2.0.0", Hardware: []string{"H"}, ConfigFormat: 1}))
	written := time.Date(2025, 5, 6, 7, 8, 9, 0, time.UTC)
	if err := images.Chtimes(img.Path, written, written); err != nil {
		t.Fatal(err)
	}
	directory, name, err := session.Publish(img)
	if err != nil {
		t.Fatal(err)
	}
	if err := afero.WriteFile(disk, "images/stray", nil, 0o600); err != nil { // not published
		t.Fatal(err)
	}
	a, c := session.Address(), client.(ftpClient)
	old, err := ftp.Dial(net.JoinHostPort(a.Host, fmt.Sprint(a.Port)), ftp.DialWithTimeout(5*time.Second), ftp.DialWithDisabledMLSD(true))
	if err != nil {
		t.Fatal(err)
	}
	defer old.Quit()
	if err := old.Login(a.User, a.Password); err != nil {
		t.Fatal(err)
	}
	for how, conn := range map[string]*ftp.ServerConn{"MLSD": c.ServerConn, "LIST": old} {
		for dir, want := range map[string]string{"/": "backup/ images/", "images": path.Base(directory) + "/", directory: name, "backup": "A/"} {
			list, err := conn.List(dir)
			var got []string
			for _, entry := range list {
				switch {
				case entry.Type == ftp.EntryTypeFolder:
					entry.Name += "/"
				case entry.Size != uint64(img.Size) || entry.Time.Format(time.DateOnly) != "2025-05-06":
					t.Errorf("%s: %s has %d bytes of %v, want %d of %v", how, entry.Name, entry.Size, entry.Time, img.Size, written)
				}
				got = append(got, entry.Name)
			}
			if err != nil || strings.Join(got, " ") != want {
				t.Errorf("%s: %s holds %v, %v, want %s", how, dir, got, err, want)
			}
		}
		if list, err := conn.List("backup/B"); err == nil || len(list) > 0 {
			t.Errorf("%s: directory of another device: %v, %v", how, list, err)
		}
	}
	if names, err := c.NameList(directory); err != nil || len(names) != 1 || path.Base(names[0]) != name {
		t.Errorf("NLST: %v, %v", names, err)
	}
	if entry, err := c.GetEntry(directory + "/" + name); err != nil || entry.Size != uint64(img.Size) {
		t.Errorf("MLST: %v, %v", entry, err)
	}
	out, err := exec.Command(peers.Find(t, "curl"), "-sS", "--user", a.User+":"+a.Password,
		fmt.Sprintf("ftp://%s/%s/", net.JoinHostPort(a.Host, fmt.Sprint(a.Port)), directory)).CombinedOutput()
	if fields := strings.Fields(string(out)); err != nil || len(fields) != 9 || fields[4] != fmt.Sprint(img.Size) || fields[8] != name {
		t.Errorf("curl lists %q, %v", out, err)
	}
	session.Close()
	if list, err := c.List("/"); err != nil || len(list) > 0 {
		t.Errorf("after the run: %v, %v", list, err)
	}
}
