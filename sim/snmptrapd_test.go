package sim_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.com/iad/agent/snmp"
	"example.com/iad/bank/image"
	"example.com/iad/internal/peers"
	"example.com/iad/manager"
	"example.com/iad/mib"
	"example.com/iad/sim"
)

// net-snmp's snmptrapd receives every notification of the module, with its
// varbinds under their names.
func TestSnmptrapd(t *testing.T) {
	lines, addr := snmptrapd(t)
	l := newLab(t, func(c *sim.Config) {
		c.SNMP.Sinks = append(c.SNMP.Sinks, snmp.Sink{Address: addr, Community: "public"})
	})
	// Progress whenever there is some.
	m := mib.NewModule(nil)
	tx, refused := l.device.Agent(t.Context(), 1).Tree().Set(mib.Caller{}, []mib.Varbind{
		{OID: m.OID(mib.NotifyStep, 0), Value: mib.Uint32(1)},
		{OID: m.OID(mib.NotifyMinInterval, 0), Value: mib.Uint32(0)},
	})
	if refused != nil {
		t.Fatal(refused)
	}
	tx.Done()

	healthy := payload("selftest", "#!/bin/sh\nexit 0\n", 0o755)
	ill := payload("selftest", "#!/bin/sh\necho no dial tone\nexit 1\n", 0o755)
	good := l.build(image.Manifest{Version: "2.0.0", ConfigFormat: 1, SelfTest: "selftest"}, healthy)
	bad := l.build(image.Manifest{Version: "3.0.0", ConfigFormat: 1, SelfTest: "selftest"}, ill)
	ignore := func(manager.Update) {}
	if _, err := manager.Upgrade(t.Context(), l.plan(good, "good.iad"), manager.Automatic{}, ignore); err != nil {
		t.Fatal(err)
	}
	if _, err := manager.Upgrade(t.Context(), l.plan(bad, "bad.iad"), manager.Automatic{}, ignore); err == nil {
		t.Fatal("software that fails its self-test was accepted")
	}

	// What must come, and a varbind that it must have, as snmptrapd prints it.
	want := map[string]string{}
	for _, n := range mib.Notifications {
		want[n.Name] = ""
	}
	details := map[string]string{
		"iadUpgOpAccepted":   "IAD-UPGRADE-MIB::iadUpgOpKind.0 = INTEGER: downloadSoftware(3)",
		"iadUpgOpProgress":   "IAD-UPGRADE-MIB::iadUpgOpPhase.0 = INTEGER: transferring(5)",
		"iadUpgOpCompleted":  "IAD-UPGRADE-MIB::iadUpgResetRequired.0 = INTEGER: false(2)",
		"iadUpgOpFailed":     "IAD-UPGRADE-MIB::iadUpgOpFailCause.0 = INTEGER: selfTestFailed(62)",
		"iadUpgBankSwitched": "IAD-UPGRADE-MIB::iadUpgBankState.2 = INTEGER: trial(5)",
		"iadUpgRolledBack":   "IAD-UPGRADE-MIB::iadUpgBankVersion.1 = STRING: 3.0.0",
		"iadUpgRestarting":   "IAD-UPGRADE-MIB::iadUpgDeviceId.0 = STRING: IAD-0001",
		"iadUpgRestarted":    "IAD-UPGRADE-MIB::iadUpgRestartReason.0 = INTEGER: rollback(5)",
	}
	timeout := time.After(20 * time.Second)
	for len(want) > 0 {
		select {
		case line := <-lines:
			for name := range want {
				if strings.Contains(line, "IAD-UPGRADE-MIB::"+name+"\t") && strings.Contains(line, details[name]) {
					for _, o := range byName(name).Objects {
						if !strings.Contains(line, "IAD-UPGRADE-MIB::"+o.Name+".") {
							t.Errorf("%s came without %s:\n%s", name, o.Name, line)
						}
					}
					delete(want, name)
				}
			}
		case <-timeout:
			t.Fatalf("snmptrapd did not report: %v", want)
		}
	}
}

func byName(name string) *mib.Notification {
	for _, n := range mib.Notifications {
		if n.Name == name {
			return n
		}
	}
	return nil
}

// snmptrapd starts one and returns what it prints, a line each notification.
func snmptrapd(t *testing.T) (<-chan string, string) {
	t.Helper()
	program := peers.Find(t, "snmptrapd")
	dir := t.TempDir()
	conf := filepath.Join(dir, "snmptrapd.conf")
	if err := os.WriteFile(conf, []byte("authCommunity log public\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	own, err := filepath.Abs("../mib")
	if err != nil {
		t.Fatal(err)
	}
	addr := freeUDP(t)
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, program, "-f", "-n", "-Lo", "-C", "-c", conf, "-F", "%V\t%v\t\n",
		"-M", peers.MIBs(t)+":"+own, "-m", "ALL", "udp:"+addr)
	cmd.Env = append(os.Environ(), "SNMP_PERSISTENT_DIR="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := make(chan string, 1000)
	ready := make(chan struct{})
	go func() {
		started := false
		for s := bufio.NewScanner(out); s.Scan(); {
			if !started && strings.Contains(s.Text(), "NET-SNMP version") {
				started = true
				close(ready)
			}
			lines <- s.Text()
		}
	}()
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait()
	})
	select {
	case <-ready:
	case <-time.After(10 * time.Second):
		t.Fatal("snmptrapd does not start")
	}
	return lines, addr
}

// freeUDP returns an address of loopback that nobody uses.
func freeUDP(t *testing.T) string {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return fmt.Sprint(c.LocalAddr())
}
