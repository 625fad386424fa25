package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"example.com/iad/agent/config"
	"example.com/iad/agent/snmp"
	"example.com/iad/bank/image"
	"example.com/iad/conformance"
	"example.com/iad/internal/cli"
	"example.com/iad/internal/iadtest"
	"example.com/iad/sim"
)

// asCommand makes the test's own binary the iadlab command.
const asCommand = "IADLAB_TEST_AS_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		main()
	}
	os.Exit(m.Run())
}

func lab(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Env = append(os.Environ(), asCommand+"=1")
	return cmd
}

// ran runs iadlab, which has to end with a status, and returns what it printed.
func ran(t *testing.T, status int, args ...string) string {
	t.Helper()
	cmd := lab(t, args...)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if got := cmd.ProcessState.ExitCode(); got != status {
		t.Fatalf("iadlab %q: exit status %d, want %d:\n%s", args, got, status, out)
	}
	return string(out)
}

// simulator starts a device that sends notifications to sink, and returns its address and
// the file of a key that it trusts.
func simulator(t *testing.T, sink string) (address, keyFile string) {
	t.Helper()
	pub, priv, err := image.GenerateKey("")
	if err != nil {
		t.Fatal(err)
	}
	trusted, err := image.ReadPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	key, err := image.ReadPrivateKey(priv, "")
	if err != nil {
		t.Fatal(err)
	}
	keyFile = filepath.Join(t.TempDir(), "maker.key")
	if err := os.WriteFile(keyFile, priv, 0o600); err != nil {
		t.Fatal(err)
	}
	d := sim.New(sim.Config{
		ID: "SIM-00001", Model: "IAD-SIM", Hardware: "IAD-SIM", Trust: image.TrustKeys(trusted), Disk: sim.Memory(), Listen: "127.0.0.1:0",
		SNMP: &snmp.Config{
			Communities: []snmp.Community{{Name: "public"}, {Name: "private", Write: true}},
			Sinks:       []snmp.Sink{{Address: sink, Community: "public"}},
		},
	})
	software := iadtest.BuildImage(t, key, image.Manifest{Version: "1.0.0", Hardware: []string{"IAD-SIM"}, ConfigFormat: 1})
	set := config.Set{}
	for _, k := range config.Kinds() {
		set[k] = config.WithHeader(k, 1, []byte("name = test\n"))
	}
	if err := d.Provision(bytes.NewReader(software), set); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return d.Addr(ctx).String(), keyFile
}

// TestReports judges a simulated device with a few tests and writes every report; a
// second run with a test that cannot pass is worse.
func TestReports(t *testing.T) {
	sink := fmt.Sprintf("127.%d.%d.1:10162", 1+rand.N(250), rand.N(250))
	address, key := simulator(t, sink)
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	args := []string{"test", address, "--key", key, "--listen", sink, "--test", "backup", "--test", "lock"}
	root := os.Getuid() == 0 // may record packets
	if root {
		args = append(args, "--pcap", file("r.pcapng"))
	}
	out := ran(t, 0, append(args, "--report", file("r.html"), "--junit", file("r.xml"), "--json", file("a.json"))...)
	if !strings.Contains(out, "2 tests passed, 0 failed, 0 skipped") {
		t.Errorf("%s", out)
	}
	for _, name := range []string{"r.html", "r.xml"} {
		if data, err := os.ReadFile(file(name)); err != nil || !strings.Contains(string(data), "SIM-00001") {
			t.Errorf("%s: %v, %.300s", name, err, data)
		}
	}
	run, err := conformance.ReadFile(file("a.json"))
	if err != nil || run.Device.ID != "SIM-00001" || len(run.Tests) != 2 {
		t.Fatalf("%+v, %v", run, err)
	}
	if data, err := os.ReadFile(file("r.pcapng")); root && (err != nil || !bytes.Contains(data, []byte("test lock")) || run.PacketFile != file("r.pcapng") || run.Tests[0].Packets == nil) {
		t.Errorf("packets: %v, %d bytes, %q, %v", err, len(data), run.PacketFile, run.Tests[0].Packets)
	}
	if out := ran(t, 0, "diff", file("a.json"), file("a.json")); out != "no verdict differs\n" {
		t.Errorf("%s", out)
	}
	// A device that is worse.
	worse := *run
	worse.Tests = []*conformance.TestResult{{Name: "lock", Verdict: conformance.Failed, Failures: []conformance.Failure{{Requirement: "LOCK-WRONG", Text: "planted"}}}, run.Tests[1]}
	w, err := os.Create(file("b.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(worse.WriteJSON(w), w.Close()); err != nil {
		t.Fatal(err)
	}
	if out := ran(t, exitVerdict, "diff", file("a.json"), file("b.json")); !strings.Contains(out, "! test  lock  passed → failed") || !strings.Contains(out, "planted") {
		t.Errorf("%s", out)
	}
	if out := ran(t, 0, "diff", file("b.json"), file("a.json"), "--json"); !strings.Contains(out, `"after": "passed"`) {
		t.Errorf("%s", out)
	}
}

func TestMistakes(t *testing.T) {
	for _, x := range []struct {
		status int
		says   string
		args   []string
	}{
		{cli.ExitUsage, `unknown suite "all"`, []string{"test", "127.0.0.1:1", "--suite", "all"}},
		{cli.ExitUsage, "no test matches", []string{"test", "127.0.0.1:1", "--test", "nothing"}},
		{cli.ExitUsage, "no such file", []string{"test", "127.0.0.1:1", "--key", "missing.key"}},
		{cli.ExitUsage, "accepts 1 arg", []string{"test"}},
		{cli.ExitUsage, "not a report of iadlab test", []string{"diff", "testdata/empty.json", "testdata/empty.json"}},
		{cli.ExitUsage, "--power is required", []string{"powercut", "127.0.0.1:9"}},
		{cli.ExitUsage, "want iadsim:HOST:PORT/ID", []string{"powercut", "127.0.0.1:9", "--power", "iadsim:SIM-00001", "--image", "testdata/empty.json"}},
		{cli.ExitUsage, "--pcap would overwrite", []string{"powercut", "127.0.0.1:9", "--power", "exec:true", "--image", "testdata/empty.json", "--resume", "--pcap", "x"}},
		{cli.ExitUsage, `unknown driver "relay"`, []string{"powercut", "127.0.0.1:9", "--power", "relay:3", "--image", "testdata/empty.json"}},
		{cli.ExitUsage, "--resume needs the file", []string{"powercut", "127.0.0.1:9", "--power", "exec:true", "--image", "testdata/empty.json", "--resume"}},
		{cli.ExitFailed, "no answer", []string{"test", "127.0.0.1:9", "--timeout", "50ms"}},
	} {
		if out := ran(t, x.status, x.args...); !strings.Contains(out, x.says) {
			t.Errorf("%q: %s; want %q", x.args, out, x.says)
		}
	}
}

func TestList(t *testing.T) {
	if out := ran(t, 0, "list"); !strings.Contains(out, "repeated-request") {
		t.Error(out)
	}
	if out := ran(t, 0, "list", "--requirements"); !strings.Contains(out, "LOCK-INCREMENT") {
		t.Error(out)
	}
}

func TestCommandLineInCommon(t *testing.T) {
	iadtest.TestCommandLine(t, newRoot(), variable, nil, func(args ...string) *exec.Cmd {
		c := exec.Command(os.Args[0], args...)
		c.Env = append(os.Environ(), asCommand+"=1")
		return c
	})
}
