package command

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.com/iad/cmd/iadms/report"
	"example.com/iad/manager/device"
	"example.com/iad/sim"
)

// simulated is a device of an iadsim process.
type simulated struct {
	Device string
	SNMP   string `json:"address"`
	Faults []string
	before *device.Device
}

// simulate runs iadsim until the test ends.
func simulate(t *testing.T, dir string, devices int, args ...string) []*simulated {
	t.Helper()
	program := os.Getenv("IADSIM_BINARY")
	if program == "" {
		program = filepath.Join(dir, "iadsim")
		if out, err := exec.Command("go", "build", "-o", program, "../../iadsim").CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	cmd := exec.Command(program, append([]string{"run", "--devices", strconv.Itoa(devices), "--json", "--maker", filepath.Join(dir, "maker")}, args...)...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		if err := cmd.Wait(); err != nil {
			t.Errorf("iadsim: %v\n%s", err, stderr.String())
		}
	})
	var list []*simulated
	for s := bufio.NewScanner(out); len(list) < devices && s.Scan(); {
		d := new(simulated)
		if err := json.Unmarshal(s.Bytes(), d); err != nil {
			t.Fatalf("%s: %v", s.Text(), err)
		}
		list = append(list, d)
	}
	if len(list) < devices {
		t.Fatalf("iadsim started %d of %d devices\n%s", len(list), devices, stderr.String())
	}
	return list
}

func (d *simulated) look(t *testing.T) *device.Device {
	t.Helper()
	c, err := device.Dial(device.Target{Address: d.SNMP, Credentials: device.Credentials{Read: "public"}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	now, err := c.Device(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return now
}

// TestFleet upgrades simulated devices by one command, a quarter of which
// have faults. IADMS_FLEET names other numbers of devices, such as "10 100",
// to see how time, memory and processor time grow; see "make fleet".
func TestFleet(t *testing.T) {
	numbers := os.Getenv("IADMS_FLEET")
	if numbers == "" {
		numbers = "12"
	}
	for _, number := range strings.Fields(numbers) {
		t.Run(number, func(t *testing.T) {
			devices, err := strconv.Atoi(number)
			if err != nil {
				t.Fatal(err)
			}
			upgradeFleet(t, devices)
		})
	}
}

func upgradeFleet(t *testing.T, devices int) {
	dir := t.TempDir()
	l := &lab{t: t, dir: dir, traps: loopback()}
	list := simulate(t, dir, devices, "--snmp", loopbackRange(devices), "--trap-sink", l.traps, "--seed", "7",
		"--fault", "stall:5", "--fault", "losttraps:5", "--fault", "selftest:5", "--fault", "powercut@transferring:5", "--fault", "corrupt:5")
	var targets strings.Builder
	faults := make(map[string]int)
	for _, d := range list {
		d.before = d.look(t)
		fmt.Fprintln(&targets, d.SNMP, "#", d.Device)
		for _, f := range d.Faults {
			faults[f]++
		}
	}
	targetFile, image := filepath.Join(dir, "targets"), makeFleetImage(t, dir)
	if err := os.WriteFile(targetFile, []byte(targets.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := l.command("upgrade", "--targets", targetFile, "--parallel", "20", "--image", image, "--listen", "127.0.0.1",
		"--notifications", l.traps, "--on-fail", "advice,restore")
	if p := os.Getenv("IADMS_BINARY"); p != "" {
		cmd.Path = p
	}
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	began := time.Now()
	runErr := cmd.Run()
	wall := time.Since(began)
	var exit *exec.ExitError
	if runErr != nil && !errors.As(runErr, &exit) {
		t.Fatal(runErr)
	}
	upgraded, old := 0, 0
	for _, d := range list {
		now := d.look(t)
		switch {
		case now.Version == "2.0.0" && now.ConfigFormat == 2 && now.Generation > d.before.Generation:
			upgraded++
		case now.Version == "1.0.0" && bytes.Equal(now.ConfigDigest, d.before.ConfigDigest) && now.Generation == d.before.Generation:
			old++
			if len(d.Faults) == 0 {
				t.Errorf("%s was not upgraded though it has no fault", d.Device)
			}
		default:
			t.Errorf("%s (%v) is neither new nor old: runs %s, format %d, generation %d", d.Device, d.Faults, now.Version, now.ConfigFormat, now.Generation)
		}
	}
	if (old == 0) != (runErr == nil) {
		t.Errorf("%d devices have old software, and iadms ended with %v", old, runErr)
	}
	if !strings.Contains(out.String(), fmt.Sprintf("%d of %d upgraded, %d failed, 0 not started", upgraded, devices, old)) || t.Failed() {
		t.Errorf("the report does not say that %d of %d were upgraded:\n%s%s", upgraded, devices, out.String(), stderr.String())
	}
	usage := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	cpu := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	t.Logf("%d devices, faults %v: %d upgraded, %d on old software; iadms: %.1f s, CPU %.2f s (%.1f ms a device), peak memory %.1f MB",
		devices, faults, upgraded, old, wall.Seconds(), cpu.Seconds(), cpu.Seconds()*1000/float64(devices), float64(usage.Maxrss)/1024)
}

// loopbackRange is an address with enough free ports behind it.
func loopbackRange(devices int) string {
	host, _, _ := strings.Cut(loopback(), ":")
	return host + ":" + strconv.Itoa(10000+devices)
}

// makeFleetImage builds software of 1 MB, signed with iadsim's key, with a
// conversion program.
func makeFleetImage(t *testing.T, dir string) string {
	t.Helper()
	program := "#!/bin/sh\nfor f in \"$3\"/*; do sed \"1s/ $1\\$/ $2/\" \"$f\" > \"$4/${f##*/}\" || exit 1; done\n"
	app, converter, image := filepath.Join(dir, "app"), filepath.Join(dir, "convert"), filepath.Join(dir, "fw-2.0.0.iad")
	if err := errors.Join(
		os.WriteFile(app, bytes.Repeat([]byte("software "), 110_000), 0o600),
		os.WriteFile(converter, []byte(program), 0o700),
	); err != nil {
		t.Fatal(err)
	}
	l := &lab{t: t, dir: dir}
	if out, err := l.command("image", "build", "--version", "2.0.0", "--hardware", "IAD-SIM", "--config-format", "2",
		"--converter", "1:2:"+converter, "--key", filepath.Join(dir, "maker.key"), "-o", image, app).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return image
}

// TestFleetAgain: a fleet that is upgraded once more is left alone, and that is success,
// unless a device is not what an upgrade leaves behind.
func TestFleetAgain(t *testing.T) {
	l := newLab(t, nil)
	other := newLabOf(t, func(c *sim.Config) { c.ID = "TEST-0002" }, l.key)
	image := l.image("2.0.0", 2)
	args := func(more ...string) []string {
		return append([]string{"upgrade", l.address, other.address, "--image", image, "--listen", "127.0.0.1", "--notifications", "none", "--poll", "100ms"}, more...)
	}
	if out, status := l.run(l.command("upgrade", l.address, "--image", image, "--listen", "127.0.0.1", "--notifications", "none", "--poll", "100ms")); status != exitOK {
		t.Fatalf("exit status %d\n%s", status, out)
	}
	first := l.outcome()
	for _, c := range []struct {
		args []string
		want string
	}{
		{args("--check"), "1 of 2 would accept it, 1 unchanged, 0 failed, 0 not started"},
		{args(), "1 of 2 upgraded, 1 unchanged, 0 failed, 0 not started"},
		{args(), "0 of 2 upgraded, 2 unchanged, 0 failed, 0 not started"},
		{args("--resume"), "0 of 2 upgraded, 2 unchanged, 0 failed, 0 not started"},
		{args("--check"), "0 of 2 would accept it, 2 unchanged, 0 failed, 0 not started"},
		{[]string{"upgrade", l.address, "--image", image, "--notifications", "none"}, "OK: TEST-0001 is unchanged: it runs 2.0.0 already, from this image"},
	} {
		if out, status := l.run(l.command(c.args...)); status != exitOK || !strings.Contains(out, c.want) || strings.Contains(out, "FAILED") {
			t.Errorf("%v: exit status %d, want %q\n%s", c.args[3:], status, c.want, out)
		}
	}
	out, status := l.run(l.command(args("--json")...))
	var summary map[string]any
	results := 0
	for line := range strings.Lines(out) {
		var l report.Line
		if err := errors.Join(json.Unmarshal([]byte(line), &l), json.Unmarshal([]byte(line), &summary)); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if l.Kind == "result" && l.Result.OK && l.Result.Unchanged && len(l.Result.Operations) == 0 {
			results++
		}
	}
	if status != exitOK || results != 2 || summary["ok"] != 2.0 || summary["unchanged"] != 2.0 || summary["failed"] != 0.0 {
		t.Errorf("exit status %d, %d unchanged, summary %v\n%s", status, results, summary, out)
	}
	if now := l.outcome(); now.Digest != first.Digest || now.Done["backupConfig"] != 1 || now.Done["downloadSoftware"] != 1 {
		t.Errorf("%+v, before: %+v", now, first)
	}
}

// TestUpgradeAgainResumes: an upgrade that was not finished cannot begin once more when its
// software runs already: it is resumed.
func TestUpgradeAgainResumes(t *testing.T) {
	l := newLab(t, nil)
	image := l.image("2.0.0", 2)
	l.killed(l.upgrade("--image", image), func(_ int, line report.Line) bool { return line.Kind == "begin" && line.Step == 170 }, 0)
	out, status := l.run(l.upgrade("--image", image))
	if o := l.outcome(); status != exitOK || !strings.Contains(out, "and is resumed") || o.Digest == "" || o.Done["recoverConfig"] != 1 || o.Done["backupConfig"] != 1 {
		t.Errorf("exit status %d, %+v\n%s", status, o, out)
	}
	if out, status := l.run(l.upgrade("--image", image)); status != exitOK || !strings.Contains(out, `"unchanged":true`) {
		t.Errorf("once more: exit status %d\n%s", status, out)
	}
}
