package uboot

import (
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
}

func (f Flash) String() string { return fmt.Sprintf("%s at %#x", f.Name, f.Offset) }

func (f Flash) open(write bool) (*flash.MTD, error) {
	m, err := flash.OpenMTD(f.Name, write)
	if err == nil && f.Offset%m.EraseBlock() != 0 {
		m.Close()
		return nil, fmt.Errorf("offset %#x is not a multiple of the erase block, %#x", f.Offset, m.EraseBlock())
	}
	return m, reason(err)
}

// each calls do for the good erase blocks that size bytes need: with the block's offset,
// and which part of the bytes is in it.
func (f Flash) each(m *flash.MTD, size int, do func(at int64, from, to int) error) error {
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

// Write erases the copy and writes it.
func (f Flash) Write(data []byte) error {
	m, err := f.open(true)
	if err != nil {
		return err
	}
	err = f.each(m, len(data), func(at int64, from, to int) error {
		part := data[from:to]
		if unit := int(m.WriteUnit()); len(part)%unit != 0 {
			part = append(part[:len(part):len(part)], make([]byte, unit-len(part)%unit)...)
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

// PutByte clears bits of one byte, which only NOR flash can do.
func (f Flash) PutByte(offset int64, b byte) error {
	m, err := f.open(true)
	if err != nil {
		return err
	}
	_, err = m.WriteAt([]byte{b}, f.Offset+offset)
	if cerr := m.Close(); err == nil {
		err = cerr
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
