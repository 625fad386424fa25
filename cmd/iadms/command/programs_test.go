package command

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/afero"

	"example.com/iad/agent"
	"example.com/iad/cmd/iadms/report"
	"example.com/iad/sim"
)

// script writes a shell script and returns its name.
func (l *lab) script(name, text string) string {
	l.t.Helper()
	file := filepath.Join(l.dir, name)
	if err := os.WriteFile(file, []byte("#!/bin/sh\n"+text), 0o700); err != nil {
		l.t.Fatal(err)
	}
	return file
}

// run runs a command to its end and returns what it printed and its status.
func (l *lab) run(cmd *exec.Cmd) (output string, status int) {
	l.t.Helper()
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		l.t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// The operator's own check sends software back that passes its self-test.
func TestVerifyWith(t *testing.T) {
	l := newLab(t, nil)
	check := l.script("check", `echo "$IADMS_DEVICE $IADMS_TARGET"; [ "$IADMS_SOFTWARE_VERSION" = 2.0.1 ] || { echo "no ring tone"; exit 3; }`)
	out, status := l.run(l.upgrade("--image", l.image("2.0.0", 2), "--verify-with", check, "--on-fail", "other="+l.image("2.0.1", 2)))
	if status != 0 || !strings.Contains(out, "no ring tone (exit status 3)") {
		t.Errorf("exit status %d\n%s", status, out)
	}
	if o := l.outcome(); o.Version != "2.0.1" || o.Done["restoreOldSoftware"] != 1 {
		t.Errorf("%+v", o)
	}
}

// A check that passes may leave a program behind that holds its output open: it has passed.
func TestVerifyLeavesProgramBehind(t *testing.T) {
	l := newLab(t, nil)
	check := l.script("check", "sleep 20 &\n")
	if out, status := l.run(l.upgrade("--image", l.image("2.0.0", 1), "--verify-with", check)); status != 0 {
		t.Errorf("exit status %d\n%s", status, out)
	}
}

// A check that cannot be run says nothing about the software.
func TestVerifyCannotBeRun(t *testing.T) {
	l := newLab(t, nil)
	out, status := l.run(l.upgrade("--image", l.image("2.0.0", 1), "--verify-with", filepath.Join(l.dir, "mistyped")))
	if status != 6 || !strings.Contains(out, "the program could not be run") || strings.Contains(out, "failed: failed") {
		t.Errorf("exit status %d\n%s", status, out)
	}
	if o := l.outcome(); o.Version != "1.0.0" || o.Done["restoreOldSoftware"] != 1 {
		t.Errorf("%+v", o)
	}
}

func noConversion(c *sim.Config) {
	c.Hooks.Convert = func(context.Context, agent.Conversion, afero.Fs) error { return errors.New("not possible here") }
}

// A program of the operator's converts what the device cannot.
func TestConvertWith(t *testing.T) {
	l := newLab(t, noConversion)
	program := l.script("convert", `for f in "$3"/*.cfg; do sed "1s/ $1\$/ $2/" "$f" > "$4/${f##*/}"; echo "by = program" >> "$4/${f##*/}"; done`)
	out, status := l.run(l.upgrade("--image", l.image("2.0.0", 2), "--convert-with", program))
	if o := l.outcome(); status != 0 || o.Version != "2.0.0" || o.Digest == "" {
		t.Errorf("exit status %d, %+v\n%s", status, o, out)
	}
}

// An editor; the first time it makes a mistake, and the way leads back to it.
func TestEditor(t *testing.T) {
	l := newLab(t, noConversion)
	editor := l.script("editor", `
if [ -e "`+l.dir+`/mistaken" ]; then
	for f; do sed -i '/no setting/d' "$f"; done
else
	touch "`+l.dir+`/mistaken"
	echo "this is no setting" >> "$1"
fi`)
	cmd := l.upgrade("--image", l.image("2.0.0", 2), "--edit", "--on-fail", "edit,give-up")
	cmd.Env = append(cmd.Env, "VISUAL=", "EDITOR="+editor)
	out, status := l.run(cmd)
	if o := l.outcome(); status != 0 || o.Version != "2.0.0" || o.Digest == "" {
		t.Errorf("exit status %d, %+v\n%s", status, o, out)
	}
	if !strings.Contains(out, "configParseError") {
		t.Errorf("the mistake was not found:\n%s", out)
	}
	// Backup and both modifications are there.
	dirs, err := filepath.Glob(filepath.Join(l.dir, "store", "backup", "TEST-0001", "*"))
	if err != nil || len(dirs) != 3 {
		t.Errorf("%v, %v", dirs, err)
	}
}

// An edit, or a program, that changes nothing puts nothing in force: the old software comes
// back with its data, and a person has to decide.
func TestNothingEdited(t *testing.T) {
	l := newLab(t, noConversion)
	image := l.image("2.0.0", 2)
	before := l.outcome()
	for _, args := range [][]string{{"--edit"}, {"--convert-with", "true"}} {
		cmd := l.upgrade(append(args, "--image", image)...)
		cmd.Env = append(cmd.Env, "VISUAL=", "EDITOR=true")
		out, status := l.run(cmd)
		if status != exitDecision || !strings.Contains(out, "nothing was changed") || !strings.Contains(out, "iadms upgrade --resume") {
			t.Errorf("%s: exit status %d\n%s", args[0], status, out)
		}
		if o := l.outcome(); o.Version != "1.0.0" || o.Digest == "" || o.Digest != before.Digest {
			t.Errorf("%s: %+v, before: %+v", args[0], o, before)
		}
	}
}

// Exit statuses show scripts what went wrong.
func TestExitStatus(t *testing.T) {
	l := newLab(t, nil)
	good, broken := l.image("2.0.0", 2), l.image("3.0.0-broken", 2)
	for _, c := range []struct {
		name string
		want int
		cmd  *exec.Cmd
	}{
		{"software that is not healthy", exitDecision, l.upgrade("--image", broken)},
		{"nobody answers", exitNoAnswer, l.command("upgrade", loopback(), "--image", good, "--notifications", "none")},
		{"nothing to do it with", exitUsage, l.upgrade()},
		{"policy unknown", exitUsage, l.upgrade("--image", good, "--on-fail", "pray")},
		{"nobody to ask", exitUsage, l.upgrade("--image", good, "--on-fail", "ask")},
		{"no such image", exitUsage, l.upgrade("--image", good+"x")},
		{"nothing to resume", exitError, l.command("upgrade", l.address, "--resume", "--store", t.TempDir(), "--notifications", "none")},
		{"the same target twice", exitUsage, l.upgrade(l.address, "--image", good)},
		{"one of two", exitNoAnswer, l.upgrade(loopback(), "--image", good)},
	} {
		if out, status := l.run(c.cmd); status != c.want {
			t.Errorf("%s: exit status %d, want %d\n%s", c.name, status, c.want, out)
		}
	}
	if o := l.outcome(); o.Version != "2.0.0" {
		t.Errorf("%s runs", o.Version)
	}
}

// Several targets, one of which fails, in lines for programs.
func TestSeveralAsJSON(t *testing.T) {
	l := newLab(t, nil)
	other := newLab(t, func(c *sim.Config) { c.ID = "TEST-0002" }) // trusts another maker
	targets := filepath.Join(l.dir, "targets")
	if err := os.WriteFile(targets, []byte("# all of them\n"+other.address+" # not ours\n\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := l.upgrade("--image", l.image("2.0.0", 2), "--targets", targets)
	out, err := cmd.Output()
	if cmd.ProcessState.ExitCode() != exitFailed {
		t.Errorf("%v\n%s", err, out)
	}
	results := make(map[string]bool)
	var last map[string]any
	for line := range bytes.Lines(out) {
		var l report.Line
		if err := json.Unmarshal(line, &l); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if l.Kind == "result" {
			results[l.Target] = l.Result.OK
		}
		last = nil
		if err := json.Unmarshal(line, &last); err != nil {
			t.Fatal(err)
		}
	}
	if !results[l.address] || results[other.address] || len(results) != 2 {
		t.Errorf("results: %v", results)
	}
	if last["kind"] != "summary" || last["ok"] != 1.0 || last["failed"] != 1.0 {
		t.Errorf("summary: %v", last)
	}
}
