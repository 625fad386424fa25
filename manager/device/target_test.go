package device_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"example.com/iad/internal/peers"
	"example.com/iad/manager/device"
)

// snmpdTargets starts snmpd with a target that can be moved and one of its configuration.
func snmpdTargets(t *testing.T) (*peers.Snmpd, *device.Client) {
	t.Helper()
	user := device.User{Name: "operator", Auth: "sha256", AuthPassphrase: "authentication", Priv: "aes", PrivPassphrase: "privacy of it"}
	s := peers.StartSnmpd(t, func(address string) bool { return reads(t, address, user) == nil },
		`createUser operator SHA-256 "authentication" AES "privacy of it"`, "rwuser operator", "trap2sink 127.0.0.1:9 public",
		"targetParams iad 1 2 public 1 3 1", `targetAddr iad .1.3.6.1.6.1.1 0x7f0000010050 1500 3 "iad" iad 3 1`)
	return s, dial(t, s.Address, user)
}

func targetsOf(t *testing.T, c *device.Client) map[string]device.NotificationTarget {
	t.Helper()
	list, err := c.NotificationTargets(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	byName := make(map[string]device.NotificationTarget)
	for _, target := range list {
		byName[target.Name()] = target
	}
	return byName
}

func TestMoveTarget(t *testing.T) {
	s, c := snmpdTargets(t)
	before := targetsOf(t, c)
	if got := before["iad"]; got.Address.String() != "127.0.0.1:80" || got.Suspended || before["internal0"].Address.String() != "127.0.0.1:9" {
		t.Fatalf("targets %+v", before)
	}
	to := netip.MustParseAddrPort("127.0.0.2:162")
	if err := c.MoveTarget(t.Context(), before["iad"], to, false); err != nil {
		t.Fatal(err)
	}
	if got := targetsOf(t, c)["iad"]; got.Address != to || got.Suspended {
		t.Errorf("target %+v", got)
	}

	// An earlier attempt was interrupted while the row was suspended.
	s.Run("snmpset", "-v3", "-l", "authPriv", "-u", "operator", "-a", "SHA-256", "-A", "authentication", "-x", "AES", "-X", "privacy of it", s.Address,
		".1.3.6.1.6.3.12.1.2.1.9.105.97.100", "i", "2")
	suspended := targetsOf(t, c)["iad"]
	if !suspended.Suspended {
		t.Fatalf("target %+v", suspended)
	}
	if err := c.MoveTarget(t.Context(), suspended, before["iad"].Address, false); err != nil {
		t.Fatal(err)
	}
	if got := targetsOf(t, c)["iad"]; got.Address != before["iad"].Address || !got.Suspended {
		t.Errorf("a target that somebody has suspended: %+v", got)
	}
	if err := c.MoveTarget(t.Context(), suspended, to, true); err != nil {
		t.Fatal(err)
	}
	if got := targetsOf(t, c)["iad"]; got.Address != to || got.Suspended {
		t.Errorf("target %+v", got)
	}
}

func TestMoveTargetRefused(t *testing.T) {
	_, c := snmpdTargets(t)
	before := targetsOf(t, c)
	for _, r := range []struct{ target, to, want string }{
		{"internal0", "127.0.0.2:162", "trapsess"}, {"iad", "[::1]:162", "IPv4"}, {"iad", "127.0.0.2:0", "IPv4"},
	} {
		err := c.MoveTarget(t.Context(), before[r.target], netip.MustParseAddrPort(r.to), false)
		if err == nil || !strings.Contains(err.Error(), r.want) || !strings.Contains(err.Error(), c.Address()) || !strings.Contains(err.Error(), r.target) {
			t.Errorf("%s to %s: %v", r.target, r.to, err)
		}
	}
	after := targetsOf(t, c)
	for name := range before {
		if after[name].Address != before[name].Address || after[name].Suspended {
			t.Errorf("%s is %+v", name, after[name])
		}
	}
}

// TestNoTargets: a user whose view does not include the tables gets an error with the remedy.
func TestNoTargets(t *testing.T) {
	user := device.User{Name: "operator", Auth: "sha256", AuthPassphrase: "authentication", Priv: "aes", PrivPassphrase: "privacy of it"}
	s := peers.StartSnmpd(t, func(address string) bool { return reads(t, address, user) == nil },
		`createUser operator SHA-256 "authentication" AES "privacy of it"`, "view system included .1.3.6.1.2.1.1", "rwuser operator priv -V system")
	c, to := dial(t, s.Address, user), user
	to.AuthPassphrase = "new authentication"
	if _, err := c.NotificationTargets(t.Context()); !errors.Is(err, device.ErrNotSupported) || !strings.Contains(err.Error(), "1.3.6.1.6.3.12") {
		t.Errorf("targets: %v", err)
	}
	if err := c.ChangeKeys(t.Context(), to, nobodyElse); !errors.Is(err, device.ErrNotSupported) || !strings.Contains(err.Error(), "1.3.6.1.6.3.15") {
		t.Errorf("keys: %v", err)
	}
}
