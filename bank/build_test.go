package bank

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/afero"

	"example.com/iad/mib"
)

// TestImageIsPlainTar reads an image with the standard library's reader.
func TestImageIsPlainTar(t *testing.T) {
	image := tarImage(t, manifest("2.0.0"))
	want := append([]string{ManifestName, SignatureName}, "app", "selftest", "empty", "data.bin")
	r := tar.NewReader(bytes.NewReader(image))
	for _, name := range want {
		h, err := r.Next()
		if err != nil || h.Name != name || h.Typeflag != tar.TypeReg || h.Format != tar.FormatUSTAR {
			t.Fatalf("%+v, %v, want %s", h, err, name)
		}
	}
	if _, err := r.Next(); err != io.EOF {
		t.Error(err)
	}
}

// TestBuildTwice: the same files give the same image.
func TestBuildTwice(t *testing.T) {
	if !bytes.Equal(tarImage(t, manifest("2.0.0")), tarImage(t, manifest("2.0.0"))) {
		t.Error("two images of the same files differ")
	}
}

// TestBuildMetadata: versions of which no order is defined are not built.
func TestBuildMetadata(t *testing.T) {
	err := Build(io.Discard, manifest("2.0.0+b7"), payloads("2.0.0"), testKey)
	if causeOf(err) != mib.FailCauseBadFormat || !strings.Contains(err.Error(), "2.0.0+b7") {
		t.Error(err)
	}
}

func TestFormsAgree(t *testing.T) {
	fs := afero.NewMemMapFs()
	if err := BuildSplit(fs, "out/fw", manifest("2.0.0"), payloads("2.0.0"), testKey); err != nil {
		t.Fatal(err)
	}
	var packed bytes.Buffer
	if err := Pack(&packed, fs, "out/fw/manifest.json"); err != nil {
		t.Fatal(err)
	}
	image := tarImage(t, manifest("2.0.0"))
	if !bytes.Equal(packed.Bytes(), image) {
		t.Error("packing the split form does not give the tar form")
	}
	tarred, err := VerifyImage(bytes.NewReader(image), trusted(testKey))
	if err != nil {
		t.Fatal(err)
	}
	split, err := VerifySplit(fs, "out/fw/manifest.json", trusted(testKey))
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range []*Image{tarred, split} {
		if i.Size != int64(len(image)) || i.KeyID != testKey.ID() || i.Manifest.Version != "2.0.0" ||
			!strings.Contains(i.TrustedComment, "2.0.0") || !bytes.Equal(i.ManifestDigest, tarred.ManifestDigest) {
			t.Errorf("%+v", i)
		}
	}
	if err := afero.WriteFile(fs, "out/fw/app", []byte("other"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := Pack(io.Discard, fs, "out/fw/manifest.json"); causeOf(err) != mib.FailCauseSizeMismatch {
		t.Error(err)
	}
	if _, err := InspectSplit(fs, "out/fw/manifest.json"); causeOf(err) != mib.FailCauseDigestMismatch {
		t.Error(err)
	}
}

func TestSignImage(t *testing.T) {
	_, priv, err := KeyGen("")
	if err != nil {
		t.Fatal(err)
	}
	key, err := ReadPrivateKey(priv, "")
	if err != nil {
		t.Fatal(err)
	}
	image := tarImage(t, manifest("2.0.0"))
	var signed bytes.Buffer
	if err := SignImage(&signed, bytes.NewReader(image), key); err != nil {
		t.Fatal(err)
	}
	if _, err := VerifyImage(bytes.NewReader(signed.Bytes()), trusted(key)); err != nil {
		t.Error(err)
	}
	if _, err := VerifyImage(bytes.NewReader(signed.Bytes()), trusted(testKey)); causeOf(err) != mib.FailCauseSignerUntrusted {
		t.Error(err)
	}
	if i, err := Inspect(&signed); err != nil || i.KeyID != key.ID() {
		t.Error(i, err)
	}
	image[len(image)-trailerSize-blockSize] ^= 1
	for what, err := range map[string]error{
		"sign":    SignImage(io.Discard, bytes.NewReader(image), key),
		"inspect": second(Inspect(bytes.NewReader(image))),
		"verify":  second(VerifyImage(bytes.NewReader(image), trusted(testKey))),
	} {
		if causeOf(err) != mib.FailCauseDigestMismatch {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func second(_ *Image, err error) error { return err }

// TestBuildRefuses what no device would take, and passes on what went wrong.
func TestBuildRefuses(t *testing.T) {
	m := manifest("not a version")
	if err := Build(io.Discard, m, payloads("x"), testKey); causeOf(err) != mib.FailCauseBadFormat {
		t.Error(err)
	}
	if err := BuildSplit(afero.NewMemMapFs(), "d", m, payloads("x"), testKey); causeOf(err) != mib.FailCauseBadFormat {
		t.Error(err)
	}
	files := payloads("2.0.0")
	files[1].Open = func() (io.ReadCloser, error) { return nil, os.ErrNotExist }
	if err := Build(io.Discard, manifest("2.0.0"), files, testKey); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	files = payloads("2.0.0")
	reads := 0
	files[1].Open = func() (io.ReadCloser, error) {
		reads++ // it changes between the two readings
		return io.NopCloser(strings.NewReader(fmt.Sprint(reads))), nil
	}
	if err := Build(io.Discard, manifest("2.0.0"), slices.Clone(files), testKey); causeOf(err) != mib.FailCauseDigestMismatch {
		t.Error(err)
	}
	// Every write that fails is an error.
	image := tarImage(t, manifest("2.0.0"))
	for room := 0; room < len(image); room += 300 {
		if err := Build(&limited{room}, manifest("2.0.0"), payloads("2.0.0"), testKey); !errors.Is(err, io.ErrShortWrite) {
			t.Fatalf("room for %d octets: %v", room, err)
		}
		if err := SignImage(&limited{room}, bytes.NewReader(image), testKey); !errors.Is(err, io.ErrShortWrite) {
			t.Fatalf("sign, room for %d octets: %v", room, err)
		}
	}
}

// limited takes so many octets and no more.
type limited struct{ room int }

func (l *limited) Write(p []byte) (int, error) {
	if l.room -= len(p); l.room < 0 {
		return 0, io.ErrShortWrite
	}
	return len(p), nil
}

func TestFileFrom(t *testing.T) {
	fs := afero.NewMemMapFs()
	if err := afero.WriteFile(fs, "bin/app", []byte("x"), 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := FileFrom(fs, "bin/app")
	if err != nil || f.Name != "app" || f.Mode != 0o755 {
		t.Errorf("%+v, %v", f, err)
	}
	if _, err := FileFrom(fs, "bin"); err == nil {
		t.Error("a folder is taken for a file")
	}
	if _, err := FileFrom(fs, "none"); err == nil {
		t.Error("a missing file")
	}
}

func TestManifestLookups(t *testing.T) {
	m := manifest("2.0.0")
	m.Payloads = []Payload{{Name: "app"}, {Name: "conv"}}
	m.Converters = []Converter{{1, 2, "conv"}}
	if m.Payload("app") != &m.Payloads[0] || m.Payload("none") != nil {
		t.Error("Payload")
	}
	if m.Converter(1, 2) != "conv" || m.Converter(2, 1) != "" {
		t.Error("Converter")
	}
}
