package sim_test

import (
	"encoding/hex"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"example.com/iad/agent/snmp"
	"example.com/iad/internal/peers"
	"example.com/iad/mib"
	"example.com/iad/sim"
)

// Keys and targets that a manager has changed on a virtual device stay as they are when its power fails.
func TestManagedKeysAndTargets(t *testing.T) {
	everything := snmp.Everything()
	l := newLab(t, func(c *sim.Config) {
		c.SNMP.Users = []snmp.User{{
			Name: "manager", Auth: snmp.SHA256, AuthPassphrase: "the old passphrase", Priv: snmp.AES128, PrivPassphrase: "the old passphrase",
			Access: []snmp.Access{{Level: snmp.AuthPriv, Read: everything, Write: everything, Notify: everything}},
		}}
	})
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "cert_indexes"), 0o700); err != nil {
		t.Fatal(err)
	}
	run := func(tool, passphrase string, args ...string) string {
		t.Helper()
		all := append([]string{"-m", "", "-On", "-r", "0", "-t", "10", "-v3", "-l", "authPriv", "-u", "manager", "-a", "SHA-256", "-A", passphrase,
			"-x", "AES", "-X", passphrase, l.device.Addr(t.Context()).String()}, args...)
		cmd := exec.CommandContext(t.Context(), peers.Find(t, tool), all...)
		cmd.Env = append(os.Environ(), "SNMPCONFPATH="+dir, "SNMP_PERSISTENT_DIR="+dir, "MIBS=")
		out, _ := cmd.CombinedOutput()
		return string(out)
	}
	if out := run("snmpusm", "the old passphrase", "passwd", "the old passphrase", "the new passphrase"); !strings.Contains(out, "successfully changed") {
		t.Fatal(out)
	}
	to := netip.MustParseAddrPort("127.0.0.2:1162")
	address := hex.EncodeToString(append(to.Addr().AsSlice(), byte(to.Port()>>8), byte(to.Port())))
	if out := run("snmpset", "the new passphrase", "1.3.6.1.6.3.12.1.2.1.3.116.97.114.103.101.116.49", "x", address); !strings.Contains(out, "Hex-STRING") {
		t.Fatal(out)
	}
	l.device.CutPower()
	l.device.PowerOn()
	a := l.device.Agent(t.Context(), 2)
	if got := a.SNMP().Receivers()[0].Address(); got != to.String() {
		t.Errorf("notifications go to %s, want %s", got, to)
	}
	id := mib.NewModule(nil).OID(mib.DeviceId, 0).String()
	if out := run("snmpget", "the new passphrase", id); !strings.Contains(out, "IAD-0001") {
		t.Errorf("with the new passphrase: %s", out)
	}
	if out := run("snmpget", "the old passphrase", id); strings.Contains(out, "IAD-0001") {
		t.Errorf("with the old passphrase: %s", out)
	}
}
