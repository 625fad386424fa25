package agentx

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/iad/internal/peers"
	"github.com/gosnmp/gosnmp"
)

// program is a program that a test started and that ends with it.
type program struct {
	t   testing.TB
	cmd *exec.Cmd

	mu    sync.Mutex
	lines []string
	added chan struct{} // closed when a line comes
	ended chan struct{}
}

// run starts a program found by peers with its own persistent directory, and
// keeps the lines that it prints.
func run(t testing.TB, dir, name string, args ...string) *program {
	t.Helper()
	p := &program{t: t, cmd: exec.Command(peers.Find(t, name), args...), added: make(chan struct{}), ended: make(chan struct{})}
	p.cmd.Env = environment(dir)
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.Stderr = p.cmd.Stdout
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.ended)
		for s := bufio.NewScanner(out); s.Scan(); {
			p.mu.Lock()
			p.lines = append(p.lines, s.Text())
			close(p.added)
			p.added = make(chan struct{})
			p.mu.Unlock()
		}
		p.cmd.Wait()
	}()
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("%s said:\n%s", name, p.output())
		}
	})
	return p
}

// environment keeps a program of net-snmp to one directory. What it stores itself
// lies in a directory below, since those files have the names of the configuration.
func environment(dir string) []string {
	return append(os.Environ(), "SNMP_PERSISTENT_DIR="+filepath.Join(dir, "persistent"), "SNMPCONFPATH="+dir, "MIBS=")
}

// kill ends the program at once, as kill -9 does.
func (p *program) kill() {
	p.cmd.Process.Kill()
	<-p.ended
}

func (p *program) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.lines, "\n")
}

// await returns the first line that contains all of the words, once there is
// one at position from or after, and the position after it.
func (p *program) await(from int, words ...string) (line string, next int) {
	p.t.Helper()
	limit := time.After(20 * time.Second)
	for {
		p.mu.Lock()
		lines, added := p.lines, p.added
		p.mu.Unlock()
	next:
		for i := from; i < len(lines); i++ {
			for _, w := range words {
				if !strings.Contains(lines[i], w) {
					continue next
				}
			}
			return lines[i], i + 1
		}
		select {
		case <-added:
		case <-p.ended:
			p.t.Fatalf("%s ended without a line with %q:\n%s", p.cmd.Path, words, p.output())
		case <-limit:
			p.t.Fatalf("%s printed no line with %q:\n%s", p.cmd.Path, words, p.output())
		}
	}
}

// freePort returns a UDP port of the loopback interface that nobody uses.
func freePort(t testing.TB) uint16 {
	t.Helper()
	port, err := peers.FreePort("udp")
	if err != nil {
		t.Fatal(err)
	}
	return uint16(port)
}

// snmpd is a net-snmp master agent for a test.
type snmpd struct {
	*program
	t       testing.TB
	dir     string
	port    uint16 // UDP port for managers
	address string // for Config.Address
}

// startSnmpd starts snmpd with the given configuration lines beside those for
// AgentX and for the community "private", which may do everything.
func startSnmpd(t testing.TB, lines ...string) *snmpd {
	t.Helper()
	dir := t.TempDir()
	s := &snmpd{t: t, dir: dir, port: freePort(t), address: "unix:" + filepath.Join(dir, "agentx")}
	s.start(append([]string{
		fmt.Sprintf("agentAddress udp:127.0.0.1:%d", s.port),
		"master agentx",
		"agentXSocket " + s.address,
		"rwcommunity private 127.0.0.1",
		"dontLogTCPWrappersConnects yes",
	}, lines...)...)
	return s
}

func (s *snmpd) start(lines ...string) {
	s.t.Helper()
	conf := filepath.Join(s.dir, "snmpd.conf")
	if len(lines) > 0 {
		if err := os.WriteFile(conf, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
			s.t.Fatal(err)
		}
	}
	s.program = run(s.t, s.dir, "snmpd", "-f", "-Lo", "-C", "-c", conf)
	s.await(0, "NET-SNMP version")
}

// client returns a manager with the community "private" that asks once only.
func client(t testing.TB, port uint16) *gosnmp.GoSNMP {
	t.Helper()
	c := &gosnmp.GoSNMP{
		Target: "127.0.0.1", Port: port, Community: "private", Version: gosnmp.Version2c,
		Timeout: 20 * time.Second, Retries: 0, MaxOids: 1000, Transport: "udp",
	}
	if err := c.Connect(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Conn.Close() })
	return c
}

const authPass, privPass = "authentication-pass", "privacy-passphrase"

// clientV3 is client by SNMPv3 with authentication and privacy, as the user
// "operator".
func clientV3(t testing.TB, port uint16) *gosnmp.GoSNMP {
	t.Helper()
	c := client(t, port)
	c.Conn.Close()
	c.Version, c.SecurityModel, c.MsgFlags = gosnmp.Version3, gosnmp.UserSecurityModel, gosnmp.AuthPriv
	c.SecurityParameters = &gosnmp.UsmSecurityParameters{
		UserName:               "operator",
		AuthenticationProtocol: gosnmp.SHA256, AuthenticationPassphrase: authPass,
		PrivacyProtocol: gosnmp.AES, PrivacyPassphrase: privPass,
	}
	if err := c.Connect(); err != nil {
		t.Fatal(err)
	}
	return c
}

// tool runs one of net-snmp's commands and returns what it prints.
func tool(t testing.TB, dir, name string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.Command(peers.Find(t, name), args...)
	cmd.Env = environment(dir)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}
