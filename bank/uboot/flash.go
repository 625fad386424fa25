package uboot

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"example.com/iad/internal/flash"
)

// Flash is a copy in raw flash memory, an MTD device such as /dev/mtd1. It starts at an
// erase block, and bad erase blocks are skipped.
type Flash struct {
	Name   string
	Offset int64
	// Extent is how many bytes the copy may use, bad erase blocks included; 0 for as many
	// erase blocks as its size needs.
	Extent int64
	// device opens the device, nil for flash.OpenMTD.
	device func(name string, write bool) (mtd, error)
}

// mtd is what is needed of flash.MTD.
type mtd interface {
	Size() int64
	EraseBlock() int64
	WriteUnit() int64
	Bad(at int64) (bool, error)
	Unlock(at int64)
	Erase(at int64) error
	io.ReaderAt
	io.WriterAt
	io.Closer
}

func (f Flash) String() string { return fmt.Sprintf("%s at %#x", f.Name, f.Offset) }

func (f Flash) open(write bool) (m mtd, err error) {
	if f.device == nil {
		m, err = flash.OpenMTD(f.Name, write)
	} else {
		m, err = f.device(f.Name, write)
	}
	if err == nil && f.Offset%m.EraseBlock() != 0 {
		m.Close()
		return nil, fmt.Errorf("offset %#x is not a multiple of the erase block, %#x", f.Offset, m.EraseBlock())
	}
	return m, reason(err)
}

// each calls do for the good erase blocks that size bytes need: with the block's offset,
// and which part of the bytes is in it.
func (f Flash) each(m mtd, size int, do func(at int64, from, to int) error) error {
	block := m.EraseBlock()
	end := f.Offset + max(f.Extent, (int64(size)+block-1)/block*block)
	done := 0
	for at := f.Offset; done < size; at += block {
		if at+block > min(end, m.Size()) {
			return fmt.Errorf("it has too few good erase blocks: %d of %d bytes fit", done, size)
		}
		bad, err := m.Bad(at)
		if err != nil {
			return err
		}
		if bad {
			continue
		}
		to := min(size, done+int(block))
		if err := do(at, done, to); err != nil {
			return err
		}
		done = to
	}
	return nil
}

// Read fills data.
func (f Flash) Read(data []byte) error {
	m, err := f.open(false)
	if err != nil {
		return err
	}
	defer m.Close()
	return f.each(m, len(data), func(at int64, from, to int) error {
		if _, err := m.ReadAt(data[from:to], at); err != nil && !errors.Is(err, io.EOF) {
			return reason(err)
		}
		return nil
	})
}

// Write erases the copy and writes it. What follows it in its last erase block is kept,
// unless the power fails between the two: flash memory can only be erased as a whole block.
func (f Flash) Write(data []byte) error {
	m, err := f.open(true)
	if err != nil {
		return err
	}
	err = f.each(m, len(data), func(at int64, from, to int) error {
		part := data[from:to:to]
		if rest := int64(to-from) % m.EraseBlock(); rest > 0 {
			part = append(part, following(m, at+rest, at+m.EraseBlock())...)
		}
		if unit := int(m.WriteUnit()); len(part)%unit != 0 {
			part = append(part, blank(unit-len(part)%unit)...)
		}
		if err := m.Erase(at); err != nil {
			return err
		}
		_, err := m.WriteAt(part, at)
		return reason(err)
	})
	if cerr := m.Close(); err == nil {
		err = cerr
	}
	return err
}

// following reads what must be written again when flash memory is erased: from the end of a
// copy to that of its erase block, without the erased memory at the end. What cannot be read
// is lost already, as after a power cut, and becomes erased memory.
func following(m mtd, from, end int64) []byte {
	rest := blank(int(end - from))
	step := max(m.WriteUnit(), 256)
	for at := from; at < end; {
		next := min(end, (at/step+1)*step)
		piece := rest[at-from : next-from]
		if _, err := m.ReadAt(piece, at); err != nil {
			copy(piece, blank(len(piece)))
		}
		at = next
	}
	return bytes.TrimRight(rest, "\xFF")
}

// blank is erased memory.
func blank(n int) []byte { return bytes.Repeat([]byte{0xFF}, n) }

// PutByte clears bits of one byte, which only NOR flash can do.
func (f Flash) PutByte(offset int64, b byte) error {
	m, err := f.open(true)
	if err != nil {
		return err
	}
	at, got := f.Offset+offset, []byte{b}
	m.Unlock(at / m.EraseBlock() * m.EraseBlock())
	if _, err = m.WriteAt(got, at); err == nil {
		_, err = m.ReadAt(got, at)
	}
	if cerr := m.Close(); err == nil {
		err = cerr
	}
	if err == nil && got[0] != b {
		// A driver does not report that it ignored a write to what is locked.
		err = fmt.Errorf("the byte at %#x is %#x after %#x was written; is the flash memory write-protected?", at, got[0], b)
	}
	return reason(err)
}

// Volume is a copy in a UBI volume of its own, such as /dev/ubi0_1.
type Volume struct{ Name string }

func (v Volume) String() string { return v.Name }

// Read fills data.
func (v Volume) Read(data []byte) error { return File{Fs: system, Name: v.Name}.Read(data) }

// Write replaces the volume's content.
func (v Volume) Write(data []byte) error {
	w, err := flash.UpdateUBI(v.Name, int64(len(data)))
	if err != nil {
		return reason(err)
	}
	_, err = w.Write(data)
	if cerr := w.Close(); err == nil {
		err = cerr
	}
	return reason(err)
}

// PutByte always fails: a volume is replaced whole.
func (v Volume) PutByte(int64, byte) error {
	return errors.New("a UBI volume cannot be changed byte by byte")
}
