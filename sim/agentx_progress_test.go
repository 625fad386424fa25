package sim_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spf13/afero"

	"example.com/iad/agent"
	"example.com/iad/agent/agentx"
	"example.com/iad/bank/image"
	"example.com/iad/internal/peers"
	"example.com/iad/manager"
	"example.com/iad/mib"
	"example.com/iad/sim"
)

// TestProgressByAgentX: progress of downloading and of loading reaches snmptrapd through
// snmpd, although that of loading is due before the restarted agent has registered.
func TestProgressByAgentX(t *testing.T) {
	lines, sink := snmptrapd(t)
	dir := t.TempDir()
	socket := filepath.Join(dir, "agentx")
	var mu sync.Mutex
	heard := make(map[string]chan struct{})
	for _, phase := range []string{"transferring", "trying"} {
		heard[phase] = make(chan struct{})
	}
	connected := make(chan struct{})
	go func() {
		first := sync.OnceFunc(func() { close(connected) })
		for line := range lines {
			if strings.Contains(line, "IAD-UPGRADE-MIB::iadUpgRestarted\t") {
				first()
			}
			if !strings.Contains(line, "IAD-UPGRADE-MIB::iadUpgOpProgress\t") || !strings.Contains(line, "downloadSoftware(3)") {
				continue
			}
			mu.Lock()
			for phase, c := range heard {
				if strings.Contains(line, "iadUpgOpPhase.0 = INTEGER: "+phase+"(") {
					close(c)
					delete(heard, phase)
				}
			}
			mu.Unlock()
		}
	}()
	trying := heard["trying"]

	l := newLab(t, func(c *sim.Config) {
		c.AgentX, c.Transfer.RateLimit = &agentx.Config{Address: "unix:" + socket}, 200_000 // the download is not over at once
		c.Hooks.SelfTest = func(ctx context.Context, s agent.SelfTest, _ afero.Fs) error {
			if s.Version != "2.0.0" {
				return nil
			}
			select { // software loads for as long as it takes to be reported
			case <-trying:
				return nil
			case <-time.After(20 * time.Second):
				return errors.New("no progress of loading reached snmptrapd")
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	})
	conf := filepath.Join(dir, "snmpd.conf")
	text := strings.Join([]string{"agentAddress udp:" + freeUDP(t), "master agentx", "agentXSocket " + socket, "trap2sink " + sink + " public", ""}, "\n")
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	snmpd := exec.Command(peers.Find(t, "snmpd"), "-f", "-Lo", "-C", "-c", conf, "-I", "-smux")
	snmpd.Env = append(os.Environ(), "SNMP_PERSISTENT_DIR="+filepath.Join(dir, "persistent"), "SNMPCONFPATH="+dir, "MIBS=")
	if err := snmpd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = snmpd.Process.Kill()
		_ = snmpd.Wait()
	})

	select {
	case <-connected:
	case <-time.After(20 * time.Second):
		t.Fatal("the device does not connect with snmpd")
	}

	m := mib.NewModule(nil)
	tx, refused := l.device.Agent(t.Context(), 1).Tree().Set(mib.Caller{}, []mib.Varbind{
		{OID: m.OID(mib.NotifyStep, 0), Value: mib.Uint32(1)},
		{OID: m.OID(mib.NotifyMinInterval, 0), Value: mib.Uint32(0)},
	})
	if refused != nil {
		t.Fatal(refused)
	}
	tx.Done()
	img := l.build(image.Manifest{Version: "2.0.0", ConfigFormat: 1})
	if _, err := manager.Upgrade(t.Context(), l.plan(img, "fw.iad"), manager.Automatic{}, func(manager.Update) {}); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	for phase := range heard {
		t.Errorf("snmptrapd got no progress in phase %s", phase)
	}
}
