package image

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"

	"aead.dev/minisign"
	"github.com/spf13/afero"

	"example.com/iad/internal/durable"
	"example.com/iad/mib"
)

// A PayloadFile is a file to put into an image.
type PayloadFile struct {
	Name   string // in the image
	Mode   Mode
	Target Target
	// Open opens the content; it is read twice, first for its hash.
	Open func() (io.ReadCloser, error)
	// Encodings take its place in the image. The tar form has the first one only.
	Encodings []EncodedFile
}

// An EncodedFile is an encoding of a payload. Package encode makes them.
type EncodedFile struct {
	Encoding
	Content []byte
}

// FileFrom takes the file name of fs as a payload of the same base name, with its
// permission bits.
func FileFrom(fs afero.Fs, name string) (PayloadFile, error) {
	info, err := fs.Stat(name)
	if err != nil {
		return PayloadFile{}, err
	}
	if !info.Mode().IsRegular() {
		return PayloadFile{}, fmt.Errorf("%s is not a regular file", name)
	}
	return PayloadFile{
		Name: path.Base(name),
		Mode: Mode(info.Mode().Perm()),
		Open: func() (io.ReadCloser, error) { return fs.Open(name) },
	}, nil
}

// Build writes an image in tar form to w, signed with keys. Devices that know one signature
// only read that of the first key. Format and Payloads of m are filled in from files.
func Build(w io.Writer, m Manifest, files []PayloadFile, keys ...minisign.PrivateKey) error {
	h, err := sign(m, files, keys)
	if err != nil {
		return err
	}
	return pack(w, h, func(i int) (io.ReadCloser, error) {
		if encodings := files[i].Encodings; len(encodings) > 0 {
			return io.NopCloser(bytes.NewReader(encodings[0].Content)), nil
		}
		return files[i].Open()
	})
}

// BuildSplit writes manifest, signature and payloads as files of their own into the
// directory dir, which it makes. Format and Payloads of m are filled in from files. If
// there are encodings, it writes these, and besides an image of the same software in
// PlainFormat, whose manifest is PlainManifestName; not if they are encrypted. Then it refuses
// a directory with other files, which may be plain ones of an earlier build.
func BuildSplit(fs afero.Fs, dir string, m Manifest, files []PayloadFile, keys ...minisign.PrivateKey) error {
	h, err := sign(m, files, keys)
	if err != nil {
		return err
	}
	heads := map[string]*Head{ManifestName: h}
	encrypted := h.Manifest.Key != ""
	if h.Manifest.Format != PlainFormat && !encrypted {
		plain := slices.Clone(files)
		for i := range plain {
			if plain[i].Encodings = nil; plain[i].Name == PlainManifestName || plain[i].Name == PlainManifestName+SignatureSuffix {
				return fmt.Errorf("payload name %q is reserved for a manifest", plain[i].Name)
			}
		}
		if heads[PlainManifestName], err = sign(m, plain, keys); err != nil {
			return err
		}
	}
	if encrypted {
		if err := checkAlone(fs, dir, h.Manifest); err != nil {
			return err
		}
	}
	if err := durable.MkdirAll(fs, dir, 0o755); err != nil {
		return err
	}
	for i, p := range h.Manifest.Payloads {
		if !encrypted || len(p.Encodings) == 0 {
			if err := copyPayload(fs, path.Join(dir, p.Name), p, files[i]); err != nil {
				return err
			}
		}
		for _, e := range files[i].Encodings {
			if err := durable.ReplaceFile(fs, path.Join(dir, e.File), e.Content, 0o644); err != nil {
				return err
			}
		}
	}
	for name, h := range heads {
		if err := durable.ReplaceFile(fs, path.Join(dir, name+SignatureSuffix), h.Signature, 0o644); err != nil {
			return err
		}
		if err := durable.ReplaceFile(fs, path.Join(dir, name), h.Raw, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// checkAlone returns an error if a directory has files that are not those of an encrypted image.
func checkAlone(fs afero.Fs, dir string, m *Manifest) error {
	own := []string{ManifestName, ManifestName + SignatureSuffix}
	for _, p := range m.Payloads {
		if len(p.Encodings) == 0 {
			own = append(own, p.Name)
		}
		for _, e := range p.Encodings {
			own = append(own, e.File)
		}
	}
	list, err := afero.ReadDir(fs, dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, info := range list {
		if !slices.Contains(own, info.Name()) {
			return fmt.Errorf("%s has %s, which is not a file of this encrypted image and may be plain; name an empty directory", dir, info.Name())
		}
	}
	return nil
}

func copyPayload(fs afero.Fs, name string, p Payload, file PayloadFile) (err error) {
	in, err := file.Open()
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := fs.Create(name) //durable: on a workstation; built again if lost
	if err != nil {
		return err
	}
	defer func() {
		if cerr := out.Close(); err == nil {
			err = cerr
		}
	}()
	if err := hashPayload(out, in, p); err != nil {
		return err
	}
	return fs.Chmod(name, p.Mode.FileMode())
}

// sign fills in the manifest from the files and signs it.
func sign(m Manifest, files []PayloadFile, keys []minisign.PrivateKey) (*Head, error) {
	m.Format = PlainFormat
	if m.Key != "" {
		m.Format = ManifestFormat
	}
	m.Payloads = nil
	for _, f := range files {
		p, err := describe(f)
		if err != nil {
			return nil, err
		}
		for _, e := range f.Encodings {
			m.Format = max(m.Format, EncodedFormat)
			p.Encodings = append(p.Encodings, e.Encoding)
		}
		m.Payloads = append(m.Payloads, p)
	}
	raw, err := m.marshal()
	if err != nil {
		return nil, err
	}
	h := NewHead(raw, nil)
	// What a device would refuse is not signed.
	if err := h.Parse(); err != nil {
		return nil, err
	}
	if v, err := parseVersion(m.Version); err != nil || v.Metadata() != "" {
		return nil, refuse(mib.FailCauseBadFormat, "version %s: text after the + has no order, so devices could not compare versions; increase the version number instead", m.Version)
	}
	h.Signature, err = SignManifest(raw, signedComment(&m), keys...)
	return h, err
}

func describe(f PayloadFile) (Payload, error) {
	r, err := f.Open()
	if err != nil {
		return Payload{}, err
	}
	defer r.Close()
	sum := sha256.New()
	n, err := io.Copy(sum, r)
	if err != nil {
		return Payload{}, fmt.Errorf("payload %s: %w", f.Name, err)
	}
	return Payload{Name: f.Name, Size: n, SHA256: hex.EncodeToString(sum.Sum(nil)), Mode: f.Mode, Target: f.Target}, nil
}

// pack writes the tar form; open opens what stands for payload i. Content that is not what
// the manifest says is an error.
func pack(w io.Writer, h *Head, open func(i int) (io.ReadCloser, error)) error {
	if err := h.Manifest.checkOneEncoding(); err != nil {
		return err
	}
	for i := range h.Manifest.Payloads {
		if _, err := w.Write(h.TarFraming(i)); err != nil {
			return err
		}
		r, err := open(i)
		if err != nil {
			return err
		}
		p := &h.Manifest.Payloads[i]
		if len(p.Encodings) > 0 {
			err = decodeTo(io.Discard, io.TeeReader(r, w), h.Manifest, p, &p.Encodings[0], nil, nil)
		} else {
			err = hashPayload(w, r, *p)
		}
		if cerr := r.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			return err
		}
	}
	_, err := w.Write(h.TarFraming(len(h.Manifest.Payloads)))
	return err
}

// Pack writes the tar form of the image whose manifest, in split form, is the file
// name of fs. The signature may have been made by the minisign tool.
func Pack(w io.Writer, fs afero.Fs, name string) error {
	h, err := readSplitHead(fs, name)
	if err != nil {
		return err
	}
	if err := h.Parse(); err != nil {
		return err
	}
	return pack(w, h, func(i int) (io.ReadCloser, error) {
		return fs.Open(path.Join(path.Dir(name), h.Manifest.Payloads[i].member().name))
	})
}

// Sign copies an image in tar form from r to w with new signatures by keys, or with add,
// these besides those that it has; a signature by the same key is replaced. The payloads are
// checked on the way.
func Sign(w io.Writer, r io.Reader, add bool, keys ...minisign.PrivateKey) error {
	h, err := readHead(r)
	if err != nil {
		return err
	}
	if err := h.Parse(); err != nil {
		return err
	}
	if err := h.Sign(add, keys...); err != nil {
		return err
	}
	if _, err := w.Write(h.tarMembers()); err != nil {
		return err
	}
	return readPayloads(r, w, h)
}

// Sign signs a manifest that was parsed, as the function Sign does.
func (h *Head) Sign(add bool, keys ...minisign.PrivateKey) (err error) {
	var file []byte
	if add {
		file = h.Signature
	}
	h.Signature, err = addSignatures(file, h.Raw, signedComment(h.Manifest), keys)
	return err
}

// signedComment is the trusted comment of the signature of a manifest.
func signedComment(m *Manifest) string { return "file:" + ManifestName + "\tversion:" + m.Version }
