package uboot_test

import (
	"encoding/binary"
	"fmt"
	"os"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"example.com/iad/bank/uboot"
)

// TestFlash writes environments to real or simulated flash memory, which it erases. It runs
// on a board: IAD_TEST_MTD is an MTD device of at least 16 erase blocks, IAD_TEST_UBI a UBI
// device, on which it makes two volumes.
func TestFlash(t *testing.T) {
	mtd, ubi := os.Getenv("IAD_TEST_MTD"), os.Getenv("IAD_TEST_UBI")
	if mtd == "" && ubi == "" {
		t.Skip("IAD_TEST_MTD and IAD_TEST_UBI name no flash memory; the virtual board has some: make board-test")
	}
	const size = 0x8000
	configs := map[string]string{}
	if mtd != "" {
		// Two copies, each in a region of eight erase blocks of 16 KiB.
		configs["mtd"] = fmt.Sprintf("%s 0 %#x 0x4000 8\n%s 0x20000 %#x 0x4000 8\n", mtd, size, mtd, size)
	}
	if ubi != "" {
		makeVolume(t, ubi, 0)
		makeVolume(t, ubi, 1)
		configs["ubi"] = fmt.Sprintf("%s_0 0 %#x\n%s_1 0 %#x\n", ubi, size, ubi, size)
	}
	for name, config := range configs {
		t.Run(name, func(t *testing.T) {
			e, err := uboot.ReadConfig(strings.NewReader(config), binary.NativeEndian)
			if err != nil {
				t.Fatal(err)
			}
			e.Create = true
			long := strings.Repeat("x", size/2)
			for i := range 20 {
				want := fmt.Sprint(i)
				if err := e.Update(func(v *uboot.Variables) { v.Set("round", want); v.Set("long", long) }); err != nil {
					t.Fatalf("round %d: %v", i, err)
				}
				v, findings, err := e.Load()
				if err != nil || v.Get("round") != want || v.Get("long") != long || i > 0 && len(findings) > 0 {
					t.Fatalf("round %d: %q, %q, %v", i, v.Get("round"), findings, err)
				}
			}
		})
	}
}

const staticVolume = 4 // UBI_STATIC_VOLUME

// makeVolume makes a static volume as ubimkvol does (struct ubi_mkvol_req of
// <mtd/ubi-user.h>).
func makeVolume(t *testing.T, device string, id int32) {
	t.Helper()
	request := struct {
		id, alignment int32
		bytes         int64
		kind, flags   int8
		nameLength    int16
		_             [4]byte
		name          [128]byte
	}{id: id, alignment: 1, bytes: 0x20000, kind: staticVolume, nameLength: 1, name: [128]byte{byte('a' + id)}}
	file, err := os.Open(device)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, file.Fd(), unix.UBI_IOCMKVOL, uintptr(unsafe.Pointer(&request))); errno != 0 {
		t.Fatal(errno)
	}
}
