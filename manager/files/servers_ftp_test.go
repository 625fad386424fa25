package files_test

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"os"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/jlaffaye/ftp"
	"github.com/spf13/afero"

	"example.com/iad/internal/iadtest"
	"example.com/iad/manager/device"
	"example.com/iad/manager/files"
)

// dialFTPS connects a client over TLS that knows the server by its fingerprint.
func dialFTPS(t *testing.T, s *files.Servers, a device.FileServerAddress) (*ftp.ServerConn, error) {
	t.Helper()
	c, err := ftp.Dial(net.JoinHostPort(a.Host, fmt.Sprint(a.Port)), ftp.DialWithTimeout(5*time.Second), ftp.DialWithExplicitTLS(&tls.Config{
		InsecureSkipVerify: true, // replaced by the comparison below
		VerifyConnection: func(state tls.ConnectionState) error {
			if sum := sha256.Sum256(state.PeerCertificates[0].Raw); !bytes.Equal(sum[:], s.Fingerprint()) {
				return errors.New("another certificate")
			}
			return nil
		},
	}))
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { c.Quit() })
	return c, c.Login(a.User, a.Password)
}

func TestServersFTPS(t *testing.T) {
	s, disk := iadtest.StartServers(t, nil)
	session, directory := iadtest.OpenBackup(t, s, device.FTPS)
	a := session.Address()
	if a.Protocol != device.FTPS || a.User == "" {
		t.Errorf("address %v, user %q", a, a.User)
	}
	conn, err := dialFTPS(t, s, a)
	if err != nil {
		t.Fatal(err)
	}
	data := bytes.Repeat([]byte("0123456789"), 5000)
	c := ftpClient{conn}
	if err := c.put(directory+"/userData.cfg", data); err != nil {
		t.Fatal(err)
	}
	if got, err := c.get(directory + "/userData.cfg"); err != nil || !bytes.Equal(got, data) {
		t.Errorf("read back %d bytes, %v", len(got), err)
	}
	// Its password is not for connections that others can read.
	plain, err := ftp.Dial(net.JoinHostPort(a.Host, fmt.Sprint(a.Port)), ftp.DialWithTimeout(5*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Quit()
	if err := plain.Login(a.User, a.Password); err == nil || !strings.Contains(err.Error(), "TLS") {
		t.Errorf("log-in without TLS: %v", err)
	}
	// The certificate is the same after a restart, and its key is nobody's else.
	if info, err := disk.Stat("tls/server.pem"); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	again, _ := iadtest.StartServers(t, func(c *files.ServersConfig) { c.Files = disk })
	if !bytes.Equal(again.Fingerprint(), s.Fingerprint()) || len(s.Fingerprint()) != sha256.Size {
		t.Errorf("fingerprints %x and %x", s.Fingerprint(), again.Fingerprint())
	}
	if got, err := c.get("tls/server.pem"); err == nil {
		t.Errorf("the key can be fetched: %q", got)
	}
}

func TestServersGivenCertificate(t *testing.T) {
	first, disk := iadtest.StartServers(t, nil)
	data, err := afero.ReadFile(disk, "tls/server.pem")
	if err != nil {
		t.Fatal(err)
	}
	given, err := tls.X509KeyPair(data, data)
	if err != nil {
		t.Fatal(err)
	}
	s, own := iadtest.StartServers(t, func(c *files.ServersConfig) { c.Certificate = &given })
	if !bytes.Equal(s.Fingerprint(), first.Fingerprint()) {
		t.Error("not the certificate given")
	}
	if _, err := own.Stat("tls"); err == nil {
		t.Error("made a certificate though one was given")
	}
	if err := afero.WriteFile(disk, "tls/server.pem", []byte("spoilt"), 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := files.StartServers(files.ServersConfig{Files: disk, FTP: "127.0.0.1:0"}); err == nil || !strings.Contains(err.Error(), "server.pem") {
		t.Errorf("%v, %v with a spoilt certificate", s, err)
	}
}

// brokenReader fails after n bytes, as a connection does.
type brokenReader struct {
	r io.Reader
	n int
}

var errBroken = errors.New("the line broke")

func (b *brokenReader) Read(p []byte) (int, error) {
	if b.n == 0 {
		return 0, errBroken
	}
	n, err := b.r.Read(p[:min(len(p), b.n)])
	b.n -= n
	return n, err
}

func TestServersFTPResume(t *testing.T) {
	data := make([]byte, 90_000)
	for i := range data {
		data[i] = byte(i * i >> 5)
	}
	setup := func(t *testing.T) (disk afero.Fs, c ftpClient, directory string) {
		s, disk := iadtest.StartServers(t, nil)
		session, client := open(t, s, device.FTP, "A")
		directory, _, err := session.NewBackup(iadtest.OneKind)
		if err != nil {
			t.Fatal(err)
		}
		return disk, client.(ftpClient), directory
	}
	check := func(t *testing.T, disk afero.Fs, directory string, want map[string][]byte) {
		t.Helper()
		list, err := afero.ReadDir(disk, directory)
		if err != nil || len(list) != len(want) {
			t.Errorf("%d files, want %d, %v", len(list), len(want), err)
		}
		for name, data := range want {
			if got, err := afero.ReadFile(disk, path.Join(directory, name)); err != nil || !bytes.Equal(got, data) {
				t.Errorf("%s: %d bytes of %d, %v", name, len(got), len(data), err)
			}
		}
	}
	t.Run("download", func(t *testing.T) {
		_, c, directory := setup(t)
		if err := c.put(directory+"/userData.cfg", data); err != nil {
			t.Fatal(err)
		}
		r, err := c.RetrFrom(directory+"/userData.cfg", 80_000)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		if err := errors.Join(err, r.Close()); err != nil || !bytes.Equal(got, data[80_000:]) {
			t.Errorf("%d bytes from 80000 on, %v", len(got), err)
		}
	})
	t.Run("upload of what seemed complete", func(t *testing.T) {
		disk, c, directory := setup(t)
		// The server cannot distinguish the end of a client from that of the file.
		if err := c.Stor(directory+"/x.part", &brokenReader{bytes.NewReader(data), 30_000}); !errors.Is(err, errBroken) {
			t.Fatal(err)
		}
		n, err := c.FileSize(directory + "/x.part")
		if err != nil || n != 30_000 {
			t.Fatalf("size %d, %v", n, err)
		}
		if err := c.StorFrom(directory+"/x.part", bytes.NewReader(data[n:]), uint64(n)); err != nil {
			t.Fatal(err)
		}
		if err := c.Rename(directory+"/x.part", directory+"/userData.cfg"); err != nil {
			t.Fatal(err)
		}
		check(t, disk, directory, map[string][]byte{"userData.cfg": data})
	})
	t.Run("append", func(t *testing.T) {
		disk, c, directory := setup(t)
		for _, part := range [][]byte{data[:10], data[10:50_000], data[50_000:]} {
			if err := c.Append(directory+"/x.part", bytes.NewReader(part)); err != nil {
				t.Fatal(err)
			}
		}
		check(t, disk, directory, map[string][]byte{"x.part": data})
	})
	t.Run("final name", func(t *testing.T) {
		// What has its final name is not changed: the longer file is a new one.
		disk, c, directory := setup(t)
		if err := c.put(directory+"/userData.cfg", data[:100]); err != nil {
			t.Fatal(err)
		}
		if err := c.Append(directory+"/userData.cfg", bytes.NewReader(data[100:])); err != nil {
			t.Fatal(err)
		}
		check(t, disk, directory, map[string][]byte{"userData.cfg": data, "userData.cfg~1": data[:100]})
	})
	t.Run("refused", func(t *testing.T) {
		disk, c, directory := setup(t)
		if err := c.put(directory+"/userData.cfg", data[:100]); err != nil {
			t.Fatal(err)
		}
		if err := c.StorFrom(directory+"/userData.cfg", bytes.NewReader(data), 101); err == nil {
			t.Error("went on behind the end")
		}
		if err := c.StorFrom(directory+"/none", bytes.NewReader(data), 1); err == nil {
			t.Error("went on where nothing is")
		}
		if err := c.StorFrom(directory+"/userData.cfg", bytes.NewReader(make([]byte, 99_999)), 100); err == nil {
			t.Error("a file above the limit was taken")
		}
		check(t, disk, directory, map[string][]byte{"userData.cfg": data[:100]})
	})
}

// TestServersFTPBroken: what came before a connection broke is kept for the rest, and
// is no file before that.
func TestServersFTPBroken(t *testing.T) {
	s, disk := iadtest.StartServers(t, nil)
	session, directory := iadtest.OpenBackup(t, s, device.FTPS)
	data, name := bytes.Repeat([]byte("0123456789"), 9000), directory+"/userData.cfg"
	breakUpload(t, session.Address(), name, data[:40_000], func() {})
	conn, err := dialFTPS(t, s, session.Address())
	if err != nil {
		t.Fatal(err)
	}
	c := ftpClient{conn}
	if got, err := c.get(name); err == nil {
		t.Errorf("%d bytes of a file that is not complete", len(got))
	}
	n, err := c.FileSize(name)
	if err != nil || n != 40_000 {
		t.Fatalf("size %d, %v", n, err)
	}
	if err := c.StorFrom(name, bytes.NewReader(data[n:]), uint64(n)); err != nil {
		t.Fatal(err)
	}
	if got, err := afero.ReadFile(disk, name); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes of %d, %v", len(got), len(data), err)
	}
	if list, err := afero.ReadDir(disk, directory); err != nil || len(list) != 1 {
		t.Errorf("%d files, %v", len(list), err)
	}
}

// TestServersFTPOvertaken: what came of an upload that breaks after another one has completed, or after the directory was
// sealed, neither hides the file nor stays.
func TestServersFTPOvertaken(t *testing.T) {
	s, disk := iadtest.StartServers(t, nil)
	session, directory := iadtest.OpenBackup(t, s, device.FTPS)
	data, name := bytes.Repeat([]byte("0123456789"), 9000), directory+"/userData.cfg"
	conn, err := dialFTPS(t, s, session.Address())
	if err != nil {
		t.Fatal(err)
	}
	c := ftpClient{conn}
	breakUpload(t, session.Address(), name, data[:40_000], func() {
		if err := c.put(name, data); err != nil {
			t.Error(err)
		}
	})
	if n, err := c.FileSize(name); err != nil || n != int64(len(data)) {
		t.Errorf("size %d, want %d, %v", n, len(data), err)
	}
	breakUpload(t, session.Address(), directory+"/other", data[:40_000], session.Seal)
	if list, err := afero.ReadDir(disk, directory); err != nil || len(list) != 1 || list[0].Size() != int64(len(data)) {
		t.Errorf("%d files, %v", len(list), err)
	}
}

// breakUpload sends a part of a file and drops the data connection within a record of TLS:
// without TLS the server could not distinguish that from the file's end. Before it drops the connection it calls meanwhile.
func breakUpload(t *testing.T, a device.FileServerAddress, name string, part []byte, meanwhile func()) {
	t.Helper()
	raw, err := net.Dial("tcp", net.JoinHostPort(a.Host, fmt.Sprint(a.Port)))
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	control := textproto.NewConn(raw)
	expect := func(code int, command string) string {
		t.Helper()
		if command != "" {
			if _, err := control.Cmd("%s", command); err != nil {
				t.Fatal(err)
			}
		}
		_, text, err := control.ReadResponse(code)
		if err != nil {
			t.Fatalf("%s: %v", command, err)
		}
		return text
	}
	expect(220, "")
	expect(234, "AUTH TLS")
	unverified := &tls.Config{InsecureSkipVerify: true}
	control = textproto.NewConn(tls.Client(raw, unverified))
	expect(331, "USER "+a.User)
	expect(230, "PASS "+a.Password)
	expect(200, "PBSZ 0")
	expect(200, "PROT P")
	var port int
	text := expect(229, "EPSV")
	if _, err := fmt.Sscanf(text[strings.Index(text, "("):], "(|||%d|)", &port); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	line, err := net.Dial("tcp", net.JoinHostPort(a.Host, fmt.Sprint(port)))
	if err != nil {
		t.Fatal(err)
	}
	defer line.Close()
	if _, err := control.Cmd("STOR %s", name); err != nil {
		t.Fatal(err)
	}
	data := tls.Client(line, unverified)
	if _, err := data.Write(part); err != nil {
		t.Fatal(err)
	}
	expect(150, "")
	meanwhile()
	if _, err := line.Write([]byte{23, 3, 3, 1, 0, 'x'}); err != nil { // a record of 256 bytes begins
		t.Fatal(err)
	}
	line.Close()
	if code, text, err := control.ReadResponse(2); err == nil {
		t.Errorf("a broken upload is answered by %d %s", code, text)
	}
}

func TestServersPassivePorts(t *testing.T) {
	// Below the ports that the system hands out, so that nobody else gets it.
	port := 20_000 + os.Getpid()%10_000
	held, err := net.Listen("tcp4", fmt.Sprintf(":%d", port))
	for ; err != nil && port < 32_000; held, err = net.Listen("tcp4", fmt.Sprintf(":%d", port)) {
		port++
	}
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	s, _ := iadtest.StartServers(t, func(c *files.ServersConfig) { c.PassivePorts = [2]int{port, port} })
	session, err := s.Open(device.FTP, "A", "127.0.0.1:161")
	if err != nil {
		t.Fatal(err)
	}
	control, err := textproto.Dial("tcp", s.Addr(device.FTP).String())
	if err != nil {
		t.Fatal(err)
	}
	defer control.Close()
	ask := func(command string, code int) string {
		t.Helper()
		if _, err := control.Cmd("%s", command); err != nil {
			t.Fatal(err)
		}
		_, text, err := control.ReadResponse(code)
		if err != nil {
			t.Errorf("%s: %v", command, err)
		}
		return text
	}
	if _, _, err := control.ReadResponse(220); err != nil {
		t.Fatal(err)
	}
	ask("USER "+session.Address().User, 331)
	ask("PASS "+session.Address().Password, 230)
	ask("EPSV", 421) // the one port is taken
	held.Close()
	if text, want := ask("EPSV", 229), fmt.Sprintf("(|||%d|)", port); !strings.Contains(text, want) {
		t.Errorf("%q, want %s", text, want)
	}
	if _, err := files.StartServers(files.ServersConfig{Files: afero.NewMemMapFs(), FTP: "127.0.0.1:0", PassivePorts: [2]int{9, 8}}); err == nil {
		t.Error("took ports 9 to 8")
	}
}

// TestServersFTPLists: a device sees the backup that it makes, without what is on its way.
func TestServersFTPLists(t *testing.T) {
	s, disk := iadtest.StartServers(t, nil)
	session, c := open(t, s, device.FTP, "A")
	directory, _, err := session.NewBackup(iadtest.OneKind)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{directory + "/.userData.cfg.1", "backup/A/1/userData.cfg", "backup/B/1/userData.cfg"} {
		if err := afero.WriteFile(disk, name, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.put(directory+"/userData.cfg", []byte("data")); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]string{directory: "userData.cfg", "backup/A": path.Base(directory), "backup/B/1": "", "backup": "A", "/": "backup"} {
		list, err := c.(ftpClient).List(dir)
		var got []string
		for _, entry := range list {
			got = append(got, entry.Name)
		}
		if strings.Join(got, ", ") != want {
			t.Errorf("%s holds %v, %v, want %s", dir, got, err, want)
		}
	}
}
