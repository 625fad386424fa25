package partition

import (
	"errors"
	"fmt"
	"io"
	"os"

	"example.com/iad/bank"
	"example.com/iad/internal/flash"
)

// Volume is a partition that is a UBI volume, best a static one: UBI checks what it reads
// of it by a CRC. It is updated as a whole. An update that was interrupted cannot be
// continued, and leaves a volume that cannot be read.
type Volume struct {
	Name string
	// device is the kernel's, nil for the real one.
	device ubi
}

// ubi is what is needed of a UBI volume.
type ubi interface {
	// Size is the size of the volume in bytes.
	Size(name string) (int64, error)
	// Open opens the volume for reading.
	Open(name string) (bank.PartitionReader, error)
	// InUse returns an error if the volume is in use.
	InUse(name string) error
	// Update starts to replace the content by size bytes.
	Update(name string, size int64) (io.WriteCloser, error)
}

// kernel is the UBI of Linux.
type kernel struct{}

func (kernel) Size(name string) (int64, error)                { return flash.UBISize(name) }
func (kernel) Open(name string) (bank.PartitionReader, error) { return os.Open(name) }
func (kernel) InUse(name string) error                        { return flash.VolumeInUse(name) }
func (kernel) Update(name string, size int64) (io.WriteCloser, error) {
	return flash.UpdateUBI(name, size)
}

var _ bank.Partition = Volume{}

func (v Volume) String() string { return v.Name }

func (v Volume) ubi() ubi {
	if v.device == nil {
		return kernel{}
	}
	return v.device
}

// Capacity returns the size of the volume in bytes.
func (v Volume) Capacity() (int64, error) { return v.ubi().Size(v.Name) }

// Open opens the volume for reading. It fails, or the first Read does, after an update that was interrupted.
func (v Volume) Open() (bank.PartitionReader, error) { return v.ubi().Open(v.Name) }

// Sync does nothing: an update is complete or has not happened.
func (Volume) Sync() error { return nil }

// Claim checks that the volume exists and is not in use. Clear starts the update.
func (v Volume) Claim() (bank.PartitionWriter, error) {
	if _, err := v.Capacity(); err != nil {
		return nil, err
	}
	if err := v.ubi().InUse(v.Name); err != nil {
		return nil, err
	}
	return &volumeWriter{of: v}, nil
}

// volumeWriter replaces a volume.
type volumeWriter struct {
	of     Volume
	update io.WriteCloser // the one that is under way, or nil
	at     int64
}

// Block is 0: the volume is replaced as a whole.
func (*volumeWriter) Block() int64 { return 0 }

// Clear starts an update by size bytes, in place of the one that is under way. One by none
// leaves the volume empty.
func (w *volumeWriter) Clear(size int64) error {
	if err := w.Close(); err != nil {
		return err
	}
	update, err := w.of.ubi().Update(w.of.Name, size)
	if err != nil {
		return err
	}
	w.update, w.at = update, 0
	return nil
}

// WriteAt writes the next bytes.
func (w *volumeWriter) WriteAt(p []byte, at int64) (int, error) {
	if w.update == nil || at != w.at {
		return 0, fmt.Errorf("write at %d of %s, which is at %d", at, w.of.Name, w.at)
	}
	n, err := w.update.Write(p)
	w.at += int64(n)
	return n, err
}

// Sync does nothing: the last byte ends the update.
func (*volumeWriter) Sync() error { return nil }

// Close ends the update, as an interrupted one if bytes are missing.
func (w *volumeWriter) Close() error {
	if w.update == nil {
		return nil
	}
	err := w.update.Close()
	w.update = nil
	if errors.Is(err, os.ErrClosed) {
		err = nil
	}
	return err
}
