package uboot_test

import (
	"encoding/binary"
	"fmt"
	"os"
	"strings"
	"testing"

	"example.com/iad/bank/uboot"
)

// TestFlash writes environments to real or simulated flash memory, which it erases. It runs
// on a board: IAD_TEST_MTD is an MTD device of at least 16 erase blocks, IAD_TEST_UBI two
// UBI volumes, separated by a comma.
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
	if one, two, ok := strings.Cut(ubi, ","); ok {
		configs["ubi"] = fmt.Sprintf("%s 0 %#x\n%s 0 %#x\n", one, size, two, size)
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
