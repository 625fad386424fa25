package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// flashInit is the first program of a board with simulated NAND flash, some of whose erase blocks are bad.
const flashInit = `#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
insmod /nandsim.ko first_id_byte=0x20 second_id_byte=0x33 badblocks=2,9,321,384 parts=64,256,64,64
insmod /ubi.ko mtd=1
insmod /jffs2.ko
cd /tmp
mount -t jffs2 mtd2 /mnt
IAD_TEST_MTD=/dev/mtd0 IAD_TEST_ATTACHED=/dev/mtd1 IAD_TEST_MOUNTED=/dev/mtd2 /flash.test -test.v -test.run TestFlash
umount /mnt
IAD_TEST_MTD=/dev/mtd0 IAD_TEST_UBI=/dev/ubi0 /uboot.test -test.v -test.run TestFlash
IAD_TEST_MTD="/dev/mtd2 /dev/mtd3" IAD_TEST_UBI=/dev/ubi0 /partition.test -test.v -test.run TestFlashPartition
poweroff -f
`

// TestFlashMemory runs the tests that need flash memory on a board.
func TestFlashMemory(t *testing.T) {
	dir := t.TempDir()
	b, err := newBuild(dir, arm)
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	programs := map[string]string{"uboot.test": "./bank/uboot", "partition.test": "./bank/partition", "flash.test": "./internal/flash"}
	for name, pkg := range programs {
		compile := exec.Command("go", "test", "-c", "-ldflags=-s -w", "-o", filepath.Join(dir, name), pkg)
		compile.Dir, compile.Env = b.top, append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=arm", "GOARM=7")
		if out, err := compile.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	found, err := b.modules()
	if err != nil {
		t.Fatal(err)
	}
	var initrd bytes.Buffer
	z := gzip.NewWriter(&initrd)
	a := &archive{w: z}
	for _, dir := range []string{"bin", "dev", "mnt", "proc", "sys", "tmp"} {
		a.add(dir, modeDir|0o755, nil, 0, 0)
	}
	a.add("dev/console", modeChar|0o600, nil, 5, 1)
	a.add("init", modeFile|0o755, []byte(flashInit), 0, 0)
	files := map[string]string{"bin/busybox": b.system("busybox")}
	for name := range programs {
		files[name] = filepath.Join(dir, name)
	}
	for _, name := range []string{"nandsim", "ubi", "jffs2"} {
		files[name+".ko"] = found[name]
	}
	for name, from := range files {
		data, err := os.ReadFile(from)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		a.add(name, modeFile|0o755, data, 0, 0)
	}
	a.add("TRAILER!!!", 0, nil, 0, 0)
	if err := z.Close(); err != nil || a.err != nil {
		t.Fatal(err, a.err)
	}
	file := filepath.Join(dir, "initrd")
	if err := os.WriteFile(file, initrd.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	// A test program is larger than the board's: it is not what is measured here.
	out, err := exec.CommandContext(ctx, b.peer("qemu-system-arm"), "-M", "virt", "-m", "256", "-net", "none", "-nographic", "-no-reboot",
		"-kernel", b.system("kernel"), "-initrd", file,
		"-append", "console=ttyAMA0 panic=1 quiet sysctl.vm.overcommit_memory=1").CombinedOutput()
	for _, want := range []string{"--- PASS: TestFlashInUse", "--- PASS: TestFlash/mtd", "--- PASS: TestFlash/ubi", "--- PASS: TestFlashPartition/mtd", "--- PASS: TestFlashPartition/ubi"} {
		if !strings.Contains(string(out), want) {
			t.Fatalf("%v: %q is missing:\n%s", err, want, out)
		}
	}
}
