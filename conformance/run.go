package conformance

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"aead.dev/minisign"

	"example.com/iad/manager/device"
	"example.com/iad/manager/trap"
	"example.com/iad/mib"
)

// Verdict is the result of a test or for a requirement.
type Verdict string

// Verdicts.
const (
	Passed Verdict = "passed"
	Failed Verdict = "failed"
	// Skipped: a test that could not be made with this device or these arguments, or a
	// requirement that no test judged.
	Skipped Verdict = "skipped"
)

// Config says which device to judge, and with what.
type Config struct {
	Target device.Target
	// Listen is the HOST:PORT to which the device sends notifications; empty: none are
	// received, and the tests of notifications are skipped.
	Listen string
	// Advertise is the IP address of this machine under which the device reaches the file
	// servers. Required.
	Advertise string
	// Image is software that the device accepts and that is newer than what it runs;
	// nil: images are made with Key.
	Image []byte
	// Key signs images that the device trusts, in the format of this project; nil: the
	// tests that need images of their own are skipped.
	Key *minisign.PrivateKey
	// Suite is one of Suites; empty: full.
	Suite string
	// Only are patterns of test names as in path.Match; empty: all of the suite.
	Only []string
	// Limit is how long to wait for an operation or a restart, in addition to
	// iadUpgOpTimeLeft for operations; 0: 2 minutes.
	Limit time.Duration
	// Console, if not nil, is what the device prints; its lines go into the timelines.
	Console io.Reader
	// Packets, if not nil, records the packets of the device; the report says which of
	// them are of which test.
	Packets Packets
	// Progress, if not nil, is called at the start of each test, with a nil result, and at
	// its end.
	Progress func(t *Test, result *TestResult)
}

// Packets is a recording of packets, such as a Capture of package bench.
type Packets interface {
	// Mark adds a comment to the next packet, and returns how many have been recorded.
	Mark(comment string) (packets int)
}

// Run is the result of a suite on one device.
type Run struct {
	Suite        string              `json:"suite"`          // or selection, with Config.Only
	Tool         string              `json:"tool,omitempty"` // version of the program
	Target       string              `json:"target"`
	Device       DeviceInfo          `json:"device"`
	Started      time.Time           `json:"started"`
	Seconds      float64             `json:"seconds"`
	Requirements []RequirementResult `json:"requirements"`
	Tests        []*TestResult       `json:"tests"`
	// PacketFile is the file with the packets of the device; empty: there is none.
	PacketFile string `json:"packet_file,omitempty"`
	// Problem is why the run ended early; empty: all tests were run.
	Problem string `json:"problem,omitempty"`
}

// DeviceInfo is what the device said about itself at the start.
type DeviceInfo struct {
	ID           string `json:"id"`
	Model        string `json:"model"`
	Hardware     string `json:"hardware"`
	Version      string `json:"version"`
	ConfigFormat uint32 `json:"config_format"`
}

// RequirementResult is the verdict for one requirement.
type RequirementResult struct {
	Requirement
	Verdict Verdict  `json:"verdict"`
	Checks  int      `json:"checks"` // how often it was checked
	Tests   []string `json:"tests"`  // that checked it
}

// TestResult is what happened in one test.
type TestResult struct {
	Name     string    `json:"name"`
	Title    string    `json:"title"`
	Verdict  Verdict   `json:"verdict"`
	Reason   string    `json:"reason,omitempty"` // why it was skipped, or the phase of a power cut
	Started  time.Time `json:"started"`
	Seconds  float64   `json:"seconds"`
	Failures []Failure `json:"failures,omitempty"`
	Timeline []Entry   `json:"timeline"`
	// Checks counts what was checked, by requirement.
	Checks map[string]int `json:"checks,omitempty"`
	// Packets are the numbers of the first and the last packet of the test, 1 for the
	// first of the run; nil: none were recorded.
	Packets *[2]int `json:"packets,omitempty"`
}

// Failure is a difference from what a requirement says.
type Failure struct {
	Requirement string `json:"requirement"`
	// At is when, in seconds from the start of the test.
	At   float64 `json:"at"`
	Text string  `json:"text"`
}

// Entry is a line of a test's timeline.
type Entry struct {
	At   float64   `json:"at"` // seconds from the start of the test
	Kind EntryKind `json:"kind"`
	Text string    `json:"text"`
}

// EntryKind is what an entry of a timeline is about.
type EntryKind string

// Kinds of entries.
const (
	EntrySet          EntryKind = "set"
	EntryAnswer       EntryKind = "answer"
	EntryOperation    EntryKind = "operation"
	EntryNotification EntryKind = "notification"
	EntryServer       EntryKind = "server"
	EntryConsole      EntryKind = "console"
	EntryPower        EntryKind = "power"
	EntryNote         EntryKind = "note"
	EntryFailure      EntryKind = "failure"
)

// Failed returns how many tests failed.
func (r *Run) Failed() (n int) {
	for _, t := range r.Tests {
		if t.Verdict == Failed {
			n++
		}
	}
	return n
}

// Suites are the names for Config.Suite and what they run.
var Suites = map[string]string{
	"quick": "what takes seconds and does not switch the software",
	"full":  "every test",
}

// session is a run in progress.
type session struct {
	cfg      Config
	ctx      context.Context
	client   *device.Client
	listener *trap.Listener
	servers  *fileServers
	software *software
	first    *device.Device // as found
	pace     device.Pace    // as found
	watch    watch

	mu      sync.Mutex
	current *T      // the test that runs
	between []Entry // what happened since the last test ended
}

// Select returns the tests that a configuration names, in the order in which they run.
func (c *Config) Select() ([]*Test, error) {
	suite := c.Suite
	if suite == "" {
		suite = "full"
	}
	if _, known := Suites[suite]; !known {
		return nil, fmt.Errorf("unknown suite %q (want quick or full)", suite)
	}
	var selected []*Test
	for _, t := range Tests() {
		named := slices.ContainsFunc(c.Only, func(pattern string) bool {
			match, _ := path.Match(pattern, t.Name)
			return match
		})
		if named || len(c.Only) == 0 && (suite == "full" || t.Quick) {
			selected = append(selected, t)
		}
	}
	for _, pattern := range c.Only {
		if _, err := path.Match(pattern, ""); err != nil {
			return nil, fmt.Errorf("test %q: %w", pattern, err)
		}
	}
	if len(selected) == 0 {
		return nil, fmt.Errorf("no test matches %q", c.Only)
	}
	return selected, nil
}

// Execute runs tests on a device. Tests that fail are no error; an error means that nothing
// could be judged. When ctx ends, the run ends after the test that is running, which is
// left out, and Run.Problem says so.
func Execute(ctx context.Context, cfg Config) (*Run, error) {
	tests, err := cfg.Select()
	if err != nil {
		return nil, err
	}
	s, err := open(ctx, cfg)
	if err != nil {
		return nil, err
	}
	defer s.close()
	run := s.report(cfg.Suite)
	for _, test := range tests {
		if ctx.Err() != nil {
			run.Problem = "interrupted"
			break
		}
		result := s.step(test)
		if ctx.Err() != nil {
			run.Problem = "interrupted in " + test.Name
			break
		}
		run.Tests = append(run.Tests, result)
		if result.fatal() {
			run.Problem = "the device does not answer any more: the tests after " + test.Name + " were not run"
			break
		}
	}
	s.finish(run)
	return run, nil
}

// open reaches the device and starts listener and servers.
func open(ctx context.Context, cfg Config) (_ *session, err error) {
	if cfg.Limit <= 0 {
		cfg.Limit = 2 * time.Minute
	}
	s := &session{cfg: cfg, ctx: ctx}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if s.client, err = device.Dial(cfg.Target); err != nil {
		return nil, err
	}
	if s.first, err = s.client.Device(ctx); err != nil {
		return nil, err
	}
	s.watch.init(s)
	if cfg.Listen != "" {
		if err := s.listen(); err != nil {
			return nil, err
		}
	}
	if s.servers, err = startServers(ctx, cfg.Advertise, func(format string, args ...any) {
		s.record(EntryServer, format, args...)
	}); err != nil {
		return nil, err
	}
	if s.software, err = newSoftware(cfg, s.first); err != nil {
		return nil, err
	}
	if cfg.Console != nil {
		go s.console(cfg.Console) // ends with the reader, which is the caller's
	}
	if s.pace, err = s.client.Pace(ctx); err != nil {
		return nil, err
	}
	if err := s.client.SetPace(ctx, device.Pace{Step: 1}); err != nil {
		return nil, fmt.Errorf("cannot write to the device: %w", err)
	}
	return s, nil
}

// console adds lines of the console to timelines.
func (s *session) console(r io.Reader) {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		if text := strings.TrimRight(lines.Text(), "\r"); text != "" {
			s.record(EntryConsole, "%s", printable(text))
		}
	}
	if err := lines.Err(); err != nil && s.ctx.Err() == nil {
		s.record(EntryNote, "the console ended: %v", err)
	}
}

// close ends what open has started.
func (s *session) close() {
	if s.servers != nil {
		s.servers.Close()
	}
	if s.listener != nil {
		s.listener.Close()
	}
	if s.client != nil {
		s.client.Close()
	}
}

// report begins the report of a run.
func (s *session) report(suite string) *Run {
	switch {
	case len(s.cfg.Only) > 0:
		suite = "selection"
	case suite == "":
		suite = "full"
	}
	return &Run{
		Suite: suite, Target: s.client.Address(), Started: time.Now().UTC(), Tests: []*TestResult{},
		Device: DeviceInfo{s.first.ID, s.first.Model, s.first.Hardware, s.first.Version, s.first.ConfigFormat},
	}
}

// step runs a test and reports progress.
func (s *session) step(test *Test) *TestResult {
	if s.cfg.Progress != nil {
		s.cfg.Progress(test, nil)
	}
	result := s.run(test)
	if s.cfg.Progress != nil && s.ctx.Err() == nil {
		s.cfg.Progress(test, result)
	}
	return result
}

// finish restores the intervals of progress and completes a report.
func (s *session) finish(run *Run) {
	end, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), 10*time.Second)
	defer cancel()
	if err := s.client.SetPace(end, s.pace); err != nil && run.Problem == "" {
		run.Problem = fmt.Sprintf("the intervals of progress could not be restored: %v", err)
	}
	run.complete()
}

// complete sets what follows from the tests.
func (r *Run) complete() {
	r.Seconds = time.Since(r.Started).Seconds()
	r.Requirements = judged(r.Tests)
}

// listen starts to receive notifications.
func (s *session) listen() error {
	cfg := trap.ListenerConfig{Listen: s.cfg.Listen, Root: s.cfg.Target.Root, Observe: s.watch.observe}
	if u := s.cfg.Target.Credentials.User; u != nil {
		cfg.Users = []device.User{*u}
		cfg.AnyCommunity = true
	}
	var err error
	s.listener, err = trap.Listen(cfg)
	return err
}

// record adds a line to the timeline of the running test, or else of the next one.
func (s *session) record(kind EntryKind, format string, args ...any) {
	s.mu.Lock()
	t := s.current
	if t == nil {
		s.between = append(s.between, Entry{Kind: kind, Text: fmt.Sprintf(format, args...)})
	}
	s.mu.Unlock()
	if t != nil {
		t.record(kind, format, args...)
	}
}

// stop ends a test early.
type stop struct{}

// run runs one test.
func (s *session) run(test *Test) *TestResult {
	result := &TestResult{Name: test.Name, Title: test.Title, Verdict: Passed, Started: time.Now().UTC(), Timeline: []Entry{}, Checks: map[string]int{}}
	t := &T{session: s, test: test, result: result}
	s.mu.Lock()
	result.Timeline = append(result.Timeline, s.between...)
	s.current, s.between = t, nil
	s.mu.Unlock()
	before := s.mark("test " + test.Name)
	t.protect(func() {
		t.prepare()
		test.run(t)
	})
	if result.Verdict != Skipped {
		t.protect(t.finish)
	}
	s.servers.reset()
	s.mu.Lock()
	s.current = nil
	s.mu.Unlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(result.Failures) > 0 {
		result.Verdict = Failed
	}
	result.Seconds = time.Since(result.Started).Seconds()
	if after := s.mark(""); after > before {
		result.Packets = &[2]int{before + 1, after}
	}
	return result
}

// mark marks the packets that follow, and returns how many have been recorded.
func (s *session) mark(comment string) int {
	if s.cfg.Packets == nil {
		return 0
	}
	return s.cfg.Packets.Mark(comment)
}

// protect runs part of a test until it stops.
func (t *T) protect(part func()) {
	defer func() {
		if r := recover(); r != nil {
			if _, stopped := r.(stop); !stopped {
				panic(r)
			}
		}
	}()
	part()
}

// fatal reports whether the device no longer answers.
func (r *TestResult) fatal() bool {
	return slices.ContainsFunc(r.Failures, func(f Failure) bool { return f.Requirement == reqAnswers })
}

// judged returns the verdicts for all requirements.
func judged(tests []*TestResult) []RequirementResult {
	all := make([]RequirementResult, len(Requirements))
	for i, r := range Requirements {
		all[i] = RequirementResult{Requirement: r, Verdict: Skipped, Tests: []string{}}
		for _, t := range tests {
			n := t.Checks[r.ID]
			if n == 0 {
				continue
			}
			all[i].Checks += n
			all[i].Tests = append(all[i].Tests, t.Name)
			if all[i].Verdict == Skipped {
				all[i].Verdict = Passed
			}
			if slices.ContainsFunc(t.Failures, func(f Failure) bool { return f.Requirement == r.ID }) {
				all[i].Verdict = Failed
			}
		}
	}
	return all
}

// errNoAnswer is an answer that did not come.
func noAnswer(err error) bool { return errors.Is(err, device.ErrNoAnswer) }

// final reports whether a state is final.
func final(s mib.OperationState) bool {
	return s == mib.OperationStateSucceeded || s == mib.OperationStateFailed || s == mib.OperationStateAborted || s == mib.OperationStateIdle
}
