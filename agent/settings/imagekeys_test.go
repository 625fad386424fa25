package settings

import (
	"os"
	"path/filepath"
	"testing"

	"filippo.io/age"
)

// A key for images that others can read is used, and closed to them.
func TestImageKeyReadByOthers(t *testing.T) {
	key, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	file := filepath.Join(root, "model.key")
	if err := os.WriteFile(file, []byte(key.String()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	s := &Settings{DeviceID: "IAD-0001", Hardware: "H", ImageKeys: []string{"model.key"}}
	c, _, err := s.Config(root, "1.0.0")
	if err != nil || s.BadKeys() != nil || len(c.ImageKeys) != 1 {
		t.Errorf("%d keys, %v, %v", len(c.ImageKeys), err, s.BadKeys())
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}
