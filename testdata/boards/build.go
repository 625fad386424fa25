package main

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// The software that is made.
const (
	first     = "1.0.0" // in bank 1 from the start
	good      = "2.0.0"
	badTest   = "3.0.0" // its self-test fails
	badKernel = "4.0.0" // its kernel panics
	hangs     = "5.0.0" // its kernel does nothing
)

const hardware = "IAD-4FXS"

// payloads are the files of a software image, in their order.
var payloads = []string{"kernel", "initrd", "iad"}

// A kind of board.
type kind struct {
	peers   string   // directory below .peers/ with its QEMU
	system  string   // directory in there with kernel, modules and busybox
	goenv   []string // for the board's programs
	qemu    string
	modules []string // of the kernel, in the order in which they are loaded
	init    string   // what init has to know
	loader  bool     // U-Boot starts it; else QEMU does, and the agent chooses the bank
}

var arm = &kind{peers: "boards", system: "armhf", goenv: []string{"GOARCH=arm", "GOARM=7"}, qemu: "qemu-system-arm", loader: true,
	modules: []string{"virtio_mmio", "virtio_blk", "failover", "net_failover", "virtio_net",
		"crc16", "crc32c_generic", "mbcache", "jbd2", "ext4", "softdog"},
	init: "disk=/dev/vda\n"}

// A build is a directory in which a board is made.
type build struct {
	dir, top, peers string
	kind            *kind
	source          string   // source tree of the board's iad
	script          string   // of the boot loader
	versions        []string // of the images
	ballast         int      // bytes that the image of good has besides, in a file of its own
	bankSize        int64    // MiB
}

func newBuild(dir string, k *kind) (*build, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	top, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	for {
		if _, err := os.Stat(filepath.Join(top, "go.mod")); err == nil {
			break
		} else if top == filepath.Dir(top) {
			return nil, fmt.Errorf("no go.mod here or above: run it inside the source tree")
		}
		top = filepath.Dir(top)
	}
	script, err := os.ReadFile(filepath.Join(top, "deploy", "uboot", "boot.cmd"))
	if err != nil {
		return nil, err
	}
	b := &build{dir: dir, top: top, source: top, peers: filepath.Join(top, ".peers", "boards"), kind: k, script: string(script),
		versions: []string{first, good, badTest, badKernel}, bankSize: bankSize}
	if _, err := os.Stat(filepath.Join(b.peers, "stamp")); err != nil {
		return nil, errors.New("QEMU, U-Boot and the kernel are not unpacked: run testdata/boards/unpack")
	}
	if _, err := os.Stat(b.system()); err != nil {
		return nil, fmt.Errorf("QEMU and the kernel for %s are not unpacked: run testdata/boards/unpack mips", k.system)
	}
	return b, nil
}

func (b *build) path(elem ...string) string {
	return filepath.Join(append([]string{b.dir}, elem...)...)
}
func (b *build) disk() string                { return b.path("disk.img") }
func (b *build) credentials() string         { return b.path("credentials.toml") }
func (b *build) image(version string) string { return b.path("fw-" + version + ".iad") }

// program is a program of the host.
func (b *build) program(name string) string { return b.path("host", name) }

// peer is an unpacked program.
func (b *build) peer(name string) string { return filepath.Join(b.peers, "bin", name) }

// system is a file of the board's system, or its directory.
func (b *build) system(elem ...string) string {
	return filepath.Join(append([]string{b.top, ".peers", b.kind.peers, b.kind.system}, elem...)...)
}

// upgradeArgs are the arguments of iadms. The board reaches the host's loopback interface as 10.0.2.2.
func (b *build) upgradeArgs(port int, version string) []string {
	return []string{"upgrade", fmt.Sprintf("127.0.0.1:%d", port), "--image", b.image(version),
		"--listen", "127.0.0.1", "--advertise", "10.0.2.2", "--notifications", "none"}
}

func (b *build) upgradeCommand(port int, version string) string {
	return b.program("iadms") + " " + strings.Join(b.upgradeArgs(port, version), " ")
}

// run runs a program in the directory of the build.
func (b *build) run(ctx context.Context, name string, args ...string) error {
	return b.runIn(ctx, b.dir, nil, name, args...)
}

func (b *build) runIn(ctx context.Context, dir string, env []string, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, out)
	}
	return nil
}

// all makes everything, again if it exists.
func (b *build) all(ctx context.Context) error {
	if err := os.RemoveAll(b.dir); err != nil {
		return err
	}
	if err := os.MkdirAll(b.dir, 0o755); err != nil {
		return err
	}
	for _, step := range []func(context.Context) error{b.programs, b.software, b.device, b.writeDisk} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// programs builds iad and iadms for the host, and iad for the board.
func (b *build) programs(ctx context.Context) error {
	for _, dir := range []string{"host", "board"} {
		if err := os.MkdirAll(b.path(dir), 0o755); err != nil {
			return err
		}
	}
	if err := b.runIn(ctx, b.top, []string{"CGO_ENABLED=0"}, "go", "build", "-trimpath", "-o", b.path("host")+"/", "./cmd/iad", "./cmd/iadms"); err != nil {
		return err
	}
	return b.runIn(ctx, b.source, append([]string{"VERSION=board"}, b.kind.goenv...), filepath.Join(b.source, "deploy", "build"), "-o", b.path("board", "iad"))
}

// selfTest is what software brings with it to say whether it is healthy. badSelfTest is that of badTest.
const (
	selfTest    = "#!/bin/sh\nifconfig eth0 | grep -q RUNNING || { echo no network; exit 1; }\n"
	badSelfTest = "#!/bin/sh\necho no dial tone\nexit 1\n"
)

// software makes the images.
func (b *build) software(ctx context.Context) error {
	if err := b.run(ctx, b.program("iadms"), "image", "keygen", "--no-password", "-o", "maker"); err != nil {
		return err
	}
	kernel, err := os.ReadFile(b.system("kernel"))
	if err != nil {
		return err
	}
	iad, err := os.ReadFile(b.path("board", "iad"))
	if err != nil {
		return err
	}
	for _, version := range b.versions {
		kernel := kernel
		initrd, err := b.initrd(version)
		if err != nil {
			return err
		}
		test := selfTest
		switch version {
		case badTest:
			test = badSelfTest
		case badKernel: // without a first file system the kernel has nothing to start
			initrd = make([]byte, 1<<16)
			rand.Read(initrd)
		case hangs:
			kernel = hangingKernel()
		}
		names := payloads
		dir := b.path("software", version)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		for _, f := range []struct {
			name string
			data []byte
			perm os.FileMode
		}{{"kernel", kernel, 0o644}, {"initrd", initrd, 0o644}, {"iad", iad, 0o755}, {"selftest", []byte(test), 0o755}} {
			if err := os.WriteFile(filepath.Join(dir, f.name), f.data, f.perm); err != nil {
				return err
			}
		}
		if version == good && b.ballast > 0 {
			data := make([]byte, b.ballast)
			rand.Read(data)
			if err := os.WriteFile(filepath.Join(dir, "ballast"), data, 0o644); err != nil {
				return err
			}
			names = append(slices.Clone(names), "ballast")
		}
		args := append([]string{"image", "build", "--version", version, "--hardware", hardware, "--config-format", "1",
			"--key", b.path("maker.key"), "--selftest", "selftest", "-o", b.image(version)}, names...)
		if err := b.runIn(ctx, dir, nil, b.program("iadms"), args...); err != nil {
			return err
		}
	}
	return nil
}

// hangingKernel is a kernel for ARM that U-Boot starts, and that never ends.
func hangingKernel() []byte {
	const (
		branchHere = 0xeafffffe // an instruction that jumps to itself
		magic      = 0x016f2818
		size       = 4096
	)
	image := make([]byte, size)
	for i := 0; i < size; i += 4 {
		binary.LittleEndian.PutUint32(image[i:], branchHere)
	}
	binary.LittleEndian.PutUint32(image[0x24:], magic)
	binary.LittleEndian.PutUint32(image[0x28:], 0)    // where it starts
	binary.LittleEndian.PutUint32(image[0x2c:], size) // and ends
	return image
}

// settings are what iad init does not set: the banks are mounts, and U-Boot chooses between them.
const (
	settingsAbove = "restart = 'reboot'\n"
	settingsPaths = "bank1 = '/mnt/bank1'\nbank2 = '/mnt/bank2'\nwork = '/tmp/work'\napplied = '/tmp/applied'\nwatchdog = '/dev/watchdog'\n"
)

func (b *build) settingsLoader() string {
	if !b.kind.loader {
		return "[loader]\n"
	}
	return fmt.Sprintf("[loader]\nkind = 'script'\ncopies = ['/dev/vda:%#x', '/dev/vda:%#x']\nsize = %#x\n", copies[0], copies[1], copySize)
}

// configuration is the board's only configuration file, userData.
const configuration = "iad-config userData 1\nline.1 = +4930123\n"

// device makes the state of the board and the contents of bank 1, with iad init.
func (b *build) device(ctx context.Context) error {
	if err := os.MkdirAll(b.path("config"), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(b.path("config", "userData"), []byte(configuration), 0o644); err != nil {
		return err
	}
	if err := b.run(ctx, b.program("iad"), "init", "--root", "device", "--image", b.image(first), "--trust", "maker.pub",
		"--hardware", hardware, "--device-id", "BOARD-0001", "--config-dir", "config", "--snmp", "0.0.0.0:1161",
		"--manager", b.credentials()); err != nil {
		return err
	}
	name := b.path("device", "iad.toml")
	text, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	edited := settingsAbove + strings.NewReplacer("\n[paths]\n", "\n[paths]\n"+settingsPaths, "\n[loader]\n", "\n"+b.settingsLoader()).Replace(string(text))
	if err := os.WriteFile(name, []byte(edited), 0o600); err != nil {
		return err
	}
	// The copy of the last good settings would be those without a boot loader.
	if err := os.Remove(name + ".good"); err != nil {
		return err
	}
	for _, bank := range []string{"bank1", "bank2"} { // partitions of their own
		if err := os.Rename(b.path("device", bank), b.path(bank)); err != nil {
			return err
		}
	}
	return nil
}
