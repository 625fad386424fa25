package image

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"path"

	"github.com/spf13/afero"

	"example.com/iad/mib"
)

// Info is what Inspect and Verify find out about an image.
type Info struct {
	Manifest       *Manifest
	ManifestDigest []byte // SHA-256, which iadUpgBankDigest shows
	Size           int64  // bytes of the tar form
	Stored         int64  // bytes in a bank
	HeadSize       int64  // bytes of manifest and signature
	// KeyIDs are those of the keys that signed it; from Inspect, those that its signatures
	// name. TrustedComment is that of the first of these signatures.
	KeyIDs         []uint64
	TrustedComment string
}

// info describes the image, with the signatures by keys of trust or, if that is nil, with those
// that there are.
func (h *Head) info(trust *Trust) (*Info, error) {
	all, err := parseSignatures(h.Signature)
	if err == nil && trust != nil {
		all, _, err = signaturesBy(trust.Keys, h.Raw, h.Signature)
	}
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(h.Raw)
	info := &Info{Manifest: h.Manifest, ManifestDigest: sum[:], Size: h.tarSize(), Stored: h.StoredSize(),
		HeadSize:       int64(len(h.Raw) + len(h.Signature)),
		TrustedComment: all[0].TrustedComment}
	for _, s := range all {
		info.KeyIDs = append(info.KeyIDs, s.KeyID)
	}
	return info, nil
}

// Inspect reads an image in tar form and checks its structure and its hashes, not
// who signed it. Of a payload that is the difference from another file it checks the
// difference: what it makes of that file shows on a device.
func Inspect(r io.Reader) (*Info, error) {
	h, err := readHead(r)
	if err != nil {
		return nil, err
	}
	if err := h.Parse(); err != nil {
		return nil, err
	}
	if err := readPayloads(r, io.Discard, h); err != nil {
		return nil, err
	}
	return h.info(nil)
}

// Verify reads an image in tar form as a device would that trusts trust: its trust chain,
// its signatures, its structure, its hashes. The errors carry the causes that a device would
// report.
func Verify(r io.Reader, trust *Trust) (*Info, error) {
	h, err := readHead(r)
	if err != nil {
		return nil, err
	}
	var read []byte
	trust, err = h.verifyChain(trust, func() (chain []byte, err error) {
		chain, read, err = readTrustMember(r)
		return chain, err
	})
	if err != nil {
		return nil, err
	}
	if err := readPayloads(io.MultiReader(bytes.NewReader(read), r), io.Discard, h); err != nil {
		return nil, err
	}
	return h.info(trust)
}

// InspectSplit is Inspect for the split form whose manifest is the file name of fs.
func InspectSplit(fs afero.Fs, name string) (*Info, error) {
	h, err := readSplitHead(fs, name)
	if err != nil {
		return nil, err
	}
	if err := h.Parse(); err != nil {
		return nil, err
	}
	return h.checkSplit(fs, name, nil)
}

// VerifySplit is Verify for the split form whose manifest is the file name of
// fs.
func VerifySplit(fs afero.Fs, name string, trust *Trust) (*Info, error) {
	h, err := readSplitHead(fs, name)
	if err != nil {
		return nil, err
	}
	trust, err = h.verifyChain(trust, func() ([]byte, error) {
		return readSmall(fs, path.Join(path.Dir(name), TrustName), MaxTrustChain)
	})
	if err != nil {
		return nil, err
	}
	return h.checkSplit(fs, name, trust)
}

func (h *Head) checkSplit(fs afero.Fs, name string, trust *Trust) (*Info, error) {
	for i := range h.Manifest.Payloads {
		p := &h.Manifest.Payloads[i]
		if len(p.Encodings) == 0 {
			if err := CheckFile(fs, path.Join(path.Dir(name), p.Name), *p); err != nil {
				return nil, err
			}
		}
		for j := range p.Encodings {
			if err := checkEncodingFile(fs, path.Dir(name), h.Manifest, p, &p.Encodings[j]); err != nil {
				return nil, err
			}
		}
	}
	return h.info(trust)
}

func checkEncodingFile(fs afero.Fs, dir string, m *Manifest, p *Payload, e *Encoding) error {
	f, err := fs.Open(path.Join(dir, e.File))
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size() != e.Size {
		return refuse(mib.FailCauseSizeMismatch, "%s has %d bytes, not %d", e.File, info.Size(), e.Size)
	}
	return decodeTo(io.Discard, f, m, p, e, nil, nil)
}

// readPayloads reads what follows the head of the tar form and copies it to w.
func readPayloads(r io.Reader, w io.Writer, h *Head) error {
	return readPayloadsTo(io.TeeReader(r, w), h, func(string) io.Writer { return io.Discard })
}

// readPayloadsTo reads what follows the head of the tar form. keep returns where to copy the
// content of a member.
func readPayloadsTo(r io.Reader, h *Head, keep func(name string) io.Writer) error {
	if err := h.Manifest.checkOneEncoding(); err != nil {
		return err
	}
	for i := range h.Manifest.Payloads {
		p := &h.Manifest.Payloads[i]
		m := p.member()
		if err := expect(r, m.header(), "the header of "+m.name); err != nil {
			return err
		}
		var err error
		if content := io.TeeReader(r, keep(m.name)); len(p.Encodings) > 0 {
			err = decodeTo(io.Discard, content, h.Manifest, p, &p.Encodings[0], nil, nil)
		} else {
			err = hashPayload(io.Discard, content, *p)
		}
		if err != nil {
			return err
		}
		if err := expect(r, padding(m.size), "padding"); err != nil {
			return err
		}
	}
	return expectEnd(r)
}

// ReadInstalled reads the head of the software that is installed in the root of fs. A
// signature that cannot be read is taken for an empty one: whoever verifies signatures
// refuses it, and nobody else needs it.
func ReadInstalled(fs afero.Fs) (*Head, error) {
	raw, err := readSmall(fs, ManifestName, MaxManifest)
	if err != nil {
		return nil, err
	}
	signature, _ := readSmall(fs, SignatureName, MaxSignature)
	return NewHead(raw, signature), nil
}

func readSplitHead(fs afero.Fs, name string) (*Head, error) {
	raw, err := readSmall(fs, name, MaxManifest)
	if err != nil {
		return nil, err
	}
	signature, err := readSmall(fs, name+SignatureSuffix, MaxSignature)
	if err != nil {
		return nil, err
	}
	return NewHead(raw, signature), nil
}

// readSmall reads a file of at most limit bytes.
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
		return nil, refuse(mib.FailCauseBadFormat, "%s has more than %d bytes", name, limit)
	}
	return data, nil
}

// CheckFile compares the file name of fs with what the manifest says of payload p.
// Cause: digestMismatch, or none if the file cannot be read.
func CheckFile(fs afero.Fs, name string, p Payload) error {
	f, err := OpenPayload(fs, name, p, nil)
	if err != nil {
		return err
	}
	defer f.Close()
	return CheckContent(f, p)
}

// OpenPayload opens the file name of fs, which must have the size of payload p. drop, which
// may be nil, is called with the open file to make the reading bypass the cache. Cause:
// digestMismatch, or none if the file cannot be read.
func OpenPayload(fs afero.Fs, name string, p Payload, drop func(afero.File) error) (afero.File, error) {
	f, err := fs.Open(name)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	switch {
	case err != nil:
	case !info.Mode().IsRegular() || info.Size() != p.Size:
		err = refuse(mib.FailCauseDigestMismatch, "payload %s has %d bytes, not %d", p.Name, info.Size(), p.Size)
	case drop != nil:
		if err = drop(f); err != nil {
			err = fmt.Errorf("read %s past the cache: %w", name, err)
		}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// CheckContent compares what r reads, up to the size of payload p, with what the manifest
// says of it. Causes: sizeMismatch, digestMismatch, or none if r cannot be read.
func CheckContent(r io.Reader, p Payload) error { return hashPayload(io.Discard, r, p) }
