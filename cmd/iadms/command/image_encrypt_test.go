package command

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"

	"example.com/iad/bank/image"
	"example.com/iad/internal/agefile"
	"example.com/iad/internal/iadtest"
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
	if out, status := build("--split", split, "--encrypt-to", model.Recipient().String()); status != exitOK {
		t.Errorf("the same once more: %d\n%s", status, out)
	}
	used := filepath.Join(l.dir, "used")
	if out, status := build("--split", used, "--compress", "xz"); status != exitOK {
		t.Fatalf("exit status %d\n%s", status, out)
	}
	before, err := os.ReadFile(filepath.Join(used, "manifest.json"))
	if err != nil {
		t.Fatal(err)
	}
	if out, status := build("--split", used, "--encrypt-to", model.Recipient().String()); status == exitOK || !strings.Contains(out, "used has app, which is not a file of this encrypted image") {
		t.Errorf("beside plain files: %d\n%s", status, out)
	}
	if after, err := os.ReadFile(filepath.Join(used, "manifest.json")); err != nil || !bytes.Equal(after, before) {
		t.Errorf("the image in a used directory was changed, %v", err)
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

// The base of a difference may be an encrypted image: with the key of the model, an encrypted
// image has differences from several of them, and devices that run one fetch that.
func TestEncryptedBases(t *testing.T) {
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
	var logs [2]iadtest.LockedBuffer
	var labs []*lab
	for i := range logs {
		labs = append(labs, newLabOf(t, func(c *sim.Config) {
			c.ImageKeys, c.Log = keys, slog.New(slog.NewTextHandler(&logs[i], nil))
		}, maker))
	}
	l := labs[0]
	write := func(name string, data []byte) string {
		t.Helper()
		name = filepath.Join(l.dir, name)
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	key, identity := write("maker.key", private), write("model.key", []byte(model.String()+"\n"))
	content := make([]byte, 50_000)
	_, _ = rand.NewChaCha8([32]byte{}).Read(content)
	build := func(version string, args ...string) (string, string, int) {
		t.Helper()
		for i := 0; i < len(content); i += 5000 {
			content[i] += version[0] + version[2]
		}
		dir := filepath.Join(l.dir, "fw-"+version)
		out, status := l.plainly(append([]string{"image", "build", "--version", version, "--hardware", "IAD-4FXS", "--key", key, "--split", dir,
			"--encrypt-to", model.Recipient().String(), write("app", content)}, args...)...)
		return filepath.Join(dir, "manifest.json"), out, status
	}
	one, out, status := build("2.0.0")
	if status != exitOK {
		t.Fatal(out)
	}
	two, out, status := build("2.1.0", "--delta-from", one, "--identity", identity)
	if status != exitOK || !strings.Contains(out, "difference from 2.0.0\n") {
		t.Fatal(out)
	}
	for i, img := range []string{one, two} {
		if out, status := labs[i].run(labs[i].upgrade("--image", img)); status != exitOK {
			t.Fatalf("exit status %d\n%s", status, out)
		}
	}
	if _, out, status := build("3.0.0", "--delta-from", one, "--delta-from", two); status == exitOK || !strings.Contains(out, "--identity") {
		t.Errorf("without the key: exit status %d\n%s", status, out)
	}
	if _, err := os.Stat(filepath.Join(l.dir, "fw-3.0.0")); err == nil {
		t.Error("without the key an image was built")
	}
	three, out, status := build("3.0.0", "--delta-from", one, "--delta-from", two, "--identity", identity)
	if status != exitOK || !strings.Contains(out, "difference from 2.0.0\n") || !strings.Contains(out, "difference from 2.1.0\n") {
		t.Fatal(out)
	}
	for i, version := range []string{"2.0.0", "2.1.0"} {
		if out, status := l.plainly("image", "diff", []string{one, two}[i], three, "--identity", identity); status != exitOK || !strings.Contains(out, "app.d-"+version) {
			t.Errorf("diff: exit status %d\n%s", status, out)
		}
		if out, status := labs[i].run(labs[i].upgrade("--image", three)); status != exitOK {
			t.Fatalf("exit status %d\n%s", status, out)
		}
		if v := labs[i].outcome().Version; v != "3.0.0" || !strings.Contains(logs[i].String(), "fetching app.d-"+version+", the difference from the running "+version) {
			t.Errorf("%s runs, not from the difference from %s:\n%s", v, version, logs[i].String())
		}
	}
}
