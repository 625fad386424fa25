package seal_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"example.com/iad/fleet/seal"
)

func TestKeyOpensWhatItSealed(t *testing.T) {
	name := filepath.Join(t.TempDir(), "keys", "seal.key")
	key, created, err := seal.ReadOrCreateKey(name)
	if err != nil || !created {
		t.Fatal(created, err)
	}
	secret := []byte("correct horse")
	sealed, err := key.Seal(secret)
	if err != nil || bytes.Contains(sealed, secret) {
		t.Fatalf("%q, %v", sealed, err)
	}
	if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	again, created, err := seal.ReadOrCreateKey(name)
	if err != nil || created {
		t.Fatal(created, err)
	}
	if plain, err := again.Open(sealed); err != nil || !bytes.Equal(plain, secret) {
		t.Errorf("%q, %v", plain, err)
	}
	other, err := seal.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	if plain, err := other.Open(sealed); err == nil {
		t.Errorf("another key opened it: %q", plain)
	}
	for i := range sealed {
		damaged := bytes.Clone(sealed)
		damaged[i] ^= 1
		if plain, err := key.Open(damaged); err == nil && !bytes.Equal(plain, secret) {
			t.Errorf("byte %d: opened as %q", i, plain)
		}
	}
}

func TestFilesThatAreNotKeys(t *testing.T) {
	for name, text := range map[string]string{"empty": "", "text": "secret", "public": "age1lvyvwawkr0mcnnnncaghunadrqkmuf9e6507x9y920xxpp866cnql7dp2z\n"} {
		file := filepath.Join(t.TempDir(), "key")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, _, err := seal.ReadOrCreateKey(file); err == nil {
			t.Errorf("%s was accepted", name)
		}
		if got, err := os.ReadFile(file); err != nil || string(got) != text {
			t.Errorf("%s: the file was changed to %q, %v", name, got, err)
		}
	}
}
