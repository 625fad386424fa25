package main

import (
	"flag"
	"strings"
	"testing"
)

var onMIPS = flag.Bool("mips", false, "upgrade a MIPS board without a boot loader that knows the banks")

// TestMIPS upgrades a board whose kernel and agent are in neither bank: the agent chooses the bank, by its own record.
func TestMIPS(t *testing.T) {
	if !*onMIPS {
		t.Skip("takes 4 minutes: run it by make board-mips, or with -args -mips")
	}
	x := newBench(t, directory(t), mips)
	x.versions = []string{first, good, badTest}
	x.onBoard()
	// To good, to badTest and back.
	if n := strings.Count(x.console.String(), "init: software"); n != 4 {
		t.Errorf("the board has started %d times, want 4", n)
	}
	if err := x.off(); err != nil {
		t.Fatal(err)
	}
	// What the agent has chosen lasts.
	x.on("again", options{})
	x.see(`msg=boot .* bank=2 .* trial=false`)
	x.see(`msg=ready`)
	x.runs(good)
}
