// Package flash reads and writes raw flash memory through Linux: MTD devices such as
// /dev/mtd1, erase block by erase block, and UBI volumes such as /dev/ubi0_1, whole.
package flash

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// MTD is an open MTD device.
type MTD struct {
	file *os.File
	info unix.MtdInfo
}

// OpenMTD opens an MTD device for reading and, if write is set, for writing.
func OpenMTD(name string, write bool) (*MTD, error) {
	mode := os.O_RDONLY
	if write {
		mode = os.O_RDWR | os.O_SYNC
	}
	file, err := os.OpenFile(name, mode, 0)
	if err != nil {
		return nil, err
	}
	m := &MTD{file: file}
	if _, err = m.ioctl(unix.MEMGETINFO, unsafe.Pointer(&m.info)); err == nil && m.info.Erasesize == 0 {
		err = errors.New("it has no erase blocks")
	}
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("%s is not a flash device that can be erased: %w", name, err)
	}
	return m, nil
}

func (m *MTD) ioctl(request uint, arg unsafe.Pointer) (int, error) {
	for {
		n, _, errno := unix.Syscall(unix.SYS_IOCTL, m.file.Fd(), uintptr(request), uintptr(arg))
		if errno == 0 {
			return int(n), nil
		} else if errno != unix.EINTR {
			return 0, errno
		}
	}
}

// NOR reports whether it is NOR flash, of which single bytes can be written.
func (m *MTD) NOR() bool { return m.info.Type == unix.MTD_NORFLASH }

// Size is the size of the device, bad blocks included.
func (m *MTD) Size() int64 { return int64(m.info.Size) }

// EraseBlock is the size of an erase block in bytes.
func (m *MTD) EraseBlock() int64 { return int64(m.info.Erasesize) }

// WriteUnit is the least number of bytes that can be written, and their alignment.
func (m *MTD) WriteUnit() int64 { return max(1, int64(m.info.Writesize)) }

// Bad reports whether the erase block at an offset is marked bad.
func (m *MTD) Bad(at int64) (bool, error) {
	n, err := m.ioctl(unix.MEMGETBADBLOCK, unsafe.Pointer(&at))
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOTTY) {
		return false, nil // NOR flash has none
	}
	return n > 0, err
}

// MarkBad marks the erase block at an offset bad, for good.
func (m *MTD) MarkBad(at int64) error {
	_, err := m.ioctl(unix.MEMSETBADBLOCK, unsafe.Pointer(&at))
	return err
}

// Erase erases the erase block at an offset.
func (m *MTD) Erase(at int64) error {
	e := unix.EraseInfo{Start: uint32(at), Length: m.info.Erasesize}
	// Many drivers have no locks, and say so in different ways. What stays locked cannot be
	// erased.
	_, _ = m.ioctl(unix.MEMUNLOCK, unsafe.Pointer(&e))
	if _, err := m.ioctl(unix.MEMERASE, unsafe.Pointer(&e)); err != nil {
		return fmt.Errorf("erase block at %#x cannot be erased: %w", at, err)
	}
	return nil
}

// ReadAt reads, bad blocks included.
func (m *MTD) ReadAt(b []byte, at int64) (int, error) { return m.file.ReadAt(b, at) }

// WriteAt writes to erased memory. What it wrote lasts when it returns.
func (m *MTD) WriteAt(b []byte, at int64) (int, error) { return m.file.WriteAt(b, at) }

// Close closes the device.
func (m *MTD) Close() error { return m.file.Close() }

// InUse returns an error if UBI or a file system uses an MTD device, as far as the kernel
// shows that in /sys and /proc.
func InUse(name string) error {
	number, ok := strings.CutPrefix(filepath.Base(target(name)), "mtd")
	if !ok {
		return nil
	}
	number = strings.TrimSuffix(number, "ro")
	attached, _ := os.ReadDir("/sys/class/ubi") // volumes too, which have no mtd_num; filepath.Glob would cost a board 5 KB
	for _, ubi := range attached {
		text, err := os.ReadFile(filepath.Join("/sys/class/ubi", ubi.Name(), "mtd_num"))
		if err == nil && strings.TrimSpace(string(text)) == number {
			return fmt.Errorf("%s is in use by UBI, as %s: name the UBI volume instead, or another MTD device", name, ubi.Name())
		}
	}
	mounts, err := os.ReadFile("/proc/mounts")
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 1 && (f[0] == "mtd"+number || f[0] == "/dev/mtdblock"+number) {
			return fmt.Errorf("%s is mounted on %s: unmount it, or name another MTD device", name, f[1])
		}
	}
	return nil
}

// target is where a link leads to.
func target(name string) string {
	if to, err := filepath.EvalSymlinks(name); err == nil {
		return to
	}
	return name
}

// UBISize returns how many bytes a UBI volume can hold.
func UBISize(name string) (int64, error) {
	dir := filepath.Join("/sys/class/ubi", filepath.Base(target(name)))
	size := int64(1)
	for _, file := range []string{"reserved_ebs", "usable_eb_size"} {
		text, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			return 0, fmt.Errorf("%s is not a UBI volume: %w", name, err)
		}
		n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", filepath.Join(dir, file), err)
		}
		size *= n
	}
	return size, nil
}

// UpdateUBI starts to replace the content of a UBI volume by so many bytes. Until all of
// them are written the volume cannot be read: a power cut leaves it without content.
func UpdateUBI(name string, size int64) (io.WriteCloser, error) {
	file, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return nil, err
	}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, file.Fd(), unix.UBI_IOCVOLUP, uintptr(unsafe.Pointer(&size))); errno != 0 {
		file.Close()
		return nil, fmt.Errorf("the update of UBI volume %s cannot start: %w", name, errno)
	}
	return file, nil
}
