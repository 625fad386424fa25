package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// flashStart begins the first program of a board with simulated NAND flash, some of whose erase blocks are bad.
const flashStart = `#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
`

const flashTests = flashStart + `
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

// A static volume for the kernel of each bank, and UBIFS for its files and for the state. The agent is outside the banks.
const flashUpgrade = flashStart + `
for module in failover net_failover virtio_mmio virtio_net crc16 zstd_compress zstd deflate; do insmod /$module.ko; done
insmod /nandsim.ko first_id_byte=0x20 second_id_byte=0x33 badblocks=2,9,321,384 parts=992
insmod /ubi.ko mtd=0
insmod /ubifs.ko
/mkvol /dev/ubi0 1 static 1048576
/mkvol /dev/ubi0 2 static 1048576
/mkvol /dev/ubi0 3 dynamic 2097152
/mkvol /dev/ubi0 4 dynamic 2097152
/mkvol /dev/ubi0 5 dynamic 4194304
mount -t ubifs ubi0_5 /state
mkdir -p /state/iad/bank1 /state/iad/bank2
mount -t ubifs ubi0_3 /state/iad/bank1
mount -t ubifs ubi0_4 /state/iad/bank2
IAD_TEST_BANK=/state/iad/bank1 /board.test -test.v -test.run TestCheckpointNotNeeded
ifconfig lo 127.0.0.1 up
ifconfig eth0 10.0.2.15 netmask 255.255.255.0 up
route add default gw 10.0.2.2
/iad init --root /state/iad --image /fw-1.0.0.iad --trust /maker.pub --hardware ` + hardware + ` --device-id FLASH-0001 \
  --config-dir /config --snmp 0.0.0.0:1161 --manager /tmp/credentials.toml --partition1 /dev/ubi0_1 --partition2 /dev/ubi0_2
echo "credentials: $(tr '\n' ';' </tmp/credentials.toml) :end"
(while :; do sh </dev/console >/dev/console 2>&1; done) &
/iad run --root /state/iad
echo "init: iad ended with status $?"
sleep 1000
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
		b.compile(t, "test", "-c", "-ldflags=-s -w", "-o", filepath.Join(dir, name), pkg)
	}
	files := map[string]string{}
	for name := range programs {
		files[name] = filepath.Join(dir, name)
	}
	initrd := b.flashInitrd(t, flashTests, []string{"nandsim", "ubi", "jffs2"}, files)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	// A test program is larger than the board's: it is not what is measured here.
	out, err := exec.CommandContext(ctx, b.peer("qemu-system-arm"), "-M", "virt", "-m", "256", "-net", "none", "-nographic", "-no-reboot",
		"-kernel", b.system("kernel"), "-initrd", initrd,
		"-append", "console=ttyAMA0 panic=1 quiet sysctl.vm.overcommit_memory=1").CombinedOutput()
	for _, want := range []string{"--- PASS: TestFlashInUse", "--- PASS: TestFlash/mtd", "--- PASS: TestFlash/ubi", "--- PASS: TestFlashPartition/mtd", "--- PASS: TestFlashPartition/ubi"} {
		if !strings.Contains(string(out), want) {
			t.Fatalf("%v: %q is missing:\n%s", err, want, out)
		}
	}
}

// compile runs the go command for the board.
func (b *build) compile(t *testing.T, args ...string) {
	t.Helper()
	if err := b.runIn(t.Context(), b.top, []string{"CGO_ENABLED=0", "GOOS=linux", "GOARCH=arm", "GOARM=7"}, "go", args...); err != nil {
		t.Fatal(err)
	}
}

// flashInitrd makes a first file system of an init, modules of the kernel and other files, and returns its name.
func (b *build) flashInitrd(t *testing.T, init string, modules []string, files map[string]string) string {
	t.Helper()
	found, err := b.modules()
	if err != nil {
		t.Fatal(err)
	}
	files["bin/busybox"] = b.system("busybox")
	for _, name := range modules {
		files[name+".ko"] = found[name]
	}
	var initrd bytes.Buffer
	z := gzip.NewWriter(&initrd)
	a := &archive{w: z}
	for _, dir := range []string{"bin", "config", "dev", "mnt", "proc", "state", "sys", "tmp"} {
		a.add(dir, modeDir|0o755, nil, 0, 0)
	}
	a.add("dev/console", modeChar|0o600, nil, 5, 1)
	a.add("init", modeFile|0o755, []byte(init), 0, 0)
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
	file := b.path("flash-initrd")
	if err := os.WriteFile(file, initrd.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestFlashUpgrade upgrades a board whose kernels are in static UBI volumes, and all else in UBIFS, on simulated NAND flash. A restart
// starts the agent again, because the flash is lost with the kernel.
func TestFlashUpgrade(t *testing.T) {
	x := newBench(t, t.TempDir(), arm)
	if err := x.steps(x.Context(), x.programs); err != nil {
		t.Fatal(err)
	}
	x.compile(t, "build", "-o", x.path("mkvol"), "./testdata/boards/mkvol")
	x.compile(t, "test", "-c", "-ldflags=-s -w", "-o", x.path("board.test"), "./agent/board")
	kernels := x.flashSoftware()
	files := map[string]string{"iad": x.path("board", "iad"), "mkvol": x.path("mkvol"), "board.test": x.path("board.test"),
		"fw-1.0.0.iad": x.image(first), "maker.pub": x.path("maker.pub"), "config/userData": x.path("userData")}
	initrd := x.flashInitrd(t, flashUpgrade, []string{"failover", "net_failover", "virtio_mmio", "virtio_net", "crc16", "zstd_compress", "zstd", "deflate",
		"nandsim", "ubi", "ubifs"}, files)
	m, err := launch(x.Context(), x.peer("qemu-system-arm"), append(onConsole, "-M", "virt", "-m", "256",
		"-netdev", fmt.Sprintf("user,id=net,hostfwd=udp:127.0.0.1:%d-:1161", x.port), "-device", "virtio-net-device,netdev=net",
		"-kernel", x.system("kernel"), "-initrd", initrd, "-append", "console=ttyAMA0 panic=1 quiet sysctl.vm.overcommit_memory=1"), false)
	if err != nil {
		t.Fatal(err)
	}
	x.machine = m
	t.Cleanup(func() {
		m.off()
		if t.Failed() {
			t.Logf("the board's console:\n%s", m.console)
		}
	})
	x.see(`--- PASS: TestCheckpointNotNeeded`)
	credentials := x.see(`credentials: (.*) :end`)[1]
	if err := os.WriteFile(x.credentials(), []byte(strings.ReplaceAll(credentials, ";", "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	x.see(`msg=ready`)
	x.runs(first)
	done := timed(t, "upgrade to "+good)
	x.upgrade(good, 0)
	x.runs(good)
	done()
	x.seeVolume(2, kernels[good])
	done = timed(t, "upgrade to "+badTest+", whose self-test fails")
	x.failsSelfTest()
	done()
	x.seeVolume(1, kernels[badTest])
	x.seeVolume(2, kernels[good])
}

// flashSoftware makes software with a payload for the partition, and returns that of each version.
func (x *bench) flashSoftware() map[string][]byte {
	x.Helper()
	if err := x.run(x.Context(), x.program("iadms"), "image", "keygen", "--no-password", "-o", "maker"); err != nil {
		x.Fatal(err)
	}
	if err := os.WriteFile(x.path("userData"), []byte(configuration), 0o644); err != nil {
		x.Fatal(err)
	}
	kernels := map[string][]byte{}
	for _, version := range []string{first, good, badTest} {
		kernel := make([]byte, 700_000)
		rand.Read(kernel)
		kernels[version] = kernel
		test := "#!/bin/sh\nexit 0\n"
		if version == badTest {
			test = badSelfTest
		}
		for name, data := range map[string][]byte{fit: kernel, "selftest": []byte(test)} {
			if err := os.WriteFile(x.path(name), data, 0o755); err != nil {
				x.Fatal(err)
			}
		}
		if err := x.run(x.Context(), x.program("iadms"), "image", "build", "--version", version, "--hardware", hardware, "--config-format", "1",
			"--key", "maker.key", "--selftest", "selftest", "--partition", fit, "-o", x.image(version)); err != nil {
			x.Fatal(err)
		}
	}
	return kernels
}

// seeVolume reads a UBI volume on the board.
func (x *bench) seeVolume(n int, want []byte) {
	x.Helper()
	// The echo of the command must not be taken for its output.
	x.types(fmt.Sprintf("echo \"vol\"ume %d $(sha256sum </dev/ubi0_%[1]d)", n))
	if got := x.see(fmt.Sprintf(`volume %d (\w+)`, n))[1]; got != fmt.Sprintf("%x", sha256.Sum256(want)) {
		x.Errorf("volume %d holds something else", n)
	}
}
