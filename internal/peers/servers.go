package peers

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// NeedRoot ends or skips a test of servers that want to change user or root directory.
func NeedRoot(t testing.TB) {
	t.Helper()
	if os.Getuid() == 0 {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("the servers under test need root")
	}
	t.Skip("the servers under test need root: run the tests as root, for instance in a container")
}

// Tftpd starts tftpd-hpa on a free port of loopback, for reading and writing below directory root, and ends it with the test.
func Tftpd(t testing.TB, root string) *net.UDPAddr {
	t.Helper()
	NeedRoot(t)
	port, err := FreePort("udp")
	if err != nil {
		t.Fatal(err)
	}
	addr := &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port}
	start(t, Find(t, "in.tftpd"), "--foreground", "--listen", "--address", addr.String(), "--user", "root", "--create", "--secure", root)
	await(t, func() bool {
		// A request for a file that is not there is answered once the server is up.
		probe, err := net.ListenUDP("udp", nil)
		if err != nil {
			return false
		}
		defer probe.Close()
		_ = probe.SetDeadline(time.Now().Add(100 * time.Millisecond))
		if _, err := probe.WriteToUDP([]byte("\x00\x01is-it-up\x00octet\x00"), addr); err != nil {
			return false
		}
		_, _, err = probe.ReadFromUDP(make([]byte, 600))
		return err == nil
	})
	return addr
}

// Vsftpd starts vsftpd on a free port of loopback for anonymous reading and writing in directory root/name, and ends it with
// the test. root must not be writable by everybody, root/name must be. More settings come after the usual ones.
func Vsftpd(t testing.TB, root string, more ...string) *net.TCPAddr {
	t.Helper()
	NeedRoot(t)
	port, err := FreePort("tcp")
	if err != nil {
		t.Fatal(err)
	}
	addr := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port}
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty")
	if err := os.Mkdir(empty, 0o755); err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(dir, "vsftpd.conf")
	if err := os.WriteFile(conf, []byte(strings.Join([]string{
		"listen=YES", "listen_address=127.0.0.1", fmt.Sprintf("listen_port=%d", addr.Port), "background=NO", "seccomp_sandbox=NO",
		"anonymous_enable=YES", "local_enable=NO", "ftp_username=daemon", "anon_root=" + root, "anon_umask=022",
		"write_enable=YES", "anon_upload_enable=YES", "anon_mkdir_write_enable=YES", "anon_other_write_enable=YES", "anon_world_readable_only=NO",
		"allow_writeable_chroot=YES", "secure_chroot_dir=" + empty, "xferlog_enable=NO", "pam_service_name=other", "isolate_network=NO",
	}, "\n")+"\n"+strings.Join(more, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	start(t, Find(t, "vsftpd"), conf)
	await(t, func() bool {
		c, err := net.DialTimeout("tcp", addr.String(), time.Second)
		if err != nil {
			return false
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(time.Second))
		line := make([]byte, 3)
		_, err = c.Read(line)
		return err == nil && string(line) == "220"
	})
	return addr
}

// start runs a server until the end of the test, and shows what it said if the test failed.
func start(t testing.TB, path string, args ...string) {
	t.Helper()
	var said Output
	cmd := exec.Command(path, args...)
	cmd.Stdout, cmd.Stderr = &said, &said
	OwnGroup(cmd)
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	t.Cleanup(func() {
		killGroup(cmd)
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("%s said:\n%s", filepath.Base(path), said.String())
		}
	})
}

// await waits until a server is up.
func await(t testing.TB, up func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
		if up() {
			return
		}
		<-time.After(10 * time.Millisecond) // refused at once: give the server the processor
	}
	t.Fatal("the server does not answer")
}

// Output keeps what a program prints; several goroutines may write to it and read it.
type Output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *Output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

// String returns what was written so far.
func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}
