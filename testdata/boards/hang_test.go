package main

import (
	"flag"
	"strings"
	"testing"
)

var hang = flag.Bool("hang", false, "upgrade a board with a watchdog to a kernel that hangs")

// armWatchdog are U-Boot's commands that arm the watchdog i6300esb, the only device on the bus: no interrupt in between,
// two periods of 20 s (registers 0 and 4, unlocked by two writes each), and go.
const armWatchdog = "pci enum; pci write.w 0.1.0 60 3; " +
	"mw.b 1000000c 80; mw.b 1000000c 86; mw.l 10000000 4e20; " +
	"mw.b 1000000c 80; mw.b 1000000c 86; mw.l 10000004 4e20; " +
	"pci write.b 0.1.0 68 2; "

// TestHang upgrades a board to a kernel that does nothing. The watchdog, which U-Boot arms, resets it. Then the agent
// hangs, and the watchdog that it has opened resets the board.
func TestHang(t *testing.T) {
	if !*hang {
		t.Skip("takes 5 minutes: run it by make nightly, or with -args -hang")
	}
	x := newBench(t, t.TempDir(), arm)
	x.versions = []string{first, hangs}
	script, err := edit{old: "\nsetenv iad_start '", new: "\nsetenv iad_start '" + armWatchdog}.apply(x.script)
	if err != nil {
		t.Fatal(err)
	}
	x.script = script
	x.make()
	x.on("hang", options{qemu: []string{"-device", "i6300esb", "-action", "watchdog=reset"}})
	x.see(`the loader's watchdog is stopped`)
	x.see(`msg=ready`)
	done := timed(t, "upgrade to "+hangs+", whose kernel hangs")
	if out := x.upgrade(hangs, givenUp); !strings.Contains(out, "did not start") {
		t.Errorf("iadms does not say that the software did not start: %s", out)
	}
	for range 3 {
		x.see(`iad: starting bank 2 \(next\)`)
	}
	x.see(`iad: starting bank 1 \(tries\)`)
	x.runs(first)
	done()

	done = timed(t, "the agent hangs")
	x.see(`msg=ready`)
	x.types("kill -STOP $(pidof iad)")
	x.see(`iad: starting bank 1 \(next\)`)
	x.see(`msg=ready`)
	x.runs(first)
	done()
}
