package files

import (
	"archive/tar"
	"bufio"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
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
	// Total is how much a device fetches, in bytes.
	Total int64
	// Split reports the split form.
	Split bool

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

// checkParts looks for the signature and the payloads beside the manifest.
func (img *Image) checkParts() error {
	for _, name := range img.parts() {
		info, err := img.files.Stat(filepath.Join(filepath.Dir(img.Path), name))
		if err != nil {
			return err
		}
		if p := img.Manifest.Payload(name); p != nil && p.Size != info.Size() {
			return fmt.Errorf("payload %s has %d bytes, not %d", name, info.Size(), p.Size)
		}
		img.Total += info.Size()
	}
	return nil
}

// parts are the files beside a manifest in split form.
func (img *Image) parts() []string {
	names := []string{img.FileName() + image.SignatureSuffix}
	for _, p := range img.Manifest.Payloads {
		names = append(names, p.Name)
	}
	return names
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
		names = append(names, img.parts()...)
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
