package scenario

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"example.com/iad/internal/junit"
	"example.com/iad/sim"
	"example.com/iad/sim/control"
)

// Result is the verdict about a play, and how it came about.
type Result struct {
	Title    string          `json:"title"`
	Passed   bool            `json:"passed"`
	Seed     uint64          `json:"seed"`
	Devices  int             `json:"devices"`
	Began    time.Time       `json:"began"`
	Seconds  float64         `json:"seconds"`
	Checks   []CheckResult   `json:"checks"`
	Commands []CommandResult `json:"commands"`
	Steps    []StepResult    `json:"steps"`
	// Faults are those that happened, sorted: the same seed gives the same list if the
	// faults are bound to operations and phases.
	Faults []FaultResult   `json:"faults"`
	Events []control.Event `json:"events"`
}

// CheckResult is what came of an expectation, a command, the steps, or the devices.
type CheckResult struct {
	Name   string `json:"name"`
	Passed bool   `json:"passed"`
	Detail string `json:"detail,omitempty"` // why not
}

// CommandResult is what came of a command.
type CommandResult struct {
	Run        []string `json:"run"`
	Passed     bool     `json:"passed"`
	ExitStatus int      `json:"exit_status"` // -1 without one
	Expected   int      `json:"expected"`
	Seconds    float64  `json:"seconds"`
	Log        string   `json:"log"` // file with its output in the directory of the play
	Problem    string   `json:"problem,omitempty"`
	Output     string   `json:"output,omitempty"` // its end, unless the command passed
}

// StepResult is what came of a step.
type StepResult struct {
	When    string   `json:"when"`
	Do      []string `json:"do"`
	Done    bool     `json:"done"`
	Seconds float64  `json:"seconds,omitempty"` // after the beginning
}

// FaultResult is a fault that happened to a device, and what the device was doing.
type FaultResult struct {
	Device    string `json:"device"`
	Fault     string `json:"fault"`
	Operation string `json:"operation,omitempty"`
	Phase     string `json:"phase,omitempty"`
}

// judge completes a result.
func (p *play) judge(ctx context.Context, r *Result) {
	r.Seconds = time.Since(p.began).Seconds()
	for i := range p.Commands {
		c := CheckResult{Name: fmt.Sprintf("command %d: %s: exit status %d", i+1, p.Commands[i].Run[0], p.Commands[i].ExitStatus)}
		switch {
		case i >= len(r.Commands):
			c.Detail = "it was not run: the time was over"
		case r.Commands[i].Problem != "":
			c.Detail = r.Commands[i].Problem
		case !r.Commands[i].Passed:
			c.Detail = fmt.Sprintf("exit status %d\n%s", r.Commands[i].ExitStatus, r.Commands[i].Output)
		default:
			c.Passed = true
		}
		r.Checks = append(r.Checks, c)
	}
	p.mu.Lock()
	for i := range p.Steps {
		s := p.steps[i]
		s.When, s.Do = p.Steps[i].String(), p.Steps[i].Do
		r.Steps = append(r.Steps, s)
		if !s.Done {
			r.Checks = append(r.Checks, CheckResult{Name: s.When, Detail: "this did not happen"})
		}
	}
	for _, text := range p.problems {
		r.Checks = append(r.Checks, CheckResult{Name: "devices keep running", Detail: text})
	}
	r.Events = p.events
	for _, e := range p.events {
		if e.Event == string(sim.FaultEvent) {
			r.Faults = append(r.Faults, FaultResult{e.Device, e.Fault, e.Operation, e.Phase})
		}
	}
	p.mu.Unlock()
	slices.SortFunc(r.Faults, func(a, b FaultResult) int {
		return cmp.Or(strings.Compare(a.Device, b.Device), strings.Compare(a.Fault, b.Fault), strings.Compare(a.Operation, b.Operation), strings.Compare(a.Phase, b.Phase))
	})
	for i := range p.Expect {
		c := CheckResult{Name: p.Expect[i].String()}
		c.Passed, c.Detail = p.holds(&p.Expect[i])
		r.Checks = append(r.Checks, c)
	}
	if ctx.Err() != nil {
		r.Checks = append(r.Checks, CheckResult{Name: "time limit", Detail: fmt.Sprintf("the play had not ended after %v", p.timeout())})
	}
	r.Passed = !slices.ContainsFunc(r.Checks, func(c CheckResult) bool { return !c.Passed })
}

// shown is how many devices a detail names.
const shown = 5

// holds reports whether an expectation holds, and why not.
func (p *play) holds(e *Expectation) (bool, string) {
	devices := e.devices.devices
	if e.devices.among != "" {
		devices = nil
		p.mu.Lock()
		for i := range p.happened {
			if (len(p.happened[i]) > 0) == (e.devices.among == faulty) {
				devices = append(devices, i)
			}
		}
		p.mu.Unlock()
	}
	var others []string
	for _, i := range devices {
		if why := p.differs(e, i); why != "" {
			others = append(others, p.fleet.ID(i)+" "+why)
		}
	}
	n := len(devices) - len(others)
	least, most := len(devices), len(devices)
	if e.AtLeast != nil || e.AtMost != nil {
		least = 0
	}
	if e.AtLeast != nil {
		least = *e.AtLeast
	}
	if e.AtMost != nil {
		most = *e.AtMost
	}
	if n >= least && n <= most {
		return true, ""
	}
	detail := fmt.Sprintf("%d of %d devices", n, len(devices))
	if n < least && len(others) > 0 {
		detail += "; " + strings.Join(others[:min(shown, len(others))], "; ")
		if len(others) > shown {
			detail += " ..."
		}
	}
	return false, detail
}

// differs says in what a device is not as expected, "" in nothing.
func (p *play) differs(e *Expectation, i int) string {
	if e.Fault != "" {
		p.mu.Lock()
		happened := p.happened[i][sim.FaultKind(e.Fault)]
		p.mu.Unlock()
		if !happened {
			return "had no fault " + e.Fault
		}
	}
	s := p.fleet.Device(p.fleet.ID(i)).State()
	state := "off"
	switch {
	case s.Running:
		state = "running"
	case s.Powered:
		state = "starting"
	}
	if e.State != "" && e.State != state {
		return "is " + state
	}
	if e.Software == "" && e.Config == "" && e.Operation == "" && e.Result == "" && e.Cause == "" {
		return ""
	}
	if !s.Running {
		return "is " + state
	}
	config := "unchanged"
	if string(s.Config) != p.digests[i] {
		config = "changed"
	}
	for _, f := range []struct{ want, got, text string }{
		{e.Software, s.Software, "runs " + s.Software},
		{e.Config, config, "has " + config + " configuration data"},
		{e.Operation, s.Last.String(), "did " + s.Last.String() + " last"},
		{e.Result, s.Result.String(), fmt.Sprintf("has %v %v", s.Last, s.Result)},
		{e.Cause, s.Cause.String(), fmt.Sprintf("gives %v as the cause", s.Cause)},
	} {
		if f.want != "" && f.want != f.got {
			return f.text
		}
	}
	return ""
}

// WriteJUnit writes the result in the XML format of JUnit: a test case for each check.
func (r *Result) WriteJUnit(w io.Writer) error {
	s := junit.Suite{
		Name: "iadsim " + r.Title, Host: "iadsim", Began: r.Began, Seconds: r.Seconds,
		Properties: [][2]string{{"seed", fmt.Sprint(r.Seed)}, {"devices", fmt.Sprint(r.Devices)}},
	}
	for _, c := range r.Checks {
		to := junit.Case{Name: c.Name, Class: "iadsim." + r.Title}
		if !c.Passed {
			message, _, _ := strings.Cut(c.Detail, "\n")
			to.Failure = &junit.Reason{Message: message, Type: "expectation", Text: c.Detail}
		}
		s.Cases = append(s.Cases, to)
	}
	var faults strings.Builder
	for _, f := range r.Faults {
		fmt.Fprintf(&faults, "%s %s (%s, %s)\n", f.Device, f.Fault, f.Operation, f.Phase)
	}
	s.Output = faults.String()
	return s.Write(w)
}
