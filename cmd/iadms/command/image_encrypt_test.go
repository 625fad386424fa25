package command

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"

	"example.com/iad/bank/image"
	"example.com/iad/internal/agefile"
	"example.com/iad/sim"
)

// An encrypted image is built without plain files beside it, installed by a device with the
// key of the model, and refused by one without it.
func TestEncryptedImage(t *testing.T) {
	model, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	keys, err := agefile.ReadIdentities([]byte(model.String()))
	if err != nil {
		t.Fatal(err)
	}
	_, private, err := image.GenerateKey("")
	if err != nil {
		t.Fatal(err)
	}
	maker, err := image.ReadPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	l := newLabOf(t, func(c *sim.Config) { c.ImageKeys = keys }, maker)
	without := newLabOf(t, nil, maker)
	write := func(name string, data []byte) string {
		t.Helper()
		name = filepath.Join(l.dir, name)
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	key, app := write("maker.key", private), write("app", bytes.Repeat([]byte("a secret of the maker\n"), 2000))
	build := func(args ...string) (string, int) {
		return l.plainly(append([]string{"image", "build", "--version", "2.0.0", "--hardware", "IAD-4FXS", "--key", key}, append(args, app)...)...)
	}
	split := filepath.Join(l.dir, "fw-2.0.0")
	if out, status := build("--split", split, "--encrypt-to", "age1nobody"); status != exitUsage {
		t.Errorf("a recipient that is none: %d\n%s", status, out)
	}
	if out, status := build("--split", split, "--encrypt-to", model.Recipient().String()); status != exitOK {
		t.Fatalf("exit status %d\n%s", status, out)
	}
	list, err := os.ReadDir(split)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, file := range list {
		data, err := os.ReadFile(filepath.Join(split, file.Name()))
		if err != nil || bytes.Contains(data, []byte("secret of the maker")) {
			t.Errorf("%s is plain, %v", file.Name(), err)
		}
		names = append(names, file.Name())
	}
	if got := strings.Join(names, " "); got != "app.xz manifest.json manifest.json.minisig" {
		t.Errorf("files: %s", got)
	}
	manifest := filepath.Join(split, "manifest.json")
	if out, status := l.plainly("image", "inspect", manifest); status != exitOK || !strings.Contains(out, "encrypted") {
		t.Errorf("inspect: %d\n%s", status, out)
	}
	out, status := without.run(without.upgrade("--image", manifest))
	if status == exitOK || !strings.Contains(out, "keyMissing") {
		t.Errorf("without the key: %d\n%s", status, out)
	}
	for name, image := range map[string]string{"split": manifest, "file": filepath.Join(l.dir, "fw.iad")} {
		if name == "file" {
			if out, status := build("-o", image, "--encrypt-to", model.Recipient().String()); status != exitOK {
				t.Fatalf("exit status %d\n%s", status, out)
			}
		}
		if out, status := l.run(l.upgrade("--image", image, "--force")); status != exitOK {
			t.Fatalf("%s: exit status %d\n%s", name, status, out)
		}
		out, _ := l.plainly("status", l.address, "--json")
		var r statusReport
		if err := json.Unmarshal([]byte(out), &r); err != nil || r.Version != "2.0.0" {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
}
