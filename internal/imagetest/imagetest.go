// Package imagetest makes software images for tests: whole ones, and ones that were taken
// apart and put together wrongly. It writes tar headers by archive/tar, not as package
// image does, so that each checks the other.
package imagetest

import (
	"archive/tar"
	"bytes"
	"io"
	"testing"

	"aead.dev/minisign"

	"example.com/iad/bank/image"
	"example.com/iad/internal/agefile"
)

// Key signs the images of the tests.
var Key = mustKey()

// ModelKey decrypts images that are encrypted to its recipient.
var ModelKey = func() agefile.Identity {
	key, err := agefile.IdentityOf(bytes.Repeat([]byte{9}, 32)) // the same in each process of a fuzz test
	if err != nil {
		panic(err)
	}
	return key
}()

func mustKey() minisign.PrivateKey {
	_, key, err := minisign.GenerateKey(bytes.NewReader(bytes.Repeat([]byte{7}, 64)))
	if err != nil {
		panic(err)
	}
	return key
}

// Trust returns the public keys of keys.
func Trust(keys ...minisign.PrivateKey) *image.Trust {
	var public []minisign.PublicKey
	for _, k := range keys {
		public = append(public, k.Public().(minisign.PublicKey))
	}
	return image.TrustKeys(public...)
}

// Content is a payload's content that differs by version and name.
func Content(version, name string, size int) []byte {
	return bytes.Repeat([]byte(version+" "+name+"\n"), size/len(version+" "+name+"\n")+1)[:size]
}

// Payloads returns the files app, selftest, empty and data.bin of a version.
func Payloads(version string) []image.PayloadFile {
	var files []image.PayloadFile
	for _, f := range []struct {
		name string
		mode image.Mode
		size int
	}{{"app", 0o755, 70_000}, {"selftest", 0o755, 300}, {"empty", 0o666, 0}, {"data.bin", 0o600, 1024}} {
		data := Content(version, f.name, f.size)
		files = append(files, image.PayloadFile{Name: f.name, Mode: f.mode, Open: func() (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(data)), nil
		}})
	}
	return files
}

// Manifest returns a manifest for Payloads.
func Manifest(version string) image.Manifest {
	return image.Manifest{Version: version, Hardware: []string{"IAD-4FXS", "IAD-8FXS"}, ConfigFormat: 1, SelfTest: "selftest"}
}

// Build returns an image in tar form with Payloads of m's version, signed with Key.
func Build(t testing.TB, m image.Manifest) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := image.Build(&b, m, Payloads(m.Version), Key); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// Sizes of the tar form in bytes.
const (
	BlockSize   = 512
	TrailerSize = 2 * BlockSize // of zeros, at the end
)

// Header returns the tar header of a member, as it should be.
func Header(name string, size int64, mode image.Mode) []byte {
	var b bytes.Buffer
	err := tar.NewWriter(&b).WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: int64(mode), Format: tar.FormatUSTAR})
	if err != nil {
		panic(err)
	}
	return b.Bytes()
}

// ReadHead returns manifest and signature of an image in tar form.
func ReadHead(t testing.TB, img []byte) *image.Head {
	t.Helper()
	r := tar.NewReader(bytes.NewReader(img))
	var members [2][]byte
	for i, name := range []string{image.ManifestName, image.SignatureName} {
		h, err := r.Next()
		if err != nil || h.Name != name {
			t.Fatalf("%+v, %v; want the member %s", h, err, name)
		}
		if members[i], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
	h := image.NewHead(members[0], members[1])
	if err := h.Parse(); err != nil {
		t.Fatal(err)
	}
	return h
}

// WithChain returns files with a trust chain as the first one, or files if chain is nil.
func WithChain(files []image.PayloadFile, chain []byte) []image.PayloadFile {
	if chain == nil {
		return files
	}
	return append([]image.PayloadFile{{Name: image.TrustName, Mode: 0o644, Open: func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(chain)), nil
	}}}, files...)
}
