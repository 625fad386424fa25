package main

import (
	"flag"
	"regexp"
	"strconv"
	"testing"
)

var small = flag.Bool("small", false, "upgrade a board with 31 MB of memory by an image of 64 MiB")

const (
	// download is what the image of good has at least, and mostPeak the most resident memory, in kB, that the agent may
	// need for it.
	download = 64 * mebibyte
	mostPeak = 14 << 10
)

// TestSmall upgrades a board with little memory and the usual overcommit.
func TestSmall(t *testing.T) {
	if !*small {
		t.Skip("takes 4 minutes: run it by make board-memory, or with -args -small")
	}
	x := newBench(t, t.TempDir(), arm)
	x.versions, x.ballast, x.bankSize = []string{first, good}, download, 96
	script, err := edit{old: "setenv iad_args '", new: "setenv iad_args 'mem=48M "}.apply(x.script)
	if err != nil {
		t.Fatal(err)
	}
	x.script = script
	x.make()
	x.on("small", options{})
	x.see(`msg=ready`)
	x.types(`echo "tot"al $(grep MemTotal /proc/meminfo) overcommit $(cat /proc/sys/vm/overcommit_memory)`)
	total := x.see(`total MemTotal: *(\d+) kB overcommit (\d)`)
	if kb, _ := strconv.Atoi(total[1]); kb > 32<<10 || total[2] != "0" {
		t.Errorf("the board has %s kB of memory, and vm.overcommit_memory is %s", total[1], total[2])
	}
	x.peak("ARM, "+total[1]+" kB of memory in all", func() { x.upgrade(good, 0) })
	x.runs(good)
	x.memory()
}

// peak measures how much memory the agent needs while f works.
func (x *bench) peak(what string, f func()) {
	x.Helper()
	x.types(`while :; do echo "pe"ak $(grep -h VmHWM /proc/$(pidof iad)/status); sleep 1; done &`)
	f()
	most := 0
	for _, found := range regexp.MustCompile(`peak VmHWM: *(\d+) kB`).FindAllStringSubmatch(x.console.String(), -1) {
		kb, err := strconv.Atoi(found[1])
		if err != nil {
			x.Fatal(err)
		}
		most = max(most, kb)
	}
	x.Logf("%s: iad has needed at most %d kB during a download of %d MiB", what, most, (x.ballast+mebibyte-1)/mebibyte)
	if most == 0 || most > mostPeak {
		x.Errorf("want at most %d kB", mostPeak)
	}
}
