package bank

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/afero"

	"example.com/iad/bank/image"
	"example.com/iad/internal/durable"
	"example.com/iad/mib"
)

// A Partition is the raw medium of a bank, from which a boot loader reads. It holds the
// payload whose target is the partition, from its first byte on and without anything
// else; manifest, signature and all other payloads are in the bank's directory. Package
// partition has implementations.
type Partition interface {
	// String names the partition, for messages.
	String() string
	// Capacity returns how many bytes fit, without those of bad erase blocks.
	Capacity() (int64, error)
	// Open opens the partition for reading from its beginning. What is read comes from the
	// medium, past every cache.
	Open() (PartitionReader, error)
	// Sync makes durable what was written, perhaps by a process that was killed since.
	Sync() error
	// Claim opens the partition for writing and changes nothing yet. It fails while the
	// partition is mounted or otherwise in use, as far as the system can tell.
	Claim() (PartitionWriter, error)
}

// A PartitionReader reads a partition, from its beginning or anywhere.
type PartitionReader interface {
	io.Reader
	io.ReaderAt
	io.Closer
}

// A PartitionWriter writes to a partition that it keeps for itself.
type PartitionWriter interface {
	// Block returns how many bytes are written or erased at once. Writes start at multiples
	// of it, where an interrupted one can be continued too, and the first block is
	// written last. 0 means that the medium is replaced as a whole, in ascending order,
	// by exactly the number of bytes that Clear was told; then nothing can be continued.
	Block() int64
	// Clear durably makes the content useless to a boot loader, before size bytes are
	// written, or none.
	Clear(size int64) error
	// WriteAt writes whole blocks; only the last of the payload may be shorter.
	io.WriterAt
	// Sync makes durable what was written.
	Sync() error
	Close() error
}

// medium is where the software of one bank is.
type medium struct {
	fs   afero.Fs // the directory
	part Partition
	drop func(afero.File) error
	// dropRange is Options.DropRange.
	dropRange func(f afero.File, offset, n int64) error
	ctx       context.Context // ends check; nil for never

	alive func() // called while check reads; may be nil
}

func (o *Options) medium(n int) medium {
	return medium{fs: o.Banks[n-1], part: o.Partitions[n-1], drop: o.DropCache, dropRange: o.DropRange}
}

// open opens what the bank holds of a payload, past the cache where the platform can. What
// is a file has the right size.
func (m medium) open(p image.Payload) (io.ReadCloser, error) {
	if p.Target == image.TargetFile {
		return image.OpenPayload(m.fs, p.Name, p, m.drop)
	}
	if m.part == nil {
		return nil, noPartition(p)
	}
	return m.part.Open()
}

// check compares what the bank holds of a payload with the manifest.
func (m medium) check(p image.Payload) error {
	r, err := m.open(p)
	if err != nil {
		return err
	}
	defer r.Close()
	var from io.Reader = r
	if m.ctx != nil {
		from = &endingReader{m.ctx, from}
	}
	if m.alive != nil {
		from = &aliveReader{m.alive, from, 0}
	}
	return image.CheckContent(from, p)
}

// aliveReader calls alive for each MiB.
type aliveReader struct {
	alive func()
	io.Reader
	n int
}

func (r *aliveReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if r.n += n; r.n >= 1<<20 {
		r.n = 0
		r.alive()
	}
	return n, err
}

// endingReader reads until a context ends.
type endingReader struct {
	ctx context.Context
	io.Reader
}

func (r *endingReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.Reader.Read(p)
}

func noPartition(p image.Payload) *image.Error {
	return &image.Error{Code: mib.FailCauseIncompatibleHardware, Text: fmt.Sprintf("payload %s is for the partition of a bank, and the settings name none for this bank", p.Name)}
}

// wholeCapacity is how many bytes bank n holds with its partition, 0 if there is no limit or
// it is not known.
func (o *Options) wholeCapacity(n int) int64 {
	files := o.capacity(n)
	if part := o.Partitions[n-1]; part != nil && files > 0 {
		raw, err := part.Capacity()
		if err != nil {
			return 0
		}
		return files + raw
	}
	return files
}

// checkPartition refuses software whose payload for the partition has no place here.
func (o *Options) checkPartition(n int, m *image.Manifest) error {
	p, part := m.Partition(), o.Partitions[n-1]
	switch {
	case p == nil:
		return nil
	case part == nil:
		return noPartition(*p)
	}
	holds, err := part.Capacity()
	if err != nil {
		return &Error{Code: mib.FailCauseBankUnavailable, Text: "the partition of the bank cannot be used", Err: err}
	}
	if p.Size > holds {
		return refuse(mib.FailCauseFileTooLarge, "payload %s has %d bytes, the partition %s holds %d", p.Name, p.Size, part, holds)
	}
	return nil
}

// crossed reports whether the names of the two partitions lead to each other's: what belongs on the partition of one bank is
// on the other one's, as it may be after disks were numbered in another order. started is the bank that the boot loader has
// started, 0 if that is not known: its software certainly was on its own partition. It reads what it compares, so it is
// asked only about a bank that looks damaged.
func (o *Options) crossed(started int) bool {
	if o.Partitions[0] == nil || o.Partitions[1] == nil {
		return false
	}
	var payloads [2]*image.Payload
	for i, fs := range o.Banks {
		if h, err := image.ReadInstalled(fs); err == nil && h.Parse() == nil {
			payloads[i] = h.Manifest.Partition()
		}
	}
	var across [2]bool
	for i, p := range payloads {
		if p == nil {
			continue
		}
		m := o.medium(i + 1)
		if m.check(*p) == nil {
			return false
		}
		m.part = o.Partitions[1-i]
		across[i] = m.check(*p) == nil
	}
	if started != 0 {
		return across[started-1]
	}
	return across[0] || across[1]
}

// claim opens the partition of a bank for writing, nil if it has none.
func (m medium) claim() (PartitionWriter, error) {
	if m.part == nil {
		return nil, nil
	}
	out, err := m.part.Claim()
	if err != nil {
		return nil, &Error{Code: mib.FailCauseBankUnavailable, Text: "the partition of the bank cannot be written", Err: err}
	}
	return out, nil
}

// clearPartition makes the content of a partition useless to a boot loader. out may be nil.
func clearPartition(out PartitionWriter, size int64) error {
	if out == nil {
		return nil
	}
	if err := out.Clear(size); err != nil {
		return &Error{Code: mib.FailCauseEraseError, Text: "the partition of the bank could not be erased", Err: err}
	}
	return nil
}

// A marker says how much of a payload is on the partition, in case its download is
// interrupted. It is a file in the bank's directory.
type marker struct {
	sha256 string // of the whole payload
	at     int64  // so many bytes are there and last, but for those in first
	// first is the first block while it is not on the partition. nil with a payload that
	// is complete.
	first []byte
}

const (
	// markerName cannot be the name of a payload.
	markerName    = ".partition"
	markerVersion = 1
	// markEvery is how many bytes a power cut may cost.
	markEvery = 4 << 20

	digestSize = 64 // in hexadecimal
	markerHead = digestSize + 8
)

var markerMagic = [4]byte{'I', 'A', 'D', 'p'}

// readMarker returns the marker in a bank's directory, the zero one if there is none that
// can be used.
func readMarker(fs afero.Fs) marker {
	data, err := durable.LoadFrame(fs, markerName, markerMagic, markerVersion)
	if err != nil || len(data) < markerHead {
		return marker{}
	}
	m := marker{sha256: string(data[:digestSize]), at: int64(binary.BigEndian.Uint64(data[digestSize:]))}
	if len(data) > markerHead {
		m.first = data[markerHead:]
	}
	return m
}

// write makes m the marker. One whose block is too large for a frame is not kept: then the
// payload starts at its beginning again.
func (m marker) write(fs afero.Fs) error {
	data := binary.BigEndian.AppendUint64([]byte(m.sha256), uint64(m.at))
	if data = append(data, m.first...); len(data) > durable.MaxPayload {
		return nil
	}
	return durable.SaveFrame(fs, markerName, markerMagic, markerVersion, data)
}

// fits reports whether a payload can be continued from m by a writer of such blocks.
func (m marker) fits(p image.Payload, block int64) bool {
	switch {
	case m.sha256 != p.SHA256 || m.at <= 0 || m.at > p.Size:
		return false
	case m.first == nil:
		return m.at == p.Size
	}
	return block > 0 && int64(len(m.first)) == min(block, m.at) && (m.at == p.Size || m.at%block == 0)
}

// A partWriter writes a payload to a partition, all but the first block; commit writes
// that. It notes now and then how far it has got.
type partWriter struct {
	fs    afero.Fs // of the marker
	out   PartitionWriter
	size  int64 // of the payload
	noted marker
	first []byte // the first block once it has come
	at    int64  // where piece begins
	piece []byte // what has come and is not written; its capacity is a number of whole blocks
	err   error
}

// openPartition starts to write p, or continues it where the marker of the bank says.
func openPartition(fs afero.Fs, out PartitionWriter, p image.Payload) *partWriter {
	block := max(out.Block(), 1)
	g := &partWriter{fs: fs, out: out, size: p.Size, noted: marker{sha256: p.SHA256}}
	g.piece = make([]byte, 0, (bufferSize+block-1)/block*block)
	if m := readMarker(fs); m.fits(p, out.Block()) {
		g.noted, g.first, g.at = m, m.first, m.at
	}
	return g
}

// Size returns the number of bytes that have come.
func (g *partWriter) Size() int64 { return g.at + int64(len(g.piece)) }

// Write takes the next bytes. After an error every further Write returns it again.
func (g *partWriter) Write(p []byte) (n int, err error) {
	for n < len(p) && g.err == nil {
		k := copy(g.piece[len(g.piece):cap(g.piece)], p[n:])
		g.piece = g.piece[:len(g.piece)+k]
		n += k
		if len(g.piece) == cap(g.piece) || g.Size() == g.size {
			g.err = g.flush(g.piece)
			g.piece = g.piece[:0]
		}
		if g.err == nil && g.at-g.noted.at >= markEvery {
			g.err = g.note(g.first)
		}
	}
	return n, g.err
}

// flush writes what comes next, and keeps the first block.
func (g *partWriter) flush(piece []byte) error {
	rest, at := piece, g.at
	if block := g.out.Block(); at == 0 && block > 0 {
		g.first = bytes.Clone(piece[:min(block, int64(len(piece)))])
		rest, at = piece[len(g.first):], int64(len(g.first))
	}
	if len(rest) > 0 {
		if _, err := g.out.WriteAt(rest, at); err != nil {
			return err
		}
	}
	g.at += int64(len(piece))
	return nil
}

// note makes durable what was written, and then the marker that says so.
func (g *partWriter) note(first []byte) error {
	if err := g.out.Sync(); err != nil {
		return err
	}
	m := marker{sha256: g.noted.sha256, at: g.at, first: first}
	if err := m.write(g.fs); err != nil {
		return err
	}
	g.noted = m
	return nil
}

// suspend keeps what has come of a payload that will be continued, as far as it makes
// whole blocks.
func (g *partWriter) suspend() error {
	block := g.out.Block()
	if g.err != nil || block == 0 {
		return g.err
	}
	if whole := int64(len(g.piece)) / block * block; whole > 0 {
		if err := g.flush(g.piece[:whole]); err != nil {
			return err
		}
	}
	if g.at == g.noted.at {
		return nil
	}
	return g.note(g.first)
}

// commit completes the payload, which has come and is right. Once a boot loader can find
// it, nothing of it is written any more: the marker says so before the first block is.
func (g *partWriter) commit() error {
	if g.noted.at == g.size && g.noted.first == nil {
		return nil // it was complete
	}
	if err := g.note(g.first); err != nil {
		return err
	}
	if g.first != nil {
		if _, err := g.out.WriteAt(g.first, 0); err != nil {
			return err
		}
	}
	return g.note(nil)
}

// tryPartition is tryPayload for the partition.
func (w *writer) tryPartition(i int) (resumed bool, err error) {
	p := w.fetch.Head.Manifest.Payloads[i]
	g := openPartition(w.fs, w.out, p)
	sum := newContentSum(w.seed)
	if g.Size() > 0 {
		resumed = true
		r, err := w.part.Open()
		if err != nil {
			return true, storeError(err, "the bank cannot be read")
		}
		defer r.Close()
		if err := w.rehash(io.LimitReader(r, g.Size()), g.first, sum); err != nil {
			return true, err
		}
	}
	if g.Size() < p.Size {
		if err := w.receive(i, g, sum); err != nil {
			// What has come may be continued; if that cannot be noted it will come again.
			_ = g.suspend()
			return resumed, err
		}
	}
	if err := sum.matches(p); err != nil {
		return resumed, err
	}
	w.stored[p.Name] = sum.checksum.Sum64()
	if err := g.commit(); err != nil {
		return resumed, storeError(err, "the bank could not be written")
	}
	return resumed, nil
}

// discard removes a payload of which nothing is worth keeping.
func (w *writer) discard(p image.Payload) error {
	if p.Target == image.TargetFile {
		return durable.Remove(w.fs, p.Name)
	}
	err := durable.Remove(w.fs, markerName)
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	return errors.Join(w.out.Clear(p.Size), err)
}
