package image

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"strconv"

	"crypto/sha256"

	"example.com/iad/mib"
)

// An image in tar form is a POSIX ustar stream (IEEE Std 1003.1-2017, pax, "ustar
// Interchange Format") of which every byte follows from the manifest, its
// signature and the payloads: each header is the one that [header] makes, padding
// is zero, and the stream ends after two zero blocks. So there is nothing in it
// that a reader could take differently, and a part of it can be fetched and the
// rest known.

const (
	blockSize    = 512
	trailerSize  = 2 * blockSize
	manifestMode = Mode(0o644) // of the first two members
)

// A Head is what comes before the payloads.
type Head struct {
	Raw       []byte // the bytes of the manifest, which the signature covers
	Signature []byte
	Digest    string    // SHA-256 of Raw in hexadecimal, by which the content of a bank is known
	Manifest  *Manifest // nil before Parse or Verify
}

// NewHead returns the Head of a manifest's bytes and its signature, neither of which it
// checks.
func NewHead(raw, signature []byte) *Head {
	sum := sha256.Sum256(raw)
	return &Head{Raw: raw, Signature: signature, Digest: hex.EncodeToString(sum[:])}
}

// Verify verifies the signature by the keys of trust, and only then parses the manifest.
// Causes: those of VerifySignature and Parse.
func (h *Head) Verify(trust *Trust) error {
	if err := h.VerifySignature(trust); err != nil {
		return err
	}
	return h.Parse()
}

// Parse parses the manifest without looking at the signature. Cause: badFormat.
func (h *Head) Parse() (err error) {
	h.Manifest, err = ParseManifest(h.Raw)
	return err
}

// StoredSize is the number of bytes that the image takes in a bank.
func (h *Head) StoredSize() int64 {
	return int64(len(h.Raw)) + int64(len(h.Signature)) + h.Manifest.payloadSize()
}

// tarOffset is where the header of payload i stands in the tar form; with i the
// number of payloads, where the trailer does.
func (h *Head) tarOffset(i int) int64 {
	n := 2*blockSize + padded(int64(len(h.Raw))) + padded(int64(len(h.Signature)))
	for i := range h.Manifest.Payloads[:i] {
		n += blockSize + padded(h.Manifest.Payloads[i].member().size)
	}
	return n
}

// A member is a file of the image from which a payload comes.
type member struct {
	name string
	size int64
	mode Mode
}

func (m member) header() []byte { return header(m.name, m.size, m.mode) }

// member is what stands for the payload in the tar form.
func (p *Payload) member() member {
	if len(p.Encodings) > 0 {
		return p.Encodings[0].member()
	}
	return member{p.Name, p.Size, p.Mode}
}

func (e *Encoding) member() member { return member{e.File, e.Size, manifestMode} }

// tarSize is the size of the tar form.
func (h *Head) tarSize() int64 { return h.tarOffset(len(h.Manifest.Payloads)) + trailerSize }

// TarFraming returns the bytes of the tar form that come before the content of payload i or
// of its encoding: for the first one manifest and signature too, for others the padding of
// the one before. With i the number of payloads, it returns what follows the last one.
func (h *Head) TarFraming(i int) []byte {
	var b []byte
	if i == 0 {
		b = h.tarMembers()
	} else {
		b = append(b, padding(h.Manifest.Payloads[i-1].member().size)...)
	}
	if i == len(h.Manifest.Payloads) {
		return append(b, zeros[:]...)
	}
	return append(b, h.Manifest.Payloads[i].member().header()...)
}

// tarMembers returns the members before the payloads.
func (h *Head) tarMembers() (b []byte) {
	for _, m := range []struct {
		name string
		data []byte
	}{{ManifestName, h.Raw}, {SignatureName, h.Signature}} {
		b = append(b, header(m.name, int64(len(m.data)), manifestMode)...)
		b = append(b, m.data...)
		b = append(b, padding(int64(len(m.data)))...)
	}
	return b
}

// padded is n rounded up to whole blocks.
func padded(n int64) int64 { return (n + blockSize - 1) / blockSize * blockSize }

var zeros [trailerSize]byte

// padding is what follows n bytes of content.
func padding(n int64) []byte { return zeros[:padded(n)-n] }

// header makes the only header that a member of that name, size and mode may have.
func header(name string, size int64, mode Mode) []byte {
	b := make([]byte, blockSize)
	copy(b[0:100], name)
	copy(b[100:], fmt.Sprintf("%07o\x00", uint16(mode)))
	copy(b[108:], "0000000\x00") // user
	copy(b[116:], "0000000\x00") // group
	copy(b[124:], fmt.Sprintf("%011o\x00", size))
	copy(b[136:], "00000000000\x00") // time
	copy(b[148:], "        ")        // the checksum counts as spaces in its own sum
	b[156] = '0'                     // a regular file
	copy(b[257:], "ustar\x0000")
	copy(b[329:], "0000000\x00")
	copy(b[337:], "0000000\x00")
	sum := 0
	for _, c := range b {
		sum += int(c)
	}
	copy(b[148:], fmt.Sprintf("%06o\x00 ", sum))
	return b
}

// readHead reads the members before the payloads. Errors of r are passed on; a
// stream that ends early is mib.FailCauseSizeMismatch, anything unexpected mib.FailCauseBadFormat.
func readHead(r io.Reader) (*Head, error) {
	raw, err := readMember(r, ManifestName, MaxManifest)
	if err != nil {
		return nil, err
	}
	signature, err := readMember(r, SignatureName, MaxSignature)
	if err != nil {
		return nil, err
	}
	return NewHead(raw, signature), nil
}

// readMember reads a member whose size only its header gives.
func readMember(r io.Reader, name string, limit int64) ([]byte, error) {
	var block [blockSize]byte
	if err := readFull(r, block[:]); err != nil {
		return nil, err
	}
	size, err := strconv.ParseUint(string(block[124:135]), 8, 63)
	if err != nil || int64(size) > limit || size == 0 || !bytes.Equal(block[:], header(name, int64(size), manifestMode)) {
		return nil, refuse(mib.FailCauseBadFormat, "not an image: %s is not where it should be, or larger than %d bytes", name, limit)
	}
	data := make([]byte, size)
	if err := readFull(r, data); err != nil {
		return nil, err
	}
	return data, expect(r, padding(int64(size)), "padding")
}

// readFull fills p.
func readFull(r io.Reader, p []byte) error {
	_, err := io.ReadFull(r, p)
	if err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF) {
		return refuse(mib.FailCauseSizeMismatch, "the image ends early")
	}
	return err
}

// expect reads what must stand there and nothing else. what names it.
func expect(r io.Reader, want []byte, what string) error {
	got := make([]byte, len(want))
	if err := readFull(r, got); err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		return refuse(mib.FailCauseBadFormat, "not an image: unexpected bytes instead of %s", what)
	}
	return nil
}

// expectEnd reads the trailer and the end of the stream.
func expectEnd(r io.Reader) error {
	if err := expect(r, zeros[:trailerSize], "the end"); err != nil {
		return err
	}
	var one [1]byte
	switch n, err := io.ReadFull(r, one[:]); {
	case n > 0:
		return refuse(mib.FailCauseSizeMismatch, "unexpected data after the end of the image")
	case err != io.EOF:
		return err
	}
	return nil
}

// hashPayload reads a payload's bytes from r into w too and compares the hash.
func hashPayload(w io.Writer, r io.Reader, p Payload) error {
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(w, h), io.LimitReader(r, p.Size))
	switch {
	case err != nil:
		return err
	case n < p.Size:
		return refuse(mib.FailCauseSizeMismatch, "payload %s ends early", p.Name)
	case !sumIs(h, p.SHA256):
		return refuse(mib.FailCauseDigestMismatch, "payload %s does not match the manifest", p.Name)
	}
	return nil
}

func sumIs(h hash.Hash, hexDigest string) bool { return hex.EncodeToString(h.Sum(nil)) == hexDigest }
