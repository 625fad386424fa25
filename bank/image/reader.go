package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path"

	"example.com/iad/bank/image/frame"
	"example.com/iad/mib"
)

// A Source opens files on a server.
type Source interface {
	// Open opens the file name from byte offset on. size is that of the whole
	// file, -1 if it is not known. A source that cannot start at an offset other
	// than 0 returns an error wrapping ErrNoResume. Reading returns io.EOF only at
	// the end of a complete file.
	Open(ctx context.Context, name string, offset int64) (rc io.ReadCloser, size int64, err error)
}

// ErrNoResume is wrapped by a Source's error when it cannot start at an offset.
var ErrNoResume = errors.New("cannot resume")

// A Reader reads an image from a Source, in tar or in split form: first ReadHead, then
// for each payload SeekPayload, Read and EndPayload, at last End. The caller reads the
// exported fields and does not write them.
type Reader struct {
	Name string // of the image file or, in split form, of the manifest
	Head *Head  // set by ReadHead
	Tar  bool   // the image is in tar form
	// AnnouncedSize is the size in bytes that the source states for the image file or, in
	// split form, for the manifest; -1 if it states none.
	AnnouncedSize int64
	Fetched       int64 // bytes read from the source

	ctx context.Context
	src Source

	// whole is set once files are opened only at their beginnings, because the server
	// claims that it can start in the middle of a file and does not.
	whole bool

	rc    io.ReadCloser // nil while nothing is open
	name  string        // of the open file
	began int64         // offset at which rc was opened
	pos   int64         // offset of rc in the open file

	chain   []byte        // the payload TrustName once it was read, nil before
	inChain *bytes.Reader // what Read reads instead of rc, nil for nothing
}

// NewReader returns a Reader of the image in the file name of src or, in split form,
// of the image whose manifest that file is. ctx ends all reading.
func NewReader(ctx context.Context, src Source, name string) *Reader {
	return &Reader{ctx: ctx, src: src, Name: name}
}

// Read reads from the file that is open.
func (f *Reader) Read(p []byte) (int, error) {
	if err := f.ctx.Err(); err != nil {
		return 0, context.Cause(f.ctx)
	}
	if f.inChain != nil {
		return f.inChain.Read(p)
	}
	n, err := f.rc.Read(p)
	f.pos += int64(n)
	f.Fetched += int64(n)
	return n, err
}

// Close closes the file that is open, if any. Another SeekPayload opens it again.
func (f *Reader) Close() {
	if f.rc != nil {
		// What was wanted of it has been read.
		_ = f.rc.Close()
		f.rc = nil
	}
}

func (f *Reader) open(name string, offset int64) (size int64, err error) {
	if offset > 0 && f.whole {
		return 0, ErrNoResume
	}
	f.Close()
	f.inChain = nil
	rc, size, err := f.src.Open(f.ctx, name, offset)
	if err != nil {
		return 0, fmt.Errorf("fetch %s: %w", name, err)
	}
	f.rc, f.name, f.pos, f.began = rc, name, offset, offset
	return size, nil
}

// GiveUpResuming closes the file and from now on opens files only at their beginnings.
// It is for a file that was opened in the middle and had unexpected content there. It
// reports false, and does nothing, if that was not the case: then the file is at fault.
func (f *Reader) GiveUpResuming() bool {
	if f.whole || f.began == 0 {
		return false
	}
	f.whole = true
	f.Close()
	return true
}

// ReadHead reads manifest and signature in whichever form the file has, which its first
// byte shows. Nothing is verified.
func (f *Reader) ReadHead() (err error) {
	if f.AnnouncedSize, err = f.open(f.Name, 0); err != nil {
		return err
	}
	var first [1]byte
	if err := readFull(f, first[:]); err != nil {
		return err
	}
	r := io.MultiReader(bytes.NewReader(first[:]), f)
	if f.Tar = first[0] != '{'; f.Tar {
		f.Head, err = readHead(r)
		return err
	}
	raw, err := readLimited(r, f.Name, MaxManifest)
	if err != nil {
		return err
	}
	if f.AnnouncedSize >= 0 && f.AnnouncedSize != int64(len(raw)) {
		return refuse(mib.FailCauseSizeMismatch, "%s has %d bytes, %d were announced", f.Name, len(raw), f.AnnouncedSize)
	}
	if _, err := f.open(f.Name+SignatureSuffix, 0); err != nil {
		return err
	}
	signature, err := readLimited(f, f.Name+SignatureSuffix, MaxSignature)
	if err != nil {
		return err
	}
	f.Head = NewHead(raw, signature)
	return nil
}

// Verify verifies and parses the head as [Head.Verify] does, by the last document of the
// image's trust chain if it has one that follows on trust. It returns what a device trusts
// from then on. Causes, besides: those of [ParseChain] and [Chain.Follow]; badFormat if the tar form
// has payloads with several encodings.
func (f *Reader) Verify(trust *Trust) (*Trust, error) {
	trust, err := f.Head.verifyChain(trust, f.readChain)
	if err != nil || !f.Tar {
		return trust, err
	}
	return trust, f.Head.Manifest.checkOneEncoding()
}

// readChain reads the trust chain after the head, or the file beside the manifest.
func (f *Reader) readChain() (chain []byte, err error) {
	if f.Tar {
		f.chain, _, err = readTrustMember(f)
		return f.chain, err
	}
	name := path.Join(path.Dir(f.Name), TrustName)
	if _, err := f.open(name, 0); err != nil {
		return nil, err
	}
	f.chain, err = readLimited(f, name, MaxTrustChain)
	return f.chain, err
}

// FileSize is the size in bytes, according to the manifest, of the image file or, in
// split form, of the manifest itself.
func (f *Reader) FileSize() int64 {
	if f.Tar {
		return f.Head.tarSize()
	}
	return int64(len(f.Head.Raw))
}

// TotalSize is the size in bytes of the whole image or, with encodings, of what is made of
// it: how much will be fetched depends on what can be used.
func (f *Reader) TotalSize() int64 {
	if f.Tar && f.Head.Manifest.Format == PlainFormat {
		return f.Head.tarSize()
	}
	return f.Head.StoredSize()
}

// SeekPayload makes the next Read start at byte from of payload i or, if the source
// cannot start there, at an earlier one. start is the byte at which it does.
func (f *Reader) SeekPayload(i int, from int64) (start int64, err error) {
	p := &f.Head.Manifest.Payloads[i]
	if f.chain != nil && p.Name == TrustName && from <= int64(len(f.chain)) {
		f.inChain = bytes.NewReader(f.chain[from:])
		return from, nil
	}
	if f.Tar {
		return from, f.seekTar(i, from)
	}
	name := path.Join(path.Dir(f.Name), p.Name)
	size, err := f.open(name, from)
	if from > 0 && errors.Is(err, ErrNoResume) {
		from = 0
		size, err = f.open(name, 0)
	}
	if err == nil {
		err = checkAnnounced(name, size, p.Size)
	}
	return from, err
}

// checkAnnounced compares the size that a source states for a file with the manifest.
func checkAnnounced(name string, size, want int64) error {
	if size >= 0 && size != want {
		return refuse(mib.FailCauseSizeMismatch, "%s has %d bytes on the server, %d in the manifest", name, size, want)
	}
	return nil
}

// ErrDamaged is wrapped by errors about an encoding whose bytes are not those of the
// manifest. Nothing has been made of these bytes.
var ErrDamaged = errors.New("it does not match the manifest")

// ReadIndex reads the index of an encoding of payload i. Causes: digestMismatch, with
// ErrDamaged; badFormat.
func (f *Reader) ReadIndex(i int, e *Encoding) (*frame.Index, error) {
	if err := f.seekEncoding(i, e, 0); err != nil {
		return nil, err
	}
	return readIndex(f, &f.Head.Manifest.Payloads[i], e)
}

// ReadFrame reads frame k of an encoding of payload i into buf, which is large enough for any.
// Cause: digestMismatch, with ErrDamaged.
func (f *Reader) ReadFrame(i int, e *Encoding, x *frame.Index, k int, buf []byte) ([]byte, error) {
	if err := f.seekEncoding(i, e, x.Offset(k)); err != nil {
		return nil, err
	}
	return readFrame(f, e, x, k, buf)
}

// seekEncoding makes the next Read start at a byte of an encoding of payload i.
func (f *Reader) seekEncoding(i int, e *Encoding, from int64) error {
	if f.Tar {
		return f.seekTar(i, from)
	}
	return f.seek(path.Join(path.Dir(f.Name), e.File), e.Size, from)
}

// skipAhead is the gap in bytes that is read over instead of reopening the file.
const skipAhead = 64 << 10

// seekTar goes to byte from of what stands for payload i in the tar form.
func (f *Reader) seekTar(i int, from int64) error {
	at, size := f.Head.tarOffset(i), f.Head.tarSize()
	if from > 0 {
		return f.seek(f.Name, size, at+blockSize+from)
	}
	if err := f.seek(f.Name, size, at); err != nil {
		return err
	}
	m := f.Head.Manifest.Payloads[i].member()
	return expect(f, m.header(), "the header of "+m.name)
}

// seek goes to an offset of a file of size bytes: by reopening it there or, where the
// source cannot do that, by reading over what comes before.
func (f *Reader) seek(name string, size, to int64) error {
	forward := f.rc != nil && f.name == name && f.pos <= to
	if forward && to-f.pos <= skipAhead {
		return f.skip(to)
	}
	pos, rc := f.pos, f.rc
	if forward {
		f.rc = nil // still wanted if the source cannot resume
	}
	announced, err := f.open(name, to)
	if err == nil {
		if forward {
			_ = rc.Close()
		}
		return checkAnnounced(name, announced, size)
	}
	if !errors.Is(err, ErrNoResume) {
		if forward {
			_ = rc.Close()
		}
		return err
	}
	if forward {
		f.rc, f.name, f.pos = rc, name, pos
	} else if announced, err = f.open(name, 0); err != nil {
		return err
	} else if err := checkAnnounced(name, announced, size); err != nil {
		return err
	}
	return f.skip(to)
}

// skip reads over what comes before an offset.
func (f *Reader) skip(to int64) error {
	_, err := io.CopyN(io.Discard, f, to-f.pos)
	if err == io.EOF {
		return refuse(mib.FailCauseSizeMismatch, "%s ends early, %d bytes before the requested part", f.name, to-f.pos)
	}
	return err
}

// EndPayload reads what must follow payload i, or the encoding of it, that was just read.
func (f *Reader) EndPayload(i int) error {
	if f.inChain != nil {
		f.inChain = nil
		return nil
	}
	if f.Tar {
		return expect(f, padding(f.Head.Manifest.Payloads[i].member().size), "padding")
	}
	var one [1]byte
	if n, err := io.ReadFull(f, one[:]); n > 0 {
		return refuse(mib.FailCauseSizeMismatch, "%s is longer than the manifest says", f.name)
	} else if err != io.EOF {
		return err
	}
	return nil
}

// End reads what must follow the last payload, if that was just read.
func (f *Reader) End() error {
	if !f.Tar || f.rc == nil || f.pos != f.Head.tarOffset(len(f.Head.Manifest.Payloads)) {
		return nil
	}
	return expectEnd(f)
}
