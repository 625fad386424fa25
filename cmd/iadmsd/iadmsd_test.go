package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"example.com/iad/fleet"
	"example.com/iad/fleet/engine"
	"example.com/iad/fleet/seal"
	"example.com/iad/fleet/store"
	"example.com/iad/internal/fleetsim"
	"example.com/iad/internal/iadtest"
)

// asCommand in the environment makes the test binary iadmsd.
const asCommand = "IADMSD_TEST_AS_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		main()
	}
	os.Exit(m.Run())
}

func TestCommandLineInCommon(t *testing.T) {
	iadtest.TestCommandLine(t, newRoot(), variable, nil, iadmsd)
}

// iadmsd returns the command with these arguments.
func iadmsd(args ...string) *exec.Cmd {
	c := exec.Command(os.Args[0], args...)
	c.Env = append(os.Environ(), asCommand+"=1")
	return c
}

func TestCommandLinesThatCannotWork(t *testing.T) {
	dir := t.TempDir()
	key := filepath.Join(t.TempDir(), "key")
	short := filepath.Join(t.TempDir(), "short")
	bad := filepath.Join(t.TempDir(), "notify.toml")
	if err := os.WriteFile(bad, []byte("allowed = []\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(short, []byte("short\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for want, args := range map[string]string{
		"--data":                     "run",
		"--roles api2":               "run --data DIR --key KEY --roles api2",
		"a cluster has 3 nodes":      "run --data DIR --key KEY --cluster 127.0.0.1:1 --join 127.0.0.1:1,127.0.0.1:2 --secret-file SHORT",
		"is in --data":               "run --data DIR --key DIR/key",
		"at least 16 bytes":          "run --data DIR --key KEY --listen 127.0.0.1:0 --secret-file SHORT",
		"cannot be combined":         "run --data DIR --key KEY --nats nats://127.0.0.1:1 --listen 127.0.0.1:0",
		"no such file":               "run --data DIR --key MISSING --nats nats://127.0.0.1:1",
		"unknown setting allowed":    "run --data DIR --key KEY --notify BAD",
		"--discover 192.0.2.1":       "run --data DIR --key KEY --discover 192.0.2.1",
		"--keep-backups":             "run --data DIR --key KEY --keep-backups -1",
		"use NAME=COMMAND":           "run --data DIR --key KEY --program check --notifications none",
		"a node that stores also sc": "run --data DIR --key KEY --roles worker",
	} {
		args = strings.NewReplacer("DIR", dir, "KEY", key, "SHORT", short, "BAD", bad, "MISSING", filepath.Join(t.TempDir(), "missing")).Replace(args)
		if strings.HasPrefix(want, "a cluster") { // the key exists already
			if _, _, err := seal.ReadOrCreateKey(key); err != nil {
				t.Fatal(err)
			}
		}
		out, err := iadmsd(strings.Fields(args)...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), want) {
			t.Errorf("%s: %v, %s; want %q", args, err, out, want)
		}
	}
}

// TestOneNode runs iadmsd with nothing but a directory, and campaigns on virtual devices.
// IADMSD_DEVICES is their number, to see how time and processor time grow. IADMSD_WORKERS is that
// of processes that work in place of the node.
func TestOneNode(t *testing.T) {
	devices := number(t, "IADMSD_DEVICES", 10)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute+time.Duration(devices)*time.Second)
	defer cancel()
	l := newLab(t, ctx, devices)
	address := freeAddress(t)
	roles, workers := "scheduler,worker,traps", number(t, "IADMSD_WORKERS", 0)
	if workers > 0 {
		roles = "scheduler,traps"
	}
	processes := []*process{l.start("one", "--roles", roles, "--listen", address, "--notifications", "127.0.0.1:0")}
	l.connect("nats://" + address)
	for i := range workers {
		processes = append(processes, l.start(fmt.Sprintf("worker%d", i+1), "--roles", "worker", "--nats", "nats://"+address, "--notifications", "none"))
	}
	l.fill()
	began := time.Now()
	l.campaign("spring", fleet.CampaignSpec{Operation: fleet.OperationUpgrade, Image: l.image("2.0.0", 2), Waves: []fleet.Wave{{Count: 2}, {}}})
	l.ends("spring")
	t.Logf("%d devices upgraded in %.1f s", devices, time.Since(began).Seconds())
	l.check("spring", true)
	l.campaign("nightly", fleet.CampaignSpec{Operation: fleet.OperationBackup})
	l.ends("nightly")
	l.check("nightly", true)
	copies, err := filepath.Glob(filepath.Join(l.dir, "one", "backups", "*", "*", "SHA256SUMS"))
	if err != nil || len(copies) < len(l.devices.Names) {
		t.Errorf("%d copies of backups in plain files, %v", len(copies), err)
	}
	for _, p := range slices.Backward(processes) {
		p.interrupt()
		t.Logf("processor time of %s: %s user, %s system", p.name, p.cmd.ProcessState.UserTime(), p.cmd.ProcessState.SystemTime())
	}
	if out, err := iadmsd("audit", "verify", filepath.Join(l.dir, "one", "audit")).CombinedOutput(); err != nil {
		t.Errorf("audit verify: %v\n%s", err, out)
	}
}

// lab is virtual devices and the processes of a service.
type lab struct {
	t       *testing.T
	ctx     context.Context
	dir     string
	devices *fleetsim.Devices
	store   *store.Store
	key     *seal.Key
}

// restartTime is long enough for many devices to be restarting when a worker is stopped.
const restartTime = 2 * time.Second

func newLab(t *testing.T, ctx context.Context, devices int) *lab {
	t.Helper()
	l := &lab{t: t, ctx: ctx, dir: t.TempDir(), devices: fleetsim.Start(t, devices, fleetsim.Options{RestartTime: restartTime})}
	var err error
	if l.key, _, err = seal.ReadOrCreateKey(filepath.Join(l.dir, "seal.key")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(l.dir, "secret"), []byte("correct-horse-battery-staple\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return l
}

// connect gives the test itself access to what is stored.
func (l *lab) connect(urls ...string) {
	l.t.Helper()
	const secret = "correct-horse-battery-staple"
	encryption, err := engine.ClusterTLS(secret)
	if err != nil {
		l.t.Fatal(err)
	}
	e, err := engine.Connect(l.ctx, engine.Remote{URLs: urls, Name: "test", Secret: secret, TLS: encryption})
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(e.Close)
	if l.store, err = store.Open(l.ctx, e, l.key); err != nil {
		l.t.Fatal(err)
	}
}

// fill adds the devices to the inventory.
func (l *lab) fill() {
	l.t.Helper()
	if err := l.store.Secrets.Put(l.ctx, fleetsim.Secret()); err != nil {
		l.t.Fatal(err)
	}
	for _, name := range l.devices.Names {
		if _, err := l.store.Devices.Create(l.ctx, l.devices.Device(name)); err != nil {
			l.t.Fatal(err)
		}
	}
}

func (l *lab) image(version string, format uint32) string {
	l.t.Helper()
	image, open := fleetsim.Describe(l.devices.Image(version, format), version, format)
	if err := l.store.AddImage(l.ctx, image, open); err != nil {
		l.t.Fatal(err)
	}
	return image.Digest
}

func (l *lab) campaign(id string, spec fleet.CampaignSpec) {
	l.t.Helper()
	spec.Title, spec.Filter = id, "true"
	if err := spec.Validate(); err != nil {
		l.t.Fatal(err)
	}
	c := &fleet.Campaign{ID: id, Spec: spec, State: fleet.CampaignScheduled, Created: time.Now().UTC(), CreatedBy: "test"}
	if _, err := l.store.Campaigns.Create(l.ctx, c); err != nil {
		l.t.Fatal(err)
	}
}

// ends waits until a campaign has ended. The watch is made again, because the node that
// served it may have been killed.
func (l *lab) ends(id string) {
	l.t.Helper()
	for {
		c, _, err := l.store.Campaigns.Get(l.ctx, id)
		if err == nil && c.State.Final() {
			if c.State != fleet.CampaignDone {
				l.t.Errorf("campaign %s is %s: %s", id, c.State, c.Reason)
			}
			return
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-l.ctx.Done():
			l.outcomes(id)
			l.t.Fatalf("campaign %s has not ended: %+v, %v", id, c, err)
		}
	}
}

// outcomes logs the runs that have not succeeded.
func (l *lab) outcomes(id string) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	runs, err := l.store.Runs.List(ctx, id)
	if err != nil {
		l.t.Error(err)
	}
	for _, r := range runs {
		if r.State != fleet.RunSucceeded {
			l.t.Logf("%s: %s, %+v, claim %+v, failure %+v", r.Device, r.State, r.Progress, r.Claim, r.Failure)
		}
	}
}

// check compares devices, runs and inventory after a campaign.
func (l *lab) check(id string, all bool) {
	l.t.Helper()
	runs, err := l.store.Runs.List(l.ctx, id)
	if err != nil || len(runs) != len(l.devices.Names) {
		l.t.Fatalf("%d runs of %d devices, %v", len(runs), len(l.devices.Names), err)
	}
	states := make(map[fleet.RunState]int)
	for _, r := range runs {
		states[r.State]++
		if r.State != fleet.RunSucceeded && (all || r.State != fleet.RunFailed) {
			l.t.Errorf("%s: %s, %+v", r.Device, r.State, r.Failure)
		} else if r.State == fleet.RunFailed {
			l.t.Logf("%s: %+v", r.Device, r.Failure)
		}
		found, err := l.devices.Check(l.ctx, r.Device)
		if err != nil {
			l.t.Error(err)
			continue
		}
		if r.NewVersion != found.Version {
			l.t.Errorf("%s runs %s, the run says %q", r.Device, found.Version, r.NewVersion)
		}
	}
	l.released()
	l.t.Logf("%s: %v", id, states)
}

// released waits until no device is reserved any more: workers end runs first, and may be
// killed before they release the device.
func (l *lab) released() {
	l.t.Helper()
	for {
		list, err := l.store.Devices.List(l.ctx)
		if err != nil {
			l.t.Fatal(err)
		}
		reserved := 0
		for _, d := range list {
			if d.ActiveRun != "" {
				reserved++
			}
		}
		if reserved == 0 {
			return
		}
		select {
		case <-time.After(time.Second):
		case <-l.ctx.Done():
			l.t.Fatalf("%d devices are still reserved", reserved)
		}
	}
}

// process is a running iadmsd.
type process struct {
	lab  *lab
	name string
	args []string
	sees func(*exec.Cmd) *exec.Cmd // what else its command needs
	cmd  *exec.Cmd
	log  *os.File
	done chan struct{}
}

// start starts a process that stores in a directory of its own, until the test ends.
func (l *lab) start(name string, args ...string) *process {
	l.t.Helper()
	return l.startSeeing(nil, name, args...)
}

// startSeeing starts a process by the command that sees makes of the usual one.
func (l *lab) startSeeing(sees func(*exec.Cmd) *exec.Cmd, name string, args ...string) *process {
	l.t.Helper()
	log, err := os.Create(filepath.Join(l.dir, name+".log"))
	if err != nil {
		l.t.Fatal(err)
	}
	p := &process{lab: l, name: name, log: log, sees: sees, args: append([]string{
		"run", "--data", filepath.Join(l.dir, name), "--name", name, "--key", filepath.Join(l.dir, "seal.key"),
		"--secret-file", filepath.Join(l.dir, "secret"), "--tftp", "127.0.0.1:0", "--log-level", slog.LevelInfo.String(),
	}, args...)}
	p.run()
	l.t.Cleanup(func() {
		p.kill()
		if l.t.Failed() {
			if text, err := os.ReadFile(log.Name()); err == nil {
				l.t.Logf("the last lines of %s:\n%s", name, tail(string(text), 15))
			}
		}
		log.Close()
	})
	return p
}

func tail(text string, lines int) string {
	list := strings.Split(strings.TrimSpace(text), "\n")
	list = list[max(0, len(list)-lines):]
	for i, line := range list {
		list[i] = line[:min(len(line), 300)]
	}
	return strings.Join(list, "\n")
}

// run starts the process, again after it was killed.
func (p *process) run() {
	p.lab.t.Helper()
	if p.cmd = iadmsd(p.args...); p.sees != nil {
		p.cmd = p.sees(p.cmd)
	}
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	if err := p.cmd.Start(); err != nil {
		p.lab.t.Fatal(err)
	}
	done := make(chan struct{})
	p.done = done
	go func(cmd *exec.Cmd) {
		err := cmd.Wait()
		fmt.Fprintf(p.log, "---- ended: %v\n", err)
		close(done)
	}(p.cmd)
}

// kill ends the process at once.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.done
}

// interrupt ends the process as a service manager does.
func (p *process) interrupt() {
	p.lab.t.Helper()
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
		p.lab.t.Fatal(err)
	}
	<-p.done
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		p.lab.t.Errorf("%s ended with status %d", p.name, code)
	}
}

// freeAddress returns a TCP address that nobody listens on.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// number returns a number in the environment.
func number(t *testing.T, name string, usual int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return usual
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}
