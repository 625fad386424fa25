package main

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/iad/agent/settings"
	"example.com/iad/internal/peers"
	"example.com/iad/mib"
)

// usm runs snmpusm, whose options stand before the address.
func (d *unit) usm(user []string, which string, args ...string) string {
	d.t.Helper()
	return d.toolWith("snmpusm", at("authPriv", user, which), args)
}

// Keys that a manager changes stay after the device was killed, until the passphrase in iad.toml
// changes or somebody at the device reverts them. Users without a write view change only their own.
// No key gets into a log or an output.
func TestManagersChangeKeys(t *testing.T) {
	d := newDevice(t, "--read-community=", "--write-community=", "--manager", filepath.Join(t.TempDir(), "credentials.toml"))
	d.edit(func(s string) string {
		return s + people + "\n[[snmp.users]]\nname = 'security'\nauth = 'SHA-256'\nauth_passphrase = 'security-auth-pass'\n" +
			"priv = 'AES'\npriv_passphrase = 'security-priv-pass'\nwrite = true\nwrite_view = ['1.3.6.1.6.3.15']\n"
	})
	log := &peers.Output{}
	d.log = log
	d.keepPort()
	d.start("--log-level", "debug")
	name := mib.NewModule(nil).OID(mib.DeviceId, 0).String()
	works := func(user []string) bool {
		t.Helper()
		return strings.Contains(d.tool("snmpget", at("authPriv", user, name)...), "IAD-0001")
	}
	check := func(what string, now, before []string) {
		t.Helper()
		if !works(now) || works(before) {
			t.Errorf("%s: the keys that should count: %v, those that should not: %v", what, works(now), works(before))
		}
	}
	first := d.user("iadms")
	pass := func(user []string, option string) string { return user[slices.Index(user, option)+1] }
	second := v3("iadms", "SHA-256", "the second auth-pass", "AES", "the second priv-pass")
	half := v3("iadms", "SHA-256", "the second auth-pass", "AES", pass(first, "-X"))
	security := v3("security", "SHA-256", "security-auth-pass", "AES", "security-priv-pass")
	watcher := v3("watcher", "SHA-256", "watcher-auth-pass", "AES", "watcher-priv-pass")
	clerk, clerk2 := v3("clerk", "SHA-512", "clerk-auth-pass", "AES-256", "clerk-priv-pass"), v3("clerk", "SHA-512", "the second clerk-pass", "AES-256", "clerk-priv-pass")
	for _, c := range []struct {
		name string
		out  string
		want string
	}{
		{"its own", d.usm(first, "-Ca", "passwd", pass(first, "-A"), "the second auth-pass"), "successfully changed"},
		{"its own, for privacy", d.usm(half, "-Cx", "passwd", pass(first, "-X"), "the second priv-pass", "iadms"), "successfully changed"},
		{"another's", d.usm(second, "-Ca", "passwd", "watcher-auth-pass", "another auth-pass", "watcher"), "noAccess"},
		{"its own with a view", d.usm(clerk, "-Ca", "passwd", "clerk-auth-pass", "the second clerk-pass"), "successfully changed"},
		{"a reader's own", d.usm(watcher, "-Ca", "passwd", "watcher-auth-pass", "another auth-pass"), "authorizationError"},
		{"a new user", d.usm(security, "-Cw", "create", "intruder"), "noCreation"},
		{"without a user", d.usm(security, "-Ca", "delete", "watcher"), "notWritable"},
	} {
		if !strings.Contains(c.out, c.want) || c.want == "" && strings.Contains(c.out, "success") {
			t.Errorf("%s: %s", c.name, c.out)
		}
	}
	check("changed", second, first)
	check("the clerk", clerk2, clerk)
	if !works(watcher) {
		t.Error("the watcher's keys have changed")
	}
	if out := d.usm(security, "-Ca", "passwd", "watcher-auth-pass", "another auth-pass", "watcher"); !strings.Contains(out, "successfully changed") {
		t.Errorf("another's with a view: %s", out)
	}
	check("the watcher", v3("watcher", "SHA-256", "another auth-pass", "AES", "watcher-priv-pass"), watcher)
	d.stop() // kills it
	d.start()
	check("after a restart", second, first)

	status := func() (text string, users []string) {
		t.Helper()
		out, err := command("status", "--root", d.root).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		document, err := command("status", "--json", "--root", d.root).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, document)
		}
		var s struct {
			Changed struct {
				Users []string `json:"keys_of_users"`
			} `json:"changed_by_managers"`
		}
		if err := json.Unmarshal(document, &s); err != nil {
			t.Fatal(err)
		}
		return string(out), s.Changed.Users
	}
	text, users := status()
	if !strings.Contains(text, "keys of clerk, iadms, watcher\n") || !slices.Equal(users, []string{"clerk", "iadms", "watcher"}) {
		t.Errorf("status: %s\n%v", text, users)
	}
	for _, p := range []string{"the second auth-pass", "the second priv-pass", "the second clerk-pass"} {
		if strings.Contains(text+log.String(), p) {
			t.Errorf("%q is in an output or log", p)
		}
	}

	if out, err := command("settings", "revert", "--root", d.root).CombinedOutput(); err == nil {
		t.Errorf("reverted although the device runs: %s", out)
	}
	d.stop()
	d.edit(func(s string) string { return strings.Replace(s, "clerk-auth-pass", "clerk-new-in-file", 1) })
	d.start()
	check("edited in iad.toml", v3("clerk", "SHA-512", "clerk-new-in-file", "AES-256", "clerk-priv-pass"), clerk2)
	check("another user", second, first)
	d.stop()
	out, err := command("settings", "revert", "--root", d.root).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "iadms") || strings.Contains(string(out), "clerk") {
		t.Errorf("%v: %s", err, out)
	}
	d.start()
	check("reverted", first, second)
	if text, users := status(); strings.Contains(text, "Changed by managers") || len(users) > 0 {
		t.Errorf("status: %s\n%v", text, users)
	}

	// Whoever reads the state directory, only its owner may.
	for _, suffix := range []string{".a", ".b"} {
		info, err := os.Stat(filepath.Join(d.root, "state", "managed"+suffix))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%v, %v", info, err)
		}
	}
	if _, err := os.Stat(filepath.Join(d.root, settings.Name)); err != nil {
		t.Error(err)
	}
}

// A target that a manager moves stays moved after the device was killed, and returns when somebody
// at the device reverts it.
func TestManagersMoveTargets(t *testing.T) {
	d := newDevice(t)
	first, atFirst := capture(t)
	second, atSecond := capture(t)
	d.keepPort()
	// Each start sends a notification.
	restart := func(to, other *peers.Output) {
		t.Helper()
		d.stop()
		had, otherHad := len(to.String()), len(other.String())
		d.start("--trap-sink", first)
		within := time.After(10 * time.Second)
		for len(to.String()) == had {
			select {
			case <-within:
				t.Fatal("no notification")
			default:
				_ = d.tool("snmpget", "-v2c", "-cpublic", mib.NewModule(nil).OID(mib.DeviceId, 0).String())
			}
		}
		if len(other.String()) != otherHad {
			t.Error("a notification came to the other address")
		}
	}
	restart(atFirst, atSecond)
	to := netip.MustParseAddrPort(second)
	row := "1.3.6.1.6.3.12.1.2.1.3.116.97.114.103.101.116.49"
	value := fmt.Sprintf("%x%04x", to.Addr().AsSlice(), to.Port())
	if out := d.tool("snmpset", "-v2c", "-cprivate", row, "x", value); !strings.Contains(out, "Hex-STRING") {
		t.Fatal(out)
	}
	restart(atSecond, atFirst)
	status := func(args ...string) string {
		t.Helper()
		out, err := command(append([]string{"status", "--root", d.root}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return string(out)
	}
	if text := status(); !strings.Contains(text, "notifications for "+first+" go to "+second+"\n") {
		t.Errorf("status: %s", text)
	}
	if text := status("--json"); !strings.Contains(text, `"settings": "`+first+`"`) || !strings.Contains(text, `"address": "`+second+`"`) {
		t.Errorf("status: %s", text)
	}
	d.stop()
	out, err := command("settings", "revert", "--root", d.root).CombinedOutput()
	if err != nil || !strings.Contains(string(out), first+" again, not to "+second) {
		t.Errorf("%v: %s", err, out)
	}
	restart(atFirst, atSecond)
}
