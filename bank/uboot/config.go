package uboot

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/afero"

	"example.com/iad/internal/flash"
)

// system is where devices are.
var system = afero.NewOsFs()

// Open returns the copy at an offset of a device: an MTD device, a UBI volume, or
// anything else that can be read and written at an offset. Extent is the space that an
// MTD device has for it, 0 for just what it needs.
func Open(fs afero.Fs, name string, offset, extent int64) Copy {
	switch base := filepath.Base(name); {
	case strings.HasPrefix(base, "mtd") && !strings.HasPrefix(base, "mtdblock"):
		return Flash{Name: name, Offset: offset, Extent: extent}
	case strings.HasPrefix(base, "ubi") && strings.Contains(base, "_"):
		return Volume{Name: name}
	}
	return File{Fs: fs, Name: name, Offset: offset}
}

// ReadConfig reads the places of U-Boot's environment as fw_printenv and fw_setenv find
// them, from a file fw_env.config: a line for each copy with the device, the offset, the
// size and, for flash memory, the size and the number of its sectors. Numbers may be
// hexadecimal, with 0x. Whether NOR flash holds it is asked of the device.
func ReadConfig(r io.Reader, order binary.ByteOrder) (*Environment, error) {
	e := &Environment{Order: order}
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		line, _, _ := strings.Cut(lines.Text(), "#")
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		if len(f) < 3 {
			return nil, fmt.Errorf("line %d: want device, offset and size", n)
		}
		var number [4]int64 // offset, size, sector size, sectors
		for i, text := range f[1:min(len(f), 5)] {
			v, err := strconv.ParseInt(text, 0, 64)
			if err != nil || v < 0 {
				return nil, fmt.Errorf("line %d: %q is not an offset or a size", n, text)
			}
			number[i] = v
		}
		size := number[1]
		if size <= checksumSize || size > maxSize {
			return nil, fmt.Errorf("line %d: the size is %d, want %d to %d bytes", n, size, checksumSize+1, maxSize)
		}
		if len(e.Copies) > 0 && size != int64(e.Size) {
			return nil, fmt.Errorf("line %d: the size is %#x, and %#x in the line before", n, size, e.Size)
		}
		e.Size = int(size)
		e.Copies = append(e.Copies, Open(system, f[0], number[0], number[2]*number[3]))
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	switch len(e.Copies) {
	case 0:
		return nil, errors.New("it names no environment")
	case 1, 2:
	default:
		return nil, fmt.Errorf("it names %d copies, 2 at most", len(e.Copies))
	}
	if f, ok := e.Copies[0].(Flash); ok {
		m, err := flash.OpenMTD(f.Name, false)
		if err != nil {
			return nil, err
		}
		defer m.Close()
		if m.NOR() {
			e.Newer = ByActive
		}
	}
	return e, nil
}

// maxSize is more than any environment has, so that a mistyped size takes no memory.
const maxSize = 16 << 20
