package agentx

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.com/iad/mib"
)

const (
	deployAuth = "CHANGE-auth-passphrase"
	deployPriv = "CHANGE-priv-passphrase"

	trapEngine = "80001f880501020304" // of the agent that sends SNMPv3 traps
)

// deployed is the configuration that users copy, with nothing changed but
// addresses and the owner of the socket.
func deployed(t *testing.T, dir string, port, trapPort uint16) (conf, address string) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "deploy", "snmpd", "snmpd.conf"))
	if err != nil {
		t.Fatal(err)
	}
	user, group := os.Getuid(), os.Getgid()
	if user == 0 {
		user, group = 65534, 65534 // agentXPerms does not take root
	}
	conf, address = string(b), "unix:"+filepath.Join(dir, "run", "master")
	for old, new := range map[string]string{
		"agentAddress udp:161,udp6:161":            fmt.Sprintf("agentAddress udp:127.0.0.1:%d", port),
		"agentXSocket unix:/run/iad-agentx/master": "agentXSocket " + address,
		"0660 0755 Debian-snmp iad":                fmt.Sprintf("0660 0755 %d %d", user, group),
		"udp:192.0.2.10:162":                       fmt.Sprintf("udp:127.0.0.1:%d", trapPort),
	} {
		if strings.Count(conf, old) != 1 {
			t.Fatalf("snmpd.conf does not have %q once", old)
		}
		conf = strings.Replace(conf, old, new, 1)
	}
	return conf, address
}

// startTrapd starts snmptrapd with the user of the deployed configuration and
// the community "public".
func startTrapd(t *testing.T, port uint16) *program {
	t.Helper()
	dir := t.TempDir()
	conf := filepath.Join(dir, "trapd.conf")
	if err := os.WriteFile(conf, fmt.Appendf(nil, `
createUser iadms SHA-256 %[1]q AES %[2]q
createUser -e 0x%[3]s iadms SHA-256 %[1]q AES %[2]q
authUser log iadms priv
authCommunity log public
`, deployAuth, deployPriv, trapEngine), 0o600); err != nil {
		t.Fatal(err)
	}
	p := run(t, dir, "snmptrapd", "-f", "-n", "-On", "-Lo", "-C", "-c", conf, "-F", "%P: %v\n", fmt.Sprintf("udp:127.0.0.1:%d", port))
	p.await(0, "NET-SNMP version")
	return p
}

func TestDeployedConfiguration(t *testing.T) {
	trapPort := freePort(t)
	trapd := startTrapd(t, trapPort)
	master := &snmpd{t: t, dir: t.TempDir(), port: freePort(t)}
	conf, address := deployed(t, master.dir, master.port, trapPort)
	master.start(conf)
	for _, line := range strings.Split(master.output(), "\n") {
		for _, word := range []string{"rror", "arning", "nknown", "an't", "snmpd.conf: line"} {
			if strings.Contains(line, word) {
				t.Errorf("snmpd says: %s", line)
			}
		}
	}
	d := newDevice()
	s := start(t, Config{Address: address, Private: true}, d)
	s.awaitReady()

	socket := strings.TrimPrefix(address, "unix:")
	for path, want := range map[string]os.FileMode{socket: 0o660, filepath.Dir(socket): 0o755} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v; want %v", path, info, err, want)
		}
	}

	target := fmt.Sprintf("udp:127.0.0.1:%d", master.port)
	v2c := []string{"-v2c", "-cpublic"}
	authPriv := []string{"-v3", "-l", "authPriv", "-u", "iadms", "-a", "SHA-256", "-A", deployAuth, "-x", "AES", "-X", deployPriv}
	authNoPriv := []string{"-v3", "-l", "authNoPriv", "-u", "iadms", "-a", "SHA-256", "-A", deployAuth}
	id := "." + s.tree.Module().OID(mib.DeviceId, 0).String()
	owner := "." + s.tree.Module().OID(mib.ReqOwner, 0).String()
	for _, c := range []struct {
		name, tool string
		as         []string
		args       []string
		want       string // in what the tool prints
		ok         bool
	}{
		{"read without password", "snmpget", v2c, []string{id}, "DeviceId 0", true},
		{"read the system group", "snmpget", v2c, []string{".1.3.6.1.2.1.1.5.0"}, "STRING", true},
		{"read something else", "snmpget", v2c, []string{".1.3.6.1.2.1.11.1.0"}, "No Such Object", true},
		{"write without password", "snmpset", v2c, []string{owner, "s", "x"}, "noAccess", false},
		{"write without privacy", "snmpset", authNoPriv, []string{owner, "s", "x"}, "authorizationError", false},
		{"write with a wrong password", "snmpset", append(authPriv[:len(authPriv)-1:len(authPriv)-1], "wrong password"), []string{owner, "s", "x"}, "", false},
		{"write", "snmpset", authPriv, []string{owner, "s", "operator"}, "operator", true},
	} {
		args := append([]string{"-On", "-r0", "-t5"}, c.as...)
		if c.name == "write with a wrong password" {
			args[2] = "-t1" // no answer comes
		}
		out, err := tool(t, t.TempDir(), c.tool, append(append(args, target), c.args...)...)
		if (err == nil) != c.ok || !strings.Contains(out, c.want) {
			t.Errorf("%s: %v: %s", c.name, err, out)
		}
	}
	if got := d.get(mib.ReqOwner, 0); !got.Equal(mib.Str("operator")) {
		t.Errorf("iadUpgReqOwner is %v", got)
	}

	notify(t, s, trapd, 1)
}

// notify sends a notification and waits until snmptrapd prints it.
func notify(t *testing.T, s *running, trapd *program, seq uint32) {
	t.Helper()
	m := s.tree.Module()
	if err := s.Notify(t.Context(), mib.Notice{Notification: mib.NotifyRestarted, Varbinds: []mib.Varbind{
		{OID: m.OID(mib.DeviceId, 0), Value: mib.Str("iad-1")},
		{OID: m.OID(mib.EventSeq, 0), Value: mib.Uint32(seq)},
	}}); err != nil {
		t.Fatal(err)
	}
	line, _ := trapd.await(0, m.NotificationOID(mib.NotifyRestarted).String(), fmt.Sprintf("%v = Gauge32: %d", m.OID(mib.EventSeq, 0), seq))
	if !strings.Contains(line, `= STRING: "iad-1"`) || !strings.Contains(line, ".1.3.6.1.2.1.1.3.0 = Timeticks") {
		t.Errorf("snmptrapd got %s", line)
	}
}

// TestSnmpdSinks sends a notification to every kind of receiver that snmpd can
// be configured with.
func TestSnmpdSinks(t *testing.T) {
	v3 := fmt.Sprintf("-v 3 -l authPriv -u iadms -a SHA-256 -A %s -x AES -X %s", deployAuth, deployPriv)
	user := fmt.Sprintf("createUser iadms SHA-256 %s AES %s", deployAuth, deployPriv)
	for name, sink := range map[string]string{
		"v2c trap":   "trap2sink udp:127.0.0.1:%d public",
		"v2c inform": "informsink udp:127.0.0.1:%d public",
		"v3 inform":  "trapsess -Ci " + v3 + " udp:127.0.0.1:%d",
		"v3 trap":    "exactEngineID 0x" + trapEngine + "\n" + user + "\ntrapsess " + v3 + " udp:127.0.0.1:%d",
	} {
		t.Run(name, func(t *testing.T) {
			port := freePort(t)
			trapd := startTrapd(t, port)
			master := startSnmpd(t, fmt.Sprintf(sink, port))
			s := start(t, Config{Address: master.address}, newDevice())
			s.awaitReady()
			notify(t, s, trapd, 7)
		})
	}
}

// TestSnmpdEvents keeps a queue of events as the agent does: those that found
// no master are sent again when it is back, with the same numbers.
func TestSnmpdEvents(t *testing.T) {
	port := freePort(t)
	trapd := startTrapd(t, port)
	master := startSnmpd(t, fmt.Sprintf("informsink udp:127.0.0.1:%d public", port))
	s := start(t, Config{Address: master.address}, newDevice())
	s.awaitReady()
	notify(t, s, trapd, 1)
	master.kill()
	if err := s.Notify(t.Context(), mib.Notice{Notification: mib.NotifyRestarted}); !errors.Is(err, ErrAway) {
		t.Fatal(err)
	}
	master.start()
	s.awaitReady()
	notify(t, s, trapd, 2)
}
