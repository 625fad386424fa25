package agent_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"aead.dev/minisign"
	"github.com/pin/tftp/v3"

	"example.com/iad/agent/snmp"
	"example.com/iad/bank/image"
	"example.com/iad/internal/iadtest"
	"example.com/iad/internal/peers"
	"example.com/iad/mib"
	"example.com/iad/sim"
)

// tftpFiles is a TFTP server on a map.
type tftpFiles struct {
	mu    sync.Mutex
	files map[string][]byte
}

func (f *tftpFiles) file(name string) []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.files[name]
}

func (f *tftpFiles) serve(t *testing.T) string {
	t.Helper()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	s := tftp.NewServer(func(name string, r io.ReaderFrom) error {
		f.mu.Lock()
		data, ok := f.files[name]
		f.mu.Unlock()
		if !ok {
			return os.ErrNotExist
		}
		r.(tftp.OutgoingTransfer).SetSize(int64(len(data)))
		_, err := r.ReadFrom(bytes.NewReader(data))
		return err
	}, func(name string, w io.WriterTo) error {
		var b bytes.Buffer
		_, err := w.WriteTo(&b)
		f.mu.Lock()
		defer f.mu.Unlock()
		f.files[name] = b.Bytes()
		return err
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(conn)
	}()
	t.Cleanup(func() {
		s.Shutdown()
		<-done
	})
	_, port, _ := net.SplitHostPort(conn.LocalAddr().String())
	return port
}

// ownAddress is an address of loopback that no other test uses, with a port
// below those that the system hands out, so that nobody takes it while the
// device restarts.
func ownAddress() string {
	return fmt.Sprintf("127.%d.%d.%d:%d", 1+rand.IntN(254), rand.IntN(256), 1+rand.IntN(254), 10000+rand.IntN(20000))
}

// netDevice is a virtual device with an embedded engine on loopback, in real
// time; it returns its address.
func netDevice(t *testing.T, sink string) (addr string) {
	t.Helper()
	d := sim.New(sim.Config{
		ID: "IAD-0001", Hardware: hardware, Disk: sim.Memory(), BankSize: 1 << 20,
		Trust:  image.TrustKeys(maker().Public().(minisign.PublicKey)),
		Hooks:  sim.Hooks{SelfTest: (&bench{}).runSelfTest, Convert: convert},
		Listen: ownAddress(),
		SNMP: &snmp.Config{
			Communities: []snmp.Community{{Name: "public"}, {Name: "private", Write: true}},
			Sinks:       []snmp.Sink{{Address: sink, Community: "public"}},
		},
	})
	if err := d.Provision(bytes.NewReader(factory()), settings(1, "name")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("device: %v", err)
		}
	})
	return d.Addr(ctx).String()
}

// sh runs a script with net-snmp's tools in the top directory of the project.
func sh(t *testing.T, script string, env ...string) string {
	t.Helper()
	for _, name := range []string{"snmpget", "snmpset", "snmptable", "snmpwalk", "snmpbulkwalk", "snmptrapd"} {
		peers.Find(t, name)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-e", "-u", "-c", script)
	cmd.Dir = ".."
	state := t.TempDir()
	if err := os.Mkdir(filepath.Join(state, "cert_indexes"), 0o700); err != nil {
		t.Fatal(err)
	}
	cmd.Env = append(os.Environ(), append(env,
		"PATH="+filepath.Dir(peers.Find(t, "snmpget"))+":"+filepath.Dir(peers.Find(t, "snmptrapd"))+":"+os.Getenv("PATH"),
		"SNMPCONFPATH="+state, "SNMP_PERSISTENT_DIR="+state, "LC_ALL=C")...)
	var out iadtest.LockedBuffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	return out.String()
}

// readyLog is the log of iad run. It closes ready when iad serves requests.
type readyLog struct {
	iadtest.LockedBuffer
	ready chan struct{}
	once  sync.Once
}

func (l *readyLog) Write(p []byte) (int, error) {
	n, err := l.LockedBuffer.Write(p)
	if strings.Contains(l.String(), "msg=ready") {
		l.once.Do(func() { close(l.ready) })
	}
	return n, err
}

// The command lines of docs/mib.md work when pasted: on a virtual device and on
// the iad command.
func TestCommandLinesOfTheDocumentation(t *testing.T) {
	for name, start := range map[string]func(t *testing.T, sink string) (addr string){"sim": netDevice, "iad": realDevice} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := &tftpFiles{files: map[string][]byte{
				"fw-2.0.0.iad": build(t, image.Manifest{Version: "2.0.0", ConfigFormat: 2, SelfTest: "selftest",
					Converters: []image.Converter{{From: 1, To: 2, Payload: "convert"}}}),
			}}
			tftpPort, sink := server.serve(t), ownAddress()
			out := sh(t, documented(t, start(t, sink), tftpPort, sink))
			t.Log(out)
			checkOutput(t, out)
			for kind, name := range map[mib.FileType]string{mib.FileTypeUserData: "user.cfg", mib.FileTypePortData: "port.cfg",
				mib.FileTypeProtocolParams: "protocol.cfg", mib.FileTypeDefaultParams: "default.cfg", mib.FileTypeOtherData: "other.cfg"} {
				if got := server.file(name); !bytes.Equal(got, settings(1, "name")[kind]) {
					t.Errorf("backup %s: %q", name, got)
				}
			}
		})
	}
}

// documented makes a script of the command lines, with the addresses of the
// test.
func documented(t *testing.T, addr, tftpPort, sink string) string {
	t.Helper()
	page, err := os.ReadFile(filepath.Join("..", "docs", "mib.md"))
	if err != nil {
		t.Fatal(err)
	}
	var script strings.Builder
	for _, m := range regexp.MustCompile("(?ms)^```sh\n(.*?)^```$").FindAllSubmatch(page, -1) {
		fmt.Fprintf(&script, "cat <<'END'\n%sEND\n%s", m[1], m[1])
	}
	return strings.NewReplacer("127.0.0.1:1161", addr, "127.0.0.1:1162", sink, "= 1069", "= "+tftpPort,
		"MIBDIRS=+mib", "MIBDIRS="+peers.MIBs(t)+":mib").Replace(script.String())
}

// checkOutput looks for what must have come of the operations of docs/mib.md.
func checkOutput(t *testing.T, out string) {
	t.Helper()
	for id, end := range []string{"backupConfig", "downloadSoftware", "downloadSoftware", "activate", "reset", "recoverConfig",
		"convertConfig", "recoverConfig", "restoreOldSoftware", "downloadSoftware"} {
		for _, line := range []string{
			fmt.Sprintf("iadUpgOpId.0 %d\niadUpgOpReqId.0 %d\niadUpgOpKind.0 %s\n", id+1, id+101, end),
			fmt.Sprintf("iadUpgHistState.%d succeeded\n", id+1), fmt.Sprintf("iadUpgHistFailCause.%d none\n", id+1),
		} {
			if !strings.Contains(out, line) {
				t.Errorf("%q is not in the output", line)
			}
		}
	}
	for _, line := range []string{"IAD-UPGRADE-MIB::iadUpgOpCompleted", "IAD-UPGRADE-MIB::iadUpgRestarted", "iadUpgReqRefusal.0 badRequest",
		"iadUpgSoftwareVersion.0 2.0.0", "iadUpgSoftwareVersion.0 1.0.0", "iadUpgBankState.2 trial", "iadUpgBankState.2 good",
		"iadUpgHistState.11 aborted", "iadUpgHistFailCause.11 abortedByManager"} {
		if !strings.Contains(out, line) {
			t.Errorf("%q is not in the output", line)
		}
	}
}

// realDevice makes a device by "iad init" and runs "iad run".
func realDevice(t *testing.T, sink string) (addr string) {
	t.Helper()
	dir := t.TempDir()
	iad, data := filepath.Join(dir, "iad"), filepath.Join(dir, "data")
	run := func(name string, args ...string) {
		t.Helper()
		cmd := exec.Command(name, args...)
		cmd.Dir = ".."
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
		}
	}
	run("go", "build", "-o", iad, "./cmd/iad")
	write := func(name string, content []byte) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	key, err := maker().Public().(minisign.PublicKey).MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	write("maker.pub", key)
	write("fw-1.0.0.iad", factory())
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	for kind, content := range settings(1, "name") {
		write("data/"+kind.String(), content)
	}
	root := filepath.Join(dir, "root")
	run(iad, "init", "--root", root, "--image", filepath.Join(dir, "fw-1.0.0.iad"), "--trust", filepath.Join(dir, "maker.pub"),
		"--hardware", hardware, "--device-id", "IAD-0001", "--config-dir", data, "--read-community", "public", "--write-community", "private")
	addr = ownAddress()
	cmd := exec.Command(iad, "run", "--root", root, "--snmp", addr, "--trap-sink", sink)
	log := &readyLog{ready: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		if err := cmd.Wait(); err != nil || t.Failed() {
			t.Logf("iad run: %v\n%s", err, log.String())
		}
	})
	select {
	case <-log.ready:
		return addr
	case <-time.After(time.Minute):
	}
	t.Fatalf("iad is not ready\n%s", log.String())
	return ""
}
