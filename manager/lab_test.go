package manager_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"aead.dev/minisign"
	"github.com/spf13/afero"

	"example.com/iad/agent"
	"example.com/iad/agent/config"
	"example.com/iad/agent/snmp"
	"example.com/iad/bank/image"
	"example.com/iad/internal/iadtest"
	"example.com/iad/manager"
	"example.com/iad/manager/device"
	"example.com/iad/manager/files"
	"example.com/iad/manager/trap"
	"example.com/iad/sim"
)

// lab is a virtual device and everything that an upgrade of it takes.
type lab struct {
	target   device.Target
	t        *testing.T
	ctx      context.Context
	key      minisign.PrivateKey
	device   *sim.Device
	disk     sim.Disk
	client   *device.Client
	listener *trap.Listener
	servers  *files.Servers
	store    afero.Fs
	images   afero.Fs

	mu       sync.Mutex
	updates  []manager.Update
	failTest map[string]bool // versions whose self-test fails
}

// labOptions change the usual lab. The zero value is a device that is fine.
type labOptions struct {
	noNotifications bool
	noReset         bool
	noConfig        bool // the device is on the defaults of its software
	files           func(*files.ServersConfig)
	configure       func(*lab, *sim.Config)
	listener        trap.ListenerConfig // Listen is set
	// target is where the device is reached, if not at its own engine.
	target func() device.Target
}

const hardware = "IAD-4FXS"

// newLab starts a device with software 1.0.0 and configuration data of
// format 1.
func newLab(t *testing.T, o labOptions) *lab {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	l := &lab{t: t, ctx: ctx, store: afero.NewMemMapFs(), images: afero.NewMemMapFs(), failTest: make(map[string]bool)}
	public, private, err := minisign.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	l.key = private
	o.listener.Listen = "127.0.0.1:0"
	if l.listener, err = trap.Listen(o.listener); err != nil {
		t.Fatal(err)
	}
	l.disk = sim.Memory()
	cfg := sim.Config{
		ID: "TEST-0001", Model: hardware, Hardware: hardware, Trust: image.TrustKeys(public), Disk: l.disk,
		NoReset: o.noReset, PlainPasswords: true, Grace: 500 * time.Millisecond,
		Listen: deviceAddress(),
		SNMP: &snmp.Config{
			Communities: []snmp.Community{{Name: "public"}, {Name: "private", Write: true}},
		},
		Hooks: sim.Hooks{
			SelfTest: l.selfTest, Convert: convert,
			Free: func(int) (int64, error) { return 1 << 30, nil },
		},
	}
	if !o.noNotifications {
		cfg.SNMP.Sinks = []snmp.Sink{{Address: l.listener.Addr().String(), Community: "public"}}
	}
	if o.configure != nil {
		o.configure(l, &cfg)
	}
	l.device = sim.New(cfg)
	set := configuration(1)
	if o.noConfig {
		set = nil
	}
	if err := l.device.Provision(bytes.NewReader(l.build("1.0.0", 1, o.noReset)), set); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- l.device.Run(ctx) }()
	servers := files.ServersConfig{Files: l.store, TFTP: "127.0.0.1:0", FTP: "127.0.0.1:0", Advertise: "127.0.0.1"}
	if o.files != nil {
		o.files(&servers)
	}
	if l.servers, err = files.StartServers(servers); err != nil {
		t.Fatal(err)
	}
	target := device.Target{Credentials: device.Credentials{Read: "public", Write: "private"}}
	if o.target != nil {
		target = o.target()
	}
	l.device.Agent(ctx, 1)
	if target.Address == "" {
		target.Address = l.device.Addr(ctx).String()
	}
	target.Timeout = 200 * time.Millisecond
	l.target = target
	if l.client, err = device.Dial(target); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("device: %v", err)
		}
		for _, c := range []io.Closer{l.client, l.servers, l.listener} {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}
	})
	return l
}

// deviceAddress is an address of this machine that is the device's over its
// restarts, during which the port is free: not one that the system gives to
// others, on an address of the loopback network that nobody else uses.
func deviceAddress() string {
	return fmt.Sprintf("127.%d.%d.%d:%d", 1+rand.N(250), rand.N(250), 1+rand.N(250), 10000+rand.N(20000))
}

// selfTest fails for the versions that a test marked.
func (l *lab) selfTest(_ context.Context, t agent.SelfTest, _ afero.Fs) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failTest[t.Version] {
		return fmt.Errorf("line card 2 does not answer")
	}
	return nil
}

// convert rewrites the first line of each file and marks it as converted.
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
		kind, _, err := config.ParseHeader(data)
		if err != nil {
			return err
		}
		_, body, _ := bytes.Cut(data, []byte("\n"))
		out := fmt.Appendf(nil, "iad-config %s %d\n%sconverted = %d to %d\n", kind, c.To, body, c.From, c.To)
		if err := afero.WriteFile(work, filepath.Join(c.OutDir, info.Name()), out, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func configuration(format uint32) config.Set {
	set := make(config.Set)
	for _, kind := range config.Kinds() {
		set[kind] = fmt.Appendf(nil, "iad-config %s %d\nname = %s of the test\n", kind, format, kind)
	}
	return set
}

// build makes an image with 200 kB of payload.
func (l *lab) build(version string, format uint32, noReset bool) []byte {
	l.t.Helper()
	return iadtest.BuildImage(l.t, l.key, image.Manifest{Version: version, Hardware: []string{hardware}, ConfigFormat: format, NoReset: noReset})
}

// image makes an image as the manager opens it.
func (l *lab) image(version string, format uint32) *files.Image {
	l.t.Helper()
	return l.open("fw-"+version+".iad", l.build(version, format, false))
}

func (l *lab) open(name string, data []byte) *files.Image {
	l.t.Helper()
	if err := afero.WriteFile(l.images, name, data, 0o600); err != nil {
		l.t.Fatal(err)
	}
	img, err := files.OpenImage(l.images, name)
	if err != nil {
		l.t.Fatal(err)
	}
	return img
}

func (l *lab) plan(img *files.Image) manager.Plan {
	return manager.Plan{
		Client: l.client, Listener: l.listener, Files: l.servers, Image: img, Owner: "test",
		Poll: 100 * time.Millisecond, Reserve: time.Second,
	}
}

func (l *lab) observe(u manager.Update) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.updates = append(l.updates, u)
	if u.Kind != manager.Progressed {
		l.t.Logf("%d %s %s", u.Step, u.Kind, u.Text)
	}
}

// steps are the steps that began, in order, repetitions left out.
func (l *lab) steps() []manager.Step {
	l.mu.Lock()
	defer l.mu.Unlock()
	var steps []manager.Step
	for _, u := range l.updates {
		if u.Kind == manager.StepBegins && (len(steps) == 0 || steps[len(steps)-1] != u.Step) {
			steps = append(steps, u.Step)
		}
	}
	return steps
}

// scripted is an operator who gives prepared answers.
type scripted struct {
	t       *testing.T
	answers []manager.Answer
	asked   []manager.Question
}

func (s *scripted) Ask(_ context.Context, q manager.Question) (manager.Answer, error) {
	s.asked = append(s.asked, q)
	if len(s.answers) == 0 {
		s.t.Errorf("unexpected question at step %d: %v", q.Step, q.Failure)
		return manager.Answer{Choice: manager.GiveUp}, nil
	}
	a := s.answers[0]
	s.answers = s.answers[1:]
	return a, nil
}

// asking is an operator that answers by a function.
type asking func(manager.Question) manager.Answer

func (f asking) Ask(_ context.Context, q manager.Question) (manager.Answer, error) { return f(q), nil }
