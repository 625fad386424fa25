package partition

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"unsafe"

	"example.com/iad/bank"
)

// Block is a partition on a block device, or a file that stands for one.
type Block struct{ Name string }

var _ bank.Partition = Block{}

func (b Block) String() string { return b.Name }

// disk is an open block device or file.
type disk struct {
	*os.File
	sector int64 // what is written at once, in bytes
	direct bool  // past the cache: it is a block device
}

// fileSector is the sector of a file that stands for a block device.
const fileSector = 4096

func (b Block) open(flag int) (*disk, error) {
	info, err := os.Stat(b.Name)
	if err != nil {
		return nil, err
	}
	if info.Mode().IsRegular() {
		f, err := os.OpenFile(b.Name, flag, 0) //durable: its name does not change, and its content is synced
		return &disk{File: f, sector: fileSector}, err
	}
	if info.Mode()&(os.ModeDevice|os.ModeCharDevice) != os.ModeDevice {
		return nil, fmt.Errorf("%s: %w", b.Name, errKind)
	}
	if flag != os.O_RDONLY {
		flag |= syscall.O_EXCL // not while it is mounted
	}
	f, err := os.OpenFile(b.Name, flag|direct, 0) //durable: a device, which is synced
	if errors.Is(err, syscall.EBUSY) {
		return nil, fmt.Errorf("%s is mounted or in use: unmount it, or name the right partition in the settings", b.Name)
	}
	if err != nil {
		return nil, err
	}
	d := &disk{File: f, direct: true}
	if d.sector, err = sectorSize(f); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: the size of its sectors: %w", b.Name, err), f.Close())
	}
	return d, nil
}

// Capacity returns the size of the device in bytes.
func (b Block) Capacity() (int64, error) {
	d, err := b.open(os.O_RDONLY)
	if err != nil {
		return 0, err
	}
	defer d.Close()
	return d.Seek(0, io.SeekEnd)
}

// Open opens the device for reading past the cache.
func (b Block) Open() (bank.PartitionReader, error) {
	d, err := b.open(os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	if !d.direct {
		if err := forget(d.File); err != nil {
			return nil, errors.Join(fmt.Errorf("read %s past the cache: %w", b.Name, err), d.Close())
		}
		return d, nil
	}
	return &directReader{disk: d, buf: aligned(pieceSize)}, nil
}

// Sync writes to the medium what the kernel or the device keep of what was written.
func (b Block) Sync() error {
	d, err := b.open(os.O_RDONLY)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Claim opens the device for writing, unless it is mounted.
func (b Block) Claim() (bank.PartitionWriter, error) {
	d, err := b.open(os.O_RDWR)
	if err != nil {
		return nil, err
	}
	return &blockWriter{disk: d, buf: aligned(pieceSize)}, nil
}

// pieceSize is how many bytes are read and written at once, a multiple of every sector.
const pieceSize = 64 << 10

// alignment is that of memory for O_DIRECT: enough for every device.
const alignment = 4096

// aligned returns n bytes whose address is a multiple of alignment.
func aligned(n int) []byte {
	b := make([]byte, n+alignment)
	skip := -int(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) & (alignment - 1)
	return b[skip : skip+n : skip+n]
}

// directReader reads a device by way of aligned memory.
type directReader struct {
	disk *disk
	buf  []byte
	have []byte // of buf, read and not yet returned

	window []byte // aligned memory of ReadAt,
	at     int64  // which was read from here on
	size   int64  // so many bytes of it are valid
}

// Read reads the next bytes.
func (r *directReader) Read(p []byte) (int, error) {
	if len(r.have) == 0 {
		n, err := r.disk.Read(r.buf)
		if n <= 0 {
			return 0, err
		}
		r.have = r.buf[:n]
	}
	n := copy(p, r.have)
	r.have = r.have[n:]
	return n, nil
}

// ReadAt reads anywhere. It keeps what it read around p for the next call.
func (r *directReader) ReadAt(p []byte, at int64) (done int, err error) {
	if r.window == nil {
		r.window = aligned(pieceSize)
	}
	for done < len(p) {
		from := at + int64(done)
		if from < r.at || from >= r.at+r.size {
			r.at = from / r.disk.sector * r.disk.sector
			n, err := r.disk.ReadAt(r.window, r.at)
			if r.size = int64(n); from >= r.at+r.size {
				return done, err
			}
		}
		done += copy(p[done:], r.window[from-r.at:r.size])
	}
	return done, nil
}

// Close closes the device.
func (r *directReader) Close() error { return r.disk.Close() }

// blockWriter writes by way of aligned memory.
type blockWriter struct {
	*disk
	buf []byte
}

// Block returns the size of a sector, which the device writes all or not at all.
func (w *blockWriter) Block() int64 { return w.sector }

// Clear zeroes the first sector.
func (w *blockWriter) Clear(int64) error {
	if _, err := w.disk.WriteAt(aligned(int(w.sector)), 0); err != nil {
		return err
	}
	return w.Sync()
}

// WriteAt writes at a multiple of a sector. The rest of the last sector gets zeros.
func (w *blockWriter) WriteAt(p []byte, at int64) (done int, err error) {
	for done < len(p) {
		n := copy(w.buf, p[done:])
		full := (int64(n) + w.sector - 1) / w.sector * w.sector
		for i := int64(n); i < full; i++ {
			w.buf[i] = 0
		}
		if _, err := w.disk.WriteAt(w.buf[:full], at+int64(done)); err != nil {
			return done, err
		}
		done += n
	}
	return done, nil
}
