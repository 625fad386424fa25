package files_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spf13/afero"

	"example.com/iad/internal/iadtest"
	"example.com/iad/internal/peers"
	"example.com/iad/manager/device"
	"example.com/iad/manager/files"
	"example.com/iad/mib"
	"example.com/iad/transfer"
	"example.com/iad/transfer/tftp"
)

// program is a client that operators use, as the servers' tests call it.
type program struct {
	name     string
	protocol device.Protocol
	get, put func(bin, host, port, remote, local string) []string
	missing  string // what it says of a file that is not there
}

var programs = []program{
	{
		name: "tftp", protocol: device.TFTP, missing: "file not found",
		get: func(bin, host, port, remote, local string) []string {
			return []string{bin, "-m", "binary", host, port, "-c", "get", remote, local}
		},
		put: func(bin, host, port, remote, local string) []string {
			return []string{bin, "-m", "binary", host, port, "-c", "put", local, remote}
		},
	},
	{
		name: "atftp", protocol: device.TFTP, missing: "file not found",
		get: func(bin, host, port, remote, local string) []string {
			return []string{bin, "--get", "-r", remote, "-l", local, host, port}
		},
		put: func(bin, host, port, remote, local string) []string {
			return []string{bin, "--put", "-r", remote, "-l", local, host, port}
		},
	},
	{
		name: "atftp", protocol: device.TFTP, missing: "file not found",
		get: func(bin, host, port, remote, local string) []string {
			return []string{bin, "--option", "blksize 1428", "--option", "windowsize 64", "--option", "tsize 0", "--option", "timeout 1", "--get", "-r", remote, "-l", local, host, port}
		},
		put: func(bin, host, port, remote, local string) []string {
			return []string{bin, "--option", "blksize 1428", "--option", "windowsize 64", "--option", "timeout 1", "--put", "-r", remote, "-l", local, host, port}
		},
	},
	{
		name: "busybox", protocol: device.TFTP, missing: "file not found",
		get: func(bin, host, port, remote, local string) []string {
			return []string{bin, "tftp", "-b", "1428", "-g", "-r", remote, "-l", local, host, port}
		},
		put: func(bin, host, port, remote, local string) []string {
			return []string{bin, "tftp", "-b", "1428", "-p", "-r", remote, "-l", local, host, port}
		},
	},
	{
		name: "curl", protocol: device.TFTP, missing: "file not found",
		get: func(bin, host, port, remote, local string) []string {
			return []string{bin, "-sSv", "--tftp-blksize", "1428", "-o", local, "tftp://" + net.JoinHostPort(host, port) + "/" + remote}
		},
		put: func(bin, host, port, remote, local string) []string {
			return []string{bin, "-sSv", "-T", local, "tftp://" + net.JoinHostPort(host, port) + "/" + remote}
		},
	},
	{
		name: "curl", protocol: device.FTP, missing: "550",
		get: func(bin, host, port, remote, local string) []string {
			return []string{bin, "-sSv", "-o", local, "ftp://" + net.JoinHostPort(host, port) + "/" + remote}
		},
		put: func(bin, host, port, remote, local string) []string {
			return []string{bin, "-sSv", "-T", local, "ftp://" + net.JoinHostPort(host, port) + "/" + remote}
		},
	},
	{
		name: "curl", protocol: device.FTPS, missing: "550",
		get: func(bin, host, port, remote, local string) []string {
			return []string{bin, "-sSv", "-k", "--ssl-reqd", "-o", local, "ftp://" + net.JoinHostPort(host, port) + "/" + remote}
		},
		put: func(bin, host, port, remote, local string) []string {
			return []string{bin, "-sSv", "-k", "--ssl-reqd", "-T", local, "ftp://" + net.JoinHostPort(host, port) + "/" + remote}
		},
	},
	{
		name: "busybox", protocol: device.FTP, missing: "550",
		get: func(bin, host, port, remote, local string) []string {
			return []string{bin, "ftpget", "-P", port, host, local, remote}
		},
		put: func(bin, host, port, remote, local string) []string {
			return []string{bin, "ftpput", "-P", port, host, remote, local}
		},
	},
}

// TestServersPrograms moves files by programs that others wrote.
func TestServersPrograms(t *testing.T) {
	for i := range 2 * len(programs) {
		p, singlePort := programs[i/2], i%2 == 1
		if singlePort && p.protocol != device.TFTP {
			continue
		}
		t.Run(fmt.Sprintf("%s-%s-%d", p.name, p.protocol, i), func(t *testing.T) {
			bin := peers.Find(t, p.name)
			s, disk := iadtest.StartServers(t, func(c *files.ServersConfig) { c.MaxUpload, c.SinglePort = 4<<20, singlePort })
			session, err := s.Open(p.protocol, "A", "127.0.0.1:161")
			if err != nil {
				t.Fatal(err)
			}
			a := session.Address()
			run := func(command []string) (string, error) {
				if a.User != "" && p.name == "curl" {
					command = append(command, "-u", a.User+":"+a.Password)
				} else if a.User != "" {
					command = append(append(append([]string(nil), command[:2]...), "-u", a.User, "-p", a.Password), command[2:]...)
				}
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
				defer cancel()
				out, err := exec.CommandContext(ctx, command[0], command[1:]...).CombinedOutput()
				return string(out), err
			}
			port, dir := fmt.Sprint(a.Port), t.TempDir()
			for _, size := range []int{0, 1, 512, 3 * 1428, 1_000_000} {
				want := make([]byte, size)
				rand.New(rand.NewSource(int64(size))).Read(want)
				directory, _, err := session.NewBackup(iadtest.OneKind)
				if err != nil {
					t.Fatal(err)
				}
				remote, local := directory+"/userData.cfg", filepath.Join(dir, "local")
				if err := os.WriteFile(local, want, 0o600); err != nil {
					t.Fatal(err)
				}
				out, err := run(p.put(bin, a.Host, port, remote, local))
				if got, rerr := afero.ReadFile(disk, remote); rerr != nil || !bytes.Equal(got, want) {
					t.Fatalf("upload of %d bytes: %d are there, %v, %v: %s", size, len(got), rerr, err, out)
				}
				if err := os.Remove(local); err != nil {
					t.Fatal(err)
				}
				out, err = run(p.get(bin, a.Host, port, remote, local))
				if got, rerr := os.ReadFile(local); (rerr != nil || !bytes.Equal(got, want)) && !(size == 0 && errors.Is(rerr, fs.ErrNotExist)) {
					t.Fatalf("download of %d bytes: %d came, %v, %v: %s", size, len(got), rerr, err, out)
				}
			}
			out, _ := run(p.get(bin, a.Host, port, "backup/A/none", filepath.Join(dir, "none")))
			if !strings.Contains(strings.ToLower(out), p.missing) {
				t.Errorf("of a file that is not there it says: %s", out)
			}
		})
	}
}

// TestServersCurlResumes: curl goes on where it stopped, both ways.
func TestServersCurlResumes(t *testing.T) {
	curl := peers.Find(t, "curl")
	s, disk := iadtest.StartServers(t, nil)
	session, directory := iadtest.OpenBackup(t, s, device.FTP)
	a, local := session.Address(), filepath.Join(t.TempDir(), "local")
	data := bytes.Repeat([]byte("0123456789"), 5000)
	run := func(arguments ...string) {
		t.Helper()
		arguments = append(arguments, "-sS", "-C", "-", "-u", a.User+":"+a.Password)
		if out, err := exec.CommandContext(t.Context(), curl, arguments...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	url := fmt.Sprintf("ftp://%s:%d/%s/x.part", a.Host, a.Port, directory)
	for _, part := range []int{20_000, len(data)} {
		if err := os.WriteFile(local, data[:part], 0o600); err != nil {
			t.Fatal(err)
		}
		run("-T", local, url)
		if got, err := afero.ReadFile(disk, directory+"/x.part"); err != nil || !bytes.Equal(got, data[:part]) {
			t.Errorf("%d bytes of %d are there, %v", len(got), part, err)
		}
	}
	if err := os.WriteFile(local, data[:30_000], 0o600); err != nil {
		t.Fatal(err)
	}
	run("-o", local, url)
	if got, err := os.ReadFile(local); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes of %d came, %v", len(got), len(data), err)
	}
}

// TestServersDevice: a device stores and fetches, also over a bad line, at the edges of
// what TFTP can say.
func TestServersDevice(t *testing.T) {
	for _, x := range []struct {
		name       string
		protocol   device.Protocol
		options    transfer.Options
		line       line
		size       int
		singlePort bool
	}{
		{name: "tftp", protocol: device.TFTP, size: 1_000_000},
		{name: "tftp lockstep", protocol: device.TFTP, options: transfer.Options{Window: 1}, size: 1_000_000},
		{name: "tftp wide window", protocol: device.TFTP, options: transfer.Options{Window: 1024}, size: 4_000_000},
		{name: "tftp large blocks", protocol: device.TFTP, options: transfer.Options{BlockSize: 65464, Window: 64}, size: 4_000_000},
		{name: "tftp small blocks", protocol: device.TFTP, options: transfer.Options{BlockSize: 8, Window: 64}, size: 8 * 70_000},
		{name: "tftp far", protocol: device.TFTP, line: line{delay: 100 * time.Millisecond}, size: 256 << 10},
		{name: "tftp loss", protocol: device.TFTP, line: line{delay: 10 * time.Millisecond, loss: 0.05, seed: 1}, size: 256 << 10},
		{name: "tftp lockstep loss", protocol: device.TFTP, options: transfer.Options{Window: 1}, line: line{delay: time.Millisecond, loss: 0.05, seed: 2}, size: 64 << 10},
		{name: "tftp disorder", protocol: device.TFTP, line: line{delay: 10 * time.Millisecond, duplicate: 0.05, reorder: 0.05, seed: 3}, size: 256 << 10},
		{name: "tftp one port", protocol: device.TFTP, singlePort: true, size: 1_000_000},
		{name: "tftp one port large blocks", protocol: device.TFTP, singlePort: true, options: transfer.Options{BlockSize: 65464, Window: 4}, size: 4_000_000},
		{name: "tftp one port small blocks", protocol: device.TFTP, singlePort: true, options: transfer.Options{BlockSize: 8, Window: 64}, size: 8 * 70_000},
		{name: "tftp one port loss", protocol: device.TFTP, singlePort: true, line: line{delay: 10 * time.Millisecond, loss: 0.05, duplicate: 0.05, reorder: 0.05, seed: 1}, size: 256 << 10},
		{name: "ftp", protocol: device.FTP, size: 1_000_000},
		{name: "ftps", protocol: device.FTPS, size: 1_000_000},
	} {
		t.Run(x.name, func(t *testing.T) {
			t.Parallel()
			s, disk := iadtest.StartServersBeside(t, func(c *files.ServersConfig) { c.MaxUpload, c.SinglePort = 4<<20, x.singlePort })
			session, err := s.Open(x.protocol, "A", "127.0.0.1:161")
			if err != nil {
				t.Fatal(err)
			}
			directory, _, err := session.NewBackup(iadtest.OneKind)
			if err != nil {
				t.Fatal(err)
			}
			port := int(session.Address().Port)
			if x.line != (line{}) {
				port = relayTFTP(t, port, x.line)
			}
			c := iadtest.DeviceClient(t, s, session.Address(), port, x.options)
			want := make([]byte, x.size)
			rand.New(rand.NewSource(1)).Read(want)
			if n, err := c.Put(t.Context(), directory+"/userData.cfg", bytes.NewReader(want), int64(x.size)); err != nil || n != int64(x.size) {
				t.Fatalf("stored %d bytes, %v", n, err)
			}
			if got, err := afero.ReadFile(disk, directory+"/userData.cfg"); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%d bytes arrived of %d, %v", len(got), x.size, err)
			}
			sum := sha256.Sum256(want)
			if err := c.Verify(t.Context(), directory+"/userData.cfg", int64(x.size), sum[:]); err != nil {
				t.Error(err)
			}
			var failure *transfer.Error
			if _, _, err := c.Get(t.Context(), directory+"/none", 0); !errors.As(err, &failure) || failure.Code != mib.FailCauseFileNotFound {
				t.Errorf("a file that is not there: %v", err)
			}
			if _, err := c.Put(t.Context(), directory+"/portData.cfg", bytes.NewReader(make([]byte, 5<<20)), 5<<20); !errors.As(err, &failure) || failure.Code != mib.FailCauseRemoteStorageFull {
				t.Errorf("a file that is too large: %v", err)
			}
		})
	}
}

// TestServersAnswerFromWhereAsked: a client takes answers only from the address that
// it asked.
func TestServersAnswerFromWhereAsked(t *testing.T) {
	for _, x := range []struct{ listen, ask string }{{"0.0.0.0:0", "127.0.0.3"}, {":0", "127.0.0.3"}, {":0", "::1"}, {"[::1]:0", "::1"}} {
		s, _ := iadtest.StartServers(t, func(c *files.ServersConfig) { c.TFTP, c.Advertise = x.listen, x.ask })
		session, directory := iadtest.OpenBackup(t, s, device.TFTP)
		a := session.Address()
		a.Timeout = 2 * time.Second
		c := iadtest.DeviceClient(t, s, a, int(a.Port), transfer.Options{})
		if _, err := c.Put(t.Context(), directory+"/userData.cfg", strings.NewReader("x"), 1); err != nil {
			t.Errorf("server on %s, asked at %s: %v", x.listen, x.ask, err)
		}
	}
}

// TestServersSinglePort: a client behind a firewall receives only what comes from the
// address and port that it asked, as a connected socket does.
func TestServersSinglePort(t *testing.T) {
	for _, x := range []struct{ listen, ask string }{{"127.0.0.1:0", "127.0.0.1"}, {"0.0.0.0:0", "127.0.0.3"}, {":0", "127.0.0.3"}, {":0", "::1"}, {"[::1]:0", "::1"}} {
		s, disk := iadtest.StartServers(t, func(c *files.ServersConfig) { c.TFTP, c.SinglePort = x.listen, true })
		_, folder := iadtest.OpenBackup(t, s, device.TFTP)
		if err := afero.WriteFile(disk, folder+"/userData.cfg", []byte("operator's data"), 0o600); err != nil {
			t.Fatal(err)
		}
		conn, err := net.Dial("udp", net.JoinHostPort(x.ask, fmt.Sprint(s.Addr(device.TFTP).(*net.UDPAddr).Port)))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte("\x00\x01" + folder + "/userData.cfg\x00octet\x00")); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 1024)
		n, err := conn.Read(b)
		if err != nil || string(b[:n]) != "\x00\x03\x00\x01operator's data" {
			t.Errorf("server on %s, asked at %s: %q, %v", x.listen, x.ask, b[:n], err)
		}
		if _, err := conn.Write([]byte("\x00\x04\x00\x01")); err != nil {
			t.Fatal(err)
		}
	}
}

// TestServersCloseAtOnce: ending the servers waits for no client.
func TestServersCloseAtOnce(t *testing.T) {
	s, err := files.StartServers(files.ServersConfig{Files: afero.NewMemMapFs(), TFTP: "127.0.0.1:0", FTP: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	session, c := open(t, s, device.FTP, "A")
	directory, _, err := session.NewBackup(iadtest.OneKind)
	if err != nil {
		t.Fatal(err)
	}
	stalled, begun := make(chan struct{}), make(chan struct{})
	ended := make(chan error, 1)
	go func() {
		ended <- c.(ftpClient).Stor(directory+"/x.part", io.MultiReader(strings.NewReader("x"), readerFunc(func([]byte) (int, error) {
			close(begun)
			<-stalled
			return 0, io.EOF
		})))
	}()
	<-begun
	udp, err := net.Dial("udp", s.Addr(device.TFTP).String())
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	if _, err := udp.Write(tftp.AppendRequest(nil, tftp.OpWriteRequest, directory+"/y", tftp.Options{})); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 6*time.Second { // patience with a silent client is longer
		t.Errorf("closing took %v", took)
	}
	close(stalled)
	if err := <-ended; err == nil {
		t.Error("the upload that was cut off looks complete")
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// BenchmarkTFTPFar fetches 1 MiB in blocks of 1428 bytes over a line of 20 ms round
// trip: in lockstep, and in windows.
func BenchmarkTFTPFar(b *testing.B) {
	for _, window := range []int{1, 64} {
		b.Run(fmt.Sprintf("window=%d", window), func(b *testing.B) {
			disk := afero.NewMemMapFs()
			s, err := files.StartServers(files.ServersConfig{Files: disk, TFTP: "127.0.0.1:0"})
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			session, err := s.Open(device.TFTP, "A", "127.0.0.1:161")
			if err != nil {
				b.Fatal(err)
			}
			directory, _, err := session.NewBackup(iadtest.OneKind)
			if err != nil {
				b.Fatal(err)
			}
			if err := afero.WriteFile(disk, directory+"/userData.cfg", make([]byte, 1<<20), 0o600); err != nil {
				b.Fatal(err)
			}
			port := relayTFTP(b, int(session.Address().Port), line{delay: 10 * time.Millisecond})
			c := iadtest.DeviceClient(b, s, session.Address(), port, transfer.Options{Window: window})
			b.SetBytes(1 << 20)
			for b.Loop() {
				r, _, err := c.Get(b.Context(), directory+"/userData.cfg", 0)
				if err != nil {
					b.Fatal(err)
				}
				if n, err := io.Copy(io.Discard, r); err != nil || n != 1<<20 {
					b.Fatalf("%d bytes, %v", n, err)
				}
				r.Close()
			}
		})
	}
}

// TestServersTFTPFlood: requests without end from one host do not keep another from its
// files, and leave nothing behind.
func TestServersTFTPFlood(t *testing.T) {
	s, disk := iadtest.StartServers(t, nil)
	session, directory := iadtest.OpenBackup(t, s, device.TFTP)
	to := s.Addr(device.TFTP).(*net.UDPAddr)
	enough := make(chan struct{})
	var flood sync.WaitGroup
	var sent atomic.Int64
	for host := range 2 {
		conn, err := net.DialUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, byte(9+host))}, to)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		flood.Go(func() {
			for i := range 20_000 {
				select {
				case <-enough:
					return
				default:
				}
				op := tftp.OpReadRequest + tftp.Op(i%2)
				options := tftp.Options{Window: 1 + i} // another request each time: what went on with this port ends
				if _, err := conn.Write(tftp.AppendRequest(nil, op, directory+"/userData.cfg", options)); err == nil {
					sent.Add(1)
				}
			}
		})
	}
	data := bytes.Repeat([]byte("0123456789"), 9000)
	sum := sha256.Sum256(data)
	c := iadtest.DeviceClient(t, s, session.Address(), to.Port, transfer.Options{})
	if _, err := c.Put(t.Context(), directory+"/userData.cfg", bytes.NewReader(data), int64(len(data))); err != nil {
		t.Errorf("after %d hostile requests: %v", sent.Load(), err)
	}
	if err := c.Verify(t.Context(), directory+"/userData.cfg", int64(len(data)), sum[:]); err != nil {
		t.Errorf("after %d hostile requests: %v", sent.Load(), err)
	}
	close(enough)
	flood.Wait()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if list, err := afero.ReadDir(disk, directory); err != nil || len(list) != 1 {
		t.Errorf("the directory holds %d files, %v", len(list), err)
	}
	t.Logf("%d hostile requests", sent.Load())
}
