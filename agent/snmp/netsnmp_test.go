package snmp

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"example.com/iad/internal/peers"
	"example.com/iad/internal/snmp"
	"example.com/iad/mib"
)

// run starts the engine; it ends with the test.
func run(t testing.TB, e *Engine) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- e.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// tool runs one of net-snmp's tools, and returns what it says. It waits for
// an answer for so many seconds.
func tool(t testing.TB, seconds int, name string, args ...string) (out string, ok bool) {
	t.Helper()
	options := []string{"-m", "", "-On", "-t", strconv.Itoa(seconds), "-r", "0"}
	cmd := exec.CommandContext(t.Context(), peers.Find(t, name), append(options, args...)...)
	cmd.Env = toolEnv(t)
	text, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(text)), err == nil
}

// toolEnv keeps net-snmp from the machine's configuration.
func toolEnv(t testing.TB) []string {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "cert_indexes"), 0o700); err != nil {
		t.Fatal(err)
	}
	return append(os.Environ(), "SNMPCONFPATH="+dir, "SNMP_PERSISTENT_DIR="+dir, "MIBS=", "LC_ALL=C")
}

func mustTool(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, ok := tool(t, 10, name, args...)
	if !ok {
		t.Fatalf("%s %s: %s", name, strings.Join(args, " "), out)
	}
	return out
}

// refused runs a tool that is to fail; want is part of what it says then,
// "Timeout" if there is to be no answer.
func refused(t testing.TB, want, name string, args ...string) {
	t.Helper()
	seconds := 10
	if want == "Timeout" {
		seconds = 1
	}
	if out, _ := tool(t, seconds, name, args...); !strings.Contains(out, want) {
		t.Errorf("want %s, got: %s", want, out)
	}
}

func dotted(o *mib.Object, index ...uint32) string {
	return "." + module.OID(o, index...).String()
}

func wantLine(t testing.TB, out, line string) {
	t.Helper()
	for l := range strings.Lines(out) {
		if strings.TrimSpace(l) == line {
			return
		}
	}
	t.Errorf("no line %q in:\n%s", line, out)
}

var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}

func communities() []Community {
	return []Community{
		{Name: "public", Sources: loopback},
		{Name: "private", Write: true, Sources: loopback},
		{Name: "elsewhere", Write: true, Sources: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}},
	}
}

func TestToolsV1AndV2c(t *testing.T) {
	e, d := newEngine(t, Config{
		Conn: socketAt(t, "127.0.0.1:0"), Communities: communities(),
		System: System{Descr: "test device", ObjectID: mib.MustParseOID("1.3.6.1.4.1.8072.9999"), Name: "iad-1"},
	})
	run(t, e)
	at := e.Addr().String()

	for _, version := range []string{"-v1", "-v2c"} {
		out := mustTool(t, "snmpget", version, "-c", "public", at, ".1.3.6.1.2.1.1.1.0", ".1.3.6.1.2.1.1.2.0", dotted(mib.BankVersion, 2))
		wantLine(t, out, `.1.3.6.1.2.1.1.1.0 = STRING: "test device"`)
		wantLine(t, out, `.1.3.6.1.2.1.1.2.0 = OID: .1.3.6.1.4.1.8072.9999`)
		wantLine(t, out, dotted(mib.BankVersion, 2)+` = STRING: "1.0.0"`)

		out = mustTool(t, "snmpwalk", version, "-c", "public", at, ".1.3")
		wantLine(t, out, `.1.3.6.1.2.1.1.5.0 = STRING: "iad-1"`)
		wantLine(t, out, dotted(mib.BankState, 2)+` = INTEGER: 2`)

		mustTool(t, "snmpset", version, "-c", "private", at, dotted(mib.ReqOwner, 0), "s", "operator"+version)
		if got := string(d.value(mib.ReqOwner, 0).Bytes); got != "operator"+version {
			t.Errorf("SET left %q", got)
		}
	}
	walk := mustTool(t, "snmpwalk", "-v2c", "-c", "public", at, ".1.3.6.1.4")
	bulk := mustTool(t, "snmpbulkwalk", "-v2c", "-c", "public", at, ".1.3.6.1.4")
	if walk != bulk {
		t.Errorf("snmpwalk and snmpbulkwalk differ:\n%s\n\n%s", walk, bulk)
	}
	if lines := strings.Count(walk, "\n") + 1; lines < 14 {
		t.Errorf("walk of the device has %d lines:\n%s", lines, walk)
	}

	for _, c := range []struct {
		name string
		args []string
		want string
	}{
		{"no such object", []string{"snmpget", "-v2c", "-c", "public", at, ".1.3.6.1.2.1.99.0"}, "No Such Object"},
		{"no such instance", []string{"snmpget", "-v2c", "-c", "public", at, ".1.3.6.1.2.1.1.1.1"}, "No Such Instance"},
		{"no such name", []string{"snmpget", "-v1", "-c", "public", at, ".1.3.6.1.2.1.99.0"}, "noSuchName"},
		{"end of view", []string{"snmpgetnext", "-v2c", "-c", "public", at, ".2.5"}, "No more variables"},
		{"read only community", []string{"snmpset", "-v2c", "-c", "public", at, dotted(mib.ReqOwner, 0), "s", "x"}, "authorizationError"},
		{"read only object", []string{"snmpset", "-v2c", "-c", "private", at, dotted(mib.DeviceId, 0), "s", "x"}, "notWritable"},
		{"system group", []string{"snmpset", "-v2c", "-c", "private", at, ".1.3.6.1.2.1.1.5.0", "s", "x"}, "notWritable"},
		{"wrong type", []string{"snmpset", "-v2c", "-c", "private", at, dotted(mib.ReqOwner, 0), "i", "1"}, "wrongType"},
		{"wrong type v1", []string{"snmpset", "-v1", "-c", "private", at, dotted(mib.ReqOwner, 0), "i", "1"}, "badValue"},
		{"unknown community", []string{"snmpget", "-v2c", "-c", "secret", at, ".1.3.6.1.2.1.1.1.0"}, "Timeout"},
		{"community of another network", []string{"snmpget", "-v2c", "-c", "elsewhere", at, ".1.3.6.1.2.1.1.1.0"}, "Timeout"},
		{"v3 without users", []string{"snmpget", "-v3", "-u", "u", "-l", "noAuthNoPriv", at, ".1.3.6.1.2.1.1.1.0"}, "Timeout"},
	} {
		t.Run(c.name, func(t *testing.T) {
			refused(t, c.want, c.args[0], c.args[1:]...)
		})
	}
	if n := d.committed(); n != 2 {
		t.Errorf("%d SETs were carried out, want 2", n)
	}
}

func TestToolsIPv6(t *testing.T) {
	e, _ := newEngine(t, Config{Conn: socketAt(t, "[::1]:0"), Communities: communities()})
	run(t, e)
	out := mustTool(t, "snmpget", "-v2c", "-c", "public", fmt.Sprintf("udp6:[::1]:%d", e.Addr().Port()), dotted(mib.DeviceId, 0))
	wantLine(t, out, dotted(mib.DeviceId, 0)+` = STRING: "iad-1"`)
}

// The answer comes from the address that the request went to.
func TestToolsSecondAddress(t *testing.T) {
	for _, listen := range []string{"0.0.0.0:0", ":0"} {
		e, _ := newEngine(t, Config{Conn: socketAt(t, listen), Communities: communities()})
		run(t, e)
		for _, host := range []string{"127.0.0.1", "127.0.0.5"} {
			at := net.JoinHostPort(host, strconv.Itoa(int(e.Addr().Port())))
			out := mustTool(t, "snmpget", "-v2c", "-c", "public", at, dotted(mib.DeviceId, 0))
			wantLine(t, out, dotted(mib.DeviceId, 0)+` = STRING: "iad-1"`)

			// A connected socket takes no answer from elsewhere.
			conn, err := net.Dial("udp", at)
			if err != nil {
				t.Fatal(err)
			}
			conn.Write(snmp.AppendCommunityMessage(nil, snmp.Version2c, "public", getID(), snmp.EncodeVars(getID().Vars)))
			conn.SetReadDeadline(time.Now().Add(10 * time.Second))
			if _, err := conn.Read(make([]byte, 1500)); err != nil {
				t.Errorf("listening on %s, asked at %s: %v", listen, host, err)
			}
			conn.Close()
		}
	}
}

// A SET's work begins after its answer has left.
func TestDoneAfterAnswer(t *testing.T) {
	e, d := newEngine(t, Config{Conn: socketAt(t, "127.0.0.1:0"), Communities: communities()})
	answered := make(chan struct{})
	d.onDone = func() {
		// The tool ends once it has the answer; only then may Done return.
		select {
		case <-answered:
		case <-time.After(10 * time.Second):
			t.Error("the answer did not leave before Done")
		}
	}
	run(t, e)
	mustTool(t, "snmpset", "-v2c", "-c", "private", e.Addr().String(), dotted(mib.ReqOwner, 0), "s", "x")
	close(answered)
}

// auth and priv are protocols that both sides have, by net-snmp's names.
var (
	authNames = []AuthProtocol{MD5, SHA1, SHA224, SHA256, SHA384, SHA512}
	privNames = []PrivProtocol{NoPriv, DES, AES128, AES192, AES256}
)

const (
	authPass = "authentication"
	privPass = "private matters"
)

func full(level Level) []Access {
	return []Access{{Level: level, Read: Everything(), Write: Everything(), Notify: Everything()}}
}

// matrix returns a user for each pair of protocols, and one for none.
func matrix() []User {
	users := []User{{Name: "nobody", Access: full(NoAuthNoPriv)}}
	for _, a := range authNames {
		for _, p := range privNames {
			u := User{Name: a.String() + "_" + p.String(), Auth: a, AuthPassphrase: authPass, Priv: p}
			if p != NoPriv {
				u.PrivPassphrase = privPass
			}
			u.Access = full(u.level())
			users = append(users, u)
		}
	}
	return users
}

// options are the tool's options for a user, at the user's own level.
func options(u *User) []string {
	args := []string{"-v3", "-u", u.Name, "-l", u.level().String()}
	if u.Auth != NoAuth {
		args = append(args, "-a", u.Auth.String(), "-A", u.AuthPassphrase)
	}
	if u.Priv != NoPriv {
		args = append(args, "-x", u.Priv.String(), "-X", u.PrivPassphrase)
	}
	return args
}

var testEngineID = []byte{0x80, 0, 0x1f, 0x88, 5, 1, 2, 3, 4, 5, 6, 7, 8}

func TestToolsV3(t *testing.T) {
	users := matrix()
	e, d := newEngine(t, Config{Conn: socketAt(t, "127.0.0.1:0"), Users: users, WeakCrypto: true, EngineID: testEngineID, Boots: 7})
	run(t, e)
	at := e.Addr().String()
	for i, u := range users {
		t.Run(u.Name, func(t *testing.T) {
			args := append(options(&u), at)
			out := mustTool(t, "snmpget", append(args, dotted(mib.DeviceId, 0), ".1.3.6.1.6.3.10.2.1.2.0")...)
			wantLine(t, out, dotted(mib.DeviceId, 0)+` = STRING: "iad-1"`)
			wantLine(t, out, ".1.3.6.1.6.3.10.2.1.2.0 = INTEGER: 7")
			mustTool(t, "snmpset", append(args, dotted(mib.ReqOwner, 0), "s", u.Name)...)
			if got := string(d.value(mib.ReqOwner, 0).Bytes); got != u.Name {
				t.Errorf("SET left %q", got)
			}
			if caller, want := d.caller(i), (mib.Caller{Private: u.Priv != NoPriv, Name: u.Name}); caller != want {
				t.Errorf("caller %+v, want %+v", caller, want)
			}
			walk := mustTool(t, "snmpbulkwalk", append(args, ".1.3.6.1.4")...)
			if lines := strings.Count(walk, "\n") + 1; lines < 14 {
				t.Errorf("walk of the device has %d lines:\n%s", lines, walk)
			}
		})
	}
}

func TestToolsV3Refused(t *testing.T) {
	users := []User{
		{Name: "manager", Auth: SHA256, AuthPassphrase: authPass, Priv: AES128, PrivPassphrase: privPass, Access: []Access{
			{Level: AuthPriv, Read: Everything(), Write: Everything()},
			{Level: AuthNoPriv, Read: View{{OID: mib.MustParseOID("1.3.6.1.2.1.1")}}},
		}},
		{Name: "reader", Auth: SHA256, AuthPassphrase: authPass, Access: []Access{{Level: AuthNoPriv, Read: Everything()}}},
		{Name: "stranger", Auth: SHA256, AuthPassphrase: authPass},
		{Name: "remote", Auth: SHA256, AuthPassphrase: authPass, Access: []Access{{Level: AuthNoPriv,
			Sources: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, Read: Everything()}}},
	}
	e, d := newEngine(t, Config{Conn: socketAt(t, "127.0.0.1:0"), Users: users, EngineID: testEngineID, Boots: 7})
	run(t, e)
	at := e.Addr().String()
	manager, reader := options(&users[0]), options(&users[1])
	id, owner, descr := dotted(mib.DeviceId, 0), dotted(mib.ReqOwner, 0), ".1.3.6.1.2.1.1.1.0"
	auth := func(user, pass string) []string {
		return []string{"-v3", "-u", user, "-l", "authNoPriv", "-a", "SHA-256", "-A", pass}
	}
	for _, c := range []struct {
		name string
		tool string
		args []string
		want string
	}{
		{"wrong password", "snmpget", append(auth("reader", "another password"), at, id), "Authentication failure"},
		{"unknown user", "snmpget", append(auth("intruder", authPass), at, id), "Unknown user name"},
		{"wrong privacy password", "snmpget", append(manager, "-X", "another password", at, id), "Decryption error"},
		{"level without keys", "snmpget", []string{"-v3", "-u", "reader", "-l", "authPriv", "-a", "SHA-256", "-A", authPass,
			"-x", "AES", "-X", privPass, at, id}, "Unsupported security level"},
		{"no access at the level", "snmpget", []string{"-v3", "-u", "reader", "-l", "noAuthNoPriv", at, id}, "authorizationError"},
		{"no access at all", "snmpget", append(auth("stranger", authPass), at, id), "authorizationError"},
		{"not from there", "snmpget", append(auth("remote", authPass), at, id), "authorizationError"},
		{"not for writing", "snmpset", append(reader, at, owner, "s", "x"), "authorizationError"},
		{"lower level sees less", "snmpget", append(auth("manager", authPass), at, id), "No Such Object"},
		{"lower level sees something", "snmpget", append(auth("manager", authPass), at, descr), descr + ` = ""`},
		{"lower level writes nothing", "snmpset", append(auth("manager", authPass), at, owner, "s", "x"), "authorizationError"},
		{"unknown context", "snmpget", append(reader, "-n", "other", at, id), "Bad context"},
		// The tools do not listen to a Report of an engine that they did not ask.
		{"wrong engine", "snmpget", append(reader, "-e", "8000000001020304", at, id), "Timeout"},
		{"inform to a device", "snmpinform", append(reader, at, "", ".1.3.6.1.6.3.1.1.5.1"), "snmpinform:"},
		{"v2c", "snmpget", []string{"-v2c", "-c", "public", at, id}, "Timeout"},
	} {
		t.Run(c.name, func(t *testing.T) {
			refused(t, c.want, c.tool, c.args...)
		})
	}
	if n := d.tested(); n != 0 {
		t.Errorf("%d SETs reached the device", n)
	}
}

// A manager whose idea of the time is wrong is put right.
func TestToolsStaleTime(t *testing.T) {
	e, _ := newEngine(t, Config{Conn: socketAt(t, "127.0.0.1:0"), Users: []User{privateUser}, EngineID: testEngineID, Boots: 7})
	run(t, e)
	args := append(options(&privateUser), "-e", fmt.Sprintf("%x", testEngineID), "-Z", "3,100000", e.Addr().String(), dotted(mib.DeviceId, 0))
	wantLine(t, mustTool(t, "snmpget", args...), dotted(mib.DeviceId, 0)+` = STRING: "iad-1"`)
	if n := e.own(t, "1.3.6.1.6.3.15.1.1.2.0").Int; n != 1 {
		t.Errorf("usmStatsNotInTimeWindows is %d", n)
	}
}

// A SET of snmpset is captured on its way and sent again, from elsewhere.
func TestToolsReplay(t *testing.T) {
	e, d := newEngine(t, Config{Conn: socketAt(t, "127.0.0.1:0"), Users: []User{privateUser}, EngineID: testEngineID, Boots: 7})
	run(t, e)
	var captured [][]byte // written by the receiver before the tool ends
	relay := newReceiver(t, func(_ int, msg []byte) []byte {
		captured = append(captured, msg)
		return exchange(t, e, msg)
	})
	mustTool(t, "snmpset", append(options(&privateUser), relay.addr(), dotted(mib.ReqOwner, 0), "s", "once")...)
	for range captured {
		relay.next(t)
	}
	if d.tested() != 1 || len(captured) < 2 {
		t.Fatalf("%d SETs in %d messages", d.tested(), len(captured))
	}
	conn, err := net.Dial("udp", e.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, msg := range captured {
		conn.Write(msg)
	}
	// Messages are handled one after the other: after this one they were.
	mustTool(t, "snmpget", append(options(&privateUser), e.Addr().String(), dotted(mib.DeviceId, 0))...)
	if d.tested() != 1 {
		t.Errorf("the SET was executed %d times", d.tested())
	}
}

// exchange sends a message to the engine and returns its answer.
func exchange(t *testing.T, e *Engine, msg []byte) []byte {
	conn, err := net.Dial("udp", e.Addr().String())
	if err != nil {
		t.Error(err)
		return nil
	}
	defer conn.Close()
	conn.Write(msg)
	conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	answer := make([]byte, 65536)
	n, err := conn.Read(answer)
	if err != nil {
		t.Error(err)
	}
	return answer[:n]
}
