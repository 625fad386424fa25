package bank

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path"

	"example.com/iad/mib"
)

// A Source opens files on a server.
type Source interface {
	// Open opens the file name from octet offset on. size is that of the whole
	// file, -1 if it is not known. A source that cannot start at an offset other
	// than 0 returns an error wrapping ErrNoResume. Reading returns io.EOF only at
	// the end of a complete file.
	Open(ctx context.Context, name string, offset int64) (rc io.ReadCloser, size int64, err error)
}

// A fetch brings an image from a Source, in tar or in split form.
type fetch struct {
	ctx  context.Context
	src  Source
	name string // as commanded
	head *head
	tar  bool

	// whole tells that files are opened at their beginnings only: the server says that
	// it can start in the middle of a file, and does not.
	whole bool

	rc      io.ReadCloser // nil while nothing is open
	began   int64         // where rc began
	pos     int64         // offset of rc in the file that is open
	size    int64         // announced size of the file name, -1 unknown
	fetched int64         // octets that came over
}

// Read reads from the open file; it makes fetch the reader of what is open.
func (f *fetch) Read(p []byte) (int, error) {
	if err := f.ctx.Err(); err != nil {
		return 0, context.Cause(f.ctx)
	}
	n, err := f.rc.Read(p)
	f.pos += int64(n)
	f.fetched += int64(n)
	return n, err
}

func (f *fetch) close() {
	if f.rc != nil {
		// What was wanted of it has been read.
		_ = f.rc.Close()
		f.rc = nil
	}
}

func (f *fetch) open(name string, offset int64) (size int64, err error) {
	if offset > 0 && f.whole {
		return 0, ErrNoResume
	}
	f.close()
	rc, size, err := f.src.Open(f.ctx, name, offset)
	if err != nil {
		return 0, fmt.Errorf("fetch %s: %w", name, err)
	}
	f.rc, f.pos, f.began = rc, offset, offset
	return size, nil
}

// distrust gives up starting in the middle of a file, where what came did not fit. It
// returns false if that was not done: then the file is at fault.
func (f *fetch) distrust() bool {
	if f.whole || f.began == 0 {
		return false
	}
	f.whole = true
	f.close()
	return true
}

// readHead fetches manifest and signature in whichever form the file has; the first
// octet tells.
func (f *fetch) readHead() (err error) {
	if f.size, err = f.open(f.name, 0); err != nil {
		return err
	}
	var first [1]byte
	if err := readFull(f, first[:]); err != nil {
		return err
	}
	r := io.MultiReader(bytes.NewReader(first[:]), f)
	if f.tar = first[0] != '{'; f.tar {
		f.head, err = readHead(r)
		return err
	}
	raw, err := readLimited(r, f.name, MaxManifest)
	if err != nil {
		return err
	}
	if f.size >= 0 && f.size != int64(len(raw)) {
		return refuse(mib.FailCauseSizeMismatch, "%s has %d octets, %d were announced", f.name, len(raw), f.size)
	}
	if _, err := f.open(f.name+SignatureSuffix, 0); err != nil {
		return err
	}
	signature, err := readLimited(f, f.name+SignatureSuffix, MaxSignature)
	if err != nil {
		return err
	}
	f.head = newHead(raw, signature)
	return nil
}

// fileSize is the size of the file that was commanded, as the manifest has it.
func (f *fetch) fileSize() int64 {
	if f.tar {
		return f.head.tarSize()
	}
	return int64(len(f.head.raw))
}

// total is the number of octets of the whole image.
func (f *fetch) total() int64 {
	if f.tar {
		return f.head.tarSize()
	}
	return f.head.stored()
}

// payload makes the next Read return octet from of payload i, or an earlier one:
// start tells which.
func (f *fetch) payload(i int, from int64) (start int64, err error) {
	p := f.head.manifest.Payloads[i]
	if f.tar {
		return from, f.tarPayload(i, from)
	}
	name := path.Join(path.Dir(f.name), p.Name)
	size, err := f.open(name, from)
	if from > 0 && errors.Is(err, ErrNoResume) {
		from = 0
		size, err = f.open(name, 0)
	}
	if err == nil && size >= 0 && size != p.Size {
		err = refuse(mib.FailCauseSizeMismatch, "%s has %d octets on the server, %d in the manifest", name, size, p.Size)
	}
	return from, err
}

// skipAhead is the gap in octets that is read over instead of reopening the file.
const skipAhead = 64 << 10

// tarPayload goes to octet from of payload i in the tar form.
func (f *fetch) tarPayload(i int, from int64) error {
	p := f.head.manifest.Payloads[i]
	at := f.head.tarOffset(i)
	if from > 0 {
		return f.seek(at + blockSize + from)
	}
	if err := f.seek(at); err != nil {
		return err
	}
	return expect(f, header(p.Name, p.Size, p.Mode), "the header of payload "+p.Name)
}

// seek goes to an offset of the tar form: by reopening it there or, where the
// source cannot do that, by reading over what comes before.
func (f *fetch) seek(to int64) error {
	if f.rc != nil && f.pos <= to && to-f.pos <= skipAhead {
		return f.skip(to)
	}
	forward := f.rc != nil && f.pos <= to
	pos, rc := f.pos, f.rc
	if forward {
		f.rc = nil // still wanted if the source cannot resume
	}
	_, err := f.open(f.name, to)
	if err == nil {
		if forward {
			_ = rc.Close()
		}
		return nil
	}
	if !errors.Is(err, ErrNoResume) {
		if forward {
			_ = rc.Close()
		}
		return err
	}
	if forward {
		f.rc, f.pos = rc, pos
	} else if _, err := f.open(f.name, 0); err != nil {
		return err
	}
	return f.skip(to)
}

// skip reads over what comes before an offset.
func (f *fetch) skip(to int64) error {
	_, err := io.CopyN(io.Discard, f, to-f.pos)
	if err == io.EOF {
		return refuse(mib.FailCauseSizeMismatch, "%s ends early, %d octets before the part that is wanted", f.name, to-f.pos)
	}
	return err
}

// endPayload reads what must follow the payload that was just read.
func (f *fetch) endPayload(i int) error {
	p := f.head.manifest.Payloads[i]
	if f.tar {
		return expect(f, padding(p.Size), "padding")
	}
	var one [1]byte
	if n, err := io.ReadFull(f, one[:]); n > 0 {
		return refuse(mib.FailCauseSizeMismatch, "%s is longer than the manifest says", p.Name)
	} else if err != io.EOF {
		return err
	}
	return nil
}

// end reads what must follow the last payload, if that was just read.
func (f *fetch) end() error {
	if !f.tar || f.rc == nil || f.pos != f.head.tarOffset(len(f.head.manifest.Payloads)) {
		return nil
	}
	return expectEnd(f)
}
