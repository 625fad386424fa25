package image

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"path"

	"github.com/spf13/afero"

	"example.com/iad/bank/image/frame"
	"example.com/iad/internal/agefile"
	"example.com/iad/mib"
)

// Bases returns the content of a base, nil if it is not known.
type Bases func(b *Base) []byte

// Contents reads an image in tar form into memory. It returns the content of each payload by
// name, but of those that the image has only as a difference from an unknown base, or
// encrypted to other keys than these. It checks structure and hashes, not who signed it.
// bases may be nil.
func Contents(r io.Reader, bases Bases, keys ...agefile.Identity) (*Info, map[string][]byte, error) {
	h, err := readHead(r)
	if err != nil {
		return nil, nil, err
	}
	if err := h.Parse(); err != nil {
		return nil, nil, err
	}
	// What follows the head is kept as it passes by.
	kept := keeper{files: make(map[string]*bytes.Buffer)}
	if err := readPayloadsTo(r, h, kept.open); err != nil {
		return nil, nil, err
	}
	return h.contents(kept.read, bases, keys)
}

// A keeper keeps the files of an image.
type keeper struct{ files map[string]*bytes.Buffer }

func (k keeper) open(name string) io.Writer {
	k.files[name] = new(bytes.Buffer)
	return k.files[name]
}

func (k keeper) read(name string) (io.ReadCloser, error) { return io.NopCloser(k.files[name]), nil }

// ContentsSplit is Contents for the split form whose manifest is the file name of fs.
func ContentsSplit(fs afero.Fs, name string, bases Bases, keys ...agefile.Identity) (*Info, map[string][]byte, error) {
	h, err := readSplitHead(fs, name)
	if err != nil {
		return nil, nil, err
	}
	if err := h.Parse(); err != nil {
		return nil, nil, err
	}
	return h.contents(func(file string) (io.ReadCloser, error) { return fs.Open(path.Join(path.Dir(name), file)) }, bases, keys)
}

// contents reads the payloads from the files of the image, in every way that it has.
func (h *Head) contents(open func(file string) (io.ReadCloser, error), bases Bases, keys []agefile.Identity) (*Info, map[string][]byte, error) {
	opener, err := h.Manifest.Opener(keys)
	if err != nil && mib.CauseOf(err, 0) != mib.FailCauseKeyMissing {
		return nil, nil, err
	}
	readable := err == nil
	all := make(map[string][]byte)
	for i := range h.Manifest.Payloads {
		p := &h.Manifest.Payloads[i]
		if len(p.Encodings) == 0 {
			content, err := readInto(p.Name, open, func(w io.Writer, r io.Reader) error { return hashPayload(w, r, *p) })
			if err != nil {
				return nil, nil, err
			}
			all[p.Name] = content
		}
		for j := range p.Encodings {
			e := &p.Encodings[j]
			var base io.ReaderAt
			if e.Base != nil && bases != nil {
				if content := bases(e.Base); content != nil {
					base = bytes.NewReader(content)
				}
			}
			content, err := readInto(e.File, open, func(w io.Writer, r io.Reader) error { return decodeTo(w, r, h.Manifest, p, e, base, opener) })
			if err != nil {
				return nil, nil, err
			}
			if readable && (e.Base == nil || base != nil) {
				all[p.Name] = content
			}
		}
	}
	info, err := h.info(nil)
	return info, all, err
}

// readInto reads a payload from a file of the image.
func readInto(file string, open func(file string) (io.ReadCloser, error), read func(io.Writer, io.Reader) error) ([]byte, error) {
	r, err := open(file)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	var content bytes.Buffer // it grows, because the size in the manifest is not verified
	err = read(&content, r)
	return content.Bytes(), err
}

// checkOneEncoding refuses what the tar form cannot hold.
func (m *Manifest) checkOneEncoding() error {
	for _, p := range m.Payloads {
		if n := len(p.Encodings); n > 1 {
			return refuse(mib.FailCauseBadFormat, "payload %s has %d encodings; the tar form of an image holds one, the split form holds several", p.Name, n)
		}
	}
	return nil
}

// decodeTo reads an encoding of a payload, checks all of it, and writes what it decodes to
// to w. A difference is only checked if its base is nil, and so is an encrypted image
// without an opener.
func decodeTo(w io.Writer, r io.Reader, m *Manifest, p *Payload, e *Encoding, base io.ReaderAt, opener *Opener) error {
	x, err := readIndex(r, p, e)
	if err != nil {
		return err
	}
	sum, decodes := sha256.New(), (e.Codec == frame.XZ || base != nil) && (opener != nil || m.Key == "")
	decoder, buf := frame.NewDecoder(e.Frame), make([]byte, frame.MaxEncoded(e.Frame))
	for k := range x.Count() {
		encoded, err := readFrame(r, e, x, k, buf)
		if err != nil {
			return err
		}
		if !decodes {
			continue
		}
		if encoded, err = opener.Open(e, k, encoded); err != nil {
			return err
		}
		content, err := Decode(decoder, e, x, k, encoded, base)
		if err != nil {
			return err
		}
		sum.Write(content)
		if _, err := w.Write(content); err != nil {
			return fmt.Errorf("write %s: %w", p.Name, err)
		}
	}
	if decodes && !sumIs(sum, p.SHA256) {
		return refuse(mib.FailCauseDigestMismatch, "payload %s, decoded from %s, does not match the manifest", p.Name, e.File)
	}
	return nil
}
