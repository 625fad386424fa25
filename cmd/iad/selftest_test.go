package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"aead.dev/minisign"

	"example.com/iad/agent/settings"
	"example.com/iad/bank/image"
	"example.com/iad/internal/cli"
)

// Somebody at the device can run the self-test of a bank and see all of its output.
func TestSelfTestByHand(t *testing.T) {
	const script = "#!/bin/sh\necho \"version $IAD_VERSION of $IAD_BANK\"\necho \"card 2 missing\" >&2\nexit ${IAD_BANK##*bank1*}1\n"
	root := filepath.Join(t.TempDir(), "root")
	makeDeviceWithSelfTest(t, root, script)
	for _, c := range []struct {
		bank string
		exit int
		says []string
	}{
		{"1", cli.ExitFailed, []string{"version 1.0.0 of " + filepath.Join(root, "bank1"), "card 2 missing", "bank 1, version 1.0.0: the self-test fails"}},
		{"2", cli.ExitFailed, []string{"bank 2: "}},
		{"3", cli.ExitUsage, []string{"use 1 or 2"}},
	} {
		cmd := command("selftest", "--root", root, "--bank", c.bank)
		out, _ := cmd.CombinedOutput()
		if got := cmd.ProcessState.ExitCode(); got != c.exit {
			t.Errorf("bank %s: exit status %d, want %d", c.bank, got, c.exit)
		}
		for _, want := range c.says {
			if !strings.Contains(string(out), want) {
				t.Errorf("bank %s: does not say %q:\n%s", c.bank, want, out)
			}
		}
	}
	if _, err := os.Stat(filepath.Join(root, "state", "selftest.log")); err == nil {
		t.Error("a self-test by hand took the place of the device's own")
	}
}

// makeDeviceWithSelfTest makes a device whose software is nothing but its self-test.
func makeDeviceWithSelfTest(t *testing.T, root, script string) {
	t.Helper()
	pub, key, err := minisign.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	text, err := pub.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	var img bytes.Buffer
	err = image.Build(&img, image.Manifest{Version: "1.0.0", Hardware: []string{"H"}, ConfigFormat: 1, SelfTest: "test"},
		[]image.PayloadFile{{Name: "test", Mode: 0o755, Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(script)), nil }}}, key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	trust, file := filepath.Join(dir, "maker.pub"), filepath.Join(dir, "fw.iad")
	for name, data := range map[string][]byte{trust: text, file: img.Bytes()} {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := command("init", "--root", root, "--image", file, "--trust", trust, "--hardware", "H", "--device-id", "X",
		"--write-community", "private").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// Commands work in a self-test, whose own variables have the names of flags.
func TestCommandsInSelfTest(t *testing.T) {
	path, err := filepath.Abs(program)
	if err != nil {
		t.Fatal(err)
	}
	own := asCommand + "=1 " + path
	elsewhere := filepath.Join(t.TempDir(), "elsewhere.toml")
	root := filepath.Join(t.TempDir(), "root")
	makeDeviceWithSelfTest(t, root, "#!/bin/sh\n"+
		own+" status --root "+root+" || exit 1\n"+
		own+" selftest --root "+root+"; echo \"without --bank: $?\"\n"+
		own+" selftest --root "+root+" --bank 2\n"+
		own+" --version\n"+
		"IAD_SETTINGS="+elsewhere+" "+own+" status --root "+root+"\n"+
		"echo \"$IAD_VERSION $IAD_CONFIG\"\n")
	out, err := command("selftest", "--root", root, "--bank", "1").CombinedOutput()
	if err != nil {
		t.Errorf("%v: %s", err, out)
	}
	for _, want := range []string{
		"Device X, never started", "--bank is required", "without --bank: 2", "bank 2: ", elsewhere, "1.0.0 none",
	} {
		if !strings.Contains(string(out), want) {
			t.Errorf("does not say %q:\n%s", want, out)
		}
	}
	for _, wrong := range []string{"invalid", "none: "} {
		if strings.Contains(string(out), wrong) {
			t.Errorf("%q in\n%s", wrong, out)
		}
	}
}

// Elsewhere both names of the variable stand for --config, and the flag wins.
func TestSettingsFromEnvironment(t *testing.T) {
	root := filepath.Join(t.TempDir(), "root")
	makeDeviceWithSelfTest(t, root, "#!/bin/sh\n")
	settings, missing := filepath.Join(root, settings.Name), filepath.Join(t.TempDir(), "missing.toml")
	for _, c := range []struct {
		env  []string
		args []string
		ok   bool
	}{
		{[]string{"IAD_SETTINGS=" + missing}, nil, false},
		{[]string{"IAD_CONFIG=" + missing}, nil, false},
		{[]string{"IAD_CONFIG=" + missing, "IAD_SETTINGS=" + settings}, nil, true},
		{[]string{"IAD_SETTINGS=" + missing}, []string{"--config", settings}, true},
		{[]string{"IAD_BANK=2", "IAD_VERSION=1", "IAD_CONFIG=none"}, nil, true},
	} {
		cmd := command(append([]string{"status", "--root", root}, c.args...)...)
		cmd.Env = append(cmd.Env, c.env...)
		if out, err := cmd.CombinedOutput(); (err == nil) != c.ok || !c.ok && !strings.Contains(string(out), missing) {
			t.Errorf("%v %v: %v: %s", c.env, c.args, err, out)
		}
	}
}
