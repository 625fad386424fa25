package command

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"aead.dev/minisign"
	"github.com/google/go-cmp/cmp"
	"github.com/spf13/afero"

	"example.com/iad/agent"
	"example.com/iad/agent/config"
	"example.com/iad/agent/snmp"
	"example.com/iad/bank/image"
	"example.com/iad/cmd/iadms/report"
	"example.com/iad/manager/device"
	"example.com/iad/mib"
	"example.com/iad/sim"
)

// asCommand makes the test's own binary the iadms command.
const asCommand = "IADMS_TEST_AS_COMMAND"

// lab is a virtual device, with a directory for what iadms keeps.
type lab struct {
	t       *testing.T
	dir     string
	key     minisign.PrivateKey
	device  *sim.Device
	address string
	traps   string
}

// newLab starts a device with software 1.0.0, whose self-test does not let
// versions pass that end in "-broken".
func newLab(t *testing.T, change func(*sim.Config)) *lab {
	t.Helper()
	_, key, err := minisign.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return newLabOf(t, change, key)
}

// newLabOf starts a device that trusts the holder of a key.
func newLabOf(t *testing.T, change func(*sim.Config), key minisign.PrivateKey) *lab {
	t.Helper()
	public := key.Public().(minisign.PublicKey)
	l := &lab{t: t, dir: t.TempDir(), key: key, address: loopback(), traps: loopback()}
	cfg := sim.Config{
		ID: "TEST-0001", Model: "IAD-4FXS", Hardware: "IAD-4FXS", Trust: image.TrustKeys(public), Disk: sim.Memory(),
		Grace: 200 * time.Millisecond, PlainPasswords: true,
		Listen: l.address,
		SNMP: &snmp.Config{
			Communities: []snmp.Community{{Name: "public"}, {Name: "private", Write: true}},
			Sinks:       []snmp.Sink{{Address: l.traps, Community: "public"}},
		},
		Hooks: sim.Hooks{Convert: convert, SelfTest: func(_ context.Context, t agent.SelfTest, _ afero.Fs) error {
			if strings.HasSuffix(t.Version, "-broken") {
				return errors.New("no dial tone on port 1")
			}
			return nil
		}},
	}
	if change != nil {
		change(&cfg)
	}
	l.device = sim.New(cfg)
	set := make(config.Set)
	for _, kind := range config.Kinds() {
		set[kind] = config.WithHeader(kind, 1, []byte("name = "+kind.String()+"\n"))
	}
	if err := l.device.Provision(bytes.NewReader(l.build("1.0.0", 1)), set); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.device.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("device: %v", err)
		}
	})
	if !l.device.Addr(ctx).IsValid() {
		t.Fatal("the device does not start")
	}
	return l
}

// loopback is an address of the loopback network that nobody else uses, with
// a port that the system does not give away while the device restarts.
func loopback() string {
	return fmt.Sprintf("127.%d.%d.%d:%d", 1+rand.N(250), rand.N(250), 1+rand.N(250), 10000+rand.N(20000))
}

func convert(_ context.Context, c agent.Conversion, work afero.Fs) error {
	list, err := afero.ReadDir(work, c.InDir)
	if err != nil {
		return err
	}
	for _, info := range list {
		data, err := afero.ReadFile(work, filepath.Join(c.InDir, info.Name()))
		if err != nil {
			return err
		}
		data = bytes.Replace(data, fmt.Appendf(nil, " %d\n", c.From), fmt.Appendf(nil, " %d\n", c.To), 1)
		if err := afero.WriteFile(work, filepath.Join(c.OutDir, info.Name()), data, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func (l *lab) build(version string, format uint32) []byte {
	l.t.Helper()
	var img bytes.Buffer
	err := image.Build(&img, image.Manifest{Version: version, Hardware: []string{"IAD-4FXS"}, ConfigFormat: format},
		[]image.PayloadFile{{Name: "app", Mode: 0o755, Open: func() (io.ReadCloser, error) {
			return io.NopCloser(strings.NewReader(strings.Repeat("software "+version+"\n", 15000))), nil
		}}}, l.key)
	if err != nil {
		l.t.Fatal(err)
	}
	return img.Bytes()
}

// image writes an image file and returns its name.
func (l *lab) image(version string, format uint32) string {
	l.t.Helper()
	name := filepath.Join(l.dir, "fw-"+version+".iad")
	if err := os.WriteFile(name, l.build(version, format), 0o600); err != nil {
		l.t.Fatal(err)
	}
	return name
}

// command is iadms with its files in the lab's directory.
func (l *lab) command(args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), asCommand+"=1", "IADMS_STORE="+filepath.Join(l.dir, "store"), "XDG_CONFIG_HOME="+l.dir, "USER=tester")
	return cmd
}

func (l *lab) upgrade(args ...string) *exec.Cmd {
	return l.command(append([]string{"upgrade", l.address, "--listen", "127.0.0.1", "--notifications", l.traps, "--poll", "100ms",
		"--rate-limit", "1M", "--yes", "--json"}, args...)...)
}

// killed runs a command and kills it when stop says so of a line of its
// output, or when its time is over. It returns the lines.
func (l *lab) killed(cmd *exec.Cmd, stop func(n int, line report.Line) bool, after time.Duration) []report.Line {
	l.t.Helper()
	out, err := cmd.StdoutPipe()
	if err != nil {
		l.t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		l.t.Fatal(err)
	}
	// One that hangs shows where.
	hung := time.AfterFunc(90*time.Second, func() { _ = cmd.Process.Signal(syscall.SIGQUIT) })
	defer hung.Stop()
	if after > 0 {
		timer := time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
		defer timer.Stop()
	}
	var lines []report.Line
	for s := bufio.NewScanner(out); s.Scan(); {
		var line report.Line
		if err := json.Unmarshal(s.Bytes(), &line); err != nil {
			l.t.Fatalf("%s: %v", s.Text(), err)
		}
		lines = append(lines, line)
		if stop != nil && stop(len(lines), line) {
			_ = cmd.Process.Kill()
			stop = nil
		}
	}
	if err := cmd.Wait(); err != nil && cmd.ProcessState.ExitCode() >= 0 {
		l.t.Errorf("%v: %v\n%s", cmd.Args[1:], err, stderr.String())
		for _, line := range lines {
			l.t.Logf("%d %s %s", line.Step, line.Kind, line.Text)
		}
	}
	return lines
}

// backups are the digests of all files that were received.
func (l *lab) backups() map[string][32]byte {
	files := make(map[string][32]byte)
	root := filepath.Join(l.dir, "store", "backup")
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(name, ".cfg") {
			return err
		}
		data, err := os.ReadFile(name)
		files[name] = sha256.Sum256(data)
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		l.t.Fatal(err)
	}
	return files
}

// outcome is what an upgrade leaves behind.
type outcome struct {
	Version string
	Format  uint32
	Digest  string         // of the configuration data
	Banks   [2]string      // version and state
	Done    map[string]int // operations that succeeded, by kind
	Pace    device.Pace
}

func (l *lab) outcome() outcome {
	l.t.Helper()
	c, err := device.Dial(device.Target{Address: l.address, Credentials: device.Credentials{Read: "public", Write: "private"}})
	if err != nil {
		l.t.Fatal(err)
	}
	defer c.Close()
	ctx := context.Background()
	d, err1 := c.Device(ctx)
	banks, err2 := c.Banks(ctx)
	history, err3 := c.History(ctx)
	pace, err4 := c.Pace(ctx)
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		l.t.Fatal(err)
	}
	o := outcome{Version: d.Version, Format: d.ConfigFormat, Digest: fmt.Sprintf("%x", d.ConfigDigest), Done: make(map[string]int), Pace: pace}
	for i, b := range banks {
		o.Banks[i] = b.Version + " " + b.State.String()
	}
	for _, h := range history {
		if h.State == mib.OperationStateSucceeded {
			o.Done[h.Kind.String()]++
		}
	}
	return o
}

// A procedure that is killed at any moment and resumed comes to the same end,
// with every backup intact and nothing done twice.
func TestKilled(t *testing.T) {
	for _, way := range []struct {
		name  string
		image string
		args  func(*lab) []string
	}{
		{"straight", "2.0.0", func(*lab) []string { return nil }},
		{"by step 160", "2.0.0-broken", func(l *lab) []string { return []string{"--on-fail", "other=" + l.image("2.0.1", 2)} }},
	} {
		t.Run(way.name, func(t *testing.T) {
			args := func(l *lab) []string {
				return append(way.args(l), "--image", l.image(way.image, 2), "--progress-step", "5", "--progress-interval", "0s")
			}
			whole := newLab(t, nil)
			began := time.Now()
			lines := whole.killed(whole.upgrade(args(whole)...), nil, 0)
			took := time.Since(began)
			want := whole.outcome()
			moments := map[string]func(int, report.Line) bool{}
			seen := make(map[string]bool)
			for _, line := range lines {
				if key := momentOf(line); !seen[key] && (thorough || sampled(line.Kind)) {
					seen[key] = true
					moments["at "+key] = func(_ int, l report.Line) bool { return momentOf(l) == key }
				}
			}
			for i := range 6 {
				if !thorough && i%2 == 0 {
					continue
				}
				moments[fmt.Sprintf("after %d/7", i+1)] = nil
			}
			for _, name := range slices.Sorted(maps.Keys(moments)) {
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					l := newLab(t, nil)
					after := time.Duration(0)
					if n, ok := strings.CutPrefix(name, "after "); ok {
						after = took * time.Duration(n[0]-'0') / 7
					}
					first := l.killed(l.upgrade(args(l)...), moments[name], after)
					kept := l.backups()
					resumed := []string{"--resume"}
					if len(first) == 0 || !l.begun() {
						resumed = args(l) // it was killed before there was anything to resume
					} else if way.image == "2.0.0-broken" {
						resumed = append(resumed, "--on-fail", "other="+l.image("2.0.1", 2))
					}
					l.killed(l.upgrade(resumed...), nil, 0)
					if diff := cmp.Diff(want, l.outcome()); diff != "" {
						t.Errorf("left behind (-whole +killed):\n%s", diff)
					}
					now := l.backups()
					for name, digest := range kept {
						if now[name] != digest {
							t.Errorf("%s is not what it was", name)
						}
					}
				})
			}
		})
	}
}

// A whole fleet is gone on with by the same command: devices that were done
// are left alone, others are gone on or begun with.
func TestFleetKilled(t *testing.T) {
	l := newLab(t, nil)
	labs := []*lab{l}
	args := []string{"--image", l.image("2.0.0", 2), "--parallel", "2"}
	for i := range 3 {
		other := newLabOf(t, func(c *sim.Config) { c.ID = fmt.Sprintf("TEST-100%d", i) }, l.key)
		labs = append(labs, other)
		args = append(args, other.address)
	}
	done := 0
	l.killed(l.upgrade(args...), func(_ int, line report.Line) bool {
		if line.Kind == "result" {
			done++
		}
		return done > 0 && line.Step == 140
	}, 0)
	l.killed(l.upgrade(append(args, "--resume")...), nil, 0)
	for _, l := range labs {
		o := l.outcome()
		want := map[string]int{"backupConfig": 1, "downloadSoftware": 1, "recoverConfig": 1}
		if diff := cmp.Diff(want, o.Done); o.Version != "2.0.0" || diff != "" {
			t.Errorf("%s runs %s; done (-want +got):\n%s", l.address, o.Version, diff)
		}
	}
}

// thorough kills at every line of output, also at those of progress.
var thorough = os.Getenv("IAD_CRASH") == "full"

// sampled reports whether lines of a kind stand for steps begun or judged.
func sampled(kind string) bool {
	return kind == "begin" || kind == "end" || kind == "failed" || kind == "backup"
}

// momentOf names what a line is about, the same in every run.
func momentOf(line report.Line) string {
	key := fmt.Sprintf("%d %s", line.Step, line.Kind)
	if line.Operation != nil {
		key += " " + line.Operation.Phase
	}
	if line.Kind == "note" || line.Kind == "warning" {
		key += " " + strings.Join(strings.Fields(line.Text)[:2], " ")
	}
	return strings.ReplaceAll(key, "/", "-")
}

// begun reports whether there is a journal.
func (l *lab) begun() bool {
	list, err := filepath.Glob(filepath.Join(l.dir, "store", "journal", "*.json"))
	return err == nil && len(list) > 0
}
