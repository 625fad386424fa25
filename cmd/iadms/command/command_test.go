package command

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gosnmp/gosnmp"

	"example.com/iad/bank/image"
	"example.com/iad/cmd/iadms/report"
	"example.com/iad/mib"
)

// plainly is a command line for people.
func (l *lab) plainly(args ...string) (output string, status int) {
	l.t.Helper()
	return l.run(l.command(args...))
}

// Commands that find nothing to do say so, to people and to programs.
func TestNothingToDo(t *testing.T) {
	l := newLab(t, nil)
	for _, c := range []struct{ command, text string }{
		{"abort", "nothing to stop: no operation is in progress"},
		{"confirm", "nothing to accept: no software is on trial"},
	} {
		out, status := l.plainly(c.command, l.address)
		if status != exitOK || out != "OK: TEST-0001: "+c.text+"\n" {
			t.Errorf("%s: exit status %d\n%s", c.command, status, out)
		}
		out, status = l.plainly(c.command, l.address, "--json")
		var r commandReport
		if err := json.Unmarshal([]byte(out), &r); err != nil || status != exitOK || !r.Unchanged || r.Device != "TEST-0001" || r.Text != c.text {
			t.Errorf("%s --json: exit status %d, %v\n%s", c.command, status, err, out)
		}
	}
	if out, status := l.run(l.upgrade("--image", l.image("2.0.0", 2))); status != exitOK {
		t.Fatalf("exit status %d\n%s", status, out)
	}
	for _, want := range []string{"OK: TEST-0001 rolled back 2.0.0 -> 1.0.0", "OK: nothing to do: TEST-0001 already runs the fallback software, 1.0.0"} {
		if out, status := l.plainly("rollback", l.address, "--notifications", l.traps); status != exitOK || !strings.Contains(out, want) {
			t.Errorf("exit status %d, want %q in\n%s", status, want, out)
		}
	}
}

// An upgrade that is interrupted says what the device goes on with, and what to do;
// one that came to its own end is no interrupted one.
func TestInterrupted(t *testing.T) {
	l := newLab(t, nil)
	img := l.image("2.0.0", 2)
	const report = "was interrupted in stage"
	cmd := l.command("upgrade", l.address, "--listen", "127.0.0.1", "--notifications", l.traps, "--poll", "100ms", "--rate-limit", "20k", "--yes", "--image", img)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var printed strings.Builder
	for s := bufio.NewScanner(io.TeeReader(out, &printed)); s.Scan(); {
		if strings.HasPrefix(s.Text(), "140 follow operation") {
			if err := cmd.Process.Signal(os.Interrupt); err != nil {
				t.Fatal(err)
			}
		}
	}
	_ = cmd.Wait()
	for _, want := range []string{
		"INTERRUPTED: TEST-0001 runs 1.0.0", "operation 2 (downloadSoftware) is still running; to stop it: iadms abort " + l.address,
		"to resume: iadms upgrade --resume " + l.address,
	} {
		if !strings.Contains(printed.String(), want) {
			t.Errorf("not said: %q in\n%s", want, printed.String())
		}
	}
	if status := cmd.ProcessState.ExitCode(); status != exitInterrupted || !strings.HasSuffix(stderr.String(), "iadms: interrupted\n") {
		t.Errorf("exit status %d\n%s", status, stderr.String())
	}
	if out, status := l.plainly("abort", l.address); status != exitOK || !strings.Contains(out, `operation 2 (downloadSoftware of "tester") was stopped`) {
		t.Errorf("abort: exit status %d\n%s", status, out)
	}
	// A check is no upgrade, and changes nothing of what can be resumed.
	if out, status := l.run(l.upgrade("--image", img, "--check")); status != exitOK || strings.Contains(out, report) {
		t.Errorf("check: exit status %d\n%s", status, out)
	}
	if out, status := l.run(l.upgrade("--image", l.image("3.0.0-broken", 2), "--on-fail", "give-up")); status != exitDecision || !strings.Contains(out, report) {
		t.Errorf("exit status %d\n%s", status, out)
	}
	if out, status := l.run(l.upgrade("--image", img)); status != exitOK || strings.Contains(out, report) {
		t.Errorf("exit status %d\n%s", status, out)
	}
}

// A device whose configuration data could not be given back runs on defaults: that is
// said, with the way out of it.
func TestOnDefaults(t *testing.T) {
	l := newLab(t, noConversion)
	out, status := l.run(l.command("upgrade", l.address, "--listen", "127.0.0.1", "--notifications", l.traps, "--poll", "100ms",
		"--yes", "--on-fail", "give-up", "--image", l.image("2.0.0", 2)))
	for _, want := range []string{
		"FAILED: TEST-0001 runs 2.0.0 on its defaults (before: 1.0.0)", "its configuration data are not in force; the backup is in backup/TEST-0001/",
		"to recover them: iadms recover " + l.address + " --from ", "to roll back to 1.0.0 with its data: iadms rollback " + l.address,
	} {
		if status != exitFailed || !strings.Contains(out, want) {
			t.Errorf("exit status %d, not said: %q in\n%s", status, want, out)
		}
	}
	if out, _ := l.plainly("status", l.address); !strings.Contains(out, "defaults of the software; no configuration data are in force") {
		t.Errorf("status:\n%s", out)
	}
}

// What is wrong with a command line is said before anybody is asked.
func TestMalformedValues(t *testing.T) {
	l := newLab(t, nil)
	img, nobody := l.image("2.0.0", 2), loopback()
	for _, c := range [][]string{
		{"--time-limit", "update=5s"}, {"--time-limit", "lunch=1h"}, {"--device-retries", "11"}, {"--retries", "-1"}, {"--parallel", "0"},
		{"--poll", "-1s"}, {"--owner", strings.Repeat("a", 33)}, {"--notifications", "here"}, {"--listen", "a:b:c"}, {"--advertise", "a b"},
		{"--progress-step", "101"}, {"--progress-interval", "2h"}, {"--server", "http://192.0.2.1/"}, {"--protocol", "scp"},
		{"--rate-limit", "much"}, {"--passive-ports", "9-8"}, {"--root-oid", "1.x"}, {"--check", "--resume"}, {"--edit", "--convert-with", "true"},
	} {
		if out, status := l.plainly(append([]string{"upgrade", nobody, "--image", img, "--yes"}, c...)...); status != exitUsage {
			t.Errorf("%v: exit status %d, want %d\n%s", c, status, exitUsage, out)
		}
	}
	if out, status := l.plainly("upgrad", nobody); status != exitUsage || !strings.Contains(out, `unknown command "upgrad"`) {
		t.Errorf("exit status %d\n%s", status, out)
	}
	for _, c := range [][]string{{"--time-limit", "5s"}, {"--retries", "11"}, {"--notifications", "here"}, {"--protocol", "scp"}} {
		if out, status := l.plainly(append([]string{"backup", nobody}, c...)...); status != exitUsage {
			t.Errorf("%v: exit status %d, want %d\n%s", c, status, exitUsage, out)
		}
	}
}

// Software on trial is not taken back because another download is refused.
func TestTrialStays(t *testing.T) {
	l := newLab(t, nil)
	host, port, _ := net.SplitHostPort(l.address)
	number, _ := strconv.ParseUint(port, 10, 16)
	c := gosnmp.GoSNMP{Target: host, Port: uint16(number), Version: gosnmp.Version2c, Community: "private", Timeout: 5 * time.Second}
	if err := c.Connect(); err != nil {
		t.Fatal(err)
	}
	defer c.Conn.Close()
	mode := mib.NewModule(nil).OID(mib.ConfirmMode, 0).String()
	if _, err := c.Set([]gosnmp.SnmpPDU{{Name: mode, Type: gosnmp.Integer, Value: int(mib.ConfirmModeManager)}}); err != nil {
		t.Fatal(err)
	}
	l.killed(l.upgrade("--image", l.image("2.0.0", 1), "--verify-with", "sleep 60"), func(_ int, line report.Line) bool {
		return line.Step == 150 && strings.Contains(line.Text, "own check")
	}, 0)
	out, status := l.run(l.upgrade("--image", l.image("3.0.0", 1)))
	if o := l.outcome(); status != exitFailed || o.Version != "2.0.0" || o.Banks[1] != "2.0.0 trial" || o.Done["restoreOldSoftware"] != 0 {
		t.Errorf("exit status %d, %+v\n%s", status, o, out)
	}
}

// A backup that broke off, or a directory without files, is not what recover takes unasked.
func TestRecoverTakesWhatIsComplete(t *testing.T) {
	l := newLab(t, nil)
	if out, status := l.plainly("recover", l.address, "--notifications", l.traps); status == exitOK {
		t.Errorf("without a backup:\n%s", out)
	}
	if out, status := l.plainly("backup", l.address, "--listen", "127.0.0.1", "--notifications", l.traps); status != exitOK {
		t.Fatalf("exit status %d\n%s", status, out)
	}
	home := filepath.Join(l.dir, "store", "backup", "TEST-0001")
	good, err := os.ReadDir(home)
	if err != nil || len(good) != 1 {
		t.Fatalf("%v, %v", good, err)
	}
	broken := filepath.Join(home, "29990101T000000Z-1")
	if err := os.Mkdir(broken, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(broken, "userData.cfg"), []byte("iad-config userData 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	out, status := l.plainly("recover", l.address, "--listen", "127.0.0.1", "--notifications", l.traps)
	if want := "OK: TEST-0001 has recovered its configuration data from backup/TEST-0001/" + good[0].Name(); status != exitOK || !strings.Contains(out, want) {
		t.Errorf("exit status %d, want %q in\n%s", status, want, out)
	}
	modified := broken + ".modified-1"
	if err := os.CopyFS(modified, os.DirFS(broken)); err != nil {
		t.Fatal(err)
	}
	if out, status := l.plainly("recover", l.address, "--listen", "127.0.0.1", "--notifications", l.traps, "--from", filepath.Base(modified)); status != exitOK {
		t.Errorf("exit status %d\n%s", status, out)
	}
	if out, status := l.plainly("recover", l.address, "--listen", "127.0.0.1", "--notifications", l.traps, "--from", filepath.Base(broken)); status == exitOK {
		t.Errorf("without the other kinds: exit status %d\n%s", status, out)
	}
}

// An image that does not fit is no end: what comes next in the policies decides.
func TestOtherImageDoesNotFit(t *testing.T) {
	l := newLab(t, nil)
	wrong := filepath.Join(l.dir, "wrong.iad")
	var img bytes.Buffer
	err := image.Build(&img, image.Manifest{Version: "2.0.1", Hardware: []string{"OTHER"}, ConfigFormat: 1},
		[]image.PayloadFile{{Name: "app", Mode: 0o755, Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("x")), nil }}}, l.key)
	if err == nil {
		err = os.WriteFile(wrong, img.Bytes(), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	out, status := l.run(l.upgrade("--image", l.image("2.0.0-broken", 1), "--on-fail", "other="+wrong+",other="+l.image("2.0.2", 1)))
	if o := l.outcome(); status != exitOK || o.Version != "2.0.2" || !strings.Contains(out, "choose an image for this hardware") {
		t.Errorf("exit status %d, %+v\n%s", status, o, out)
	}
}

// Shells complete devices and the values of flags.
func TestCompletion(t *testing.T) {
	l := newLab(t, nil)
	config := filepath.Join(l.dir, "iadms.toml")
	if err := os.WriteFile(config, []byte("[devices.attic]\naddress = \"192.0.2.1\"\n[devices.cellar]\naddress = \"192.0.2.2\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"upgrade", "--config", config, ""}, "attic\ncellar\n"},
		{[]string{"status", "--config", config, ""}, "attic\ncellar\n"},
		{[]string{"backup", "attic", "--protocol", ""}, "tftp\nftp\nftps\n"},
		{[]string{"upgrade", "attic", "--on-fail", ""}, "advice\nask\nother=\nedit\nrestore\nservice\nkeep\ngive-up\n"},
		{[]string{"status", "--log-level", ""}, "debug\ninfo\nwarn\nerror\n"},
	} {
		out, err := l.command(append([]string{"__complete"}, c.args...)...).Output()
		if err != nil || !strings.HasPrefix(string(out), c.want) {
			t.Errorf("%v: %v\n%s", c.args, err, out)
		}
	}
}
