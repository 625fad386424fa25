package main

import (
	"encoding/hex"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/afero"

	"example.com/iad/agent/settings"
	"example.com/iad/internal/peers"
	"example.com/iad/manager/device"
	"example.com/iad/manager/files"
	"example.com/iad/mib"
)

// people are users with less than everything, as somebody adds them to iad.toml.
const people = `
[[snmp.users]]
name = "watcher"
auth = "SHA-256"
auth_passphrase = "watcher-auth-pass"
priv = "AES"
priv_passphrase = "watcher-priv-pass"
write = false
level = "authNoPriv"
read_view = ["1.3.6.1.4.1.8072.9999.9999.17325", "!1.3.6.1.4.1.8072.9999.9999.17325.1.3"]

[[snmp.users]]
name = "clerk"
auth = "SHA-512"
auth_passphrase = "clerk-auth-pass"
priv = "AES-256"
priv_passphrase = "clerk-priv-pass"
write = true
level = "authNoPriv"
write_view = ["1.3.6.1.4.1.8072.9999.9999.17325.1.3"]

[[snmp.users]]
name = "remote"
auth = "SHA-256"
auth_passphrase = "remote-auth-pass"
priv = "AES"
priv_passphrase = "remote-priv-pass"
write = true
sources = ["127.255.255.0/24"]
`

// What iad.toml permits is what net-snmp's tools can do, and nothing else.
func TestAccess(t *testing.T) {
	d := newDevice(t, "--plain-passwords=false", "--read-community=", "--write-community=",
		"--manager", filepath.Join(t.TempDir(), "credentials.toml"))
	d.edit(func(s string) string { return s + people })
	d.start()
	admin := d.user("iadms")

	oid := func(o *mib.Object, index uint32) string { return mib.NewModule(nil).OID(o, index).String() }
	version, address := oid(mib.SoftwareVersion, 0), oid(mib.ServerPath, 1)
	password, owner := oid(mib.ServerPassword, 1), oid(mib.ReqOwner, 0)
	watcher := v3("watcher", "SHA-256", "watcher-auth-pass", "AES", "watcher-priv-pass")
	clerk := v3("clerk", "SHA-512", "clerk-auth-pass", "AES-256", "clerk-priv-pass")
	remote := v3("remote", "SHA-256", "remote-auth-pass", "AES", "remote-priv-pass")
	for _, c := range []struct {
		name string
		tool string
		args []string
		want string // part of what the tool says
	}{
		{"v2c is off", "snmpget", []string{"-v2c", "-cpublic", version}, "Timeout"},
		{"v1 is off", "snmpget", []string{"-v1", "-cpublic", version}, "Timeout"},
		{"the manager reads", "snmpget", at("authPriv", admin, version), `"1.0.0"`},
		{"the manager writes", "snmpset", at("authPriv", admin, address, "s", "there"), `"there"`},
		{"the manager not without privacy", "snmpget", at("authNoPriv", admin, version), "uthorization"},
		{"nobody without authentication", "snmpget", at("noAuthNoPriv", admin, version), "uthorization"},
		{"a wrong passphrase", "snmpget", at("authPriv", v3("iadms", "SHA-256", "wrong-passphrase", "AES", "wrong-passphrase"), version), "uthentication failure"},
		{"an unknown user", "snmpget", at("authPriv", v3("nobody", "SHA-256", "wrong-passphrase", "AES", "wrong-passphrase"), version), "nknown user"},
		{"the watcher reads", "snmpget", at("authPriv", watcher, version), `"1.0.0"`},
		{"the watcher reads without privacy", "snmpget", at("authNoPriv", watcher, version), `"1.0.0"`},
		{"the watcher does not see the servers", "snmpget", at("authPriv", watcher, address), "No Such"},
		{"the watcher does not write", "snmpset", at("authPriv", watcher, owner, "s", "watcher"), "authorizationError"},
		{"the clerk writes servers", "snmpset", at("authPriv", clerk, address, "s", "here"), `"here"`},
		{"the clerk commands nothing", "snmpset", at("authPriv", clerk, owner, "s", "clerk"), "noAccess"},
		{"a password without privacy", "snmpset", at("authNoPriv", clerk, password, "s", "geheim"), "authorizationError"},
		{"a password with privacy", "snmpset", at("authPriv", clerk, password, "s", "geheim"), "geheim"},
		{"a password is not read back", "snmpget", at("authPriv", admin, password), `""`},
		{"a user from elsewhere", "snmpget", at("authPriv", remote, version), "uthorization"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if out := d.tool(c.tool, c.args...); !strings.Contains(out, c.want) {
				t.Errorf("want %s, got: %s", c.want, out)
			}
		})
	}
	if out := d.tool("snmpbulkwalk", at("authPriv", watcher, "1.3.6.1")...); !strings.Contains(out, "17325.1.1.") ||
		strings.Contains(out, ".17325.1.3.") || strings.Contains(out, ".1.3.6.1.2.1.1.") {
		t.Errorf("the watcher sees: %s", out)
	}
}

// Settings that would be weaker than they look are refused when the device
// starts.
func TestRefusedSettings(t *testing.T) {
	for name, c := range map[string]struct {
		change func(string) string
		want   string
	}{
		"MD5": {func(s string) string {
			return s + strings.Replace(people, `auth = "SHA-256"`, `auth = "MD5"`, 1)
		}, "MD5 or DES"},
		"DES": {func(s string) string {
			return s + strings.Replace(people, `priv = "AES"`, `priv = "DES"`, 1)
		}, "MD5 or DES"},
		"level": {func(s string) string {
			return s + strings.Replace(people, `"authNoPriv"`, `"private"`, 1)
		}, "snmp.users.level must be noAuthNoPriv"},
		"view": {func(s string) string {
			return s + strings.Replace(people, `"!1.3.6`, `"-1.3.6`, 1)
		}, "view"},
		"write view of a reader": {func(s string) string {
			return s + strings.Replace(people, `read_view`, `write_view`, 1)
		}, "write_view without write"},
		"short passphrase": {func(s string) string {
			return s + strings.Replace(people, `watcher-auth-pass`, `short`, 1)
		}, "less than 8 bytes"},
		"unknown setting": {func(s string) string { return s + people + "views = []\n" }, "snmp.users.views is not a setting"},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDevice(t)
			d.edit(c.change)
			out, err := command("run", "--root", d.root).CombinedOutput()
			if err == nil || !strings.Contains(string(out), c.want) {
				t.Errorf("%v: %s, want %s", err, out, c.want)
			}
			if strings.Contains(string(out), "pass") && strings.Contains(string(out), "watcher-") {
				t.Errorf("says a passphrase: %s", out)
			}
		})
	}
}

// A key that is lost, damaged or taken away keeps new software out, never the
// unit from starting.
func TestLostKey(t *testing.T) {
	d := newDevice(t)
	keys, err := filepath.Glob(filepath.Join(d.root, "keys", "*"))
	if err != nil || len(keys) != 1 {
		t.Fatal(keys, err)
	}
	if err := os.Remove(keys[0]); err != nil {
		t.Fatal(err)
	}
	d.start()
	op := d.download(t, d.image("2.0.0", 1000))
	if op.Cause != mib.FailCauseSignerUntrusted {
		t.Errorf("software whose key is lost: %v, %s", op.Cause, op.Text)
	}
}

// edit changes the settings.
func (d *unit) edit(change func(string) string) {
	d.t.Helper()
	file := filepath.Join(d.root, settings.Name)
	data, err := os.ReadFile(file)
	if err == nil {
		err = os.WriteFile(file, []byte(change(string(data))), 0o600)
	}
	if err != nil {
		d.t.Fatal(err)
	}
}

// user is a user of the settings, as options of net-snmp's tools.
func (d *unit) user(name string) []string {
	d.t.Helper()
	s, err := settings.Load(filepath.Join(d.root, settings.Name))
	if err != nil {
		d.t.Fatal(err)
	}
	for _, u := range s.SNMP.Users {
		if u.Name == name {
			return v3(u.Name, u.Auth, u.AuthPassphrase, u.Priv, u.PrivPassphrase)
		}
	}
	d.t.Fatalf("no user %s", name)
	return nil
}

func v3(name, auth, authPass, priv, privPass string) []string {
	return []string{"-v3", "-u", name, "-a", auth, "-A", authPass, "-x", priv, "-X", privPass}
}

func at(level string, user []string, args ...string) []string {
	return append(append([]string{"-l", level}, user...), args...)
}

// tool runs one of net-snmp's tools and returns what it says.
func (d *unit) tool(name string, args ...string) string {
	d.t.Helper()
	last := len(args)
	for i, a := range args {
		if strings.HasPrefix(a, "1.3.6.") {
			last = i
			break
		}
	}
	return d.toolWith(name, args[:last], args[last:])
}

// toolWith is tool with the options, and what follows the address, apart.
func (d *unit) toolWith(name string, options, rest []string) string {
	d.t.Helper()
	full := append([]string{"-m", "", "-On", "-r", "0", "-t", "5"}, options...)
	if options[0] == "-v1" || options[0] == "-v2c" {
		full[6] = "1" // no answer is what is wanted
	}
	cmd := exec.CommandContext(d.t.Context(), peers.Find(d.t, name), append(append(full, d.addr), rest...)...)
	dir := d.t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "cert_indexes"), 0o700); err != nil {
		d.t.Fatal(err)
	}
	cmd.Env = append(os.Environ(), "SNMPCONFPATH="+dir, "SNMP_PERSISTENT_DIR="+dir, "MIBS=", "LC_ALL=C")
	out, _ := cmd.CombinedOutput()
	return string(out)
}

// Servers of FTP over TLS are known by the certificate that iad.toml names, or
// by that of an authority, and not at all without.
func TestFTPS(t *testing.T) {
	disk := afero.NewMemMapFs()
	srv, err := files.StartServers(files.ServersConfig{Files: disk, FTP: "127.0.0.1:0", Advertise: "127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Close()
	pin := hex.EncodeToString(srv.Fingerprint())
	for name, c := range map[string]struct {
		settings string
		cause    mib.FailCause
	}{
		"the pinned one":      {"pin = '" + pin + "'", mib.FailCauseNone},
		"another one":         {"pin = '" + strings.Repeat("00", 32) + "'", mib.FailCauseTlsFailed},
		"an unknown one":      {"", mib.FailCauseTlsFailed},
		"no digest":           {"pin = 'abc'", mib.FailCauseTlsFailed},
		"no such authority":   {"ca = 'none.pem'", mib.FailCauseTlsFailed},
		"no authority at all": {"ca = 'iad.toml'", mib.FailCauseTlsFailed},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDevice(t, "--protocols", "ftps")
			d.edit(func(s string) string { return strings.Replace(s, "[ftps]", "[ftps]\n"+c.settings+"\n", 1) })
			d.start()
			op := d.downloadFrom(t, srv, disk, device.FTPS, d.image("2.0.0", 100_000))
			if op.Cause != c.cause {
				t.Errorf("%v, %v: %s; want %v", op.State, op.Cause, op.Text, c.cause)
			}
		})
	}
}

// download has the device fetch software by TFTP, and returns how it ended.
func (d *unit) download(t *testing.T, image []byte, options ...device.Option) *device.Operation {
	t.Helper()
	disk := afero.NewMemMapFs()
	srv, err := files.StartServers(files.ServersConfig{Files: disk, TFTP: "127.0.0.1:0", Advertise: "127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Close()
	return d.downloadFrom(t, srv, disk, device.TFTP, image, options...)
}

func (d *unit) downloadFrom(t *testing.T, srv *files.Servers, disk afero.Fs, p device.Protocol, image []byte, options ...device.Option) *device.Operation {
	t.Helper()
	if err := afero.WriteFile(disk, "fw.iad", image, 0o644); err != nil {
		t.Fatal(err)
	}
	c := d.client()
	session, err := srv.Open(p, "IAD-0001", c.Address())
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	img, err := files.OpenImage(disk, "fw.iad")
	if err != nil {
		t.Fatal(err)
	}
	directory, name, err := session.Publish(img)
	if err != nil {
		t.Fatal(err)
	}
	return d.carryOut(t, c, device.Request{
		Kind: mib.OperationKindDownloadSoftware, Options: options,
		Server: &device.ServerRow{Index: 1, FileServerAddress: session.Address(), Path: directory},
		Files:  []device.FileRow{{Kind: mib.FileTypeSoftware, Name: name}},
	})
}

// carryOut commands an operation and waits for its end, over restarts.
func (d *unit) carryOut(t *testing.T, c *device.Client, r device.Request) *device.Operation {
	t.Helper()
	r.ID, r.Owner = device.NewReqID(), "test"
	op, err := c.Start(t.Context(), r)
	for err == nil && !op.Final() {
		if op, err = c.Operation(t.Context()); errors.Is(err, device.ErrNoAnswer) {
			err = nil // restarting
			op = &device.Operation{}
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return op
}
