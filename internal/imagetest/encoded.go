package imagetest

import (
	"bytes"
	"context"
	"io"
	"slices"
	"testing"

	"github.com/spf13/afero"

	"example.com/iad/bank/image"
	"example.com/iad/bank/image/encode"
	"example.com/iad/bank/image/frame"
	"example.com/iad/internal/agefile"
)

// Which encodings Encoded makes.
type Which int

// The encodings of the payload in the order of the image.
const (
	Full Which = 1 << iota
	Delta
)

// Encoded returns the files with encodings of the payload app, in the smallest frames: its
// difference from base, and all of it.
func Encoded(t testing.TB, files []image.PayloadFile, base []byte, which Which) []image.PayloadFile {
	t.Helper()
	encoded := append([]image.PayloadFile(nil), files...)
	for i := range encoded {
		f := &encoded[i]
		if f.Name != "app" {
			continue
		}
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		add := func(e image.EncodedFile, err error) {
			if err != nil {
				t.Fatal(err)
			}
			f.Encodings = append(f.Encodings, e)
		}
		if which&Delta != 0 {
			add(encode.XZDelta(context.Background(), "app.d-1.0.0", content, base, frame.MinSize))
		}
		if which&Full != 0 {
			add(encode.XZ(context.Background(), "app.xz", content, frame.MinSize))
		}
	}
	return encoded
}

// Encrypted returns a manifest and its files with their encodings encrypted to recipients.
func Encrypted(t testing.TB, m image.Manifest, files []image.PayloadFile, recipients ...agefile.Recipient) (image.Manifest, []image.PayloadFile) {
	t.Helper()
	files = slices.Clone(files)
	for i := range files {
		files[i].Encodings = slices.Clone(files[i].Encodings)
	}
	var err error
	if m.Key, err = image.Encrypt(files, recipients...); err != nil {
		t.Fatal(err)
	}
	return m, files
}

// Tar returns an image of files in tar form.
func Tar(t testing.TB, m image.Manifest, files []image.PayloadFile) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := image.Build(&b, m, files, Key); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// SplitFiles returns the files of an image in split form, in the directory dir.
func SplitFiles(t testing.TB, m image.Manifest, files []image.PayloadFile) map[string][]byte {
	t.Helper()
	fs := afero.NewMemMapFs()
	if err := image.BuildSplit(fs, "dir", m, files, Key); err != nil {
		t.Fatal(err)
	}
	found := make(map[string][]byte)
	infos, err := afero.ReadDir(fs, "dir")
	if err != nil {
		t.Fatal(err)
	}
	for _, info := range infos {
		if found["dir/"+info.Name()], err = afero.ReadFile(fs, "dir/"+info.Name()); err != nil {
			t.Fatal(err)
		}
	}
	return found
}
