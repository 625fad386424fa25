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

// Unlock lets the erase block at an offset be erased and written. Many drivers have no
// locks, and say so in different ways; what stays locked shows when it is erased or read
// back.
func (m *MTD) Unlock(at int64) {
	e := m.eraseInfo(at)
	_, _ = m.ioctl(unix.MEMUNLOCK, unsafe.Pointer(&e))
}

func (m *MTD) eraseInfo(at int64) unix.EraseInfo {
	return unix.EraseInfo{Start: uint32(at), Length: m.info.Erasesize}
}

// Erase unlocks and erases the erase block at an offset.
func (m *MTD) Erase(at int64) error {
	m.Unlock(at)
	e := m.eraseInfo(at)
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
	// A file system on an MTD device has the number of its block device, also one that was
	// mounted by the name of the MTD device, through a link, or as /dev/root.
	return blockInUse(name, "mtdblock"+number, "31:"+number)
}

// VolumeInUse returns an error if a UBI volume cannot be opened for writing, or if its block
// device is in use.
func VolumeInUse(name string) error {
	file, err := os.OpenFile(name, os.O_RDWR, 0)
	if errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("%s is mounted or in use: unmount it, or name another UBI volume", name)
	}
	if err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	block := "ubiblock" + strings.TrimPrefix(filepath.Base(target(name)), "ubi")
	number, err := os.ReadFile(filepath.Join("/sys/class/block", block, "dev"))
	if err != nil {
		return nil // it has no block device
	}
	return blockInUse(name, block, strings.TrimSpace(string(number)))
}

// blockInUse returns an error if a block device, of which name is another view, is mounted
// or is part of another one.
func blockInUse(name, block, number string) error {
	if mounts, err := os.ReadFile("/proc/self/mountinfo"); err == nil {
		if on := mountedOn(string(mounts), number); on != "" {
			return fmt.Errorf("%s is mounted on %s: unmount it, or name another device", name, on)
		}
	}
	if users, _ := os.ReadDir(filepath.Join("/sys/class/block", block, "holders")); len(users) > 0 {
		return fmt.Errorf("%s is in use, as %s by %s: release it, or name another device", name, block, users[0].Name())
	}
	return nil
}

// mountedOn finds in the text of /proc/self/mountinfo where the device with a number, such as
// 31:2, is mounted, "" if it is not.
func mountedOn(mountinfo, number string) string {
	for line := range strings.Lines(mountinfo) {
		if f := strings.Fields(line); len(f) > 4 && f[2] == number {
			return f[4]
		}
	}
	return ""
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
