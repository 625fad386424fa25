package command

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.com/iad/cmd/iadms/report"
)

// The operator's own check is not forgotten by --resume, nor is the policy.
func TestResumeOptions(t *testing.T) {
	l := newLab(t, nil)
	l.killed(l.upgrade("--image", l.image("2.0.0", 2), "--verify-with", "false", "--on-fail", "restore", "--retries", "0", "--allow-downgrade"),
		func(_ int, line report.Line) bool { return line.Kind == "begin" && line.Step == 140 }, 0)
	out, err := l.upgrade("--resume").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "operator's check") || !strings.Contains(string(out), "--verify-with=false") ||
		!strings.Contains(string(out), "--allow-downgrade=true") {
		t.Errorf("resumed without the check: %v\n%s", err, out)
	}
	if o := l.outcome(); o.Version != "1.0.0" {
		t.Errorf("%s runs", o.Version)
	}
	if out, err := l.upgrade("--resume", "--verify-with", "true").CombinedOutput(); err != nil || strings.Contains(string(out), "--verify-with=") {
		t.Errorf("resumed with another check: %v\n%s", err, out)
	}
}

// TestResumeElsewhere: an upgrade is resumed from another directory, with an image and
// a command that were named relative to the first one.
func TestResumeElsewhere(t *testing.T) {
	l := newLab(t, nil)
	here := t.TempDir()
	if err := os.Rename(l.image("2.0.0", 2), filepath.Join(here, "fw.iad")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(here, "check"), []byte("#!/bin/sh\ntouch checked\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := l.upgrade("--image", "fw.iad", "--verify-with", "./check", "--on-fail", "other=fw.iad,restore")
	cmd.Dir = here
	l.killed(cmd, func(_ int, line report.Line) bool { return line.Kind == "begin" && line.Step == 140 }, 0)
	// It is broken off there, and resumed once more from a third one.
	cmd = l.upgrade("--resume")
	cmd.Dir = t.TempDir()
	l.killed(cmd, func(_ int, line report.Line) bool { return line.Step >= 140 }, 0)
	if err := os.Remove(filepath.Join(here, "checked")); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	cmd = l.upgrade("--resume")
	cmd.Dir = t.TempDir()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if _, err := os.Stat(filepath.Join(here, "checked")); err != nil {
		t.Errorf("the check did not run where it was named: %v", err)
	}
	if o := l.outcome(); o.Version != "2.0.0" {
		t.Errorf("%s runs", o.Version)
	}
}
