package partition_test

import (
	"bytes"
	"io"
	"os"
	"strings"
	"testing"
	"unsafe"

	"github.com/spf13/afero"
	"golang.org/x/sys/unix"

	"example.com/iad/bank"
	"example.com/iad/bank/partition"
	"example.com/iad/internal/imagetest"
	"example.com/iad/mib"
)

// TestFlashPartition makes devices with the kernel in real or simulated flash memory, which
// it erases. It runs on a board: IAD_TEST_MTD has the names of two MTD devices of 512 KiB or
// more, IAD_TEST_UBI that of a UBI device, on which it makes two volumes.
func TestFlashPartition(t *testing.T) {
	mtd, ubi := strings.Fields(os.Getenv("IAD_TEST_MTD")), os.Getenv("IAD_TEST_UBI")
	if len(mtd) != 2 || ubi == "" {
		t.Skip("IAD_TEST_MTD and IAD_TEST_UBI name no flash memory; the virtual board has some: make board-test")
	}
	for i := range int32(2) {
		makeVolume(t, ubi, 5+i)
	}
	for name, devices := range map[string][2]string{"mtd": {mtd[0], mtd[1]}, "ubi": {ubi + "_5", ubi + "_6"}} {
		t.Run(name, func(t *testing.T) {
			parts, findings := partition.Pair(devices)
			if len(findings) != 0 {
				t.Fatal(findings)
			}
			opt := bank.Options{
				Banks: [2]afero.Fs{afero.NewMemMapFs(), afero.NewMemMapFs()}, State: afero.NewMemMapFs(), Partitions: parts,
				Trust: imagetest.Trust(imagetest.Key), Hardware: "IAD-4FXS",
			}
			if err := bank.Provision(opt, bytes.NewReader(rawImage(t, "1.0.0")), nil); err != nil {
				t.Fatal(err)
			}
			b, report := bank.Boot(opt)
			if report.Bank != 1 {
				t.Fatalf("%+v", report)
			}
			src := &flaky{data: rawImage(t, "2.0.0"), cut: 200_000}
			if _, err := b.Install(t.Context(), src, "fw.iad", bank.InstallOptions{}); err == nil {
				t.Fatal("the connection did not break")
			}
			if r, err := parts[1].Open(); err == nil {
				got := make([]byte, len(kernel))
				_, err = io.ReadFull(r, got)
				if err == nil && bytes.Equal(got[:4096], kernel[:4096]) {
					t.Error("the beginning is there before the rest")
				}
				r.Close()
			}
			b, report = bank.Boot(opt)
			if s := b.Status(); report.Bank != 1 || s.Banks[1].State != mib.BankStateWriting {
				t.Fatalf("%+v, %+v", report, s)
			}
			res, err := b.Install(t.Context(), src, "fw.iad", bank.InstallOptions{})
			if err != nil || res.Fetched < int64(len(kernel)) != (name == "mtd") {
				t.Errorf("%d bytes were fetched, %v", res.Fetched, err)
			}
			if err := b.Activate(2); err != nil {
				t.Error(err)
			}
			if b, report = bank.Boot(opt); report.Bank != 2 {
				t.Errorf("%+v, %+v", report, b.Status())
			}
			r, err := parts[1].Open()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			if got, err := io.ReadAll(io.LimitReader(r, int64(len(kernel)))); err != nil || !bytes.Equal(got, kernel) {
				t.Errorf("the flash memory has something else, %v", err)
			}
		})
	}
}

// makeVolume makes a static volume of 512 KiB (struct ubi_mkvol_req of <mtd/ubi-user.h>).
func makeVolume(t *testing.T, device string, id int32) {
	t.Helper()
	const static = 4 // UBI_STATIC_VOLUME
	request := struct {
		id, alignment int32
		bytes         int64
		kind, flags   int8
		nameLength    int16
		_             [4]byte
		name          [128]byte
	}{id: id, alignment: 1, bytes: 512 << 10, kind: static, nameLength: 1, name: [128]byte{byte('A' + id)}}
	file, err := os.Open(device)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, file.Fd(), unix.UBI_IOCMKVOL, uintptr(unsafe.Pointer(&request))); errno != 0 {
		t.Fatal(errno)
	}
}
