//go:build linux

// Mkvol makes UBI volumes as ubimkvol does, which Debian has for no board without its C library: mkvol DEVICE NUMBER TYPE BYTES.
// The type is static or dynamic.
package main

import (
	"fmt"
	"log"
	"os"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// request is struct ubi_mkvol_req of <mtd/ubi-user.h>.
type request struct {
	number, alignment int32
	bytes             int64
	kind, flags       int8
	nameLength        int16
	_                 [4]byte
	name              [128]byte
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("mkvol: ")
	if len(os.Args) != 5 {
		log.Fatal("usage: mkvol DEVICE NUMBER static|dynamic BYTES")
	}
	if err := makeVolume(os.Args[1], os.Args[2], os.Args[3], os.Args[4]); err != nil {
		log.Fatal(err)
	}
}

func makeVolume(device, number, kind, size string) error {
	n, err := strconv.ParseInt(number, 10, 32)
	if err != nil {
		return err
	}
	r := request{number: int32(n), alignment: 1}
	if r.bytes, err = strconv.ParseInt(size, 10, 64); err != nil {
		return err
	}
	if r.kind = map[string]int8{"dynamic": 3, "static": 4}[kind]; r.kind == 0 {
		return fmt.Errorf("unknown type %q", kind)
	}
	r.nameLength = int16(copy(r.name[:], "volume"+number))
	file, err := os.Open(device)
	if err != nil {
		return err
	}
	defer file.Close()
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, file.Fd(), unix.UBI_IOCMKVOL, uintptr(unsafe.Pointer(&r))); errno != 0 {
		return fmt.Errorf("%s: %w", device, errno)
	}
	return nil
}
