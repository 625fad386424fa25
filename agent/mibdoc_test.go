package agent_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
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

	"example.com/iad/agent/config"
	"example.com/iad/agent/procedure"
	"example.com/iad/agent/snmp"
	"example.com/iad/bank"
	"example.com/iad/internal/peers"
	"example.com/iad/sim"
)

// tftpFiles is a TFTP server on a map.
type tftpFiles struct {
	mu    sync.Mutex
	files map[string][]byte
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

// freePort is a UDP port that was free a moment ago.
func freePort(t *testing.T) string {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, port, _ := net.SplitHostPort(conn.LocalAddr().String())
	return port
}

// netDevice is a virtual device with an embedded engine on loopback, in real
// time; it returns its address.
func netDevice(t *testing.T, sink string) (*sim.Device, string) {
	t.Helper()
	d := sim.New(sim.Config{
		ID: "IAD-0001", Hardware: hardware, Disk: sim.Memory(), BankSize: 1 << 20,
		Trust: []minisign.PublicKey{maker().Public().(minisign.PublicKey)},
		Hooks: sim.Hooks{SelfTest: (&bench{}).runSelfTest, Convert: convert},
		SNMP: &snmp.Config{
			Listen:      "127.0.0.1:0",
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
	return d, d.Addr(ctx).String()
}

// sh runs a script with net-snmp's tools in the top folder of the project.
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
	var out lockedBuffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	return out.String()
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// The command lines of docs/mib.md work when pasted.
func TestCommandLinesOfTheDocumentation(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "docs", "mib.md"))
	if err != nil {
		t.Fatal(err)
	}
	server := &tftpFiles{files: map[string][]byte{
		"fw-2.0.0.iad": build(t, bank.Manifest{Version: "2.0.0", ConfigFormat: 2, SelfTest: "selftest"}),
	}}
	tftpPort, trapPort := server.serve(t), freePort(t)
	device, addr := netDevice(t, "127.0.0.1:"+trapPort)

	var script strings.Builder
	for _, m := range regexp.MustCompile("(?ms)^```sh\n(.*?)^```$").FindAllSubmatch(page, -1) {
		for line := range strings.Lines(string(m[1])) {
			if !strings.HasPrefix(line, " ") {
				fmt.Fprintf(&script, "echo %q\n", "$ "+strings.NewReplacer("$", "", "`", "", `"`, "").Replace(strings.TrimSpace(line)))
			}
			script.WriteString(line)
		}
	}
	text := script.String()
	text = strings.ReplaceAll(text, "\\\n", " ")
	text = regexp.MustCompile(`(?m)^echo .*\\\\?"$`).ReplaceAllString(text, ":")
	text = strings.NewReplacer("127.0.0.1:1161", addr, "127.0.0.1:1162", "127.0.0.1:"+trapPort, "= 1069", "= "+tftpPort,
		"MIBDIRS=+mib", "MIBDIRS="+peers.MIBs(t)+":mib").Replace(text)
	out := sh(t, text)
	t.Log(out)

	for _, k := range config.Kinds() {
		name := map[config.Kind]string{config.UserData: "user.cfg", config.PortData: "port.cfg", config.ProtocolParams: "protocol.cfg",
			config.DefaultParams: "default.cfg", config.OtherData: "other.cfg"}[k]
		if got := server.files[name]; sha256.Sum256(got) != sha256.Sum256(settings(1, "name")[k]) {
			t.Errorf("backup %s: %q", name, got)
		}
	}
	s := device.Agent(t.Context(), 1).Engine().Snapshot()
	var ended []string
	for _, op := range s.History {
		ended = append(ended, fmt.Sprintf("%d %s %s %s", op.Params.ReqID, op.Kind, op.State, op.Cause))
	}
	want := []string{
		"101 backupConfig succeeded none", "102 downloadSoftware succeeded none", "103 downloadSoftware succeeded none",
		"104 activate succeeded none", "105 reset succeeded none", "106 recoverConfig succeeded none", "107 convertConfig succeeded none",
		"108 recoverConfig succeeded none", "109 restoreOldSoftware succeeded none", "110 downloadSoftware succeeded none",
		"111 backupConfig aborted abortedByManager",
	}
	if strings.Join(ended, "\n") != strings.Join(want, "\n") {
		t.Errorf("operations:\n%s", strings.Join(ended, "\n"))
	}
	if s.Refusal != procedure.CauseBadRequest {
		t.Errorf("refusal %s", s.Refusal)
	}
	for _, line := range []string{"IAD-UPGRADE-MIB::iadUpgOpCompleted", "IAD-UPGRADE-MIB::iadUpgRestarted", "iadUpgReqRefusal.0 badRequest",
		"iadUpgSoftwareVersion.0 2.0.0", "iadUpgBankState.2 trial", "iadUpgHistState.11 aborted"} {
		if !strings.Contains(out, line) {
			t.Errorf("%q is not in the output", line)
		}
	}
}
