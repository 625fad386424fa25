package image_test

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

	"example.com/iad/bank/image"
	"example.com/iad/internal/imagetest"
	"example.com/iad/mib"
)

// TestImageIsPlainTar reads an image with the standard library's reader.
func TestImageIsPlainTar(t *testing.T) {
	img := imagetest.Build(t, imagetest.Manifest("2.0.0"))
	want := append([]string{image.ManifestName, image.SignatureName}, "app", "selftest", "empty", "data.bin")
	r := tar.NewReader(bytes.NewReader(img))
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
	if !bytes.Equal(imagetest.Build(t, imagetest.Manifest("2.0.0")), imagetest.Build(t, imagetest.Manifest("2.0.0"))) {
		t.Error("two images of the same files differ")
	}
}

// TestBuildMetadata: versions of which no order is defined are not built.
func TestBuildMetadata(t *testing.T) {
	err := image.Build(io.Discard, imagetest.Manifest("2.0.0+b7"), imagetest.Payloads("2.0.0"), imagetest.Key)
	if causeOf(err) != mib.FailCauseBadFormat || !strings.Contains(err.Error(), "2.0.0+b7") {
		t.Error(err)
	}
}

func TestFormsAgree(t *testing.T) {
	fs := afero.NewMemMapFs()
	if err := image.BuildSplit(fs, "out/fw", imagetest.Manifest("2.0.0"), imagetest.Payloads("2.0.0"), imagetest.Key); err != nil {
		t.Fatal(err)
	}
	var packed bytes.Buffer
	if err := image.Pack(&packed, fs, "out/fw/manifest.json"); err != nil {
		t.Fatal(err)
	}
	img := imagetest.Build(t, imagetest.Manifest("2.0.0"))
	if !bytes.Equal(packed.Bytes(), img) {
		t.Error("packing the split form does not give the tar form")
	}
	tarred, err := image.Verify(bytes.NewReader(img), imagetest.Trust(imagetest.Key))
	if err != nil {
		t.Fatal(err)
	}
	split, err := image.VerifySplit(fs, "out/fw/manifest.json", imagetest.Trust(imagetest.Key))
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range []*image.Info{tarred, split} {
		if i.Size != int64(len(img)) || !slices.Equal(i.KeyIDs, []uint64{imagetest.Key.ID()}) || i.Manifest.Version != "2.0.0" ||
			!strings.Contains(i.TrustedComment, "2.0.0") || !bytes.Equal(i.ManifestDigest, tarred.ManifestDigest) {
			t.Errorf("%+v", i)
		}
	}
	if err := afero.WriteFile(fs, "out/fw/app", []byte("other"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := image.Pack(io.Discard, fs, "out/fw/manifest.json"); causeOf(err) != mib.FailCauseSizeMismatch {
		t.Error(err)
	}
	if _, err := image.InspectSplit(fs, "out/fw/manifest.json"); causeOf(err) != mib.FailCauseDigestMismatch {
		t.Error(err)
	}
}

// TestVerifyNamesSigners: what is verified is said to be signed only by keys that are trusted and
// whose signatures match; anybody can add another signature, with a comment.
func TestVerifyNamesSigners(t *testing.T) {
	_, private, err := image.GenerateKey("")
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := image.ReadPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	h := imagetest.ReadHead(t, imagetest.Build(t, imagetest.Manifest("2.0.0")))
	signature, err := image.SignManifest(h.Raw, "approved by the board", stranger, imagetest.Key)
	if err != nil {
		t.Fatal(err)
	}
	fs := afero.NewMemMapFs()
	if err := image.BuildSplit(fs, "fw", imagetest.Manifest("2.0.0"), imagetest.Payloads("2.0.0"), stranger, imagetest.Key); err != nil {
		t.Fatal(err)
	}
	if err := afero.WriteFile(fs, "fw/manifest.json.minisig", signature, 0o644); err != nil {
		t.Fatal(err)
	}
	info, err := image.VerifySplit(fs, "fw/manifest.json", imagetest.Trust(imagetest.Key))
	if err != nil || !slices.Equal(info.KeyIDs, []uint64{imagetest.Key.ID()}) {
		t.Errorf("%+v, %v", info, err)
	}
	if info, err := image.InspectSplit(fs, "fw/manifest.json"); err != nil || len(info.KeyIDs) != 2 {
		t.Errorf("%+v, %v", info, err)
	}
	var tar bytes.Buffer
	if err := image.Pack(&tar, fs, "fw/manifest.json"); err != nil {
		t.Fatal(err)
	}
	if info, err := image.Verify(&tar, imagetest.Trust(imagetest.Key)); err != nil || !slices.Equal(info.KeyIDs, []uint64{imagetest.Key.ID()}) {
		t.Errorf("%+v, %v", info, err)
	}
}

func TestSignImage(t *testing.T) {
	_, priv, err := image.GenerateKey("")
	if err != nil {
		t.Fatal(err)
	}
	key, err := image.ReadPrivateKey(priv, "")
	if err != nil {
		t.Fatal(err)
	}
	img := imagetest.Build(t, imagetest.Manifest("2.0.0"))
	var signed bytes.Buffer
	if err := image.Sign(&signed, bytes.NewReader(img), false, key); err != nil {
		t.Fatal(err)
	}
	if _, err := image.Verify(bytes.NewReader(signed.Bytes()), imagetest.Trust(key)); err != nil {
		t.Error(err)
	}
	if _, err := image.Verify(bytes.NewReader(signed.Bytes()), imagetest.Trust(imagetest.Key)); causeOf(err) != mib.FailCauseSignerUntrusted {
		t.Error(err)
	}
	if i, err := image.Inspect(&signed); err != nil || !slices.Equal(i.KeyIDs, []uint64{key.ID()}) {
		t.Error(i, err)
	}
	img[len(img)-imagetest.TrailerSize-imagetest.BlockSize] ^= 1
	for what, err := range map[string]error{
		"sign":    image.Sign(io.Discard, bytes.NewReader(img), false, key),
		"inspect": second(image.Inspect(bytes.NewReader(img))),
		"verify":  second(image.Verify(bytes.NewReader(img), imagetest.Trust(imagetest.Key))),
	} {
		if causeOf(err) != mib.FailCauseDigestMismatch {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func second(_ *image.Info, err error) error { return err }

// TestBuildRefuses what no device would take, and passes on what went wrong.
func TestBuildRefuses(t *testing.T) {
	m := imagetest.Manifest("not a version")
	if err := image.Build(io.Discard, m, imagetest.Payloads("x"), imagetest.Key); causeOf(err) != mib.FailCauseBadFormat {
		t.Error(err)
	}
	if err := image.BuildSplit(afero.NewMemMapFs(), "d", m, imagetest.Payloads("x"), imagetest.Key); causeOf(err) != mib.FailCauseBadFormat {
		t.Error(err)
	}
	files := imagetest.Payloads("2.0.0")
	files[1].Open = func() (io.ReadCloser, error) { return nil, os.ErrNotExist }
	if err := image.Build(io.Discard, imagetest.Manifest("2.0.0"), files, imagetest.Key); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	files = imagetest.Payloads("2.0.0")
	reads := 0
	files[1].Open = func() (io.ReadCloser, error) {
		reads++ // it changes between the two readings
		return io.NopCloser(strings.NewReader(fmt.Sprint(reads))), nil
	}
	if err := image.Build(io.Discard, imagetest.Manifest("2.0.0"), slices.Clone(files), imagetest.Key); causeOf(err) != mib.FailCauseDigestMismatch {
		t.Error(err)
	}
	// Every write that fails is an error.
	img := imagetest.Build(t, imagetest.Manifest("2.0.0"))
	for room := 0; room < len(img); room += 300 {
		if err := image.Build(&limited{room}, imagetest.Manifest("2.0.0"), imagetest.Payloads("2.0.0"), imagetest.Key); !errors.Is(err, io.ErrShortWrite) {
			t.Fatalf("room for %d bytes: %v", room, err)
		}
		if err := image.Sign(&limited{room}, bytes.NewReader(img), false, imagetest.Key); !errors.Is(err, io.ErrShortWrite) {
			t.Fatalf("sign, room for %d bytes: %v", room, err)
		}
	}
}

// limited takes so many bytes and no more.
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
	f, err := image.FileFrom(fs, "bin/app")
	if err != nil || f.Name != "app" || f.Mode != 0o755 {
		t.Errorf("%+v, %v", f, err)
	}
	if _, err := image.FileFrom(fs, "bin"); err == nil {
		t.Error("a directory is taken for a file")
	}
	if _, err := image.FileFrom(fs, "none"); err == nil {
		t.Error("a missing file")
	}
}

func TestManifestLookups(t *testing.T) {
	m := imagetest.Manifest("2.0.0")
	m.Payloads = []image.Payload{{Name: "app"}, {Name: "conv"}}
	m.Converters = []image.Converter{{From: 1, To: 2, Payload: "conv"}}
	if m.Payload("app") != &m.Payloads[0] || m.Payload("none") != nil {
		t.Error("Payload")
	}
	if m.Converter(1, 2) != "conv" || m.Converter(2, 1) != "" {
		t.Error("Converter")
	}
}

// causeOf is the cause of a refusal, 0 for another error.
func causeOf(err error) mib.FailCause {
	var e *image.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return 0
}
