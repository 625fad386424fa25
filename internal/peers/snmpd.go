package peers

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Snmpd is net-snmp's agent on loopback. What it stores survives Stop and Start.
type Snmpd struct {
	// Address is where it is reached by SNMP, AgentX where subagents connect.
	Address, AgentX string
	t               testing.TB
	dir             string
	cmd             *exec.Cmd
}

// StartSnmpd starts snmpd with more lines in its configuration file, and ends it with the
// test. It is up when up returns true.
func StartSnmpd(t testing.TB, up func(address string) bool, lines ...string) *Snmpd {
	t.Helper()
	port, err := FreePort("udp")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	s := &Snmpd{t: t, dir: dir, Address: fmt.Sprintf("127.0.0.1:%d", port), AgentX: filepath.Join(dir, "agentx")}
	lines = append([]string{"agentAddress udp:" + s.Address, "master agentx", "agentXSocket " + s.AgentX}, lines...)
	if err := os.WriteFile(filepath.Join(dir, "snmpd.conf"), []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	s.Start(up)
	return s
}

// Start starts it again.
func (s *Snmpd) Start(up func(address string) bool) {
	s.t.Helper()
	said := new(Output)
	s.cmd = exec.Command(Find(s.t, "snmpd"), "-f", "-Lo", "-I", "-smux") // with -C it would not read what it has stored
	s.cmd.Env = s.environment()
	s.cmd.Stdout, s.cmd.Stderr, s.cmd.WaitDelay = said, said, time.Second
	OwnGroup(s.cmd)
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		if s.t.Failed() {
			s.t.Logf("snmpd said:\n%s", said.String())
		}
	})
	await(s.t, func() bool { return up(s.Address) })
}

// Stop ends it. It stores what was changed through SNMP then.
func (s *Snmpd) Stop() {
	if s.cmd != nil {
		_ = s.cmd.Process.Signal(os.Interrupt)
		late := time.AfterFunc(10*time.Second, func() { killGroup(s.cmd) })
		_ = s.cmd.Wait()
		late.Stop()
		s.cmd = nil
	}
}

// stored is the file in which it stores what was changed through SNMP.
func (s *Snmpd) stored() string { return filepath.Join(s.dir, "persistent", "snmpd.conf") }

// Stored returns what it has stored.
func (s *Snmpd) Stored() []byte {
	s.t.Helper()
	data, err := os.ReadFile(s.stored())
	if err != nil {
		s.t.Fatal(err)
	}
	return data
}

// Restore replaces what it has stored, before Start.
func (s *Snmpd) Restore(data []byte) {
	s.t.Helper()
	if err := os.WriteFile(s.stored(), data, 0o600); err != nil {
		s.t.Fatal(err)
	}
}

func (s *Snmpd) environment() []string {
	return append(os.Environ(), "SNMP_PERSISTENT_DIR="+filepath.Join(s.dir, "persistent"), "SNMPCONFPATH="+s.dir+":"+filepath.Join(s.dir, "persistent"), "MIBS=")
}

// Run runs one of net-snmp's tools, and returns what it prints.
func (s *Snmpd) Run(tool string, args ...string) string {
	s.t.Helper()
	cmd := exec.Command(Find(s.t, tool), args...)
	cmd.Env = s.environment()
	out, err := cmd.CombinedOutput()
	if err != nil {
		s.t.Fatalf("%s %s: %v\n%s", tool, strings.Join(args, " "), err, out)
	}
	return string(bytes.TrimSpace(out))
}
