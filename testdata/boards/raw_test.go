package main

import (
	"bytes"
	"flag"
	"os"
	"slices"
	"testing"
)

var raw = flag.Bool("raw", false, "upgrade a board whose kernels are FIT images on raw partitions")

// TestRaw upgrades a board whose banks have raw partitions, from which U-Boot starts FIT images. It damages one of them,
// cuts the power while one is written, and checks disks as power cuts could have left them.
func TestRaw(t *testing.T) {
	if !*raw {
		t.Skip("takes 4 minutes: run it by make board-raw, or with -args -raw")
	}
	x := newBench(t, directory(t), armRaw)
	if !*recorded {
		x.recordRaw()
	}
	done := timed(t, "power cuts")
	x.checkCuts()
	done()
}

// recordRaw makes the board, and lets it work while what it writes is logged. Then it damages FIT images.
func (x *bench) recordRaw() {
	x.Helper()
	x.make()
	done := timed(x.T, "start")
	x.on("raw", options{writes: x.path(writes)})
	x.see(`sha256\+ OK`) // of the kernel
	x.see(`sha256\+ OK`) // of the first file system
	x.see(`msg=ready`)
	done()
	done = timed(x.T, "upgrade to "+good)
	x.upgrade(good, 0)
	x.runs(good)
	done()
	x.memory()
	if err := x.off(); err != nil {
		x.Fatal(err)
	}

	// The first block is whole, so that U-Boot finds a FIT image.
	done = timed(x.T, "start with a damaged FIT image, and repair")
	x.damage("raw2", x.fitSize(good)/2, 64<<10)
	x.on("damaged", options{})
	x.see(`iad: starting bank 2 \(next\)`)
	x.see(`Bad hash value`)
	x.see(`iad: starting bank 1 \(load\)`)
	x.see(`msg=ready`)
	x.runs(first)
	x.upgrade(good, 0)
	x.runs(good)
	done()
	done = timed(x.T, "upgrade to "+badKernel+", whose kernel panics")
	x.upgrade(badKernel, givenUp)
	x.runs(good)
	done()
	if err := x.off(); err != nil {
		x.Fatal(err)
	}

	done = timed(x.T, "power cut in the middle of a FIT image, and another upgrade")
	x.cutWithin("raw2", x.fitSize(good)/2)
	x.on("cut", options{})
	x.see(`iad: starting bank 1 \(next\)`)
	x.see(`msg=ready`)
	x.runs(first)
	x.upgrade(good, 0)
	x.runs(good)
	if err := x.off(); err != nil {
		x.Fatal(err)
	}
	done()
}

// fitSize is the size of a FIT image in bytes.
func (x *bench) fitSize(version string) int64 {
	x.Helper()
	info, err := os.Stat(x.path("software", version, fit))
	if err != nil {
		x.Fatal(err)
	}
	return info.Size()
}

// cutWithin makes the disk as it was when the place in a partition had just been written, and the power failed.
func (x *bench) cutWithin(name string, place int64) {
	x.Helper()
	c, err := newCampaign(x.Context(), x.build, x.script)
	if err != nil {
		x.Fatal(err)
	}
	place += x.at(name)
	i := slices.IndexFunc(c.replay.log, func(w write) bool {
		return w.offset <= place && place < w.offset+int64(len(w.data))
	})
	if i < 0 {
		x.Fatalf("nothing was written at %#x", place)
	}
	x.cutBehind(c, i)
}

// at is where a partition begins on the disk, in bytes.
func (b *build) at(name string) int64 {
	all := b.partitions()
	return all[slices.IndexFunc(all, func(p partition) bool { return p.name == name })].at * mebibyte
}

// damage overwrites a part of a partition.
func (x *bench) damage(name string, at int64, n int) {
	x.Helper()
	disk, err := os.OpenFile(x.disk(), os.O_WRONLY, 0)
	if err != nil {
		x.Fatal(err)
	}
	defer disk.Close()
	if _, err := disk.WriteAt(bytes.Repeat([]byte{0x55}, n), x.at(name)+at); err != nil {
		x.Fatal(err)
	}
}
