package transfer_test

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"example.com/iad/internal/peers"
	"example.com/iad/mib"
	"example.com/iad/transfer"
	"example.com/iad/transfer/tftp"
)

const (
	testUser     = "iad"
	testPassword = "secret word"
)

// realServer is a server that operators run, started for one test on a free port of
// the loopback network, serving one directory.
type realServer struct {
	name     string
	protocol mib.Protocol
	readOnly bool // it takes no uploads
	windows  bool // it knows windowsize
	start    func(t testing.TB, root string) *running
}

// running is a server that runs.
type running struct {
	transfer.Server
	pin  []byte // of its certificate
	conf string // its configuration file, where it has one
	stop func() // kills it with all its children
	log  *peers.Output
}

var realServers = []realServer{
	{name: "tftpd-hpa", protocol: mib.ProtocolTftp, start: startHPA},
	{name: "atftpd", protocol: mib.ProtocolTftp, windows: true, start: startATFTPD},
	{name: "dnsmasq", protocol: mib.ProtocolTftp, readOnly: true, start: startDnsmasq},
	{name: "vsftpd", protocol: mib.ProtocolFtp, start: startVsftpd},
	{name: "vsftpd-tls", protocol: mib.ProtocolFtps, start: startVsftpdTLS},
	{name: "proftpd", protocol: mib.ProtocolFtp, start: startProftpd},
	{name: "pure-ftpd", protocol: mib.ProtocolFtp, start: startPureFTPd},
	{name: "pure-ftpd-tls", protocol: mib.ProtocolFtps, start: startPureFTPdTLS},
}

// needRoot skips a test of servers that want to change user or root directory.
func needRoot(t testing.TB) {
	t.Helper()
	if os.Getuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("the servers under test need root")
		}
		t.Skip("the servers under test need root: run the tests as root, for instance in a container")
	}
}

// newRoot returns an empty directory that a server's unprivileged user can write.
func newRoot(t testing.TB) string {
	t.Helper()
	// Below /tmp itself: the directories of t.TempDir are closed to other users.
	dir, err := os.MkdirTemp("", "transfer")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	root := mkdir(t, dir, "files")
	open(t, root)
	return root
}

// newConfigDir returns an empty directory that others can read only.
func newConfigDir(t testing.TB) string {
	t.Helper()
	dir := newRoot(t)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func open(t testing.TB, path string) {
	t.Helper()
	if err := os.Chmod(path, 0o777); err != nil {
		t.Fatal(err)
	}
}

// launch starts a program and ends it with the test.
func launch(t testing.TB, path string, args ...string) *running {
	t.Helper()
	log := &peers.Output{}
	cmd := exec.Command(path, args...)
	cmd.Stdout, cmd.Stderr = log, log
	peers.OwnGroup(cmd)
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	stop := sync.OnceFunc(func() {
		for _, pid := range family(cmd.Process.Pid) {
			if p, err := os.FindProcess(pid); err == nil {
				_ = p.Kill()
			}
		}
		_ = cmd.Wait()
	})
	t.Cleanup(func() {
		stop()
		if t.Failed() {
			t.Logf("%s said:\n%s", filepath.Base(path), log.String())
		}
	})
	return &running{stop: stop, log: log}
}

// family returns a process and its descendants: servers give their sessions
// process groups of their own.
func family(pid int) []int {
	list := []int{pid}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for i := 0; i < len(list); i++ {
		for _, stat := range stats {
			b, err := os.ReadFile(stat)
			_, after, ok := strings.Cut(string(b), ") ")
			var state string
			var parent, child int
			if err != nil || !ok {
				continue
			}
			if _, err := fmt.Sscan(after, &state, &parent); err != nil || parent != list[i] {
				continue
			}
			if _, err := fmt.Sscan(string(b), &child); err == nil {
				list = append(list, child)
			}
		}
	}
	return list
}

// nextPort is where to look for a free port: below those that the kernel hands
// out by itself, so that none is taken between being found and being used.
var nextPort atomic.Int32

func freePort(t testing.TB, network string) int {
	t.Helper()
	for range 1000 {
		port := 10_000 + (os.Getpid()*37+int(nextPort.Add(1)))%20_000
		address := fmt.Sprint("127.0.0.1:", port)
		if network == "udp" {
			if c, err := net.ListenPacket("udp", address); err == nil {
				c.Close()
				return port
			}
		} else if l, err := net.Listen("tcp", address); err == nil {
			l.Close()
			return port
		}
	}
	t.Fatal("no free port")
	return 0
}

// awaitTFTP asks for a file that is not there until the server says so.
func (r *running) awaitTFTP(t testing.TB) *running {
	t.Helper()
	c, err := net.Dial("udp", net.JoinHostPort(r.Host, fmt.Sprint(r.Port)))
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	to := &net.UDPAddr{IP: net.ParseIP(r.Host), Port: r.Port}
	conn, err := net.ListenUDP("udp", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	request := tftp.AppendRequest(nil, tftp.OpReadRequest, "is-it-up", tftp.Options{})
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
		if _, err := conn.WriteToUDP(request, to); err != nil {
			t.Fatal(err)
		}
		_ = conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		if _, _, err := conn.ReadFromUDP(make([]byte, 600)); err == nil {
			return r
		}
	}
	t.Fatalf("server does not answer:\n%s", r.log.String())
	return nil
}

// awaitFTP connects until the server greets.
func (r *running) awaitFTP(t testing.TB) *running {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
		c, err := net.DialTimeout("tcp", net.JoinHostPort(r.Host, fmt.Sprint(r.Port)), time.Second)
		if err != nil {
			// Refused at once: give the server the processor.
			<-time.After(10 * time.Millisecond)
			continue
		}
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
		line, err := bufio.NewReader(c).ReadString('\n')
		fmt.Fprint(c, "QUIT\r\n")
		c.Close()
		if err == nil && strings.HasPrefix(line, "220") {
			return r
		}
	}
	t.Fatalf("server does not greet:\n%s", r.log.String())
	return nil
}

func startHPA(t testing.TB, root string) *running {
	needRoot(t)
	port := freePort(t, "udp")
	r := launch(t, peers.Find(t, "in.tftpd"), "--foreground", "--listen", "--address", fmt.Sprintf("127.0.0.1:%d", port),
		"--user", "nobody", "--create", "--secure", root)
	r.Server = transfer.Server{Protocol: mib.ProtocolTftp, Host: "127.0.0.1", Port: port}
	return r.awaitTFTP(t)
}

func startATFTPD(t testing.TB, root string) *running {
	needRoot(t)
	port := freePort(t, "udp")
	r := launch(t, peers.Find(t, "atftpd"), "--daemon", "--no-fork", "--bind-address", "127.0.0.1", "--port", fmt.Sprint(port),
		"--user", "nobody.nogroup", "--logfile", "-", root)
	r.Server = transfer.Server{Protocol: mib.ProtocolTftp, Host: "127.0.0.1", Port: port}
	return r.awaitTFTP(t)
}

// startDnsmasq: its TFTP port is 69 always, so it gets a loopback address of its own.
func startDnsmasq(t testing.TB, root string) *running {
	needRoot(t)
	pid := os.Getpid()
	host := fmt.Sprintf("127.%d.%d.%d", 64+nextPort.Add(1)%64, pid>>8&0xff, pid&0xff|1)
	r := launch(t, peers.Find(t, "dnsmasq"), "--keep-in-foreground", "--conf-file=/dev/null", "--pid-file=", "--port=0", "--user=nobody", "--group=nogroup",
		"--listen-address="+host, "--bind-interfaces", "--enable-tftp", "--tftp-root="+root, "--log-facility=-")
	r.Server = transfer.Server{Protocol: mib.ProtocolTftp, Host: host}
	probe := *r
	probe.Port = 69
	probe.awaitTFTP(t)
	return r
}

func writeFile(t testing.TB, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func startVsftpd(t testing.TB, root string) *running    { return vsftpd(t, root, false) }
func startVsftpdTLS(t testing.TB, root string) *running { return vsftpd(t, root, true) }

func vsftpd(t testing.TB, root string, secure bool, more ...string) *running {
	needRoot(t)
	port, dir := freePort(t, "tcp"), newConfigDir(t)
	settings := []string{
		"listen=YES", "listen_address=127.0.0.1", fmt.Sprintf("listen_port=%d", port), "background=NO", "seccomp_sandbox=NO",
		"anonymous_enable=YES", "local_enable=YES", "no_anon_password=NO", "ftp_username=daemon", "anon_root=" + filepath.Dir(root), "anon_umask=022",
		"write_enable=YES", "anon_upload_enable=YES", "anon_mkdir_write_enable=YES", "anon_other_write_enable=YES", "anon_world_readable_only=NO",
		"allow_writeable_chroot=YES", "secure_chroot_dir=" + mkdir(t, dir, "empty"), "xferlog_enable=NO", "pam_service_name=other", "check_shell=NO",
		"delay_failed_login=0", "isolate_network=NO",
	}
	var pin []byte
	if secure {
		var file string
		file, pin = certificate(t, dir)
		settings = append(settings, "ssl_enable=YES", "allow_anon_ssl=YES", "force_anon_logins_ssl=YES", "force_anon_data_ssl=YES",
			"force_local_logins_ssl=YES", "require_ssl_reuse=YES", "strict_ssl_read_eof=YES", "rsa_cert_file="+file, "rsa_private_key_file="+file, "ssl_ciphers=HIGH")
	}
	conf := writeFile(t, filepath.Join(dir, "vsftpd.conf"), strings.Join(append(settings, more...), "\n")+"\n")
	r := launch(t, peers.Find(t, "vsftpd"), conf)
	r.conf = conf
	r.Server = transfer.Server{Protocol: mib.ProtocolFtp, Host: "127.0.0.1", Port: port, Path: filepath.Base(root)}
	if r.pin = pin; secure {
		r.Protocol = mib.ProtocolFtps
	}
	return r.awaitFTP(t)
}

func mkdir(t testing.TB, elements ...string) string {
	t.Helper()
	dir := filepath.Join(elements...)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// passwordHash is crypt(3) of testPassword, SHA-512.
const passwordHash = "$6$iadiadiad$pLSmqEbaRDk.pz9cP3fYvUTfOkLoa/BaRKFInq3GsW8u04ohyEg7l3.2qrKUWvizgutAry.fMBU81qTlWknBB0"

func startProftpd(t testing.TB, root string) *running {
	needRoot(t)
	port, dir := freePort(t, "tcp"), newConfigDir(t)
	passwd := writeFile(t, filepath.Join(dir, "passwd"), fmt.Sprintf("%s:%s:65534:65534::%s:/bin/false\n", testUser, passwordHash, root))
	if err := os.Chmod(passwd, 0o600); err != nil {
		t.Fatal(err)
	}
	conf := writeFile(t, filepath.Join(dir, "proftpd.conf"), strings.Join([]string{
		"ServerType standalone", "DefaultAddress 127.0.0.1", "UseIPv6 off", "UseReverseDNS off", fmt.Sprintf("Port %d", port), "User nobody", "Group nogroup",
		"AuthOrder mod_auth_file.c", "AuthUserFile " + passwd, "RequireValidShell off", "DefaultRoot " + root, "AllowOverwrite on", "AllowStoreRestart on",
		"AllowRetrieveRestart on", "WtmpLog off", "PidFile " + filepath.Join(dir, "pid"), "ScoreboardFile " + filepath.Join(dir, "scoreboard"),
		"SystemLog " + filepath.Join(dir, "log"), "TransferLog none", "DelayEngine off",
	}, "\n")+"\n")
	r := launch(t, peers.Find(t, "proftpd"), "--nodaemon", "--config", conf)
	r.Server = transfer.Server{Protocol: mib.ProtocolFtp, Host: "127.0.0.1", Port: port, User: testUser, Password: testPassword}
	return r.awaitFTP(t)
}

func startPureFTPd(t testing.TB, root string) *running    { return pureFTPd(t, root, false) }
func startPureFTPdTLS(t testing.TB, root string) *running { return pureFTPd(t, root, true) }

func pureFTPd(t testing.TB, root string, secure bool) *running {
	needRoot(t)
	port, dir := freePort(t, "tcp"), newConfigDir(t)
	// The text form of pure-pw: user, hash, uid, gid, gecos, home and limits.
	passwd := writeFile(t, filepath.Join(dir, "passwd"), fmt.Sprintf("%s:%s:65534:65534::%s/./::::::::::::\n", testUser, passwordHash, root))
	db := filepath.Join(dir, "pdb")
	if out, err := exec.Command(peers.Find(t, "pure-pw"), "mkdb", db, "-f", passwd).CombinedOutput(); err != nil {
		t.Fatalf("pure-pw: %v: %s", err, out)
	}
	args := []string{"--bind", fmt.Sprintf("127.0.0.1,%d", port), "--login", "puredb:" + db, "--noanonymous", "--dontresolve", "--minuid", "1",
		"--pidfile", filepath.Join(dir, "pid"), "--allowdotfiles", "--syslogfacility", "none"}
	var pin []byte
	if secure {
		var file string
		file, pin = certificate(t, dir)
		args = append(args, "--tls", "2", "--certfile", file)
	}
	r := launch(t, peers.Find(t, "pure-ftpd"), args...)
	r.Server = transfer.Server{Protocol: mib.ProtocolFtp, Host: "127.0.0.1", Port: port, User: testUser, Password: testPassword}
	if r.pin = pin; secure {
		r.Protocol = mib.ProtocolFtps
	}
	return r.awaitFTP(t)
}

// certificate makes a certificate for 127.0.0.1 and returns a file with it and
// its key, and its pin.
func certificate(t testing.TB, dir string) (file string, pin []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test server"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	_ = pem.Encode(&b, &pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
	_ = pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: der})
	sum := sha256.Sum256(der)
	file = filepath.Join(dir, "server.pem")
	if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return file, sum[:]
}
