package main

import (
	"bufio"
	"encoding/json"
	"io"
	"os"
	"strings"
	"testing"
)

// plainly is a command line for people.
func (l *lab) plainly(args ...string) (output string, status int) {
	l.t.Helper()
	return l.run(l.command(args...))
}

// Commands that find nothing to do say so, to people and to programs.
func TestNothingToDo(t *testing.T) {
	l := newLab(t, nil)
	for _, c := range []struct{ command, text string }{
		{"abort", "nothing to stop: no operation is going on"},
		{"confirm", "nothing to accept: no software is on trial"},
	} {
		out, status := l.plainly(c.command, l.address)
		if status != exitOK || out != "OK: TEST-0001: "+c.text+"\n" {
			t.Errorf("%s: exit status %d\n%s", c.command, status, out)
		}
		out, status = l.plainly(c.command, l.address, "--json")
		var r commandReport
		if err := json.Unmarshal([]byte(out), &r); err != nil || status != exitOK || !r.Unchanged || r.Device != "TEST-0001" || r.Text != c.text {
			t.Errorf("%s --json: exit status %d, %v\n%s", c.command, status, err, out)
		}
	}
	if out, status := l.run(l.upgrade("--image", l.image("2.0.0", 2))); status != exitOK {
		t.Fatalf("exit status %d\n%s", status, out)
	}
	for _, want := range []string{"OK: TEST-0001 went back 2.0.0 -> 1.0.0", "OK: nothing to do: TEST-0001 runs the software to fall back on, 1.0.0, already"} {
		if out, status := l.plainly("rollback", l.address, "--notifications", l.traps); status != exitOK || !strings.Contains(out, want) {
			t.Errorf("exit status %d, want %q in\n%s", status, want, out)
		}
	}
}

// An upgrade that is interrupted says what the device goes on with, and what to do;
// one that came to its own end is no interrupted one.
func TestInterrupted(t *testing.T) {
	l := newLab(t, nil)
	image := l.image("2.0.0", 2)
	const told = "was interrupted at its stage"
	cmd := l.command("upgrade", l.address, "--listen", "127.0.0.1", "--notifications", l.traps, "--poll", "100ms", "--bandwidth", "20k", "--yes", "--image", image)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var printed strings.Builder
	for s := bufio.NewScanner(io.TeeReader(out, &printed)); s.Scan(); {
		if strings.HasPrefix(s.Text(), "140 follow operation") {
			if err := cmd.Process.Signal(os.Interrupt); err != nil {
				t.Fatal(err)
			}
		}
	}
	_ = cmd.Wait()
	for _, want := range []string{
		"INTERRUPTED: TEST-0001 runs 1.0.0", "it goes on with operation 2 (downloadSoftware); to stop that: iadms abort " + l.address,
		"to go on from here: iadms upgrade --resume " + l.address,
	} {
		if !strings.Contains(printed.String(), want) {
			t.Errorf("not said: %q in\n%s", want, printed.String())
		}
	}
	if status := cmd.ProcessState.ExitCode(); status != exitInterrupted || !strings.HasSuffix(stderr.String(), "iadms: interrupted\n") {
		t.Errorf("exit status %d\n%s", status, stderr.String())
	}
	if out, status := l.plainly("abort", l.address); status != exitOK || !strings.Contains(out, `operation 2 (downloadSoftware of "tester") is stopped`) {
		t.Errorf("abort: exit status %d\n%s", status, out)
	}
	// A check is no upgrade, and changes nothing of what can be resumed.
	if out, status := l.run(l.upgrade("--image", image, "--check")); status != exitOK || strings.Contains(out, told) {
		t.Errorf("check: exit status %d\n%s", status, out)
	}
	if out, status := l.run(l.upgrade("--image", l.image("3.0.0-broken", 2), "--on-fail", "give-up")); status != exitFailed || !strings.Contains(out, told) {
		t.Errorf("exit status %d\n%s", status, out)
	}
	if out, status := l.run(l.upgrade("--image", image)); status != exitOK || strings.Contains(out, told) {
		t.Errorf("exit status %d\n%s", status, out)
	}
}

// A device whose configuration data could not be given back runs on defaults: that is
// said, with the way out of it.
func TestOnDefaults(t *testing.T) {
	l := newLab(t, noConversion)
	out, status := l.run(l.command("upgrade", l.address, "--listen", "127.0.0.1", "--notifications", l.traps, "--poll", "100ms",
		"--yes", "--on-fail", "give-up", "--image", l.image("2.0.0", 2)))
	for _, want := range []string{
		"FAILED: TEST-0001 runs 2.0.0 on its defaults (before: 1.0.0)", "its configuration data are not in force; the backup is in backup/TEST-0001/",
		"to give them back: iadms recover " + l.address + " --from ", "to go back to 1.0.0 with its data: iadms rollback " + l.address,
	} {
		if status != exitFailed || !strings.Contains(out, want) {
			t.Errorf("exit status %d, not said: %q in\n%s", status, want, out)
		}
	}
	if out, _ := l.plainly("status", l.address); !strings.Contains(out, "defaults of the software: no configuration data of an operator's are in force") {
		t.Errorf("status:\n%s", out)
	}
}

// What is wrong with a command line is said before anybody is asked.
func TestMalformedValues(t *testing.T) {
	l := newLab(t, nil)
	image, nobody := l.image("2.0.0", 2), loopback()
	for _, c := range [][]string{
		{"--time-limit", "update=5s"}, {"--time-limit", "lunch=1h"}, {"--device-retries", "11"}, {"--retries", "-1"}, {"--parallel", "0"},
		{"--poll", "-1s"}, {"--owner", strings.Repeat("a", 33)}, {"--notifications", "here"}, {"--listen", "a:b:c"}, {"--advertise", "a b"},
		{"--progress-step", "101"}, {"--progress-interval", "2h"}, {"--server", "http://192.0.2.1/"}, {"--protocol", "scp"},
		{"--bandwidth", "much"}, {"--passive-ports", "9-8"}, {"--root-oid", "1.x"}, {"--check", "--resume"}, {"--edit", "--convert-with", "true"},
	} {
		if out, status := l.plainly(append([]string{"upgrade", nobody, "--image", image, "--yes"}, c...)...); status != exitUsage {
			t.Errorf("%v: exit status %d, want %d\n%s", c, status, exitUsage, out)
		}
	}
	for _, c := range [][]string{{"--time-limit", "5s"}, {"--retries", "11"}, {"--notifications", "here"}, {"--protocol", "scp"}} {
		if out, status := l.plainly(append([]string{"backup", nobody}, c...)...); status != exitUsage {
			t.Errorf("%v: exit status %d, want %d\n%s", c, status, exitUsage, out)
		}
	}
}
