package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"example.com/iad/bank"
	"example.com/iad/internal/peers"
)

// bootLimit is how long a start may take, and upgradeLimit an upgrade with all its starts. On an idle machine it is a
// fraction of that.
const (
	bootLimit    = 10 * time.Minute
	upgradeLimit = 20 * time.Minute
)

var (
	keep     = flag.String("dir", "", "directory of the board that is kept (default: one that is removed)")
	recorded = flag.Bool("recorded", false, "do not run the board: check power cuts of what the one in -dir has written")
)

// Files of a test: the disk at the start, and the log of what was written then.
const (
	before = "before.img"
	writes = "writes.log"
)

// givenUp is the exit status of iadms if the device went back to the old software.
const givenUp = 9

// A bench is a board on which a test works.
type bench struct {
	*testing.T
	*build
	*machine
	network
	port int // of the host, which leads to the board
}

// TestBoard upgrades a board to good software, then to software that must be given up, while every write of its disk is
// logged; then it checks disks as power cuts could have left them.
func TestBoard(t *testing.T) {
	x := newBench(t, directory(t), arm)
	if !*recorded {
		x.record()
	}
	done := timed(t, "power cuts")
	x.checkCuts()
	done()
	done = timed(t, "power cuts with planted errors in the boot script")
	x.checkScripts()
	done()
}

// directory is where the board of a test is made.
func directory(t *testing.T) string {
	if *keep != "" {
		return *keep
	}
	return t.TempDir()
}

// newBench is a bench with nothing on it, in a directory.
func newBench(t *testing.T, dir string, k *kind) *bench {
	t.Helper()
	b, err := newBuild(dir, k)
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	port := freePort(t)
	return &bench{T: t, build: b, port: port, network: userNetwork(port)}
}

// make makes the board, and keeps a copy of its disk.
func (x *bench) make() {
	x.Helper()
	done := timed(x.T, "programs, images and disk")
	if err := x.all(x.Context()); err != nil {
		x.Fatal(err)
	}
	done()
	if err := x.run(x.Context(), "cp", x.disk(), x.path(before)); err != nil {
		x.Fatal(err)
	}
}

// record makes the board, and lets it work while what it writes is logged.
func (x *bench) record() {
	x.Helper()
	x.make()
	done := timed(x.T, "start")
	x.on("upgrades", options{writes: x.path(writes)})
	x.see(`msg=ready`)
	done()

	done = timed(x.T, "upgrade to "+good)
	x.upgrade(good, 0)
	x.runs(good)
	done()
	x.memory()

	if !testing.Short() {
		done = timed(x.T, "upgrade to "+badTest+", whose self-test fails")
		x.failsSelfTest()
		done()
	}

	done = timed(x.T, "upgrade to "+badKernel+", whose kernel panics")
	if out := x.upgrade(badKernel, givenUp); !strings.Contains(out, "did not start") {
		x.Errorf("iadms does not say that the software did not start: %s", out)
	}
	x.runs(good)
	done()
	x.memory()
	if err := x.off(); err != nil {
		x.Fatal(err)
	}

	if !testing.Short() {
		done = timed(x.T, "start with both copies of the choice lost")
		// The boot script starts bank 1 once, where the kernel is that panics.
		x.losesCopies("lost", `iad: starting bank 2 \(tries\)`)
		done()
		done = timed(x.T, "the same with a bank that is half written")
		x.cutDownload(1)
		x.losesCopies("half-written", `iad: starting bank 2 \((load|tries)\)`)
		done()
	}
}

// cutDownload makes the disk as it was in the middle of the last download into a bank when the power failed.
func (x *bench) cutDownload(n int) {
	x.Helper()
	c, err := newCampaign(x.Context(), x.build, x.script)
	if err != nil {
		x.Fatal(err)
	}
	begin := x.at(fmt.Sprintf("bank%d", n))
	var writes []int
	for i, w := range c.replay.log {
		if w.offset >= begin && w.offset < begin+x.bankSize*mebibyte {
			writes = append(writes, i)
		}
	}
	// How the writes spread over the downloads depends on how busy the machine is.
	const looks = 64
	var last, incomplete []int
	for i := range looks {
		at := writes[len(writes)*i/looks]
		p, err := c.bank(c.replay.cut(at+1, x.random()), n)
		switch {
		case err != nil:
			x.Fatal(err)
		case p.kernel == "":
			incomplete = append(incomplete, at)
		case len(incomplete) > 0:
			last, incomplete = incomplete, nil
		}
	}
	if len(incomplete) > 0 {
		last = incomplete
	}
	if len(last) == 0 {
		x.Fatalf("bank %d was never incomplete", n)
	}
	x.cutBehind(c, last[len(last)/2])
}

func (x *bench) random() *rand.Rand { return rand.New(rand.NewPCG(*seed, 3)) }

// cutBehind makes the disk as it was when an entry of the log had just been written, and the power failed.
func (x *bench) cutBehind(c *campaign, entry int) {
	x.Helper()
	if err := os.WriteFile(x.disk(), c.replay.cut(entry+1, x.random()), 0o644); err != nil {
		x.Fatal(err)
	}
}

// losesCopies starts the board without any choice of the bank. What the boot script prints says how it found the good one.
func (x *bench) losesCopies(console, found string) {
	x.Helper()
	loader := loaderOf(x.disk())
	for _, c := range loader.Environment.Copies {
		if err := c.Write(make([]byte, copySize)); err != nil {
			x.Fatal(err)
		}
	}
	x.on(console, options{})
	x.see(`iad: starting bank 1 \(lost\)`)
	x.see(found)
	x.see(`msg=ready`)
	x.runs(good)
	if err := x.off(); err != nil {
		x.Fatal(err)
	}
	if s, err := loader.Load(); err != nil || s.Next != 2 || s.Left != bank.Uncounted {
		x.Errorf("the agent has left the boot loader with %+v, %v", s, err)
	}
}

// timed says in the test's log how long something took.
func timed(t *testing.T, what string) (done func()) {
	begun := time.Now()
	return func() { t.Logf("%-50s %6.1f s", what, time.Since(begun).Seconds()) }
}

func freePort(t *testing.T) int {
	port, err := peers.FreePort("udp")
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// on starts the board, and keeps what it prints in a file.
func (x *bench) on(name string, o options) {
	x.Helper()
	m, err := start(x.Context(), x.build, x.port, o)
	if err != nil {
		x.Fatal(err)
	}
	x.machine = m
	x.Cleanup(func() {
		m.off()
		if x.Failed() {
			x.Logf("the board's console (%s):\n%s", name, m.console)
		}
		if err := os.WriteFile(x.path(name+".console"), []byte(m.console.String()), 0o644); err != nil {
			x.Error(err)
		}
	})
}

// see waits for what the board prints.
func (x *bench) see(pattern string) []string {
	x.Helper()
	ctx, cancel := context.WithTimeout(x.Context(), bootLimit)
	defer cancel()
	found, err := x.expect(ctx, pattern)
	if err != nil {
		x.Fatal(err)
	}
	return found
}

// iadms runs iadms and returns what it printed and its exit status.
func (x *bench) iadms(args ...string) (string, int) {
	x.Helper()
	ctx, cancel := context.WithTimeout(x.Context(), upgradeLimit)
	defer cancel()
	cmd := x.iadmsCommand(ctx, args...)
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil || cmd.ProcessState == nil {
		x.Fatalf("iadms %v: %v, %v: %s", args, err, ctx.Err(), out)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// upgrade upgrades the board, and checks the exit status of iadms.
func (x *bench) upgrade(version string, status int) string {
	x.Helper()
	out, got := x.iadms(append(x.upgradeArgs(x.network, version), "--yes")...)
	if got != status {
		x.Fatalf("iadms upgrade to %s ended with %d, want %d: %s", version, got, status, out)
	}
	return out
}

// failsSelfTest upgrades the board to software whose self-test fails.
func (x *bench) failsSelfTest() {
	x.Helper()
	if out := x.upgrade(badTest, givenUp); !strings.Contains(out, "no dial tone") {
		x.Errorf("iadms does not say what the self-test printed: %s", out)
	}
	x.runs(good)
}

// runs checks which software runs.
func (x *bench) runs(version string) {
	x.Helper()
	out, code := x.iadms("status", x.board, "--json")
	var status struct {
		Version string `json:"software_version"`
	}
	if err := json.Unmarshal([]byte(out), &status); err != nil || code != 0 || status.Version != version {
		x.Fatalf("iadms status ended with %d, %v; want version %s: %s", code, err, version, out)
	}
}

// memory returns how much memory the agent has needed at most since it started, in kB.
func (x *bench) memory() string {
	x.Helper()
	// The echo of the command must not be taken for its output.
	x.types("echo \"need\"ed $(grep -h VmHWM /proc/$(pidof iad agent)/status) $(grep MemAvailable /proc/meminfo)")
	found := x.see(`needed VmHWM: *(\d+) kB MemAvailable: *(\d+) kB`)
	x.Logf("iad has needed at most %s kB; %s kB are available", found[1], found[2])
	return found[1]
}

// types types a line at the board's console.
func (x *bench) types(line string) {
	x.Helper()
	if _, err := x.in.Write([]byte(line + "\n")); err != nil {
		x.Fatal(err)
	}
}
