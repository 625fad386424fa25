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

// TestMain calls InUse in a directory that takes the place of /, and prints what it returns.
func TestMain(m *testing.M) {
	root := os.Getenv(rootVariable)
	if root == "" {
		os.Exit(m.Run())
	}
	if err := syscall.Chroot(root); err != nil {
		fmt.Println("chroot:", err)
		os.Exit(1)
	}
	if err := flash.InUse(os.Args[1]); err != nil {
		fmt.Print(err)
	}
}

// inUse is flash.InUse where /sys, /proc and /dev are those of a directory.
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
		"proc/mounts":                  "rootfs / rootfs rw 0 0\n\n/dev/mtdblock2 /boot squashfs ro 0 0\nmtd3 /data jffs2 rw 0 0\nubi0:state /state ubifs rw 0 0\n/dev/vda1 /mtd1 ext4 rw 0 0\n",
		"dev/mtd4":                     "",
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
