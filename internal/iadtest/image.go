package iadtest

import (
	"bytes"
	"io"
	"testing"

	"aead.dev/minisign"
	"github.com/spf13/afero"

	"example.com/iad/bank/image"
	"example.com/iad/manager/files"
)

// BuildImage makes an image with 200 kB of payload.
func BuildImage(t testing.TB, key minisign.PrivateKey, m image.Manifest) []byte {
	t.Helper()
	var img bytes.Buffer
	payload := bytes.Repeat([]byte("software "+m.Version+"\n"), 12000)
	err := image.Build(&img, m, []image.PayloadFile{{Name: "app", Mode: 0o755, Open: func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(payload)), nil
	}}}, key)
	if err != nil {
		t.Fatal(err)
	}
	return img.Bytes()
}

// OpenImage writes an image to a file and opens it as the manager does.
func OpenImage(t testing.TB, disk afero.Fs, name string, data []byte) *files.Image {
	t.Helper()
	if err := afero.WriteFile(disk, name, data, 0o600); err != nil {
		t.Fatal(err)
	}
	img, err := files.OpenImage(disk, name)
	if err != nil {
		t.Fatal(err)
	}
	return img
}
