package scenario

import (
	"bytes"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"

	"example.com/iad/mib"
	"example.com/iad/sim"
	"example.com/iad/sim/fleet"
)

// Scenario is what a file says. Images, keys and configuration data that it names are
// relative to the file; what a play makes is in the directory of the play.
type Scenario struct {
	Title string `toml:"title"`
	// Timeout ends a play that has not come to its end; 0 for DefaultTimeout.
	Timeout fleet.Duration `toml:"timeout"`
	Fleet   fleet.Config   `toml:"fleet"`
	Images  []Image        `toml:"image"`
	// Commands are run one after another, when all devices are running. Without any, a
	// manager is waited for that somebody else starts.
	Commands []Command `toml:"command"`
	// Quiet is how long no device may have been doing anything before the work of such a
	// manager is taken to be over; 0 for DefaultQuiet.
	Quiet  fleet.Duration `toml:"quiet"`
	Steps  []Step         `toml:"when"`
	Expect []Expectation  `toml:"expect"`
}

// Defaults of a Scenario.
const (
	DefaultTimeout = 10 * time.Minute
	DefaultQuiet   = 10 * time.Second
)

// Image is software that is made for the manager, signed by the fleet's maker.
type Image struct {
	File    string `toml:"file"` // in the directory of the play
	Version string `toml:"version"`
	Size    int    `toml:"size"` // of its payload in bytes, 1 to 1 GiB
}

// Command is a command line of a manager, with the directory of the play as its working
// directory.
type Command struct {
	Run []string `toml:"run"`
	// ExitStatus is the exit status that it must have.
	ExitStatus int `toml:"exit-status"`
}

// String is the command line.
func (c *Command) String() string { return strings.Join(c.Run, " ") }

// Step is something that is done once, at a time or when a device enters a phase.
type Step struct {
	After fleet.Duration `toml:"after"` // the start of the first command
	// Device enters Phase, of Operation if that is given.
	Device    string `toml:"device"`
	Operation string `toml:"operation"`
	Phase     string `toml:"phase"`
	// Do are actions: "fault DEVICES FAULT", "clear DEVICES [KIND]",
	// "power DEVICES off|on|cut", "restart DEVICES", "set DEVICES calls=N".
	Do []string `toml:"do"`

	device    int
	operation mib.OperationKind
	phase     mib.OperationPhase
	actions   []action
}

// String says when the step happens.
func (s *Step) String() string {
	if s.Phase == "" {
		return "after " + time.Duration(s.After).String()
	}
	if s.Operation != "" {
		return fmt.Sprintf("device %s reaches %s of %s", s.Device, s.Phase, s.Operation)
	}
	return fmt.Sprintf("device %s reaches %s", s.Device, s.Phase)
}

// Expectation is what must hold at the end, for all of some devices unless AtLeast or
// AtMost is given. Empty fields do not matter.
type Expectation struct {
	// Name describes it; empty for a description of the fields.
	Name string `toml:"name"`
	// Devices are those that it is about, as in actions, or "faulty": to which a fault has
	// happened, or "healthy": the others. Empty for all.
	Devices   string `toml:"devices"`
	State     string `toml:"state"`     // running, starting or off
	Software  string `toml:"software"`  // version that runs
	Config    string `toml:"config"`    // configuration data in force: unchanged or changed since the beginning
	Operation string `toml:"operation"` // the last one
	Result    string `toml:"result"`    // of the last operation: succeeded, failed or aborted
	Cause     string `toml:"cause"`     // of its failure
	// Fault is a kind of fault that must have happened, once for each of the devices.
	Fault   string `toml:"fault"`
	AtLeast *int   `toml:"at-least"`
	AtMost  *int   `toml:"at-most"`

	devices selection
}

// Parse reads a scenario. dir is where files that it names are.
func Parse(text []byte, dir string) (*Scenario, error) {
	s := &Scenario{Fleet: fleet.Default()}
	s.Fleet.SNMP, s.Fleet.Maker = "127.0.0.1:0", "maker"
	d := toml.NewDecoder(bytes.NewReader(text)).DisallowUnknownFields()
	if err := d.Decode(s); err != nil {
		return nil, fleet.Explain(err)
	}
	kinds := []*fleet.Kind{&s.Fleet.Kind}
	for i := range s.Fleet.Groups {
		kinds = append(kinds, &s.Fleet.Groups[i].Kind)
	}
	files := []*string{}
	for _, k := range kinds {
		files = append(files, &k.Image, &k.ConfigDir)
	}
	for i := range s.Fleet.Trust {
		files = append(files, &s.Fleet.Trust[i])
	}
	for _, f := range files {
		if *f != "" && !filepath.IsAbs(*f) {
			*f = filepath.Join(dir, *f)
		}
	}
	return s, s.check()
}

func (s *Scenario) check() error {
	if err := s.Fleet.Check(); err != nil {
		return fmt.Errorf("fleet: %w", err)
	}
	for _, f := range []struct{ name, value string }{{"maker", s.Fleet.Maker}, {"manager", s.Fleet.Manager}, {"root", s.Fleet.Root}} {
		if f.value != "" && !filepath.IsLocal(f.value) {
			return fmt.Errorf("fleet: %s %q: must be a name in the directory of the play", f.name, f.value)
		}
	}
	for i, m := range s.Images {
		switch {
		case !filepath.IsLocal(m.File):
			return fmt.Errorf("image %d: file %q: must be a name in the directory of the play", i+1, m.File)
		case m.Version == "":
			return fmt.Errorf("image %d: version is missing", i+1)
		case m.Size < 1 || m.Size > 1<<30:
			return fmt.Errorf("image %d: size must be 1 to %d bytes", i+1, 1<<30)
		}
	}
	for i, c := range s.Commands {
		if len(c.Run) == 0 || c.Run[0] == "" {
			return fmt.Errorf("command %d: run must be a list of a program and its arguments", i+1)
		}
	}
	for i := range s.Steps {
		if err := s.Steps[i].check(&s.Fleet); err != nil {
			return fmt.Errorf("when %d: %w", i+1, err)
		}
	}
	if len(s.Expect) == 0 {
		return fmt.Errorf("expect is missing: without a section [[expect]] there is no verdict")
	}
	for i := range s.Expect {
		if err := s.Expect[i].check(&s.Fleet); err != nil {
			return fmt.Errorf("expect %d: %w", i+1, err)
		}
	}
	return nil
}

func (s *Step) check(c *fleet.Config) (err error) {
	if s.Phase != "" {
		devices, err := selectDevices(s.Device, c)
		if err != nil {
			return err
		}
		if len(devices) != 1 {
			return fmt.Errorf("device %q: must be one device", s.Device)
		}
		s.device = devices[0]
		if s.phase, err = sim.ParsePhase(s.Phase); err != nil {
			return err
		}
		if s.Operation != "" {
			if s.operation, err = sim.ParseOperation(s.Operation); err != nil {
				return err
			}
		}
		if s.After != 0 {
			return fmt.Errorf("after and phase exclude each other")
		}
	} else if s.Device != "" || s.Operation != "" {
		return fmt.Errorf("phase is missing, which the device must reach")
	}
	if len(s.Do) == 0 {
		return fmt.Errorf("do is missing: what is to be done")
	}
	for _, text := range s.Do {
		a, err := parseAction(text, c)
		if err != nil {
			return fmt.Errorf("do %q: %w", text, err)
		}
		s.actions = append(s.actions, a)
	}
	return nil
}

func (e *Expectation) check(c *fleet.Config) (err error) {
	if e.devices, err = parseSelection(e.Devices, c); err != nil {
		return err
	}
	oneOf := func(setting, value string, allowed ...string) error {
		if value == "" {
			return nil
		}
		for _, a := range allowed {
			if value == a {
				return nil
			}
		}
		return fmt.Errorf("%s %q: must be one of %s", setting, value, strings.Join(allowed, ", "))
	}
	if err := oneOf("state", e.State, "running", "starting", "off"); err != nil {
		return err
	}
	if err := oneOf("config", e.Config, "unchanged", "changed"); err != nil {
		return err
	}
	if err := oneOf("result", e.Result, mib.OperationStateSucceeded.String(), mib.OperationStateFailed.String(), mib.OperationStateAborted.String()); err != nil {
		return err
	}
	if e.Operation != "" {
		if _, err := sim.ParseOperation(e.Operation); err != nil {
			return err
		}
	}
	if e.Cause != "" && !knownCause(e.Cause) {
		return fmt.Errorf("unknown cause %q (docs/mib.md has a list)", e.Cause)
	}
	if e.Fault != "" {
		if _, known := sim.FaultKind(e.Fault).Info(); !known {
			return fmt.Errorf("unknown kind of fault %q", e.Fault)
		}
	}
	if e.State == "" && e.Software == "" && e.Config == "" && e.Operation == "" && e.Result == "" && e.Cause == "" && e.Fault == "" {
		return fmt.Errorf("nothing is expected: give state, software, config, operation, result, cause or fault")
	}
	for _, n := range []*int{e.AtLeast, e.AtMost} {
		if n != nil && *n < 0 {
			return fmt.Errorf("at-least and at-most must not be negative")
		}
	}
	return nil
}

func knownCause(name string) bool {
	for c := mib.FailCauseNone; c < 255; c++ {
		if c.String() == name && name[0] > '9' {
			return true
		}
	}
	return false
}

// String describes what is expected.
func (e *Expectation) String() string {
	if e.Name != "" {
		return e.Name
	}
	var list []string
	for _, f := range []struct{ name, value string }{
		{"state", e.State}, {"software", e.Software}, {"configuration", e.Config}, {"operation", e.Operation}, {"result", e.Result}, {"cause", e.Cause}, {"fault", e.Fault},
	} {
		if f.value != "" {
			list = append(list, f.name+" "+f.value)
		}
	}
	who := e.Devices
	switch who {
	case "", "all":
		who = "all devices"
	case "faulty", "healthy":
		who += " devices"
	default:
		who = "devices " + who
	}
	if e.AtLeast != nil {
		who = fmt.Sprintf("at least %d of %s", *e.AtLeast, who)
	}
	if e.AtMost != nil {
		who = fmt.Sprintf("at most %d of %s", *e.AtMost, who)
	}
	return who + ": " + strings.Join(list, ", ")
}
