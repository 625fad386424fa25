package trap_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"example.com/iad/internal/peers"
	"example.com/iad/internal/snmp"
	"example.com/iad/manager/device"
	"example.com/iad/manager/trap"
	"example.com/iad/mib"
)

// netSNMP runs snmptrap or snmpinform with a notification of a device. snmpinform fails
// if it gets no acknowledgement.
func netSNMP(t *testing.T, l *trap.Listener, tool, deviceID string, options ...string) error {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "cert_indexes"), 0o700); err != nil {
		t.Fatal(err)
	}
	args := slices.Concat([]string{"-m", "", "-t", "5", "-r", "1"}, options, []string{
		fmt.Sprintf("127.0.0.1:%d", l.Addr().Port()), "100", module.NotificationOID(mib.NotifyOpCompleted).String(),
		module.OID(mib.DeviceId, 0).String(), "s", deviceID, module.OID(mib.EventSeq, 0).String(), "u", "1",
	})
	cmd := exec.CommandContext(t.Context(), peers.Find(t, tool), args...)
	cmd.Env = append(os.Environ(), "SNMPCONFPATH="+dir, "SNMP_PERSISTENT_DIR="+dir, "MIBS=", "LC_ALL=C")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", tool, strings.Join(options, " "), err, out)
	}
	return nil
}

// net-snmp's tools are understood, and understand the answers, with every protocol that
// they have.
func TestListenerNetSNMP(t *testing.T) {
	users := []device.User{{Name: "plain"}, {Name: "signed", Auth: "SHA-256", AuthPassphrase: "authentication"}}
	for _, protocols := range [][2]string{
		{"MD5", "DES"}, {"SHA", "AES"}, {"SHA-224", "AES-192"}, {"SHA-256", "AES-256"}, {"SHA-384", "AES"}, {"SHA-512", "AES-256"},
	} {
		users = append(users, device.User{
			Name: protocols[0], Auth: protocols[0], AuthPassphrase: "authentication", Priv: protocols[1], PrivPassphrase: "privacy-privacy",
		})
	}
	l, s := startListener(t, trap.ListenerConfig{Users: users})
	for _, tool := range []string{"snmptrap", "snmpinform"} {
		for i := range len(users) + 1 {
			options, deviceID := []string{"-v", "2c", "-c", "public"}, fmt.Sprint(tool, i)
			sender := "public"
			if i < len(users) {
				u := users[i]
				sender = u.Name
				options = []string{"-v", "3", "-u", u.Name, "-l", "noAuthNoPriv", "-n", "context"}
				if u.Auth != "" {
					options = append(options, "-l", "authNoPriv", "-a", u.Auth, "-A", u.AuthPassphrase)
				}
				if u.Priv != "" {
					options = append(options, "-l", "authPriv", "-x", u.Priv, "-X", u.PrivPassphrase)
				}
				if tool == "snmptrap" {
					options = append(options, "-e", fmt.Sprintf("0x80001f8805%08x", i), "-Z", "3,100")
				}
			}
			if err := netSNMP(t, l, tool, deviceID, options...); err != nil {
				t.Error(err)
				continue
			}
			if n := next(t, s); n.DeviceID != deviceID || n.User != sender || n.Inform != (tool == "snmpinform") {
				t.Errorf("%s of %s: received %+v", tool, sender, n)
			}
		}
	}
}

// The protocols that net-snmp has not.
func TestListenerReeder(t *testing.T) {
	for _, priv := range []string{"aes192c", "aes256c"} {
		user := device.User{Name: "u", Auth: "sha", AuthPassphrase: "authentication", Priv: priv, PrivPassphrase: "privacy-privacy"}
		l, s := startListener(t, trap.ListenerConfig{Users: []device.User{user}})
		for seq, inform := range []bool{false, true} {
			g := sender(t, l, &user)
			if !inform {
				asEngine(g, testEngine, 3, 1000)
			}
			send(t, g, makeTrap(mib.NotifyOpCompleted, "A", uint32(1+seq), inform))
			if n := next(t, s); n.DeviceID != "A" || n.Inform != inform {
				t.Errorf("%s: %+v", priv, n)
			}
		}
	}
}

// A datagram that is not quite a notification is dropped.
func TestListenerStrict(t *testing.T) {
	l, s := startListener(t, trap.ListenerConfig{Users: testUsers})
	g := sender(t, l, nil)
	vars := func(deviceID string) []byte {
		return snmp.EncodeVars([]mib.Varbind{
			{OID: mib.MustParseOID("1.3.6.1.6.3.1.1.4.1.0"), Value: mib.ID(module.NotificationOID(mib.NotifyOpCompleted))},
			{OID: module.OID(mib.EventSeq, 0), Value: mib.Uint32(1)},
			{OID: module.OID(mib.DeviceId, 0), Value: mib.Str(deviceID)},
		})
	}
	bad := vars("bad")
	v2 := func(kind byte, vars []byte) []byte {
		return snmp.AppendCommunityMessage(nil, snmp.Version2c, "public", snmp.PDU{Kind: kind, RequestID: 1}, vars)
	}
	v3 := func(kind byte, vars []byte) []byte {
		id := []byte(testEngine)
		h := snmp.Header{MsgID: 1, MaxSize: 65507, Flags: snmp.FlagAuth, EngineID: id, Boots: 1, Time: 1, User: "signed"}
		k := snmp.NewKeys(snmp.NewMasterKey(snmp.SHA256, testUsers[1].AuthPassphrase), id)
		datagram, err := snmp.SealV3(h, k, 1, snmp.AppendScoped(nil, id, nil, snmp.PDU{Kind: kind, RequestID: 1}, vars))
		if err != nil {
			t.Fatal(err)
		}
		return datagram
	}
	longer := slices.Clone(bad)
	longer[len(longer)-4]++ // the text ends after its variable
	for name, datagram := range map[string][]byte{
		"bytes after the message":              append(v2(snmp.PDUTrap, bad), 0),
		"text longer than its variable":        v2(snmp.PDUTrap, longer),
		"a response":                           v2(snmp.PDUResponse, bad),
		"SNMPv1":                               snmp.AppendCommunityMessage(nil, snmp.Version1, "public", snmp.PDU{Kind: snmp.PDUTrap}, bad),
		"an inform of an authoritative sender": v3(snmp.PDUInform, bad),
		"a request":                            v3(snmp.PDUSet, bad),
	} {
		if _, err := g.Conn.Write(datagram); err != nil {
			t.Fatal(err)
		}
		send(t, g, makeTrap(mib.NotifyOpProgress, "end", 1, false))
		if n := next(t, s); n.DeviceID != "end" {
			t.Fatalf("%s is taken for %v", name, n)
		}
	}
	for deviceID, datagram := range map[string][]byte{"A": v2(snmp.PDUTrap, vars("A")), "B": v3(snmp.PDUTrap, vars("B"))} {
		if _, err := g.Conn.Write(datagram); err != nil {
			t.Fatal(err)
		}
		if n := next(t, s); n.DeviceID != deviceID {
			t.Errorf("got %v, want one of %s", n, deviceID)
		}
	}
}
