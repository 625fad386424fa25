package command

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/spf13/afero"

	"example.com/iad/sim"
)

// damage changes one byte of the software in a bank.
func (l *lab) damage(bank afero.Fs) {
	l.t.Helper()
	data, err := afero.ReadFile(bank, "app")
	if err != nil {
		l.t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	if err := afero.WriteFile(bank, "app", data, 0o755); err != nil {
		l.t.Fatal(err)
	}
}

// status is what iadms status reports.
func (l *lab) status() (r statusReport, text string) {
	l.t.Helper()
	out, code := l.plainly("status", l.address, "--json")
	if err := json.Unmarshal([]byte(out), &r); err != nil || code != exitOK {
		l.t.Fatalf("status: %d, %v\n%s", code, err, out)
	}
	text, _ = l.plainly("status", l.address)
	return r, text
}

// A device whose banks are both damaged says so, and is upgraded like any other: software
// that fails leaves it as it was, software that works gets its configuration data.
func TestRescue(t *testing.T) {
	var disk sim.Disk
	l := newLab(t, func(c *sim.Config) { disk = c.Disk })
	upgrade := func(args ...string) (string, int) {
		return l.plainly(append([]string{"upgrade", l.address, "--listen", "127.0.0.1", "--notifications", l.traps, "--poll", "100ms"}, args...)...)
	}
	if out, code := upgrade("--image", l.image("2.0.0", 1)); code != exitOK {
		t.Fatalf("exit status %d\n%s", code, out)
	}
	config := l.configSHA256(l.address)
	l.device.CutPower()
	for _, bank := range disk.Banks {
		l.damage(bank)
	}
	l.device.PowerOn()
	if !l.device.Addr(t.Context()).IsValid() {
		t.Fatal("the device does not start")
	}
	inRescue := func() {
		t.Helper()
		r, text := l.status()
		if !r.Rescue || r.Version != "" || r.RestartReason != "fault" || r.ConfigSHA256 != config || r.ConfigGeneration == 0 {
			t.Errorf("%+v", r)
		}
		if !strings.Contains(text, "no usable software: rescue mode; install with: iadms upgrade "+l.address+" --image FILE") {
			t.Errorf("%s", text)
		}
	}
	inRescue()
	if out, code := l.plainly("rollback", l.address, "--notifications", "none"); code != exitRefused || !strings.Contains(out, "rescue mode") {
		t.Errorf("rollback: exit status %d\n%s", code, out)
	}
	if out, code := l.plainly("convert", l.address, "--notifications", "none"); code != exitRefused || !strings.Contains(out, "rescue mode") {
		t.Errorf("convert: %d %s", code, out)
	}
	out, code := upgrade("--image", l.image("3.0.0-broken", 1))
	if code != exitDecision || !strings.Contains(out, "no dial tone") || !strings.Contains(out, "has no usable software: rescue mode (before: none (rescue mode))") ||
		!strings.Contains(out, "there is no old software to go back to") || strings.Contains(out, "refuses") || strings.Contains(out, "rollback") || strings.Contains(out, "old software runs") {
		t.Errorf("exit status %d\n%s", code, out)
	}
	inRescue()
	if out, code = upgrade("--image", l.image("3.0.0", 1)); code != exitOK || !strings.Contains(out, "upgraded none (rescue mode) -> 3.0.0") {
		t.Errorf("exit status %d\n%s", code, out)
	}
	if r, _ := l.status(); r.Rescue || r.Version != "3.0.0" || r.ConfigSHA256 != config {
		t.Errorf("%+v", r)
	}
	if out, code := l.plainly("history", l.address); code != exitOK || !strings.Contains(out, "none (rescue mode) -> 3.0.0") {
		t.Errorf("exit status %d\n%s", code, out)
	}
}
