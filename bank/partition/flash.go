package partition

import (
	"errors"
	"fmt"
	"io"
	"syscall"

	"example.com/iad/bank"
	"example.com/iad/internal/flash"
)

// Flash is a partition in raw flash memory, an MTD device. Bad erase blocks are skipped, as U-Boot's
// "nand read" does: the payload is in the good ones, in their order.
type Flash struct {
	Name string
	// open opens the device, nil for flash.OpenMTD.
	open func(name string, write bool) (nand, error)
}

// nand is what is needed of flash.MTD.
type nand interface {
	Size() int64
	EraseBlock() int64
	WriteUnit() int64
	Bad(at int64) (bool, error)
	MarkBad(at int64) error
	Erase(at int64) error
	io.ReaderAt
	io.WriterAt
	io.Closer
}

var (
	_ bank.Partition = Flash{}
	_ nand           = (*flash.MTD)(nil)
)

func (f Flash) String() string { return f.Name }

// blocks opens the device, and returns where its good erase blocks are.
func (f Flash) blocks(write bool) (m nand, good []int64, err error) {
	open := f.open
	if open == nil {
		open = func(name string, write bool) (nand, error) {
			if write {
				if err := flash.InUse(name); err != nil {
					return nil, err
				}
			}
			return flash.OpenMTD(name, write)
		}
	}
	if m, err = open(f.Name, write); err != nil {
		return nil, nil, err
	}
	for at := int64(0); at+m.EraseBlock() <= m.Size(); at += m.EraseBlock() {
		bad, err := m.Bad(at)
		if err != nil {
			return nil, nil, errors.Join(fmt.Errorf("%s: erase block at %#x: %w", f.Name, at, err), m.Close())
		}
		if !bad {
			good = append(good, at)
		}
	}
	return m, good, nil
}

// Capacity returns the size in bytes of the good erase blocks.
func (f Flash) Capacity() (int64, error) {
	m, good, err := f.blocks(false)
	if err != nil {
		return 0, err
	}
	return int64(len(good)) * m.EraseBlock(), m.Close()
}

// Open opens the device for reading.
func (f Flash) Open() (bank.PartitionReader, error) {
	m, good, err := f.blocks(false)
	if err != nil {
		return nil, err
	}
	return &flashReader{nand: m, good: good}, nil
}

// Sync does nothing: what was written to flash memory lasts.
func (Flash) Sync() error { return nil }

// Claim opens the device for writing, unless UBI uses it.
func (f Flash) Claim() (bank.PartitionWriter, error) {
	m, good, err := f.blocks(true)
	if err != nil {
		return nil, err
	}
	return &flashWriter{nand: m, good: good}, nil
}

// flashReader reads the good erase blocks.
type flashReader struct {
	nand
	good []int64
	at   int64 // of the next Read
}

// Read reads the next bytes.
func (r *flashReader) Read(p []byte) (int, error) {
	n, err := r.ReadAt(p[:min(int64(len(p)), r.EraseBlock()-r.at%r.EraseBlock())], r.at)
	r.at += int64(n)
	if n > 0 && err == io.EOF {
		err = nil
	}
	return n, err
}

// ReadAt reads anywhere; at does not count bad erase blocks.
func (r *flashReader) ReadAt(p []byte, at int64) (done int, err error) {
	size := r.EraseBlock()
	for done < len(p) {
		i, in := (at+int64(done))/size, (at+int64(done))%size
		if i >= int64(len(r.good)) {
			return done, io.EOF
		}
		n, err := r.nand.ReadAt(p[done:min(int64(len(p)), int64(done)+size-in)], r.good[i]+in)
		if done += n; err != nil {
			return done, err
		}
	}
	return done, nil
}

// flashWriter erases and writes erase blocks, and marks those bad that fail.
type flashWriter struct {
	nand
	good []int64
}

// Block returns the size of an erase block.
func (w *flashWriter) Block() int64 { return w.EraseBlock() }

// Clear erases the first erase block.
func (w *flashWriter) Clear(int64) error {
	for len(w.good) > 0 {
		err := w.Erase(w.good[0])
		if err == nil {
			return nil
		}
		if err := w.spoilt(0, err); err != nil {
			return err
		}
	}
	return syscall.ENOSPC
}

// spoilt marks the good erase block i bad after an error that a bad one causes, so that
// the next one takes its place. The other errors are returned.
func (w *flashWriter) spoilt(i int64, err error) error {
	if !errors.Is(err, syscall.EIO) {
		return err
	}
	if merr := w.MarkBad(w.good[i]); merr != nil {
		return errors.Join(err, merr)
	}
	w.good = append(w.good[:i:i], w.good[i+1:]...)
	return nil
}

// WriteAt writes from the beginning of an erase block on. If one fails while what follows
// it is still to be written, the next one takes its place; the first one, which is written
// last, has to be written where it was erased.
func (w *flashWriter) WriteAt(p []byte, at int64) (done int, err error) {
	size := w.EraseBlock()
	if at%size != 0 {
		return 0, fmt.Errorf("write at %#x, which is not the beginning of an erase block", at)
	}
	for done < len(p) {
		i := (at + int64(done)) / size
		if i >= int64(len(w.good)) {
			return done, syscall.ENOSPC
		}
		piece := p[done:min(int64(len(p)), int64(done)+size)]
		err := w.block(w.good[i], piece)
		if err == nil {
			done += len(piece)
			continue
		}
		if merr := w.spoilt(i, err); merr != nil || i == 0 {
			return done, errors.Join(err, merr)
		}
	}
	return done, nil
}

// block erases an erase block and writes it.
func (w *flashWriter) block(at int64, piece []byte) error {
	if err := w.Erase(at); err != nil {
		return err
	}
	if unit := int(w.WriteUnit()); len(piece)%unit != 0 {
		piece = append(piece[:len(piece):len(piece)], make([]byte, unit-len(piece)%unit)...)
	}
	_, err := w.nand.WriteAt(piece, at)
	return err
}

// Sync does nothing: what was written to flash memory lasts.
func (*flashWriter) Sync() error { return nil }
