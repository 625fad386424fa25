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
	"regexp"
	"slices"
	"strings"

	"example.com/iad/internal/bootscript"
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

// fit is the payload for the raw partition of a bank: kernel and first file system in one file.
const fit = "kernel.itb"

// A kind of board.
type kind struct {
	peers   string   // directory below .peers/ with its QEMU
	system  string   // directory in there with kernel, modules and busybox
	unpack  string   // argument of the script unpack
	goenv   []string // for the board's programs
	qemu    string
	modules []string // of the kernel, in the order in which they are loaded
	disk    string   // its name on the board; partition 1 has a 1 behind it
	init    string   // what init has to know besides
	starts  []string // payloads of a software image that are started; the agent comes after them
	loader  bool     // U-Boot starts it; else QEMU does, and the agent chooses the bank
	raw     bool     // U-Boot reads kernel and first file system from raw partitions
	card    bool     // the disk is an SD card with U-Boot at its beginning
}

var (
	arm = &kind{peers: "boards", system: "armhf", goenv: []string{"GOARCH=arm", "GOARM=7"}, qemu: "qemu-system-arm", loader: true,
		modules: []string{"virtio_mmio", "virtio_blk", "failover", "net_failover", "virtio_net",
			"crc16", "crc32c_generic", "mbcache", "jbd2", "ext4", "softdog"},
		disk: "/dev/vda", starts: []string{"kernel", "initrd"}}
	armRaw = func() *kind {
		k := *arm
		k.raw, k.starts = true, []string{fit}
		return &k
	}()
	mips = &kind{peers: "boards-mips", system: "mipsel", unpack: " mips", goenv: []string{"GOARCH=mipsle", "GOMIPS=softfloat"}, qemu: "qemu-system-mipsel",
		modules: []string{"ata_piix", "mii", "pcnet32", "crc16", "crc32c_generic", "mbcache", "jbd2", "ext4", "watchdog", "softdog"},
		disk:    "/dev/sda", init: "agent=/state/agent\n", starts: []string{"kernel", "initrd"}}
	orangePi = &kind{peers: "boards-orangepi", system: "armhf", unpack: " orangepi", goenv: arm.goenv, qemu: "qemu-system-arm", loader: true, card: true,
		modules: []string{"libphy", "fixed_phy", "fwnode_mdio", "of_mdio", "phylink", "pcs_xpcs", "mdio-mux", "stmmac", "stmmac-platform", "dwmac-sun8i",
			"sunxi-mmc", "crc16", "crc32c_generic", "mbcache", "jbd2", "ext4", "sunxi_wdt"},
		disk: "/dev/mmcblk0p", starts: arm.starts}
	// container is no board: nothing of its software is started but the self-test.
	container = &kind{peers: "boards", system: "armhf", goenv: []string{"GOARCH=amd64"}, modules: arm.modules, starts: []string{"kernel", "initrd"}}
)

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
	if _, err := os.Stat(filepath.Join(top, ".peers", k.peers, "stamp")); err != nil {
		return nil, fmt.Errorf("QEMU and the kernel for %s are not unpacked: run testdata/boards/unpack%s", k.system, k.unpack)
	}
	if k.card {
		b.script = scriptForCard.Replace(b.script)
	}
	if k.raw {
		b.script, b.bankSize = bootscript.ForPartitions(b.script), smallBank
	}
	return b, nil
}

// scriptForCard makes the changes in the boot script that an SD card with U-Boot at its beginning needs: the copies of the
// choice are behind U-Boot, and the device tree is beside the script.
var scriptForCard = strings.NewReplacer("virtio read", "mmc read", "virtio write", "mmc write", "virtio 0:", "mmc 0:",
	"iad_block_a 80", fmt.Sprintf("iad_block_a %x", cardCopies[0]/sectorSize), "iad_block_b 100", fmt.Sprintf("iad_block_b %x", cardCopies[1]/sectorSize),
	"iad_load '", "iad_load 'load mmc 0:1 44000000 board.dtb; ", "${fdtcontroladdr}", "44000000", "ttyAMA0", "ttyS0 maxcpus=1")

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

// A network is how the host and a board reach each other.
type network struct {
	board  string // address and port of the board's agent
	listen string // address of the host's file servers
	host   string // address that the board has for the host
}

// userNetwork is QEMU's. The board reaches the host's loopback interface as 10.0.2.2.
func userNetwork(port int) network {
	return network{board: fmt.Sprintf("127.0.0.1:%d", port), listen: "127.0.0.1", host: "10.0.2.2"}
}

// upgradeArgs are the arguments of iadms.
func (b *build) upgradeArgs(n network, version string) []string {
	return []string{"upgrade", n.board, "--image", b.image(version),
		"--listen", n.listen, "--advertise", n.host, "--notifications", "none"}
}

func (b *build) upgradeCommand(n network, version string) string {
	return b.program("iadms") + " " + strings.Join(b.upgradeArgs(n, version), " ")
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
	return b.steps(ctx, b.programs, b.software, b.device, b.writeDisk)
}

// steps empties the directory and fills it with what the steps build.
func (b *build) steps(ctx context.Context, steps ...func(context.Context) error) error {
	if err := os.RemoveAll(b.dir); err != nil {
		return err
	}
	if err := os.MkdirAll(b.dir, 0o755); err != nil {
		return err
	}
	for _, step := range steps {
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
		args := []string{"image", "build", "--version", version, "--hardware", hardware, "--config-format", "1",
			"--key", b.path("maker.key"), "--selftest", "selftest", "-o", b.image(version)}
		names := append(slices.Clone(b.kind.starts), "iad")
		if b.kind.raw {
			if err := b.makeFIT(ctx, dir); err != nil {
				return err
			}
			args, names = append(args, "--partition", fit), []string{"iad"}
		}
		if version == good && b.ballast > 0 {
			data := make([]byte, b.ballast)
			rand.Read(data)
			if err := os.WriteFile(filepath.Join(dir, "ballast"), data, 0o644); err != nil {
				return err
			}
			names = append(names, "ballast")
		}
		if err := b.runIn(ctx, dir, nil, b.program("iadms"), append(args, names...)...); err != nil {
			return err
		}
	}
	return nil
}

// makeFIT makes a FIT image of the files kernel and initrd of a directory, by the command that docs/boards.md has.
func (b *build) makeFIT(ctx context.Context, dir string) error {
	doc, err := os.ReadFile(filepath.Join(b.top, "docs", "boards.md"))
	if err != nil {
		return err
	}
	command := regexp.MustCompile(`(?m)^mkimage -E [^#\n]*`).Find(doc)
	if command == nil {
		return errors.New("docs/boards.md has no command that begins with mkimage -E")
	}
	source, err := os.ReadFile(filepath.Join(b.top, "deploy", "uboot", "kernel.its"))
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "kernel.its"), source, 0o644); err != nil {
		return err
	}
	// mkimage runs dtc.
	path := "PATH=" + filepath.Join(b.peers, "bin") + string(os.PathListSeparator) + os.Getenv("PATH")
	return b.runIn(ctx, dir, []string{path}, "sh", "-c", string(command))
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
	disk, at := b.kind.disk, copies
	if b.kind.card {
		disk, at = strings.TrimSuffix(disk, "p"), cardCopies
	}
	return fmt.Sprintf("[loader]\nkind = 'script'\ncopies = ['%[1]s:%#[2]x', '%[1]s:%#[3]x']\nsize = %#[4]x\n", disk, at[0], at[1], copySize)
}

// configuration is the board's only configuration file, userData.
const configuration = "iad-config userData 1\nline.1 = +4930123\n"

// initDevice makes the directory of a device with iad init.
func (b *build) initDevice(ctx context.Context) error {
	if err := os.MkdirAll(b.path("config"), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(b.path("config", "userData"), []byte(configuration), 0o644); err != nil {
		return err
	}
	args := []string{"init", "--root", "device", "--image", b.image(first), "--trust", "maker.pub",
		"--hardware", hardware, "--device-id", "BOARD-0001", "--config-dir", "config", "--snmp", "0.0.0.0:1161", "--manager", b.credentials()}
	if b.kind.raw {
		for i, name := range []string{"raw1", "raw2"} {
			if err := errors.Join(os.WriteFile(b.path(name), nil, 0o644), os.Truncate(b.path(name), rawPartition*mebibyte)); err != nil {
				return err
			}
			args = append(args, fmt.Sprintf("--partition%d", i+1), name)
		}
	}
	return b.run(ctx, b.program("iad"), args...)
}

// device makes the state of the board and the contents of the banks.
func (b *build) device(ctx context.Context) error {
	if err := b.initDevice(ctx); err != nil {
		return err
	}
	name := b.path("device", "iad.toml")
	text, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	// The files stand for partitions 5 and 6.
	text = regexp.MustCompile(`(?m)^partition([12]) = .*$`).ReplaceAllFunc(text, func(line []byte) []byte {
		n := line[len("partition")]
		return fmt.Appendf(nil, "partition%c = '%s%c'", n, b.kind.disk, n+4)
	})
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
