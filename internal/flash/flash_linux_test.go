package flash_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"example.com/iad/internal/flash"
)

// rootVariable names the directory that takes the place of / in a process of the test's own.
const rootVariable = "IAD_TEST_ROOT"

// TestMain calls InUse, or VolumeInUse for a UBI volume, in a directory that takes the place of /, and prints what it returns.
func TestMain(m *testing.M) {
	root := os.Getenv(rootVariable)
	if root == "" {
		os.Exit(m.Run())
	}
	if err := syscall.Chroot(root); err != nil {
		fmt.Println("chroot:", err)
		os.Exit(1)
	}
	inUse := flash.InUse
	if strings.HasPrefix(os.Args[1], "/dev/ubi") {
		inUse = flash.VolumeInUse
	}
	if err := inUse(os.Args[1]); err != nil {
		fmt.Print(err)
	}
}

// inUse is flash.InUse or flash.VolumeInUse where /sys, /proc and /dev are those of a directory.
func inUse(t *testing.T, root, name string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], name)
	cmd.Env = append(os.Environ(), rootVariable+"="+root)
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Skipf("another directory cannot take the place of /: %v: %s; run the test as root", err, out)
	}
	return string(out)
}

func TestInUse(t *testing.T) {
	root := t.TempDir()
	for name, text := range map[string]string{
		"sys/class/ubi/version":        "1\n",
		"sys/class/ubi/ubi0/mtd_num":   "4\n",
		"sys/class/ubi/ubi0_0/name":    "state\n", // a volume
		"sys/class/ubi/ubi1/mtd_num":   "12\n",
		"sys/class/ubi/ubi1_0/mtd_num": "",
		"proc/self/mountinfo": `1 1 0:2 / / rw - rootfs rootfs rw
21 1 31:2 / /boot ro,relatime shared:1 - squashfs /dev/root ro

22 1 31:3 / /data rw - jffs2 mtd:data rw
23 1 0:15 / /state rw - ubifs ubi0:state rw
24 1 254:1 / /mtd1 rw - ext4 /dev/vda1 rw
25 1 252:1 / /app ro - squashfs /dev/mapper/mtd0 ro
`,
		"sys/class/block/ubiblock0_1/dev":               "252:1\n",
		"sys/class/block/ubiblock0_2/dev":               "252:2\n",
		"sys/class/block/ubiblock0_2/holders/dm-0/size": "1\n",
		"sys/class/block/ubiblock0_3/dev":               "252:3\n",
		"sys/class/block/mtdblock6/holders/dm-1/size":   "1\n",
		"dev/ubi0_0": "", "dev/ubi0_1": "", "dev/ubi0_2": "", "dev/ubi0_3": "",
		"dev/mtd4": "",
	} {
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("mtd4", filepath.Join(root, "dev/rootfs")); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"/dev/mtd0":   "",
		"/dev/mtd1":   "", // of which mtd12 is not a part
		"/dev/mtd2":   "/dev/mtd2 is mounted on /boot: unmount it",
		"/dev/mtd3":   "/dev/mtd3 is mounted on /data: unmount it",
		"/dev/mtd4":   "/dev/mtd4 is in use by UBI, as ubi0: name the UBI volume instead",
		"/dev/mtd4ro": "/dev/mtd4ro is in use by UBI, as ubi0",
		"/dev/mtd12":  "/dev/mtd12 is in use by UBI, as ubi1",
		"/dev/mtd40":  "",
		"/dev/mtd6":   "/dev/mtd6 is in use, as mtdblock6 by dm-1",
		"/dev/ubi0_0": "",
		"/dev/ubi0_1": "/dev/ubi0_1 is mounted on /app",
		"/dev/ubi0_2": "/dev/ubi0_2 is in use, as ubiblock0_2 by dm-0",
		"/dev/ubi0_3": "", // whose block device nobody uses
		"/dev/ubi0_9": "/dev/ubi0_9",
		"/dev/rootfs": "/dev/rootfs is in use by UBI, as ubi0",
		"/dev/sda4":   "",
	} {
		if got := inUse(t, root, name); want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	// On a system without flash memory, or with neither /sys nor /proc.
	if got := inUse(t, t.TempDir(), "/dev/mtd4"); got != "" {
		t.Error(got)
	}
}

// TestFlashInUse looks at flash memory that is there.
func TestFlashInUse(t *testing.T) {
	free, attached, mounted := os.Getenv("IAD_TEST_MTD"), os.Getenv("IAD_TEST_ATTACHED"), os.Getenv("IAD_TEST_MOUNTED")
	if free == "" || attached == "" || mounted == "" {
		t.Skip("IAD_TEST_MTD, IAD_TEST_ATTACHED and IAD_TEST_MOUNTED name no flash memory; the virtual board has some: make board-test")
	}
	if err := flash.InUse(free); err != nil {
		t.Error(err)
	}
	for name, want := range map[string]string{attached: "in use by UBI, as ubi0", mounted: "is mounted on /mnt"} {
		if err := flash.InUse(name); err == nil || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
}
