package manager_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.com/iad/agent/agentx"
	"example.com/iad/agent/snmp"
	"example.com/iad/internal/peers"
	"example.com/iad/manager"
	"example.com/iad/manager/device"
	"example.com/iad/manager/trap"
	"example.com/iad/mib"
	"example.com/iad/sim"
)

var operatorUser = device.User{
	Name: "operator", Auth: "sha256", AuthPassphrase: "authentication", Priv: "aes", PrivPassphrase: "privacy of it",
}

// embeddedV3 makes the device's own engine speak SNMPv3 alone.
func embeddedV3(inform bool) labOptions {
	user := operatorUser
	return labOptions{
		listener: trap.ListenerConfig{Users: []device.User{user}},
		target:   func() device.Target { return device.Target{Credentials: device.Credentials{User: &user}} },
		configure: func(l *lab, c *sim.Config) {
			c.PlainPasswords = false
			all := snmp.Everything()
			c.SNMP.Communities = nil
			c.SNMP.Users = []snmp.User{{
				Name: user.Name, Auth: snmp.SHA256, AuthPassphrase: user.AuthPassphrase, Priv: snmp.AES128, PrivPassphrase: user.PrivPassphrase,
				Access: []snmp.Access{{Level: snmp.AuthPriv, Read: all, Write: all, Notify: all}},
			}}
			c.SNMP.Sinks = []snmp.Sink{{Address: l.listener.Addr().String(), User: user.Name, Inform: inform}}
		},
	}
}

// behindSnmpd puts the device behind net-snmp's snmpd, as its subagent.
func behindSnmpd(t *testing.T, v3 bool) labOptions {
	t.Helper()
	program := peers.Find(t, "snmpd")
	dir := t.TempDir()
	address := loopbackPort(t)
	user := operatorUser
	o := labOptions{listener: trap.ListenerConfig{Users: []device.User{user}}}
	o.configure = func(l *lab, c *sim.Config) {
		c.SNMP = nil
		c.AgentX = &agentx.Config{Address: "unix:" + filepath.Join(dir, "agentx")}
		lines := []string{
			"agentAddress udp:" + address, "master agentx", "agentXSocket " + filepath.Join(dir, "agentx"),
			"createUser operator SHA-256 \"authentication\" AES \"privacy of it\"", "rwuser operator priv",
		}
		if v3 {
			lines = append(lines, "trapsess -Ci -v 3 -l authPriv -u operator -a SHA-256 -A authentication -x AES -X \"privacy of it\" -r 2 -t 1 udp:"+l.listener.Addr().String())
		} else {
			lines = append(lines, "rocommunity public", "rwcommunity private", "trap2sink "+l.listener.Addr().String()+" public")
		}
		startSnmpd(t, program, dir, lines)
	}
	o.target = func() device.Target {
		target := device.Target{Address: address, Credentials: device.Credentials{Read: "public", Write: "private"}}
		if v3 {
			target.Credentials = device.Credentials{User: &user}
		}
		return target
	}
	return o
}

func loopbackPort(t *testing.T) string {
	t.Helper()
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return conn.LocalAddr().String()
}

// startSnmpd runs snmpd until the test ends.
func startSnmpd(t *testing.T, program, dir string, lines []string) {
	t.Helper()
	conf := filepath.Join(dir, "iad.conf")
	if err := os.WriteFile(conf, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "-f", "-Lo", "-C", "-c", conf, "-I", "-smux")
	cmd.Env = append(os.Environ(), "SNMP_PERSISTENT_DIR="+filepath.Join(dir, "persistent"), "SNMPCONFPATH="+dir, "MIBS=")
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("snmpd said:\n%s", said.String())
		}
	})
}

// The whole procedure, with a failure on the way, through both front ends of
// a device and both versions of SNMP.
func TestFrontEnds(t *testing.T) {
	for _, c := range []struct {
		name     string
		options  func(*testing.T) labOptions
		protocol device.Protocol
	}{
		{"embedded SNMPv3 traps", func(*testing.T) labOptions { return embeddedV3(false) }, device.FTP},
		{"embedded SNMPv3 informs", func(*testing.T) labOptions { return embeddedV3(true) }, device.TFTP},
		{"snmpd SNMPv2c traps", func(t *testing.T) labOptions { return behindSnmpd(t, false) }, device.TFTP},
		{"snmpd SNMPv3 informs", func(t *testing.T) labOptions { return behindSnmpd(t, true) }, device.FTP},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, c.options(t))
			l.awaitDevice()
			l.failTest["2.0.0"] = true
			plan := l.plan(l.image("2.0.0", 2))
			plan.Protocol, plan.Reserve = c.protocol, 10*time.Second
			operator := &scripted{t: t, answers: []manager.Answer{{Choice: manager.OtherFile, Image: l.image("2.0.1", 2)}}}
			result, err := manager.Upgrade(l.ctx, plan, operator, l.observe)
			if err != nil {
				t.Fatal(err)
			}
			if result.NewVersion != "2.0.1" {
				t.Errorf("%s runs", result.NewVersion)
			}
			l.checkBackup(result)
			if !l.heardProgress() {
				t.Error("no progress was seen")
			}
		})
	}
}

// awaitDevice waits until the device answers: behind snmpd it has to be
// connected with it first.
func (l *lab) awaitDevice() {
	l.t.Helper()
	for {
		_, err := l.client.Device(l.ctx)
		if err == nil {
			return
		}
		if !errors.Is(err, device.ErrNoAnswer) && !errors.Is(err, device.ErrNotSupported) || l.ctx.Err() != nil {
			l.t.Fatal(err)
		}
	}
}

func (l *lab) heardProgress() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, u := range l.updates {
		if u.Kind == manager.Progressed && u.Operation.Percent > 0 && u.Operation.Percent < 100 {
			return true
		}
	}
	return false
}

// A password for FTP is not for a request that anybody can read; the refusal
// says what to do instead.
func TestPasswordInTheClear(t *testing.T) {
	l := newLab(t, labOptions{configure: func(_ *lab, c *sim.Config) { c.PlainPasswords = false }})
	plan := l.plan(l.image("2.0.0", 2))
	plan.Protocol = device.FTP
	operator := &scripted{t: t, answers: []manager.Answer{{Choice: manager.GiveUp}}}
	_, err := manager.Upgrade(l.ctx, plan, operator, l.observe)
	var failure *manager.Failure
	if !errors.As(err, &failure) || failure.Cause != mib.FailCauseNotPermitted {
		t.Fatalf("%v", err)
	}
	for _, remedy := range []string{"SNMPv3", "TFTP", "plain_passwords"} {
		if !strings.Contains(fmt.Sprint(err), remedy) {
			t.Errorf("%q does not name %s", err, remedy)
		}
	}
}

// TestAgentAway: a device whose agent is away for a while in the middle of the
// procedure takes it up again, whoever answers meanwhile: nobody, or snmpd.
func TestAgentAway(t *testing.T) {
	for name, options := range map[string]func(*testing.T) labOptions{
		"embedded": func(*testing.T) labOptions { return labOptions{} },
		"snmpd":    func(t *testing.T) labOptions { return behindSnmpd(t, false) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, options(t))
			l.awaitDevice()
			plan := l.plan(l.image("2.0.0", 2))
			plan.Verify = func(ctx context.Context, _ *device.Device) error {
				l.device.CutPower()
				fresh, err := device.Dial(l.target)
				if err != nil {
					return err
				}
				defer fresh.Close()
				for !errors.Is(err, device.ErrNoAnswer) && ctx.Err() == nil {
					_, err = fresh.Device(ctx)
				}
				time.AfterFunc(500*time.Millisecond, l.device.PowerOn)
				return ctx.Err()
			}
			result, err := manager.Upgrade(l.ctx, plan, manager.Automatic{Retries: 3}, l.observe)
			if err != nil {
				t.Fatal(err)
			}
			if result.NewVersion != "2.0.0" || result.OnDefaults {
				t.Errorf("runs %s, on its defaults: %v", result.NewVersion, result.OnDefaults)
			}
		})
	}
}

// TestModuleNeverThere: an agent that never had the module is distinguished from one that
// refuses, also by a client that asks it for the first time.
func TestModuleNeverThere(t *testing.T) {
	l := newLab(t, labOptions{})
	l.target.Root = mib.OID{1, 3, 6, 1, 4, 1, 99999, 1}
	c, err := device.Dial(l.target)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Device(l.ctx); !errors.Is(err, device.ErrNoAnswer) || !strings.Contains(err.Error(), "root OID") {
		t.Errorf("Device: %v", err)
	}
	if _, err := c.History(l.ctx); !errors.Is(err, device.ErrNoAnswer) {
		t.Errorf("History: %v", err)
	}
}
