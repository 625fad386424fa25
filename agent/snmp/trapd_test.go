package snmp

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.com/iad/internal/peers"
	"example.com/iad/mib"
)

// snmptrapd receives notifications; its lines come out of the channel.
func snmptrapd(t *testing.T, conf string) (addr string, lines <-chan string) {
	t.Helper()
	program := peers.Find(t, "snmptrapd")
	free, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr = free.LocalAddr().String()
	free.Close()
	file := filepath.Join(t.TempDir(), "snmptrapd.conf")
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), program, "-f", "-C", "-c", file, "-On", "-m", "", "-n", "-Lo", "-F", "%V|%w %P %v\n", "udp:"+addr)
	cmd.Env = toolEnv(t)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	received := make(chan string, 256)
	go func() {
		for s := bufio.NewScanner(out); s.Scan(); {
			received <- s.Text()
		}
		close(received)
		cmd.Wait()
	}()
	t.Cleanup(func() {
		cmd.Process.Kill()
		for range received {
		}
	})
	// It says its version once it listens.
	for line := range received {
		if strings.Contains(line, "NET-SNMP version") {
			return addr, received
		}
	}
	t.Fatal("snmptrapd did not start")
	return "", nil
}

// awaitLine waits for a line that contains all the parts.
func awaitLine(t *testing.T, lines <-chan string, parts ...string) {
	t.Helper()
	var seen []string
	timeout := time.After(10 * time.Second)
next:
	for {
		select {
		case line := <-lines:
			seen = append(seen, line)
			for _, p := range parts {
				if !strings.Contains(line, p) {
					continue next
				}
			}
			return
		case <-timeout:
			t.Fatalf("no line with %q in:\n%s", parts, strings.Join(seen, "\n"))
		}
	}
}

var notice = mib.Notice{
	Notification: mib.NotifyOpProgress,
	Varbinds: []mib.Varbind{
		{OID: module.OID(mib.DeviceId, 0), Value: mib.Str("iad-1")},
		{OID: module.OID(mib.OpPercent, 0), Value: mib.Int32(42)},
	},
}

// noticeParts are what a receiver sees of notice.
var noticeParts = []string{
	".1.3.6.1.6.3.1.1.4.1.0 = OID: ." + module.NotificationOID(mib.NotifyOpProgress).String(),
	dotted(mib.DeviceId, 0) + ` = STRING: "iad-1"`,
	dotted(mib.OpPercent, 0) + ` = INTEGER: 42`,
}

func TestTrapdV2c(t *testing.T) {
	addr, lines := snmptrapd(t, "authCommunity log traps\n")
	start := time.Unix(1000, 0)
	e, _ := newEngine(t, Config{
		Now:    func() time.Time { return start.Add(90 * time.Second) },
		System: System{Started: start},
		Sinks: []Sink{
			{Address: addr, Community: "traps"},
			{Address: addr, Community: "traps", Inform: true},
		},
	})
	run(t, e)
	if err := e.Receivers()[0].Notify(t.Context(), notice); err != nil {
		t.Fatal(err)
	}
	parts := append([]string{".1.3.6.1.2.1.1.3.0 = Timeticks: (9000) 0:01:30.00|" + noticeParts[0]}, noticeParts...)
	awaitLine(t, lines, append(parts, "TRAP2, SNMP v2c, community traps")...)
	if err := e.Receivers()[1].Notify(t.Context(), notice); err != nil {
		t.Fatal(err)
	}
	awaitLine(t, lines, append(parts, "INFORM, SNMP v2c, community traps")...)
}

func TestTrapdV3(t *testing.T) {
	users := matrix()[1:]
	var conf strings.Builder
	var sinks []Sink
	for _, u := range users {
		level := map[Level]string{AuthNoPriv: "auth", AuthPriv: "priv"}[u.level()]
		keys := fmt.Sprintf("%s %q", u.Auth, u.AuthPassphrase)
		if u.Priv != NoPriv {
			keys += fmt.Sprintf(" %s %q", u.Priv, u.PrivPassphrase)
		}
		// Traps come from this engine, informs are keyed to the receiver's.
		fmt.Fprintf(&conf, "createUser -e 0x%x %s %s\ncreateUser %s %s\nauthUser log %s %s\n",
			testEngineID, u.Name, keys, u.Name, keys, u.Name, level)
	}
	addr, lines := snmptrapd(t, conf.String())
	for _, u := range users {
		sinks = append(sinks,
			Sink{Address: addr, User: u.Name},
			Sink{Address: addr, User: u.Name, Inform: true, Timeout: 5 * time.Second})
	}
	e, _ := newEngine(t, Config{Users: users, WeakCrypto: true, EngineID: testEngineID, Boots: 7, Sinks: sinks})
	run(t, e)
	if err := e.Notify(t.Context(), notice); err != nil {
		t.Fatal(err)
	}
	missing := make(map[string]bool)
	for _, u := range users {
		missing["TRAP2, SNMP v3, user "+u.Name+", "] = true
		missing["INFORM, SNMP v3, user "+u.Name+", "] = true
	}
	timeout := time.After(10 * time.Second)
	for len(missing) > 0 {
		select {
		case line := <-lines:
			for want := range missing {
				if strings.Contains(line, want) {
					for _, p := range noticeParts {
						if !strings.Contains(line, p) {
							t.Errorf("no %q in %q", p, line)
						}
					}
					delete(missing, want)
				}
			}
		case <-timeout:
			t.Fatalf("not received: %v", missing)
		}
	}
}
