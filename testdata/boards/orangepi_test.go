package main

import (
	"flag"
	"strings"
	"testing"
)

var onOrangePi = flag.Bool("orangepi", false, "upgrade an Orange Pi that starts from an SD card")

// TestOrangePi upgrades a board that exists outside QEMU too: the processor's ROM reads U-Boot from the SD card, U-Boot finds no
// choice of the bank there, the kernel has the drivers of the board, and each restart is a reset by the processor's watchdog.
func TestOrangePi(t *testing.T) {
	if !*onOrangePi {
		t.Skip("takes 10 minutes: run it by make board-orangepi, or with -args -orangepi")
	}
	x := newBench(t, directory(t), orangePi)
	x.versions = []string{first, good, badTest}
	x.make()
	x.upgrades(func() {
		x.on("orangepi", options{})
		x.see(`iad: starting bank 1 \(lost\)`)
		x.see(`msg=ready`)
	}, x.memory)
	// To good, to badTest and back.
	if n := strings.Count(x.console.String(), "iad: starting bank"); n != 4 {
		t.Errorf("U-Boot has started the board %d times, want 4", n)
	}
}
