package files

import (
	"archive/tar"
	"bufio"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/afero"

	"example.com/iad/bank/image"
)

// Image is a software image on this machine: one tar file, or the manifest of
// an image in split form with its other files beside it.
type Image struct {
	Manifest *image.Manifest
	// Path is the tar file or the manifest; Size (bytes) and Digest
	// (SHA-256) are those of this file.
	Path   string
	Size   int64
	Digest []byte
	// ManifestDigest (SHA-256) is what iadUpgBankDigest shows of a bank that
	// holds this software: two images of one version differ in it.
	ManifestDigest []byte
	// Total is how much a device fetches, in bytes, if it does not fetch differences.
	Total int64
	// Split reports the split form.
	Split bool
	// Plain is the image of the same software in image.PlainFormat that is beside an image
	// in split form of a newer format, nil without one.
	Plain *Image

	files afero.Fs
}

// OpenImage reads the manifest of an image. It checks form and sizes, not
// signature and payloads: the device does.
func OpenImage(files afero.Fs, path string) (*Image, error) {
	img := &Image{Path: path, files: files}
	f, err := files.Open(path)
	if err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.IsDir() {
		return nil, fmt.Errorf("image %s is a directory; name the image file or, in split form, its %s", path, image.ManifestName)
	}
	if err := requestable(img.FileName()); err != nil {
		return nil, fmt.Errorf("image %s: %w", path, err)
	}
	manifest, err := img.readManifest(bufio.NewReader(f))
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", path, err)
	}
	if img.Manifest, err = image.ParseManifest(manifest); err != nil {
		return nil, fmt.Errorf("image %s: %w", path, err)
	}
	digest := sha256.Sum256(manifest)
	img.ManifestDigest = digest[:]
	if img.Size, img.Digest, err = digestFile(files, path); err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	img.Total = img.Size
	if img.Split {
		if err := img.checkParts(); err != nil {
			return nil, fmt.Errorf("image %s: %w", path, err)
		}
	}
	// What is beside an encrypted image is of an earlier build.
	if img.Split && img.Manifest.Format != image.PlainFormat && img.Manifest.Key == "" {
		if err := img.openPlain(); err != nil {
			return nil, fmt.Errorf("image %s: %w", path, err)
		}
	}
	if img.Size > image.MaxSize {
		return nil, fmt.Errorf("image %s: %d bytes are more than a device accepts", path, img.Size)
	}
	return img, nil
}

// maxFileName is the longest name of a file that a device can be given, in bytes
// (iadUpgFileName).
const maxFileName = 128

// requestable refuses a name that no device could ask a file server for.
func requestable(name string) error {
	if _, err := cleanName(name); err != nil || strings.TrimSpace(name) != name {
		return fmt.Errorf("devices cannot request the name %.64q; rename the file: no dot or space at its start, no backslash, no control character", name)
	}
	if len(name) > maxFileName {
		return fmt.Errorf("devices cannot request a name of %d bytes, %d at most; rename the file", len(name), maxFileName)
	}
	return nil
}

// readManifest returns the manifest of either form.
func (img *Image) readManifest(r *bufio.Reader) ([]byte, error) {
	start, err := r.Peek(1)
	if err != nil {
		return nil, errors.New("the file is empty")
	}
	var source io.Reader = r
	if img.Split = start[0] == '{'; !img.Split {
		archive := tar.NewReader(r)
		head, err := archive.Next()
		if err != nil || head.Name != image.ManifestName {
			return nil, fmt.Errorf("not a software image: neither a manifest nor a tar file that starts with %s", image.ManifestName)
		}
		source = archive
	}
	data, err := io.ReadAll(io.LimitReader(source, image.MaxManifest+1))
	if err == nil && len(data) > image.MaxManifest {
		err = fmt.Errorf("%s is larger than %d bytes", image.ManifestName, image.MaxManifest)
	}
	return data, err
}

// openPlain opens the plain image beside this one, if there is one.
func (img *Image) openPlain() error {
	name := filepath.Join(filepath.Dir(img.Path), image.PlainManifestName)
	if _, err := img.files.Stat(name); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	plain, err := OpenImage(img.files, name)
	if err != nil {
		return err
	}
	same := plain.Version() == img.Version() && slices.EqualFunc(plain.Manifest.Payloads, img.Manifest.Payloads,
		func(a, b image.Payload) bool { return a.Name == b.Name && a.SHA256 == b.SHA256 && a.Target == b.Target })
	if !same || plain.Manifest.Format != image.PlainFormat {
		return fmt.Errorf("%s beside it is of other software; build the image again", image.PlainManifestName)
	}
	img.Plain = plain
	return nil
}

// ForFormat returns the image to publish for a device that reads formats up to format: this
// one, or Plain. why says why it is another one than this, or what devices fetch of it; it is
// empty for an image in image.PlainFormat.
func (img *Image) ForFormat(format int) (chosen *Image, why string, err error) {
	format = max(format, image.PlainFormat)
	switch own := img.Manifest.Format; {
	case own == image.PlainFormat:
		return img, "", nil
	case own <= format:
		return img, fmt.Sprintf("the device reads image format %d: it fetches what is compressed, or the difference from what it runs", own), nil
	case img.Plain != nil:
		return img.Plain, fmt.Sprintf("the device reads image format %d only: it fetches the plain files, by %s", format, img.Plain.FileName()), nil
	case img.Manifest.Key != "":
		return nil, "", fmt.Errorf("%s is encrypted, which is image format %d, and the device reads format %d only; install software with a newer agent first, from an image that is not encrypted",
			img.FileName(), own, format)
	default:
		return nil, "", fmt.Errorf("%s is in image format %d, and the device reads format %d only; use the manifest of an image built with --split, which has the plain files too, or an image built without --compress",
			img.FileName(), own, format)
	}
}

// ManifestDigests are what iadUpgBankDigest may show of a bank that holds software from this
// image: in whichever format it was installed.
func (img *Image) ManifestDigests() [][]byte {
	if img.Plain != nil {
		return [][]byte{img.ManifestDigest, img.Plain.ManifestDigest}
	}
	return [][]byte{img.ManifestDigest}
}

// RequestDigest is the digest that a device is to expect that reads formats up to format, 0
// if it has no iadUpgImageFormat: then it knows the file's digest only. That of the manifest
// stands for everything in the file, saves the device a hash over all of it, and can also be
// checked in a download that is resumed if the file has encodings.
func (img *Image) RequestDigest(format int) []byte {
	if format == 0 && img.Manifest.Format == image.PlainFormat {
		return img.Digest
	}
	return img.ManifestDigest
}

// checkParts looks for the signature and the other files beside the manifest.
func (img *Image) checkParts() error {
	for name, size := range img.parts() {
		info, err := img.files.Stat(filepath.Join(filepath.Dir(img.Path), name))
		if err != nil {
			return err
		}
		if size >= 0 && size != info.Size() {
			return fmt.Errorf("%s has %d bytes, not %d", name, info.Size(), size)
		}
		if size < 0 {
			img.Total += info.Size()
		}
	}
	// Of a payload's encodings a device fetches one.
	for _, p := range img.Manifest.Payloads {
		size := p.Size
		for _, e := range p.Encodings {
			if e.Base == nil {
				size = e.Size
			}
		}
		img.Total += size
	}
	return nil
}

// parts are the files beside a manifest in split form, with their sizes; -1 is any.
func (img *Image) parts() map[string]int64 {
	sizes := map[string]int64{img.FileName() + image.SignatureSuffix: -1}
	for _, p := range img.Manifest.Payloads {
		if len(p.Encodings) == 0 {
			sizes[p.Name] = p.Size
		}
		for _, e := range p.Encodings {
			sizes[e.File] = e.Size
		}
	}
	return sizes
}

// FileName is the name under which a device asks for the image.
func (img *Image) FileName() string { return filepath.Base(img.Path) }

// Version is the version of the software.
func (img *Image) Version() string { return img.Manifest.Version }

// Fits reports whether the image names a hardware model.
func (img *Image) Fits(hardware string) bool { return slices.Contains(img.Manifest.Hardware, hardware) }

// sources are the files that a device may fetch, by name.
func (img *Image) sources() map[string]imageSource {
	names := []string{img.FileName()}
	if img.Split {
		names = slices.AppendSeq(names, maps.Keys(img.parts()))
	}
	sources := make(map[string]imageSource, len(names))
	for _, name := range names {
		path := filepath.Join(filepath.Dir(img.Path), name)
		source := imageSource{open: func() (afero.File, error) { return img.files.Open(path) }}
		if info, err := img.files.Stat(path); err == nil {
			source.size, source.modified = info.Size(), info.ModTime()
		}
		sources[name] = source
	}
	return sources
}
