package main

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/term"

	"example.com/iad/conformance"
)

// printer shows a run on a terminal or in a log.
type printer struct {
	w       io.Writer
	colour  bool // the output is a terminal, which also shows the test that runs
	total   int
	done    int
	verbose bool
}

// colour reports whether to use colours: on a terminal, unless NO_COLOR is set.
func colour(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd())) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}

var colours = map[conformance.Verdict]string{conformance.Passed: "\x1b[32m", conformance.Failed: "\x1b[31m", conformance.Skipped: "\x1b[90m"}

func (p *printer) verdict(v conformance.Verdict) string {
	if !p.colour {
		return fmt.Sprintf("%-7s", v)
	}
	return fmt.Sprintf("%s%-7s\x1b[0m", colours[v], v)
}

// progress prints a line for each test that has ended.
func (p *printer) progress(t *conformance.Test, result *conformance.TestResult) {
	if result == nil {
		p.done++
		if p.colour {
			fmt.Fprintf(p.w, "\r\x1b[K%d of %d  %s", p.done, p.total, t.Name)
		}
		return
	}
	if p.colour {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
	reason := ""
	if result.Reason != "" {
		reason = ": " + result.Reason
	}
	fmt.Fprintf(p.w, "%s %6.1f s  %-24s %s%s\n", p.verdict(result.Verdict), result.Seconds, result.Name, result.Title, reason)
	for _, f := range result.Failures {
		fmt.Fprintf(p.w, "                   %s: %s\n", f.Requirement, f.Text)
	}
	if p.verbose && len(result.Failures) > 0 {
		for _, e := range result.Timeline {
			fmt.Fprintf(p.w, "                   %8.3f %-12s %s\n", e.At, e.Kind, e.Text)
		}
	}
}

// summary prints the numbers of a run.
func (p *printer) summary(run *conformance.Run) {
	tests, requirements := map[conformance.Verdict]int{}, map[conformance.Verdict]int{}
	for _, t := range run.Tests {
		tests[t.Verdict]++
	}
	for _, r := range run.Requirements {
		requirements[r.Verdict]++
	}
	fmt.Fprintf(p.w, "\n%s, software %s: %d tests passed, %d failed, %d skipped in %.0f s\n", run.Device.ID, run.Device.Version,
		tests[conformance.Passed], tests[conformance.Failed], tests[conformance.Skipped], run.Seconds)
	fmt.Fprintf(p.w, "%d requirements: %d met, %d not met, %d not judged\n", len(run.Requirements),
		requirements[conformance.Passed], requirements[conformance.Failed], requirements[conformance.Skipped])
}
