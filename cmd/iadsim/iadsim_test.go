package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"example.com/iad/cmd/iadms/command"
	"example.com/iad/internal/cli"
	"example.com/iad/internal/iadtest"
)

// asCommand makes the test's own binary the iadsim command.
const asCommand = "IADSIM_TEST_AS_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		main()
	}
	testscript.Main(m, map[string]func(){
		"iadsim": main,
		"iadms":  func() { os.Exit(command.Main("test")) },
	})
}

// simulator is "iadsim run" with a maker's key of its own.
func simulator(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], append([]string{"run", "--maker", filepath.Join(t.TempDir(), "maker")}, args...)...)
	cmd.Env = append(os.Environ(), asCommand+"=1")
	return cmd
}

// refused runs a simulator that must end with a status and say something, and must
// not say that devices run.
func refused(t *testing.T, status int, says string, args ...string) {
	t.Helper()
	cmd := simulator(t, args...)
	out, _ := cmd.CombinedOutput()
	if got := cmd.ProcessState.ExitCode(); got != status || !strings.Contains(string(out), says) ||
		strings.Contains(string(out), "running") || strings.Contains(string(out), "invalid AddrPort") {
		t.Errorf("%q: exit status %d, want %d and %q:\n%s", args, got, status, says, out)
	}
}

func TestBusyPort(t *testing.T) {
	busy, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	refused(t, cli.ExitFailed, fmt.Sprintf("SIM-00001: snmp: cannot listen on UDP address %q: address already in use", busy.LocalAddr()), "--devices", "2", "--snmp", busy.LocalAddr().String())
}

func TestPortRange(t *testing.T) {
	refused(t, cli.ExitUsage, "3 devices need ports up to 65536", "--devices", "3", "--snmp", "127.0.0.1:65534")
	refused(t, cli.ExitUsage, `"many" is not a port`, "--snmp", "127.0.0.1:many")
	refused(t, cli.ExitUsage, `"70000" is not a port`, "--snmp", "127.0.0.1:70000")
	refused(t, cli.ExitUsage, "--snmp", "--snmp", "127.0.0.1")
	refused(t, cli.ExitUsage, "iadsim run takes no arguments", "2")
}

// Two simulators do not use the same disks, and one goes on when nobody reads what it
// prints.
func TestRootIsLocked(t *testing.T) {
	root := filepath.Join(t.TempDir(), "root")
	first := simulator(t, "--root", root, "--snmp", "127.0.0.1:0", "--devices", "2")
	out, err := first.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	first.Stderr = os.Stderr
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	ended := false
	defer func() {
		if !ended {
			_ = first.Process.Kill()
			_ = first.Wait()
		}
	}()
	if line, err := bufio.NewReaderSize(out, 16).ReadString('\n'); err != nil || !strings.HasPrefix(line, "SIM-00001  127.0.0.1:") {
		t.Fatalf("%q, %v", line, err)
	}
	out.Close()
	refused(t, cli.ExitFailed, fmt.Sprintf("another agent runs on it (process %d)", first.Process.Pid), "--root", root, "--snmp", "127.0.0.1:0")
	if err := first.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	err, ended = first.Wait(), true
	if err != nil {
		t.Errorf("the first simulator: %v", err)
	}
}

func TestCommandLineInCommon(t *testing.T) {
	iadtest.TestCommandLine(t, newRoot(), variable, nil, func(args ...string) *exec.Cmd {
		c := exec.Command(os.Args[0], args...)
		c.Env = append(os.Environ(), asCommand+"=1")
		return c
	})
}

func TestHealthcheck(t *testing.T) {
	run := simulator(t, "--snmp", "127.0.0.1:0")
	out, err := run.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	run.Stderr = os.Stderr
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	fields := strings.Fields(line)
	if err != nil || len(fields) < 2 {
		t.Fatalf("%q, %v", line, err)
	}
	check := func(ok bool, says string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), os.Args[0], "healthcheck", "--snmp", fields[1])
		cmd.Env = append(os.Environ(), asCommand+"=1")
		out, err := cmd.CombinedOutput()
		if (err == nil) != ok || !strings.Contains(string(out), says) {
			t.Errorf("healthcheck: %v, want success: %v, and %q in\n%s", err, ok, says, out)
		}
	}
	check(true, "a device answers on "+fields[1])
	_ = run.Process.Kill()
	_ = run.Wait()
	check(false, "the device does not answer")
}
