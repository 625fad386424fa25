package files_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spf13/afero"

	"example.com/iad/internal/iadtest"
	"example.com/iad/internal/peers"
	"example.com/iad/manager/device"
	"example.com/iad/manager/files"
	"example.com/iad/transfer/tftp"
)

// TestExternalServerDigest reads backups back from servers: the embedded ones stand for
// those that somebody else runs.
func TestExternalServerDigest(t *testing.T) {
	for _, p := range []device.Protocol{device.TFTP, device.FTP, device.FTPS} {
		t.Run(p.String(), func(t *testing.T) {
			s, disk := iadtest.StartServers(t, nil)
			inner, err := s.Open(p, "A", "127.0.0.1:161")
			if err != nil {
				t.Fatal(err)
			}
			defer inner.Close()
			dir, _, err := inner.NewBackup(iadtest.OneKind)
			if err != nil {
				t.Fatal(err)
			}
			data := bytes.Repeat([]byte("0123456789"), 9000)
			if err := afero.WriteFile(disk, dir+"/userData.cfg", data, 0o600); err != nil {
				t.Fatal(err)
			}
			external := &files.ExternalServer{Server: inner.Address(), Directory: dir, TLS: &tls.Config{InsecureSkipVerify: true}}
			session, err := external.Open(p, "A", "127.0.0.1:161")
			if err != nil {
				t.Fatal(err)
			}
			want := sha256.Sum256(data)
			if size, digest, err := session.Digest(t.Context(), dir, "userData.cfg"); err != nil || size != int64(len(data)) || !bytes.Equal(digest, want[:]) {
				t.Errorf("%d bytes, %x, %v", size, digest, err)
			}
			_, _, err = session.Digest(t.Context(), dir, "none")
			if p == device.TFTP && !errors.Is(err, fs.ErrNotExist) || err == nil {
				t.Errorf("of a file that is not there: %v", err)
			}
			if p == device.FTPS { // known by its fingerprint, or another server
				pin := s.Fingerprint()
				for _, right := range []bool{true, false} {
					if external.TLS, err = files.ServerTLS(pin, nil); err != nil {
						t.Fatal(err)
					}
					_, digest, err := session.Digest(t.Context(), dir, "userData.cfg")
					if right && (err != nil || !bytes.Equal(digest, want[:])) || !right && !errors.Is(err, files.ErrNoDigest) {
						t.Errorf("by its fingerprint, which is right %v: %x, %v", right, digest, err)
					}
					pin = bytes.Repeat([]byte{1}, len(pin))
				}
			}
			if p == device.FTPS { // a certificate that nobody vouches for
				external.TLS = nil
				if _, _, err := session.Digest(t.Context(), dir, "userData.cfg"); !errors.Is(err, files.ErrNoDigest) {
					t.Errorf("from a server that is not trusted: %v", err)
				}
			}
			// A server that cannot be reached is not a verdict on the backup.
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if p == device.TFTP {
				return // it would be asked for 10 s
			}
			if _, _, err := session.Digest(t.Context(), dir, "userData.cfg"); !errors.Is(err, files.ErrNoDigest) {
				t.Errorf("from a server that is gone: %v", err)
			}
		})
	}
}

// TestExternalServerRefuses: what a server will not hand out has no digest.
func TestExternalServerRefuses(t *testing.T) {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	answers := map[string][]byte{
		"locked":  tftp.AppendError(nil, tftp.ErrAccessViolation, "only uploads here"),
		"missing": tftp.AppendError(nil, tftp.ErrFileNotFound, "no"),
		"short":   tftp.AppendError(nil, tftp.ErrNotDefined, strings.Repeat("x", 2000)),
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		buf := make([]byte, 2048)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			if p, err := tftp.Parse(buf[:n]); err == nil {
				_, _ = conn.WriteTo(answers[p.Filename], from)
			}
		}
	})
	defer serving.Wait()
	defer conn.Close()
	external := &files.ExternalServer{Server: device.FileServerAddress{
		Protocol: device.TFTP, Host: "127.0.0.1", Port: uint16(conn.LocalAddr().(*net.UDPAddr).Port),
	}}
	session, err := external.Open(device.TFTP, "A", "127.0.0.1:161")
	if err != nil {
		t.Fatal(err)
	}
	for name, missing := range map[string]bool{"locked": false, "missing": true, "short": false} {
		_, _, err := session.Digest(t.Context(), "", name)
		if errors.Is(err, fs.ErrNotExist) != missing || errors.Is(err, files.ErrNoDigest) == missing {
			t.Errorf("%s: %v", name, err)
		}
		if name == "locked" && !strings.Contains(err.Error(), "only uploads here") {
			t.Errorf("the server's words are lost: %v", err)
		}
	}
}

// TestExternalServerPrograms reads back from servers that others wrote.
func TestExternalServerPrograms(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("the server under test needs root: run the tests as root, for instance in a container")
	}
	bin := peers.Find(t, "in.tftpd")
	root, err := os.MkdirTemp("", "manager") // below /tmp itself: the server's user may read there
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(root)
	if err := errors.Join(os.Chmod(root, 0o755), os.WriteFile(root+"/open", []byte("data"), 0o644), os.WriteFile(root+"/closed", []byte("data"), 0o600)); err != nil {
		t.Fatal(err)
	}
	free, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := free.LocalAddr().(*net.UDPAddr).Port
	free.Close()
	server := exec.Command(bin, "--foreground", "--listen", "--address", fmt.Sprintf("127.0.0.1:%d", port), "--user", "nobody", "--secure", root)
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = server.Process.Kill()
		_ = server.Wait()
	}()
	external := &files.ExternalServer{Server: device.FileServerAddress{Protocol: device.TFTP, Host: "127.0.0.1", Port: uint16(port)}}
	session, err := external.Open(device.TFTP, "A", "127.0.0.1:161")
	if err != nil {
		t.Fatal(err)
	}
	want := sha256.Sum256([]byte("data"))
	if size, digest, err := session.Digest(t.Context(), "", "open"); err != nil || size != 4 || !bytes.Equal(digest, want[:]) {
		t.Errorf("%d bytes, %x, %v", size, digest, err)
	}
	if _, _, err := session.Digest(t.Context(), "", "closed"); !errors.Is(err, files.ErrNoDigest) {
		t.Errorf("a file that may not be read: %v", err)
	}
	if _, _, err := session.Digest(t.Context(), "", "none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
}

// TestExternalServerNames: no two backups have one name.
func TestExternalServerNames(t *testing.T) {
	external := &files.ExternalServer{
		Server: device.FileServerAddress{Protocol: device.FTP, Host: "192.0.2.1", User: "iad", Password: "secret"}, Directory: "backups",
		Now: func() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC) },
	}
	if _, err := external.Open(device.TFTP, "A", ""); err == nil {
		t.Error("an FTP server is said to speak TFTP")
	}
	seen := map[string]bool{}
	for _, deviceID := range []string{"A", "A", "dev/../1"} {
		session, err := external.Open(device.FTP, deviceID, "")
		if err != nil {
			t.Fatal(err)
		}
		dir, list, err := session.NewBackup(files.ConfigKinds)
		if err != nil || dir != "backups" || len(list) != len(files.ConfigKinds) {
			t.Fatalf("%s, %v, %v", dir, list, err)
		}
		for _, f := range list {
			if seen[f.Name] || strings.ContainsAny(f.Name, "/%") || !strings.Contains(f.Name, f.Kind.String()) {
				t.Errorf("name %s", f.Name)
			}
			seen[f.Name] = true
		}
		if session.Address() != external.Server || strings.Contains(external.Server.String(), "secret") {
			t.Errorf("address %v", session.Address())
		}
		session.Close()
	}
}

// A server that others run is not trusted with the memory of iadms, nor to keep to
// itself what it was told.
func TestExternalServerHostile(t *testing.T) {
	const password = "Ohgh4aiTeew3Eip9"
	endless := bytes.Repeat([]byte("230-and more\r\n"), 1000)
	for name, answer := range map[string]func(c net.Conn, command string){
		"quotes": func(c net.Conn, command string) { fmt.Fprintf(c, "500 '%s': command not understood\r\n", command) },
		"endless": func(c net.Conn, _ string) {
			for err := error(nil); err == nil; _, err = c.Write(endless) {
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			done := make(chan struct{})
			go func() {
				defer close(done)
				c, err := l.Accept()
				if err != nil {
					return
				}
				defer c.Close()
				fmt.Fprint(c, "220 ready\r\n")
				for s := bufio.NewScanner(c); s.Scan(); {
					if strings.HasPrefix(s.Text(), "PASS ") {
						answer(c, s.Text())
					} else {
						fmt.Fprint(c, "331 go on\r\n")
					}
				}
			}()
			address := l.Addr().(*net.TCPAddr)
			external := &files.ExternalServer{Server: device.FileServerAddress{
				Protocol: device.FTP, Host: "127.0.0.1", Port: uint16(address.Port), User: "iad", Password: password,
			}}
			session, err := external.Open(device.FTP, "A", "127.0.0.1:161")
			if err != nil {
				t.Fatal(err)
			}
			_, _, err = session.Digest(t.Context(), "f", "x")
			if !errors.Is(err, files.ErrNoDigest) || strings.Contains(fmt.Sprint(err), password) || len(fmt.Sprint(err)) > 1000 {
				t.Errorf("%.1000v", err)
			}
			<-done
		})
	}
}

// Waiting for an external server ends with the caller's context, and that is not taken for a server that sends nothing back.
func TestExternalServerCanceled(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var serving sync.WaitGroup
	serving.Go(func() {
		c, err := l.Accept() // and never a greeting
		if err != nil {
			t.Error(err)
			return
		}
		cancel()
		_, _ = io.Copy(io.Discard, c)
		c.Close()
	})
	defer serving.Wait()
	defer l.Close()
	external := &files.ExternalServer{Server: device.FileServerAddress{Protocol: device.FTP, Host: "127.0.0.1", Port: uint16(l.Addr().(*net.TCPAddr).Port)}}
	session, err := external.Open(device.FTP, "A", "127.0.0.1:161")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := session.Digest(ctx, "", "x"); !errors.Is(err, context.Canceled) || errors.Is(err, files.ErrNoDigest) {
		t.Error(err)
	}
}
