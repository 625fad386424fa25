package command

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.com/iad/sim"
)

// configured is a configuration file with names of devices and their addresses.
func (l *lab) configured(devices ...[2]string) (flag string) {
	l.t.Helper()
	name := filepath.Join(l.dir, "named.toml")
	text := ""
	for _, d := range devices {
		text += fmt.Sprintf("[devices.%s]\naddress = %q\n", d[0], d[1])
	}
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		l.t.Fatal(err)
	}
	return "--config=" + name
}

// A name of the configuration stands for one device, whose device ID no other name has:
// also over SNMPv2c, where that ID is only a claim. Addresses may change.
func TestConfiguredTarget(t *testing.T) {
	l := newLab(t, nil)
	clone := newLab(t, nil) // claims the same device ID
	spare := newLab(t, func(c *sim.Config) { c.ID = "TEST-0002" })
	backup := func(status int, say string, target string, args ...string) {
		t.Helper()
		out, got := l.plainly(append([]string{"backup", target, "--listen", "127.0.0.1", "--notifications", "none"}, args...)...)
		if got != status || !strings.Contains(out, say) {
			t.Errorf("%s %v: exit status %d, want %d and %q\n%s", target, args, got, status, say, out)
		}
	}
	both := l.configured([2]string{"attic", l.address}, [2]string{"cellar", clone.address}, [2]string{"loft", l.address})
	backup(exitOK, "OK", "attic", both)
	backup(exitOK, "OK", "attic", both)
	backup(exitOK, "OK", "loft", both) // another name for the same address
	backup(exitIdentity, `configured as "loft", at `+l.address, "cellar", both)
	if out, status := l.plainly("rollback", "cellar", both, "--notifications", "none"); status != exitIdentity {
		t.Errorf("rollback: exit status %d\n%s", status, out)
	}
	if out, status := l.plainly("upgrade", "cellar", both, "--image", l.image("2.0.0", 1), "--listen", "127.0.0.1", "--notifications", "none", "--yes"); status != exitIdentity || strings.Contains(out, "does not answer") || strings.Contains(out, "--resume") {
		t.Errorf("upgrade: exit status %d\n%s", status, out)
	}
	backup(exitOK, "OK", clone.address) // an address alone is not judged

	// The unit got another address.
	backup(exitOK, "OK", "attic", l.configured([2]string{"attic", clone.address}))
	// The unit was renamed.
	backup(exitOK, "OK", "cellar", l.configured([2]string{"cellar", clone.address}))
	// Another unit has the address now, and is a replacement.
	replaced := l.configured([2]string{"attic", spare.address})
	backup(exitIdentity, `the name "attic" belongs to another device (device "TEST-0001"`, "attic", replaced)
	if out, _ := l.plainly("status", "attic", replaced); !strings.Contains(out, "another identity than recorded") {
		t.Errorf("status:\n%s", out)
	}
	backup(exitOK, "OK", "attic", replaced, "--other-device")
	backup(exitOK, "OK", "attic", replaced)
	if out, _ := l.plainly("status", "attic", replaced); strings.Contains(out, "another identity than recorded") {
		t.Errorf("status:\n%s", out)
	}
	// The old unit is free for another name now, although the old one is still there.
	backup(exitOK, "OK", "shed", l.configured([2]string{"attic", spare.address}, [2]string{"shed", l.address}))
}
