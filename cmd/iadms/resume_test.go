package main

import (
	"strings"
	"testing"
)

// The operator's own check is not forgotten by --resume, nor is the policy.
func TestResumeOptions(t *testing.T) {
	l := newLab(t, nil)
	l.killed(l.upgrade("--image", l.image("2.0.0", 2), "--verify-with", "false", "--on-fail", "restore", "--retries", "0", "--allow-downgrade"),
		func(_ int, line jsonLine) bool { return line.Kind == "begin" && line.Step == 140 }, 0)
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
