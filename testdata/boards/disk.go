package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/afero"

	"example.com/iad/bank"
	"example.com/iad/bank/uboot"
)

const (
	sectorSize = 512
	mebibyte   = 1 << 20
	copySize   = 0x1000
)

// copies are the offsets of the copies of the boot loader's choice, as deploy/uboot/boot.cmd has them.
var copies = [2]int64{0x10000, 0x20000}

// cardCopies are these offsets on a card whose first half MiB has U-Boot, and bootAt is where that begins.
var cardCopies = [2]int64{0xc0000, 0xd0000}

const bootAt = 0x2000

// A partition of the board's disk. Sizes and places are in MiB.
type partition struct {
	name     string
	at, size int64
}

// Sizes of partitions in MiB: the state, a bank, a bank beside which there is a raw partition, and that.
const (
	stateSize    = 24
	bankSize     = 32
	smallBank    = 16
	rawPartition = 12
	cardSize     = 128 // QEMU's cards have a power of two
)

// partitions are numbered from 1, as deploy/uboot/boot.cmd and init have them.
func (b *build) partitions() []partition {
	list := []partition{{"boot", 1, 7}, {"bank1", 8, b.bankSize}, {"bank2", 8 + b.bankSize, b.bankSize}, {"state", 8 + 2*b.bankSize, stateSize}}
	if b.kind.raw {
		end := 8 + 2*b.bankSize + stateSize
		list = append(list, partition{"raw1", end, rawPartition}, partition{"raw2", end + rawPartition, rawPartition})
	}
	return list
}

// writeDisk makes the board's disk.
func (b *build) writeDisk(ctx context.Context) error {
	boot, state := b.path("boot"), b.path("state")
	for _, dir := range []string{boot, state} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	if b.kind.loader {
		script := b.path("boot.cmd")
		if err := os.WriteFile(script, []byte(b.script), 0o644); err != nil {
			return err
		}
		if err := b.run(ctx, b.peer("mkimage"), "-A", "arm", "-T", "script", "-C", "none", "-d", script, filepath.Join(boot, "boot.scr")); err != nil {
			return err
		}
	}
	if b.kind.card {
		if err := b.run(ctx, "cp", filepath.Join(b.top, ".peers", b.kind.peers, "board.dtb"), boot); err != nil {
			return err
		}
	}
	if err := os.Rename(b.path("device"), filepath.Join(state, "iad")); err != nil {
		return err
	}
	if !b.kind.loader {
		// No bank's software is started as a whole: the agent is in neither.
		if err := b.run(ctx, "cp", b.path("board", "iad"), filepath.Join(state, "agent")); err != nil {
			return err
		}
	}
	disk, err := os.Create(b.disk())
	if err != nil {
		return err
	}
	defer disk.Close()
	all := b.partitions()
	last := all[len(all)-1]
	size := last.at + last.size + 1 // the end has a copy of the partition table
	if b.kind.card {
		size = cardSize
	}
	if err := disk.Truncate(size * mebibyte); err != nil {
		return err
	}
	table := b.path("partitions")
	if err := os.WriteFile(table, []byte(b.partitionTable()), 0o644); err != nil {
		return err
	}
	if err := b.run(ctx, "sh", "-c", fmt.Sprintf("exec %q -q --no-reread --no-tell-kernel %q <%q", b.peer("sfdisk"), b.disk(), table)); err != nil {
		return err
	}
	for _, p := range all {
		if p.raw() {
			data, err := os.ReadFile(b.path(p.name))
			if err != nil {
				return err
			}
			if _, err := disk.WriteAt(data, p.at*mebibyte); err != nil {
				return err
			}
		} else if err := b.filesystem(ctx, p); err != nil {
			return err
		}
	}
	switch {
	case b.kind.card: // the boot script finds no choice, and makes one
		data, err := os.ReadFile(filepath.Join(b.top, ".peers", b.kind.peers, "u-boot.bin"))
		if err != nil {
			return err
		}
		_, err = disk.WriteAt(data, bootAt)
		return err
	case !b.kind.loader:
		return nil
	}
	return loaderOf(b.disk()).Store(bank.LoaderState{Next: 1, Left: bank.Uncounted})
}

// raw reports whether a partition has no file system.
func (p partition) raw() bool { return strings.HasPrefix(p.name, "raw") }

// filesystem makes the file system of a partition, of the directory of its name.
func (b *build) filesystem(ctx context.Context, p partition) error {
	// The features are those that U-Boot can read.
	return b.run(ctx, b.peer("mke2fs"), "-q", "-F", "-t", "ext4", "-O", "^metadata_csum,^64bit", "-J", "size=1", "-m", "0",
		"-E", fmt.Sprintf("root_owner=0:0,offset=%d", p.at*mebibyte), "-L", p.name, "-d", b.path(p.name), b.disk(), fmt.Sprintf("%dM", p.size))
}

// partitionTable is what sfdisk reads.
func (b *build) partitionTable() string {
	var table strings.Builder
	label := "gpt"
	if b.kind.card { // U-Boot is where a GPT would be
		label = "dos"
	}
	fmt.Fprintf(&table, "label: %s\n", label)
	for _, p := range b.partitions() {
		fmt.Fprintf(&table, "start=%dMiB, size=%dMiB", p.at, p.size)
		if !b.kind.card {
			fmt.Fprintf(&table, ", name=%s", p.name)
		}
		table.WriteString("\n")
	}
	return table.String()
}

// loaderOf is the boot loader's choice on a disk.
func loaderOf(disk string) *uboot.Loader {
	e := uboot.Environment{Size: copySize, Order: binary.LittleEndian}
	for _, offset := range copies {
		e.Copies = append(e.Copies, uboot.File{Fs: afero.NewOsFs(), Name: disk, Offset: offset})
	}
	return &uboot.Loader{Environment: uboot.ScriptEnvironment(e), Scheme: uboot.Script{}}
}
