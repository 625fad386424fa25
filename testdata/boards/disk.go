package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"

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

// A partition of the board's disk. Sizes and places are in MiB.
type partition struct {
	name     string
	at, size int64
}

// stateSize and bankSize are sizes of partitions in MiB.
const (
	stateSize = 24
	bankSize  = 32
)

// partitions are numbered from 1, as deploy/uboot/boot.cmd and init have them.
func (b *build) partitions() []partition {
	size := b.bankSize
	return []partition{{"boot", 1, 6}, {"bank1", 8, size}, {"bank2", 8 + size, size}, {"state", 8 + 2*size, stateSize}}
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
	if err := disk.Truncate((8 + 2*b.bankSize + stateSize) * mebibyte); err != nil {
		return err
	}
	if _, err := disk.WriteAt(b.partitionTable(), 0); err != nil {
		return err
	}
	for _, p := range b.partitions() {
		if err := b.filesystem(ctx, p); err != nil {
			return err
		}
	}
	if !b.kind.loader {
		return nil
	}
	return loaderOf(b.disk()).Store(bank.LoaderState{Next: 1, Left: bank.Uncounted})
}

// filesystem makes the file system of a partition, of the directory of its name.
func (b *build) filesystem(ctx context.Context, p partition) error {
	// The features are those that U-Boot can read.
	return b.run(ctx, b.peer("mke2fs"), "-q", "-F", "-t", "ext4", "-O", "^metadata_csum,^64bit", "-J", "size=1", "-m", "0",
		"-E", fmt.Sprintf("root_owner=0:0,offset=%d", p.at*mebibyte), "-L", p.name, "-d", b.path(p.name), b.disk(), fmt.Sprintf("%dM", p.size))
}

// partitionTable is a master boot record without a program.
func (b *build) partitionTable() []byte {
	const (
		table  = 446
		entry  = 16
		active = 0x80
		linux  = 0x83
	)
	mbr := make([]byte, sectorSize)
	for i, p := range b.partitions() {
		e := mbr[table+i*entry:]
		if p.name == "boot" {
			e[0] = active
		}
		e[4] = linux
		binary.LittleEndian.PutUint32(e[8:], uint32(p.at*mebibyte/sectorSize))
		binary.LittleEndian.PutUint32(e[12:], uint32(p.size*mebibyte/sectorSize))
	}
	mbr[sectorSize-2], mbr[sectorSize-1] = 0x55, 0xaa
	return mbr
}

// loaderOf is the boot loader's choice on a disk.
func loaderOf(disk string) *uboot.Loader {
	e := uboot.Environment{Size: copySize, Order: binary.LittleEndian}
	for _, offset := range copies {
		e.Copies = append(e.Copies, uboot.File{Fs: afero.NewOsFs(), Name: disk, Offset: offset})
	}
	return &uboot.Loader{Environment: uboot.ScriptEnvironment(e), Scheme: uboot.Script{}}
}
