package conformance_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.com/iad/bank/image"
	"example.com/iad/conformance"
	"example.com/iad/internal/credentials"
	"example.com/iad/internal/iadtest"
	"example.com/iad/internal/peers"
	"example.com/iad/manager/device"
)

// start runs a program until the test ends, and shows what it said if the test fails.
func start(t *testing.T, cmd *exec.Cmd) *iadtest.LockedBuffer {
	t.Helper()
	said := new(iadtest.LockedBuffer)
	cmd.Stdout, cmd.Stderr = said, said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if text := said.String(); t.Failed() {
			t.Logf("%s said:\n%s", filepath.Base(cmd.Path), text[max(0, len(text)-3000):])
		}
	})
	return said
}

// process starts iad as a process, with its embedded engine (SNMPv3, informs) or behind
// snmpd (SNMPv2c, traps), and returns the configuration for judging it.
func process(t *testing.T, program string, behindSnmpd bool) conformance.Config {
	t.Helper()
	var snmpd string
	if behindSnmpd {
		snmpd = peers.Find(t, "snmpd")
	}
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	pub, priv, err := image.GenerateKey("")
	if err != nil {
		t.Fatal(err)
	}
	key, err := image.ReadPrivateKey(priv, "")
	if err != nil {
		t.Fatal(err)
	}
	software := iadtest.BuildImage(t, key, image.Manifest{Version: "1.0.0", Hardware: []string{"IAD-4FXS"}, ConfigFormat: 1})
	for name, data := range map[string][]byte{"maker.pub": pub, "fw.iad": software} {
		if err := os.WriteFile(file(name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(file("config"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"userData", "portData", "protocolParams", "defaultParams", "otherData"} {
		if err := os.WriteFile(file("config/"+kind), fmt.Appendf(nil, "iad-config %s 1\nname = %s\n", kind, kind), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	address, sink := loopback(10161), loopback(10162)
	args := []string{"init", "--root", file("dev"), "--image", file("fw.iad"), "--trust", file("maker.pub"), "--hardware", "IAD-4FXS",
		"--device-id", "LAB-0002", "--config-dir", file("config"), "--manager", file("credentials.toml"), "--bank-size", "2000000", "--plain-passwords"}
	if out, err := exec.CommandContext(t.Context(), program, args...).CombinedOutput(); err != nil {
		t.Fatalf("iad init: %v\n%s", err, out)
	}
	run := []string{"run", "--root", file("dev"), "--log-level", "info"}
	cfg := conformance.Config{Listen: sink, Advertise: "127.0.0.1", Key: &key}
	cfg.Target = device.Target{Address: address, Timeout: 500 * time.Millisecond, Retries: 3}
	if behindSnmpd {
		lines := []string{"agentAddress udp:" + address, "master agentx", "agentXSocket " + file("agentx"), "rocommunity public", "rwcommunity private", "trap2sink " + sink + " public"}
		if err := os.WriteFile(file("snmpd.conf"), []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(snmpd, "-f", "-Lo", "-C", "-c", file("snmpd.conf"), "-I", "-smux")
		cmd.Env = append(os.Environ(), "SNMP_PERSISTENT_DIR="+file("persistent"), "SNMPCONFPATH="+dir, "MIBS=")
		start(t, cmd)
		run = append(run, "--snmp", "none", "--agentx", "unix:"+file("agentx"))
		cfg.Target.Credentials = device.Credentials{Read: "public", Write: "private"}
	} else {
		run = append(run, "--snmp", address, "--trap-sink", sink)
		access, err := credentials.Read(file("credentials.toml"))
		if err != nil {
			t.Fatal(err)
		}
		u := access.User
		cfg.Target.Credentials.User = &device.User{Name: u.Name, Auth: u.Auth, AuthPassphrase: u.AuthPassphrase, Priv: u.Priv, PrivPassphrase: u.PrivPassphrase}
	}
	said := start(t, exec.Command(program, run...))
	// It answers once it is ready; behind snmpd it has to be connected, too.
	client, err := device.Dial(cfg.Target)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	look := time.NewTicker(100 * time.Millisecond)
	defer look.Stop()
	for until := time.Now().Add(time.Minute); time.Now().Before(until); <-look.C {
		if _, err = client.Device(t.Context()); err == nil {
			return cfg
		}
	}
	t.Fatalf("the device does not answer: %v\n%s", err, said)
	return cfg
}

// TestIad judges the real iad, as it runs on a board: by its own engine and behind snmpd.
// With IAD_LAB=full, 20 times, and with every test.
func TestIad(t *testing.T) {
	program := build(t)
	for _, behind := range []bool{false, true} {
		name := map[bool]string{false: "embedded", true: "behind snmpd"}[behind]
		t.Run(name, func(t *testing.T) {
			t.Parallel() // both wait most of the time
			times := 1
			if fullLab {
				times = 20
			}
			cfg := process(t, program, behind)
			few := sampled(false)
			if !fullLab { // the others judge the simulated device
				few = []string{"upgrade", "reset", "confirm", "self-test-fails", "restart-events", "inform-repeated", "backup", "recover*", "download", "refusals", "atomic-set", "lock", "repeated-request", "objects"}
			}
			cfg.Only = few
			for n := range times {
				if fullLab && n == 0 {
					cfg.Only = sampled(true) // the slow ones once
				}
				run := judge(t, cfg)
				if run.Failed() > 0 {
					t.Errorf("run %d: %d tests failed:\n%s", n+1, run.Failed(), failures(run))
				}
				var report bytes.Buffer
				if err := run.WriteHTML(&report); err != nil {
					t.Error(err)
				}
				cfg.Only = few
			}
		})
	}
}
