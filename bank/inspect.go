package bank

import (
	"crypto/sha256"
	"fmt"
	"io"
	"path"

	"aead.dev/minisign"
	"github.com/spf13/afero"

	"example.com/iad/mib"
)

// An Image is what Inspect finds out about an image.
type Image struct {
	Manifest       *Manifest
	ManifestDigest []byte // SHA-256, which iadUpgBankDigest shows
	Size           int64  // octets of the tar form
	Stored         int64  // octets in a bank
	KeyID          uint64 // of the key that the signature names
	TrustedComment string // of the signature, not verified here
}

func (h *head) image() (*Image, error) {
	var s minisign.Signature
	if err := s.UnmarshalText(h.signature); err != nil {
		return nil, &Error{Code: mib.FailCauseSignatureInvalid, Text: "not a minisign signature", Err: err}
	}
	sum := sha256.Sum256(h.raw)
	return &Image{Manifest: h.manifest, ManifestDigest: sum[:], Size: h.tarSize(), Stored: h.stored(),
		KeyID: s.KeyID, TrustedComment: s.TrustedComment}, nil
}

// Inspect reads an image in tar form and checks its structure and its hashes, not
// who signed it.
func Inspect(r io.Reader) (*Image, error) {
	h, err := readHead(r)
	if err != nil {
		return nil, err
	}
	if err := h.parse(); err != nil {
		return nil, err
	}
	if err := readPayloads(r, io.Discard, h); err != nil {
		return nil, err
	}
	return h.image()
}

// VerifyImage reads an image in tar form as a device would: its signature by one of
// the keys in trust, its structure, its hashes. The errors carry the causes that a
// device would report.
func VerifyImage(r io.Reader, trust []minisign.PublicKey) (*Image, error) {
	h, err := readHead(r)
	if err != nil {
		return nil, err
	}
	if err := h.judge(trust); err != nil {
		return nil, err
	}
	if err := readPayloads(r, io.Discard, h); err != nil {
		return nil, err
	}
	return h.image()
}

// InspectSplit is Inspect for the split form whose manifest is the file name of fs.
func InspectSplit(fs afero.Fs, name string) (*Image, error) {
	h, err := readSplitHead(fs, name)
	if err != nil {
		return nil, err
	}
	if err := h.parse(); err != nil {
		return nil, err
	}
	return h.checkSplit(fs, name)
}

// VerifySplit is VerifyImage for the split form whose manifest is the file name of
// fs.
func VerifySplit(fs afero.Fs, name string, trust []minisign.PublicKey) (*Image, error) {
	h, err := readSplitHead(fs, name)
	if err != nil {
		return nil, err
	}
	if err := h.judge(trust); err != nil {
		return nil, err
	}
	return h.checkSplit(fs, name)
}

func (h *head) checkSplit(fs afero.Fs, name string) (*Image, error) {
	for _, p := range h.manifest.Payloads {
		if err := checkFile(fs, path.Join(path.Dir(name), p.Name), p, nil); err != nil {
			return nil, err
		}
	}
	return h.image()
}

// readPayloads reads what follows the head of the tar form and copies it to w.
func readPayloads(r io.Reader, w io.Writer, h *head) error {
	r = io.TeeReader(r, w)
	for _, p := range h.manifest.Payloads {
		if err := expect(r, header(p.Name, p.Size, p.Mode), "the header of payload "+p.Name); err != nil {
			return err
		}
		if err := hashPayload(io.Discard, r, p); err != nil {
			return err
		}
		if err := expect(r, padding(p.Size), "padding"); err != nil {
			return err
		}
	}
	return expectEnd(r)
}

func readSplitHead(fs afero.Fs, name string) (*head, error) {
	raw, err := readSmall(fs, name, MaxManifest)
	if err != nil {
		return nil, err
	}
	signature, err := readSmall(fs, name+SignatureSuffix, MaxSignature)
	if err != nil {
		return nil, err
	}
	return newHead(raw, signature), nil
}

// readSmall reads a file of at most limit octets.
func readSmall(fs afero.Fs, name string, limit int64) ([]byte, error) {
	f, err := fs.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readLimited(f, name, limit)
}

func readLimited(r io.Reader, name string, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if int64(len(data)) > limit {
		return nil, refuse(mib.FailCauseBadFormat, "%s has more than %d octets", name, limit)
	}
	return data, nil
}

// checkFile compares a stored payload with the manifest. drop, which may be nil,
// makes the reading go past the cache.
func checkFile(fs afero.Fs, name string, p Payload, drop func(afero.File) error) error {
	f, err := fs.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() || info.Size() != p.Size {
		return refuse(mib.FailCauseDigestMismatch, "payload %s has %d octets, not %d", p.Name, info.Size(), p.Size)
	}
	if drop != nil {
		if err := drop(f); err != nil {
			return fmt.Errorf("read %s past the cache: %w", name, err)
		}
	}
	return hashPayload(io.Discard, f, p)
}
