package scenario

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"example.com/iad/bank/image"
	"example.com/iad/sim"
	"example.com/iad/sim/control"
	"example.com/iad/sim/fleet"
)

// Files that a play makes in its directory.
const (
	TargetsFile = "targets.txt" // addresses of the devices, one on each line
	storeDir    = "store"       // of iadms
)

// Options say how a scenario is played.
type Options struct {
	Dir     string       // of the play; exists
	Version string       // of the program
	Log     *slog.Logger // of the devices
	// Progress, if not nil, is called with a line for people for whatever happens.
	Progress func(at time.Duration, text string)
}

// play is a scenario under way.
type play struct {
	*Scenario
	options Options
	fleet   *fleet.Fleet
	began   time.Time
	log     control.Log

	mu       sync.Mutex
	over     bool // what happens now does not count
	events   []control.Event
	happened []map[sim.FaultKind]bool // faults of each device
	index    map[string]int           // of a device by its ID
	digests  []string                 // of the configuration data at the beginning
	started  []uint32                 // operation that was the last at the beginning
	undone   int                      // steps that have not happened
	steps    []StepResult
	problems []string
}

// Play plays the scenario once. The error says why there is no verdict.
func (s *Scenario) Play(ctx context.Context, o Options) (*Result, error) {
	cfg := s.Fleet
	for _, name := range []*string{&cfg.Maker, &cfg.Manager, &cfg.Root} {
		if *name != "" {
			*name = filepath.Join(o.Dir, *name)
		}
	}
	p := &play{Scenario: s, options: o, began: time.Now(), index: map[string]int{}, undone: len(s.Steps), steps: make([]StepResult, len(s.Steps))}
	for i := range cfg.Devices {
		p.index[cfg.ID(i)] = i
		p.happened = append(p.happened, map[sim.FaultKind]bool{})
	}
	var err error
	if p.fleet, err = fleet.New(cfg, fleet.Options{Version: o.Version, Log: o.Log, Notes: io.Discard, OnEvent: p.event}); err != nil {
		return nil, err
	}
	defer p.fleet.Close()
	if err := p.images(cfg.Maker); err != nil {
		return nil, err
	}
	limited, cancel := context.WithTimeout(ctx, p.timeout())
	defer cancel()
	var alive sync.WaitGroup
	defer alive.Wait()
	running, stop := context.WithCancel(limited)
	defer stop()
	ready, ended := make(chan []string, 1), make(chan error, 1)
	alive.Go(func() {
		var addresses []string
		ended <- p.fleet.Run(running, fleet.Observer{
			Running: func(_ int, _ *sim.Device, addr netip.AddrPort) error {
				addresses = append(addresses, addr.String())
				return nil
			},
			Ready:  func() { ready <- addresses },
			Failed: func(err error) { p.problem(err.Error()) },
		})
	})
	select {
	case addresses := <-ready:
		targets := strings.Join(addresses, "\n") + "\n"
		if err := os.WriteFile(filepath.Join(o.Dir, TargetsFile), []byte(targets), 0o644); err != nil {
			return nil, err
		}
	case err := <-ended:
		if err == nil {
			err = context.Cause(limited)
		}
		return nil, fmt.Errorf("the devices did not start: %w", err)
	}
	p.begin()
	defer p.end()
	result := p.act(limited)
	if ctx.Err() != nil {
		return nil, errors.New("interrupted")
	}
	return result, nil
}

func (p *play) timeout() time.Duration {
	if p.Timeout == 0 {
		return DefaultTimeout
	}
	return time.Duration(p.Timeout)
}

func (p *play) quiet() time.Duration {
	if p.Quiet == 0 {
		return DefaultQuiet
	}
	return time.Duration(p.Quiet)
}

// images makes the software for the manager.
func (p *play) images(maker string) error {
	if len(p.Images) == 0 {
		return nil
	}
	key, err := fleet.MakerKey(maker, io.Discard)
	if err != nil {
		return err
	}
	for _, m := range p.Images {
		content := bytes.Repeat([]byte("software "+m.Version+" "), m.Size/10+1)[:m.Size]
		data, err := fleet.Build(image.Manifest{Version: m.Version, Hardware: p.Fleet.HardwareNames(), ConfigFormat: 1}, content, key)
		if err != nil {
			return fmt.Errorf("image %s: %w", m.File, err)
		}
		if err := os.WriteFile(filepath.Join(p.options.Dir, m.File), data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// begin remembers how the devices are and arranges the steps.
func (p *play) begin() {
	for i := range p.fleet.Size() {
		s := p.fleet.Device(p.fleet.ID(i)).State()
		p.digests = append(p.digests, string(s.Config))
		p.started = append(p.started, s.LastID)
	}
	p.began = time.Now()
	p.say("%d devices are running", p.fleet.Size())
	for i := range p.Steps {
		step := &p.Steps[i]
		if step.Phase != "" {
			p.fleet.Device(p.fleet.ID(step.device)).WhenPhase(step.operation, step.phase, func() { p.do(i) })
			continue
		}
		time.AfterFunc(time.Duration(step.After), func() { p.do(i) })
	}
}

// end makes what still happens not count.
func (p *play) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.over = true
}

// do does a step.
func (p *play) do(i int) {
	step := &p.Steps[i]
	p.mu.Lock()
	if p.over {
		p.mu.Unlock()
		return
	}
	p.undone--
	p.steps[i] = StepResult{Done: true, Seconds: time.Since(p.began).Seconds()}
	p.mu.Unlock()
	p.say("%s: %s", step, strings.Join(step.Do, "; "))
	for _, a := range step.actions {
		for _, n := range a.devices {
			a.do(p.fleet.Device(p.fleet.ID(n)))
		}
	}
}

func (p *play) say(format string, args ...any) {
	if p.options.Progress != nil {
		p.options.Progress(time.Since(p.began), fmt.Sprintf(format, args...))
	}
}

func (p *play) problem(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.over {
		p.problems = append(p.problems, text)
	}
}

func (p *play) event(e sim.Event) {
	p.mu.Lock()
	if p.over {
		p.mu.Unlock()
		return
	}
	told := p.log.Add(e)
	p.events = append(p.events, told)
	if e.Kind == sim.FaultEvent {
		f, err := sim.ParseFault(e.Fault)
		if err == nil {
			p.happened[p.index[e.Device]][f.Kind] = true
		}
	}
	p.mu.Unlock()
	p.say("%s", told)
}

// poll is how often the state of the devices is looked at.
const poll = 100 * time.Millisecond

// act runs the commands, or waits for a manager, and judges.
func (p *play) act(ctx context.Context) *Result {
	r := &Result{Title: p.Title, Seed: p.Fleet.Seed, Devices: p.fleet.Size(), Began: p.began, Commands: []CommandResult{}}
	for i := range p.Commands {
		if ctx.Err() == nil {
			r.Commands = append(r.Commands, p.run(ctx, i))
		}
	}
	outside := len(p.Commands) == 0
	if outside {
		p.say("waiting for a manager to use the devices in %s", filepath.Join(p.options.Dir, TargetsFile))
	}
	tick := time.NewTicker(poll)
	defer tick.Stop()
	rested, begun := time.Now(), false
	for ctx.Err() == nil {
		busy, used := p.busy()
		begun = begun || used
		if busy || outside && !begun {
			rested = time.Now()
		}
		rest := time.Since(rested) >= p.quiet()
		if rest || !outside && !busy && p.settled() {
			break
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
	p.end()
	p.judge(ctx, r)
	return r
}

// busy reports whether a device is doing something, and whether a manager has begun an
// operation on one.
func (p *play) busy() (busy, used bool) {
	for i := range p.fleet.Size() {
		s := p.fleet.Device(p.fleet.ID(i)).State()
		busy = busy || s.Powered && !s.Running || s.Operation != 0
		used = used || s.Running && s.LastID != p.started[i]
	}
	return busy, used
}

// settled reports whether everything has happened that is expected.
func (p *play) settled() bool {
	p.mu.Lock()
	undone := p.undone
	p.mu.Unlock()
	if undone > 0 {
		return false
	}
	for i := range p.Expect {
		if passed, _ := p.holds(&p.Expect[i]); !passed {
			return false
		}
	}
	return true
}

// run runs a command.
func (p *play) run(ctx context.Context, i int) CommandResult {
	c := &p.Commands[i]
	r := CommandResult{Run: c.Run, Expected: c.ExitStatus, Log: fmt.Sprintf("command-%d.log", i+1)}
	p.say("command: %s", c)
	began := time.Now()
	var output bytes.Buffer
	cmd := exec.CommandContext(ctx, program(c.Run[0]), c.Run[1:]...)
	cmd.Dir, cmd.Env = p.options.Dir, p.environment()
	cmd.Stdout, cmd.Stderr = &output, &output
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	err := cmd.Run()
	r.ExitStatus, r.Seconds = cmd.ProcessState.ExitCode(), time.Since(began).Seconds()
	if cmd.ProcessState == nil {
		r.Problem = fmt.Sprintf("%v; put %s in PATH, or beside iadsim", err, c.Run[0])
	}
	r.Passed = r.Problem == "" && r.ExitStatus == c.ExitStatus && ctx.Err() == nil
	if err := os.WriteFile(filepath.Join(p.options.Dir, r.Log), output.Bytes(), 0o644); err != nil {
		r.Problem, r.Passed = err.Error(), false
	}
	if !r.Passed {
		r.Output = tail(output.String())
	}
	p.say("command: exit status %d after %.1f s", r.ExitStatus, r.Seconds)
	return r
}

// tail is the last lines of a text.
func tail(s string) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-15):], "\n")
}

// program finds a program as a shell does, or else beside this one.
func program(name string) string {
	if strings.Contains(name, "/") {
		return name
	}
	if _, err := exec.LookPath(name); err == nil {
		return name
	}
	if self, err := os.Executable(); err == nil {
		beside := filepath.Join(filepath.Dir(self), name)
		if _, err := os.Stat(beside); err == nil {
			return beside
		}
	}
	return name
}

// environment lets iadms into the devices.
func (p *play) environment() []string {
	env := append(os.Environ(), "IADMS_STORE="+storeDir)
	if p.Fleet.Manager != "" {
		env = append(env, "IADMS_CREDENTIALS="+p.Fleet.Manager)
	}
	if p.Fleet.MIBRoot != "" {
		env = append(env, "IADMS_ROOT_OID="+p.Fleet.MIBRoot)
	}
	return env
}
