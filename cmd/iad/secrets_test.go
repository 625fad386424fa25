package main

import (
	"bufio"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pelletier/go-toml/v2"
	"github.com/spf13/afero"

	"example.com/iad/agent/procedure"
	"example.com/iad/internal/durable"
	"example.com/iad/internal/peers"
	"example.com/iad/manager/device"
	"example.com/iad/manager/files"
)

// capture receives notifications as they are on the wire.
func capture(t *testing.T) (address string, got *peers.Output) {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	got = &peers.Output{}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 65536)
		for {
			n, _, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = got.Write(buf[:n])
		}
	}()
	t.Cleanup(func() { conn.Close(); <-done })
	return conn.LocalAddr().String(), got
}

// secrets are what must not be found, by name, and how it may be spelled.
type secrets map[string]string

// in returns the names of the secrets that a text has.
func (s secrets) in(text string) (names []string) {
	for name, secret := range s {
		spelled := []string{secret, hex.EncodeToString([]byte(secret))}
		for shift := range 3 { // base64 at any place within something longer
			long := base64.RawStdEncoding.EncodeToString([]byte(strings.Repeat("\x00", shift) + secret))
			spelled = append(spelled, long[4:len(long)-4])
		}
		for _, sp := range spelled {
			if strings.Contains(text, sp) {
				names = append(names, name)
				break
			}
		}
	}
	return names
}

// quotingServer is an FTP server that understands USER only.
func quotingServer(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(c, "220 ready\r\n")
			for s := bufio.NewScanner(c); s.Scan(); {
				if strings.HasPrefix(s.Text(), "USER ") {
					fmt.Fprint(c, "331 password?\r\n")
				} else {
					fmt.Fprintf(c, "500 '%s': command not understood\r\n", s.Text())
				}
			}
			c.Close()
		}
	}()
	return l.Addr().String()
}

// After a whole procedure by SNMPv3 and FTP, and after log-ins that failed, no
// secret is in any log, notification or output, nor in a file that others may
// read.
func TestSecrets(t *testing.T) {
	dir := t.TempDir()
	iadms := filepath.Join(dir, "iadms")
	if out, err := exec.Command("go", "build", "-o", iadms, "../iadms").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	home := filepath.Join(dir, "home")
	credentials := filepath.Join(home, "credentials.toml")
	if err := os.Mkdir(home, 0o755); err != nil {
		t.Fatal(err)
	}
	planted := secrets{
		"key password": "key-password-Zi8oozah", "wrong server password": "wrong-password-oXee7fie",
		"watcher's auth": "watcher-auth-pass", "watcher's priv": "watcher-priv-pass",
	}
	said := &peers.Output{} // all that iadms says on either output
	run := func(fails bool, args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), iadms, append([]string{"--log-level", "debug"}, args...)...)
		cmd.Dir = home
		cmd.Env = append(os.Environ(), "HOME="+home, "XDG_CONFIG_HOME="+home, "XDG_DATA_HOME="+home, "IADMS_STORE="+home,
			"IADMS_CREDENTIALS="+credentials, "IADMS_KEY_PASSWORD="+planted["key password"],
			"IADMS_SERVER_PASSWORD="+planted["wrong server password"])
		if _, err := os.Stat(credentials); err != nil {
			cmd.Env = append(cmd.Env, "IADMS_CREDENTIALS=")
		}
		out, err := cmd.CombinedOutput()
		_, _ = said.Write(out)
		if (err != nil) != fails {
			t.Fatalf("iadms %v: %v\n%s", args, err, out)
		}
		return string(out)
	}

	// The maker's key is encrypted; the device trusts it besides its own.
	run(false, "image", "keygen", "-o", "maker")
	app := filepath.Join(dir, "app")
	if err := os.WriteFile(app, []byte(strings.Repeat("software 2.0.0\n", 10000)), 0o755); err != nil {
		t.Fatal(err)
	}
	run(false, "image", "build", "--version", "2.0.0", "--hardware", "IAD-4FXS", "--config-format", "1", "--key", "maker.key", "-o", "fw.iad", app)

	config := t.TempDir()
	for k, data := range killSet("somebody") {
		if err := os.WriteFile(filepath.Join(config, k.String()), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d := newDevice(t, "--plain-passwords=false", "--read-community=", "--write-community=",
		"--manager", credentials, "--trust", filepath.Join(home, "maker.pub"), "--config-dir", config)
	sink, notified := capture(t)
	d.edit(func(s string) string {
		return s + people + "\n[[snmp.sinks]]\naddress = '" + sink + "'\ncommunity = 'traps'\n"
	})
	var c struct {
		User map[string]string `toml:"user"`
	}
	data, err := os.ReadFile(credentials)
	if err == nil {
		err = toml.Unmarshal(data, &c)
	}
	if err != nil || len(c.User["auth_passphrase"]) < 20 || len(c.User["priv_passphrase"]) < 20 {
		t.Fatalf("credentials: %v", err)
	}
	planted["manager's auth"], planted["manager's priv"] = c.User["auth_passphrase"], c.User["priv_passphrase"]

	log := &peers.Output{}
	d.log = log
	d.keepPort()
	d.start("--log-level", "debug")

	// A server that refuses the log-in.
	srv, err := files.StartServers(files.ServersConfig{Files: afero.NewMemMapFs(), FTP: "127.0.0.1:0", Advertise: "127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Close()
	session, err := srv.Open(device.FTP, "IAD-0001", "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	address := session.Address()
	elsewhere := (&net.UDPAddr{IP: net.ParseIP(address.Host), Port: int(address.Port)}).String()
	run(true, "upgrade", d.addr, "--image", "fw.iad", "--server", "ftp://"+address.User+"@"+elsewhere, "--retries", "0",
		"--device-retries", "0", "--notifications", "none", "--yes", "--json")
	stored := map[string]bool{d.password(t): true}
	if !stored[planted["wrong server password"]] {
		t.Error("the device did not get the password of the server")
	}

	// And one that quotes the command with the password as it does so.
	run(true, "backup", d.addr, "--server", "ftp://"+address.User+"@"+quotingServer(t), "--retries", "0", "--notifications", "none", "--json")

	for _, dev := range [][]string{{"--json"}, {}} {
		for i, args := range [][]string{
			{"upgrade", d.addr, "--image", "fw.iad", "--protocol", "ftp", "--listen", "127.0.0.1", "--notifications", "127.0.0.1:0", "--poll", "200ms", "--yes"},
			{"backup", d.addr, "--protocol", "ftp", "--listen", "127.0.0.1", "--notifications", "none"},
			{"status", d.addr}, {"history", d.addr}, {"logs", d.addr}, {"devices"}, {"rollback", d.addr, "--notifications", "none"},
			{"status", "--credentials=" + wrongCredentials(t, dir), d.addr},
		} {
			run(i == 7, append(args, dev...)...)
			if p := d.password(t); p != "" && !stored[p] {
				stored[p] = true
				planted["one-time password "+string(rune('0'+len(stored)))] = p
			}
		}
		out, err := command(append([]string{"status", "--root", d.root}, dev...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("iad status: %v\n%s", err, out)
		}
		_, _ = said.Write(out)
	}
	if len(stored) < 4 {
		t.Errorf("only %d passwords of servers were seen", len(stored))
	}
	d.stop()

	for where, text := range map[string]string{"what iadms says": said.String(), "the device's log": log.String(), "a notification": notified.String()} {
		if len(text) < 500 {
			t.Errorf("%s is only %q", where, text)
		}
		if names := planted.in(text); names != nil {
			t.Errorf("%s has: %v", where, names)
		}
	}
	found := 0
	for _, root := range []string{d.root, home} {
		err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
			if err != nil || !e.Type().IsRegular() {
				return err
			}
			info, err := e.Info()
			if err != nil {
				return err
			}
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			names := planted.in(string(data))
			found += len(names)
			if names != nil && info.Mode().Perm()&0o077 != 0 {
				t.Errorf("%s has mode %04o and: %v", path, info.Mode().Perm(), names)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if found < 5 { // iad.toml, the settings of the device, the credentials
		t.Errorf("only %d secrets were found where they belong: the search is broken", found)
	}
}

// password is that of the device's first server, as it is stored.
func (d *unit) password(t *testing.T) string {
	t.Helper()
	data, _ := durable.ReadRecord(afero.NewBasePathFs(afero.NewOsFs(), filepath.Join(d.root, "state")), "settings", [4]byte{'I', 'A', 'D', 'S'}, 1, nil)
	var s procedure.Settings
	if err := json.Unmarshal(data, &s); err != nil {
		t.Fatalf("settings: %v", err)
	}
	return string(s.Servers[0].Password)
}

// wrongCredentials are a user's with a wrong passphrase.
func wrongCredentials(t *testing.T, dir string) string {
	t.Helper()
	file := filepath.Join(dir, "wrong.toml")
	text := "[user]\nname = 'iadms'\nauth = 'sha256'\nauth_passphrase = 'watcher-auth-pass'\npriv = 'aes'\npriv_passphrase = 'watcher-priv-pass'\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
