// Package snmpd holds no code: it tests the script of this directory.
package snmpd

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.com/iad/internal/peers"
)

// TestUpgrade runs the script: an upgrade by net-snmp's tools with snmpd as
// master agent and real file servers, and one by iadms.
func TestUpgrade(t *testing.T) {
	for _, name := range []string{"snmpd", "snmptrapd", "snmpset", "snmpget", "in.tftpd", "vsftpd", "bash"} {
		peers.Find(t, name)
	}
	if os.Getuid() != 0 {
		t.Skip("in.tftpd and vsftpd want to be started by root")
	}
	bin := t.TempDir()
	build := exec.Command("go", "build", "-o", bin, "./cmd/iad", "./cmd/iadms")
	build.Dir = filepath.Join("..", "..")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "upgrade")
	// So that the script ends what it started.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 20 * time.Second
	cmd.Env = append(os.Environ(), "BIN="+bin, "MIBDIRS="+peers.MIBs(t),
		"SNMP_PORT="+udpPort(t), "TRAP_PORT="+udpPort(t), "TFTP_PORT="+udpPort(t), "FTP_PORT="+tcpPort(t))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{
		"snmptrapd: iadUpgOpCompleted of operation 6",
		"upgraded 2.0.1 -> 2.1.0",
		"Everything went as it should.",
	} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the script does not say %q:\n%s", want, out)
		}
	}
}

func udpPort(t *testing.T) string {
	t.Helper()
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return fmt.Sprint(conn.LocalAddr().(*net.UDPAddr).Port)
}

func tcpPort(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return fmt.Sprint(ln.Addr().(*net.TCPAddr).Port)
}
