package config_test

import (
	"testing"

	"github.com/spf13/afero"

	"example.com/iad/internal/durable"
)

// newerFrame replaces the frame in file name by one of a version that does not
// exist yet, and returns it.
func newerFrame(t *testing.T, fs afero.Fs, name string) []byte {
	t.Helper()
	data, err := afero.ReadFile(fs, name)
	if err != nil {
		t.Fatal(err)
	}
	frame := durable.EncodeFrame([4]byte(data[:4]), 1000, 1, []byte("?"))
	if err := afero.WriteFile(fs, name, frame, 0o600); err != nil {
		t.Fatal(err)
	}
	return frame
}
