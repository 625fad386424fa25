package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"aead.dev/minisign"

	"example.com/iad/bank"
)

// Somebody at the device can run the self-test of a bank and see all of its output.
func TestSelfTestByHand(t *testing.T) {
	pub, key, err := minisign.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	text, err := pub.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	var image bytes.Buffer
	const script = "#!/bin/sh\necho \"version $IAD_VERSION of $IAD_BANK\"\necho \"card 2 missing\" >&2\nexit ${IAD_BANK##*bank1*}1\n"
	err = bank.Build(&image, bank.Manifest{Version: "1.0.0", Hardware: []string{"H"}, ConfigFormat: 1, SelfTest: "test"},
		[]bank.PayloadFile{{Name: "test", Mode: 0o755, Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(script)), nil }}}, key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	root, trust, file := filepath.Join(dir, "root"), filepath.Join(dir, "maker.pub"), filepath.Join(dir, "fw.iad")
	for name, data := range map[string][]byte{trust: text, file: image.Bytes()} {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := command("init", "--root", root, "--image", file, "--trust", trust, "--hardware", "H", "--device-id", "X",
		"--write-community", "private").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, c := range []struct {
		bank string
		exit int
		says []string
	}{
		{"1", exitFailed, []string{"version 1.0.0 of " + filepath.Join(root, "bank1"), "card 2 missing", "bank 1, version 1.0.0: the self-test fails"}},
		{"2", exitFailed, []string{"bank 2: "}},
		{"3", exitUsage, []string{"use 1 or 2"}},
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
