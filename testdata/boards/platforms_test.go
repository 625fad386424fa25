package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"example.com/iad/internal/peers"
)

var platforms = flag.Bool("platforms", false, "upgrade a board of every kind, and print a table")

// A result is what a platform has done.
type result struct {
	start, upgrade, back time.Duration
	peak                 string // of the agent's memory, in kB
}

// TestPlatforms runs the same upgrades on every platform: to good, then to badTest and back.
func TestPlatforms(t *testing.T) {
	if !*platforms {
		t.Skip("takes 8 minutes: run it by make platforms, or with -args -platforms")
	}
	table := &strings.Builder{}
	fmt.Fprintf(table, "| platform | start | upgrade to %s | back from %s | peak memory of iad |\n|---|---|---|---|---|\n", good, badTest)
	for _, p := range []struct {
		test, name string
		kind       *kind
	}{
		{"files", "ARM, U-Boot, files", arm},
		{"raw", "ARM, U-Boot, FIT image on a raw partition", armRaw},
		{"mips", "MIPS, no boot loader that knows the banks", mips},
		{"container", "container", container},
	} {
		t.Run(p.test, func(t *testing.T) {
			x := newBench(t, t.TempDir(), p.kind)
			x.versions = []string{first, good, badTest}
			var r result
			if p.kind == container {
				r = x.inContainer()
			} else {
				r = x.onBoard()
			}
			fmt.Fprintf(table, "| %s | %.0f s | %.0f s | %.0f s | %s kB |\n", p.name, r.start.Seconds(), r.upgrade.Seconds(), r.back.Seconds(), r.peak)
		})
	}
	t.Logf("\n%s", table)
}

// onBoard makes a board and upgrades it.
func (x *bench) onBoard() result {
	x.Helper()
	x.make()
	return x.upgrades(func() {
		x.on("platform", options{})
		x.see(`msg=ready`)
	}, x.memory)
}

// upgrades starts a board and upgrades it. memory is asked for the most memory that the agent has needed, in kB.
func (x *bench) upgrades(start func(), memory func() string) (r result) {
	x.Helper()
	took := func(f func()) time.Duration {
		begun := time.Now()
		f()
		return time.Since(begun)
	}
	r.start = took(start)
	x.runs(first)
	r.upgrade = took(func() { x.upgrade(good, 0) })
	x.runs(good)
	r.back = took(x.failsSelfTest)
	r.peak = memory()
	x.Logf("start %.1f s, upgrade %.1f s, back %.1f s, memory %s kB", r.start.Seconds(), r.upgrade.Seconds(), r.back.Seconds(), r.peak)
	return r
}

// inContainer makes a device in a container and upgrades it. Its agent is that of the container image; the software is made
// like that of a board.
func (x *bench) inContainer() result {
	x.Helper()
	dir := os.Getenv("IAD_IMAGES")
	images, err := filepath.Glob(filepath.Join(dir, "iad-*-amd64.tar"))
	if dir == "" || err != nil || len(images) != 1 {
		x.Fatalf("IAD_IMAGES=%s: %d container images of iad for amd64, want 1: run it by make platforms", dir, len(images))
	}
	peers.NeedRoot(x.T) // to give the device's directory to the user of the container
	_, image, ok := strings.Cut(x.docker("load", "--input", images[0]), "Loaded image: ")
	if !ok {
		x.Fatalf("docker load: %q", image)
	}
	if err := x.steps(x.Context(), x.programs, x.software, x.initDevice); err != nil {
		x.Fatal(err)
	}
	if err := x.run(x.Context(), "chown", "-R", "65532:65532", x.path("device")); err != nil {
		x.Fatal(err)
	}
	if err := os.Chmod(x.dir, 0o755); err != nil {
		x.Fatal(err)
	}
	var id string
	return x.upgrades(func() {
		id = x.docker("run", "--detach", "--read-only", "--cap-drop", "ALL", "--tmpfs", "/tmp", "--volume", x.path("device")+":/data/device", image)
		x.Cleanup(func() {
			if x.Failed() {
				x.Log(x.docker("logs", id))
			}
			x.docker("rm", "--force", id)
		})
		x.docker("exec", id, "/usr/bin/iad", "healthcheck", "--timeout", "1m")
		address := x.docker("inspect", "--format", "{{.NetworkSettings.IPAddress}} {{.NetworkSettings.Gateway}}", id)
		ip, gateway, _ := strings.Cut(address, " ")
		x.network = network{board: ip + ":1161", listen: gateway, host: gateway}
	}, func() string {
		status := x.docker("exec", id, "cat", "/proc/1/status")
		found := regexp.MustCompile(`VmHWM:\s*(\d+) kB`).FindStringSubmatch(status)
		if found == nil {
			x.Fatalf("/proc/1/status: %s", status)
		}
		return found[1]
	})
}

// docker runs a command of Docker, and returns what it printed.
func (x *bench) docker(args ...string) string {
	x.Helper()
	// Not bound to the test's context, which ends before what cleans up.
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "docker", args...).CombinedOutput()
	if err != nil {
		x.Fatalf("docker %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}
