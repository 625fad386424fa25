package conformance_test

import (
	"bytes"
	"encoding/xml"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.com/iad/conformance"
	"example.com/iad/internal/peers"
)

// hostile is text that a device could send.
const hostile = "</td><script src=\"http://192.0.2.1/x.js\"></script> ]]> \x00\x1b[2J \xff ü"

// sample is a run with every verdict, of a device that sends hostile texts.
func sample() *conformance.Run {
	run := &conformance.Run{
		Suite: "full", Tool: "1.2.3", Target: "192.0.2.7:161", Started: time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC), Seconds: 61.5,
		Device:  conformance.DeviceInfo{ID: "IAD " + hostile, Model: hostile, Hardware: "IAD-4FXS", Version: "1.0.0", ConfigFormat: 1},
		Problem: "interrupted",
	}
	verdicts := []conformance.Verdict{conformance.Passed, conformance.Failed, conformance.Skipped}
	for i, r := range conformance.Requirements {
		run.Requirements = append(run.Requirements, conformance.RequirementResult{Requirement: r, Verdict: verdicts[i%3], Checks: i, Tests: []string{"lock"}})
	}
	timeline := []conformance.Entry{
		{At: 0.001, Kind: conformance.EntrySet, Text: "iadUpgReqCommand.0 = reset"}, {At: 0.002, Kind: conformance.EntryNotification, Text: hostile},
		{At: 2.5, Kind: conformance.EntryFailure, Text: "RESET: " + hostile},
	}
	run.Tests = []*conformance.TestResult{
		{Name: "lock", Title: "A test that passed", Verdict: conformance.Passed, Started: run.Started, Seconds: 0.1, Timeline: timeline[:1]},
		{Name: "reset", Title: "A test that failed", Verdict: conformance.Failed, Started: run.Started, Seconds: 2.5, Timeline: timeline,
			Failures: []conformance.Failure{{Requirement: "RESET", At: 2.5, Text: hostile}, {Requirement: "RESTART-COUNT", At: 2.6, Text: "3, want 4"}}},
		{Name: "upgrade", Title: "A test that was skipped", Verdict: conformance.Skipped, Reason: hostile, Started: run.Started, Timeline: []conformance.Entry{}},
	}
	return run
}

func TestHTMLStandsAlone(t *testing.T) {
	var b bytes.Buffer
	if err := sample().WriteHTML(&b); err != nil {
		t.Fatal(err)
	}
	page := b.String()
	if m := regexp.MustCompile(`(?i)<script|<link|<img|<iframe|<[^>]*\s(src|href)\s*=|url\(|@import`).FindString(page); m != "" {
		t.Errorf("the page refers to something outside: %q", m)
	}
	for _, want := range []string{"1 of 3 tests failed", "IAD-4FXS", "LOCK-WRONG", "not judged", "RESTART-COUNT", "2.500", "The run is incomplete", "@media print"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page does not have %q", want)
		}
	}
	if strings.ContainsAny(page, "\x00\x1b") {
		t.Error("the page has control characters")
	}
	// It is well-formed as far as a strict reader of HTML's syntax in XML can tell.
	d := xml.NewDecoder(strings.NewReader(page))
	d.Strict, d.AutoClose, d.Entity = false, xml.HTMLAutoClose, xml.HTMLEntity
	open := 0
	for {
		token, err := d.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		switch token.(type) {
		case xml.StartElement:
			open++
		case xml.EndElement:
			open--
		}
	}
	if open != 0 {
		t.Errorf("%d elements are not closed", open)
	}
}

// TestJUnitFitsSchema validates reports by the schema in testdata, and a report that does
// not fit, to see that the schema refuses something.
func TestJUnitFitsSchema(t *testing.T) {
	xmllint := peers.Find(t, "xmllint")
	validate := func(text string) (string, error) {
		name := filepath.Join(t.TempDir(), "junit.xml")
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.CommandContext(t.Context(), xmllint, "--nonet", "--noout", "--schema", "testdata/junit.xsd", name).CombinedOutput()
		return string(out), err
	}
	var b bytes.Buffer
	if err := sample().WriteJUnit(&b); err != nil {
		t.Fatal(err)
	}
	if out, err := validate(b.String()); err != nil {
		t.Errorf("%v\n%s\n%s", err, out, b.String())
	}
	var none bytes.Buffer
	if err := (&conformance.Run{Suite: "quick", Target: "x", Tests: []*conformance.TestResult{}}).WriteJUnit(&none); err != nil {
		t.Fatal(err)
	}
	if out, err := validate(none.String()); err != nil {
		t.Errorf("a run without tests: %v\n%s", err, out)
	}
	for _, bad := range []string{"<failure", "timestamp=", "tests="} {
		if _, err := validate(strings.Replace(b.String(), bad, bad[:len(bad)-1]+"x"+bad[len(bad)-1:], 1)); err == nil {
			t.Errorf("the schema accepts a report without %s", bad)
		}
	}
}

func TestJSONIsReadBack(t *testing.T) {
	run := sample()
	var b bytes.Buffer
	if err := run.WriteJSON(&b); err != nil {
		t.Fatal(err)
	}
	back, err := conformance.ReadJSON(&b)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(run, back, cmp.Comparer(func(a, b string) bool {
		return strings.ToValidUTF8(a, "\ufffd") == strings.ToValidUTF8(b, "\ufffd")
	})); diff != "" {
		t.Error(diff)
	}
	if changes := conformance.Diff(run, back); len(changes) != 0 {
		t.Errorf("%v", changes)
	}
}

func TestDiff(t *testing.T) {
	before, after := sample(), sample()
	after.Tests[0].Verdict = conformance.Failed
	after.Tests[0].Failures = []conformance.Failure{{Requirement: "LOCK-WRONG", Text: "planted"}}
	after.Tests[1].Verdict = conformance.Passed
	after.Tests = after.Tests[:2]
	after.Requirements[0].Verdict = conformance.Skipped
	got := conformance.Diff(before, after)
	want := []conformance.Change{
		{What: "test", Name: "lock", Before: conformance.Passed, After: conformance.Failed, Text: "LOCK-WRONG: planted"},
		{What: "test", Name: "reset", Before: conformance.Failed, After: conformance.Passed, Text: "RESET: " + hostile},
		{What: "requirement", Name: before.Requirements[0].ID, Before: conformance.Passed, After: conformance.Skipped, Text: before.Requirements[0].Text},
		{What: "test", Name: "upgrade", Before: conformance.Skipped},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	worse := []bool{true, false, true, false}
	for i, c := range got {
		if c.Worse() != worse[i] {
			t.Errorf("%+v: worse %v", c, c.Worse())
		}
	}
}
