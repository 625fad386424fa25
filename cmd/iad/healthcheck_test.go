package main

import (
	"strings"
	"testing"
)

func TestHealthcheck(t *testing.T) {
	d := newDevice(t)
	d.start()
	check := func(ok bool, says string, args ...string) {
		t.Helper()
		out, err := command(append([]string{"healthcheck", "--root", d.root}, args...)...).CombinedOutput()
		if (err == nil) != ok || !strings.Contains(string(out), says) {
			t.Errorf("healthcheck %q: %v, want success: %v, and %q in\n%s", args, err, ok, says, out)
		}
	}
	check(true, "IAD-0001 answers on "+d.addr, "--snmp", d.addr)
	check(false, "no SNMP engine of its own", "--snmp", "none")
	d.stop()
	check(false, "the device does not answer", "--snmp", d.addr)
	check(false, "iad init", "--root", t.TempDir())
}
