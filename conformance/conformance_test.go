package conformance_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"aead.dev/minisign"

	"github.com/google/go-cmp/cmp"

	"example.com/iad/agent/config"
	"example.com/iad/agent/snmp"
	"example.com/iad/bank/image"
	"example.com/iad/conformance"
	"example.com/iad/internal/iadtest"
	"example.com/iad/manager/device"
	"example.com/iad/sim"
)

// loopback is an address of this machine that no other test uses.
func loopback(port int) string {
	return fmt.Sprintf("127.%d.%d.%d:%d", 1+rand.N(250), rand.N(250), 1+rand.N(250), port)
}

// bench is a simulated device and the configuration for judging it.
type bench struct {
	cfg    conformance.Config
	device *sim.Device
}

// simulated starts a device with software 1.0.0 and configuration data.
func simulated(t *testing.T, change func(*sim.Config)) *bench {
	t.Helper()
	set := config.Set{}
	for _, k := range config.Kinds() {
		set[k] = config.WithHeader(k, 1, fmt.Appendf(nil, "name = %s of the lab\n", k))
	}
	return simulatedWith(t, set, change)
}

// simulatedWith starts a device with software 1.0.0 and these configuration data.
func simulatedWith(t *testing.T, set config.Set, change func(*sim.Config)) *bench {
	t.Helper()
	public, private, err := minisign.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	sink := loopback(10162)
	cfg := sim.Config{
		ID: "LAB-0001", Model: "IAD-4FXS", Hardware: "IAD-4FXS", Trust: image.TrustKeys(public), Disk: sim.Memory(),
		BankSize: 2 << 20, PlainPasswords: true, Grace: 200 * time.Millisecond, Listen: loopback(10161),
		SNMP: &snmp.Config{
			Communities: []snmp.Community{{Name: "public"}, {Name: "private", Write: true}},
			Sinks:       []snmp.Sink{{Address: sink, Community: "public"}},
		},
	}
	if change != nil {
		change(&cfg)
	}
	d := sim.New(cfg)
	img := iadtest.BuildImage(t, private, image.Manifest{Version: "1.0.0", Hardware: []string{"IAD-4FXS"}, ConfigFormat: 1})
	if err := d.Provision(bytes.NewReader(img), set); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("device: %v", err)
		}
	})
	return &bench{device: d, cfg: conformance.Config{
		Target: device.Target{
			Address: d.Addr(ctx).String(), Credentials: device.Credentials{Read: "public", Write: "private"},
			Timeout: 300 * time.Millisecond, Retries: 3,
		},
		Listen: sink, Advertise: "127.0.0.1", Key: &private,
	}}
}

// judge runs tests on a device.
func judge(t *testing.T, cfg conformance.Config) *conformance.Run {
	t.Helper()
	cfg.Progress = func(_ *conformance.Test, r *conformance.TestResult) {
		if r != nil {
			t.Logf("%-7s %5.1f s  %s", r.Verdict, r.Seconds, r.Name)
		}
	}
	run, err := conformance.Execute(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if run.Problem != "" {
		t.Errorf("the run ended early: %s", run.Problem)
	}
	return run
}

// failures shows what failed.
func failures(run *conformance.Run) string {
	var b strings.Builder
	for _, r := range run.Tests {
		for _, f := range r.Failures {
			fmt.Fprintf(&b, "%s: %s: %s\n", r.Name, f.Requirement, f.Text)
		}
		if len(r.Failures) > 0 {
			for _, e := range r.Timeline {
				fmt.Fprintf(&b, "    %6.2f %-12s %s\n", e.At, e.Kind, e.Text)
			}
		}
	}
	return b.String()
}

// slow are tests that take ten seconds and more, most of which they wait.
var slow = []string{"confirm-window", "time-limit"}

// sampled returns all tests, but without IAD_LAB=full not the slow ones.
func sampled(full bool) (names []string) {
	for _, test := range conformance.Tests() {
		if full || !slices.Contains(slow, test.Name) {
			names = append(names, test.Name)
		}
	}
	return names
}

var fullLab = os.Getenv("IAD_LAB") == "full"

// TestSimulatedDevice judges a simulated device.
func TestSimulatedDevice(t *testing.T) {
	b := simulated(t, nil)
	b.cfg.Only = sampled(fullLab)
	run := judge(t, b.cfg)
	if run.Failed() > 0 {
		t.Errorf("%d tests failed:\n%s", run.Failed(), failures(run))
	}
}

// TestConsole: what the device prints is in the timeline of the test that runs.
func TestConsole(t *testing.T) {
	b := simulated(t, nil)
	b.cfg.Only = []string{"abort-nothing", "delay"}
	r, w := io.Pipe()
	defer w.Close()
	b.cfg.Console = r
	go func() { _, _ = io.WriteString(w, "U-Boot 2026.01\r\n\r\nready\x1b[0m\r\n") }()
	progress := 0
	b.cfg.Progress = func(*conformance.Test, *conformance.TestResult) { progress++ }
	run, err := conformance.Execute(t.Context(), b.cfg)
	if err != nil || progress != 4 {
		t.Fatalf("%v, %d calls of Progress", err, progress)
	}
	var lines []string
	for _, test := range run.Tests {
		for _, e := range test.Timeline {
			if e.Kind == conformance.EntryConsole {
				lines = append(lines, e.Text)
			}
		}
	}
	if !slices.Equal(lines, []string{"U-Boot 2026.01", "ready?[0m"}) {
		t.Errorf("%q", lines)
	}
}

// recording stands for a recording of packets: three between any two marks.
type recording struct {
	comments []string
	packets  int
}

func (r *recording) Mark(comment string) int {
	r.comments = append(r.comments, comment)
	r.packets += 3
	return r.packets
}

// TestPackets: tests are marked in a recording, and know which packets are theirs.
func TestPackets(t *testing.T) {
	b := simulated(t, nil)
	b.cfg.Only = []string{"abort-nothing", "no-such-instance"}
	var r recording
	b.cfg.Packets = &r
	run := judge(t, b.cfg)
	var got [][2]int
	for _, test := range run.Tests {
		got = append(got, *test.Packets)
	}
	if diff := cmp.Diff([][2]int{{4, 6}, {10, 12}}, got); diff != "" {
		t.Errorf("packets (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"test no-such-instance", "", "test abort-nothing", ""}, r.comments); diff != "" {
		t.Errorf("comments (-want +got):\n%s", diff)
	}
}
