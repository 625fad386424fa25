package conformance

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"html/template"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"example.com/iad/internal/junit"
)

// WriteJSON writes a run as JSON, which ReadJSON reads.
func (r *Run) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// ReadJSON reads what WriteJSON wrote. Fields of later releases are ignored.
func ReadJSON(r io.Reader) (*Run, error) {
	var run Run
	if err := json.NewDecoder(r).Decode(&run); err != nil {
		return nil, err
	}
	if run.Tests == nil || run.Requirements == nil {
		return nil, fmt.Errorf("this JSON is not a report of iadlab test")
	}
	return &run, nil
}

// ReadFile reads a file that WriteJSON wrote.
func ReadFile(name string) (*Run, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	run, err := ReadJSON(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return run, nil
}

// WriteJUnit writes a run in the XML format of JUnit, which CI systems read: a test case for
// each test, with what differed and the timeline if it failed. A run that ended early has a
// test case "run" with an error.
func (r *Run) WriteJUnit(w io.Writer) error {
	suite := junit.Suite{
		Name: "iadlab " + r.Suite, Host: r.Target, Began: r.Started, Seconds: r.Seconds,
		Properties: [][2]string{{"device", r.Device.ID}, {"model", r.Device.Model}, {"hardware", r.Device.Hardware}, {"software", r.Device.Version}, {"iadlab", r.Tool}},
	}
	for _, t := range r.Tests {
		c := junit.Case{Name: t.Name, Class: "iadlab." + r.Suite, Seconds: t.Seconds}
		switch t.Verdict {
		case Skipped:
			c.Skipped = &junit.Reason{Message: t.Reason}
		case Failed:
			var lines []string
			for _, f := range t.Failures {
				lines = append(lines, f.Requirement+": "+f.Text)
			}
			c.Failure = &junit.Reason{Message: lines[0], Type: t.Failures[0].Requirement, Text: strings.Join(lines, "\n") + "\n\n" + timeline(t)}
		}
		suite.Cases = append(suite.Cases, c)
	}
	if r.Problem != "" {
		suite.Cases = append(suite.Cases, junit.Case{Name: "run", Class: "iadlab." + r.Suite, Error: &junit.Reason{Message: r.Problem, Type: "incomplete"}})
	}
	return suite.Write(w)
}

// timeline is a test's timeline as text.
func timeline(t *TestResult) string {
	var b strings.Builder
	for _, e := range t.Timeline {
		fmt.Fprintf(&b, "%8.3f %-12s %s\n", e.At, e.Kind, printable(e.Text))
	}
	return b.String()
}

// printable replaces what XML cannot hold: texts come from devices and servers.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' && r != '\t' || r == 0x7f || r == 0xfffe || r == 0xffff {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}

//go:embed report.html
var reportHTML string

var reportTemplate = template.Must(template.New("report").Funcs(template.FuncMap{
	"seconds": func(s float64) string {
		if s < 10 {
			return fmt.Sprintf("%.2f s", s)
		}
		return time.Duration(s * float64(time.Second)).Round(time.Second / 10).String()
	},
	"at":        func(s float64) string { return fmt.Sprintf("%.3f", s) },
	"printable": printable,
	"join":      func(list []string) string { return strings.Join(list, ", ") },
	"count":     countTests,
	"judged":    countRequirements,
	"percent": func(n, of int) float64 {
		if of == 0 {
			return 0
		}
		return 100 * float64(n) / float64(of)
	},
}).Parse(reportHTML))

// countTests returns how many tests have a verdict.
func countTests(tests []*TestResult, v Verdict) (n int) {
	for _, t := range tests {
		if t.Verdict == v {
			n++
		}
	}
	return n
}

func countRequirements(list []RequirementResult, v Verdict) (n int) {
	for _, r := range list {
		if r.Verdict == v {
			n++
		}
	}
	return n
}

// WriteHTML writes a run as one self-contained HTML page: a summary, one row for each
// requirement, and each test with its timeline and with what differed.
func (r *Run) WriteHTML(w io.Writer) error { return reportTemplate.Execute(w, r) }

// Change is a difference between two runs.
type Change struct {
	// What is a requirement or a test, Name its ID or name.
	What string `json:"what"`
	Name string `json:"name"`
	// Before and After are the verdicts; empty: it was not in that run.
	Before Verdict `json:"before,omitempty"`
	After  Verdict `json:"after,omitempty"`
	// Text is the first failure of a test that failed after, or why it was skipped.
	Text string `json:"text,omitempty"`
}

// Worse reports whether something passed before and does not pass now, or fails now and did
// not before.
func (c Change) Worse() bool {
	return c.After == Failed && c.Before != Failed || c.Before == Passed && c.After != Passed
}

// Diff compares two runs: the tests and requirements whose verdicts differ, in the order of
// the second run, followed by those that only the first one has.
func Diff(before, after *Run) []Change {
	var changes []Change
	old := map[string]Verdict{}
	for _, t := range before.Tests {
		old["test "+t.Name] = t.Verdict
	}
	for _, r := range before.Requirements {
		old["requirement "+r.ID] = r.Verdict
	}
	seen := map[string]bool{}
	compare := func(what, name string, now Verdict, text string) {
		key := what + " " + name
		seen[key] = true
		if then := old[key]; then != now {
			changes = append(changes, Change{what, name, then, now, text})
		}
	}
	for _, t := range after.Tests {
		text := t.Reason
		if len(t.Failures) > 0 {
			text = t.Failures[0].Requirement + ": " + t.Failures[0].Text
		}
		compare("test", t.Name, t.Verdict, text)
	}
	for _, r := range after.Requirements {
		compare("requirement", r.ID, r.Verdict, r.Text)
	}
	var gone []string
	for key := range old {
		if !seen[key] {
			gone = append(gone, key)
		}
	}
	slices.Sort(gone)
	for _, key := range gone {
		what, name, _ := strings.Cut(key, " ")
		changes = append(changes, Change{What: what, Name: name, Before: old[key]})
	}
	return changes
}
