package image_test

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"aead.dev/minisign"
	"github.com/spf13/afero"

	"example.com/iad/bank"
	"example.com/iad/bank/image"
	"example.com/iad/internal/iadtest"
	"example.com/iad/internal/imagetest"
	"example.com/iad/internal/peers"
	"example.com/iad/mib"
)

// minisignTool runs the real minisign in a directory.
func minisignTool(t *testing.T, dir, input string, args ...string) {
	t.Helper()
	cmd := exec.Command(peers.Find(t, "minisign"), args...)
	cmd.Dir, cmd.Stdin = dir, strings.NewReader(input)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("minisign %v: %v\n%s", args, err, out)
	}
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func write(t *testing.T, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestToolVerifiesOurs: the tool accepts keys and signatures of ours.
func TestToolVerifiesOurs(t *testing.T) {
	dir := t.TempDir()
	pub, priv, err := image.GenerateKey("")
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "k.pub"), pub)
	write(t, filepath.Join(dir, "k.key"), priv)
	key, err := image.ReadPrivateKey(priv, "")
	if err != nil || image.KeyEncrypted(priv) {
		t.Fatal(err)
	}
	if err := image.BuildSplit(afero.NewOsFs(), filepath.Join(dir, "fw"), imagetest.Manifest("2.0.0"), imagetest.Payloads("2.0.0"), key); err != nil {
		t.Fatal(err)
	}
	minisignTool(t, dir, "", "-Vm", "fw/manifest.json", "-p", "k.pub")
	toolSigns(t, dir, "")
}

// toolSigns has the tool sign with our key pair k.pub, k.key in dir.
func toolSigns(t *testing.T, dir, input string) {
	t.Helper()
	write(t, filepath.Join(dir, "file"), []byte("anything"))
	minisignTool(t, dir, input, "-Sm", "file", "-s", "k.key")
	public, err := image.ReadPublicKey(read(t, filepath.Join(dir, "k.pub")))
	if err != nil {
		t.Fatal(err)
	}
	if !minisign.Verify(public, []byte("anything"), read(t, filepath.Join(dir, "file.minisig"))) {
		t.Error("the tool's signature by our key does not verify")
	}
}

// TestOursAcceptsTools: an image that the tool signed with a key of its own is
// installed, in both forms and with both kinds of signature.
func TestOursAcceptsTools(t *testing.T) {
	dir := t.TempDir()
	minisignTool(t, dir, "", "-G", "-W", "-p", "k.pub", "-s", "k.key")
	public, err := image.ReadPublicKey(read(t, filepath.Join(dir, "k.pub")))
	if err != nil {
		t.Fatal(err)
	}
	key, err := image.ReadPrivateKey(read(t, filepath.Join(dir, "k.key")), "")
	if err != nil {
		t.Fatal(err)
	}
	fs := afero.NewBasePathFs(afero.NewOsFs(), dir)
	if err := image.BuildSplit(fs, "fw", imagetest.Manifest("2.0.0"), imagetest.Payloads("2.0.0"), imagetest.Key); err != nil {
		t.Fatal(err)
	}
	for _, legacy := range [][]string{nil, {"-l"}} {
		minisignTool(t, dir, "", append([]string{"-Sm", "fw/manifest.json", "-s", "k.key"}, legacy...)...)
		if _, err := image.VerifySplit(fs, "fw/manifest.json", image.TrustKeys(public)); err != nil {
			t.Error(err)
		}
		if _, err := image.VerifySplit(fs, "fw/manifest.json", imagetest.Trust(imagetest.Key)); causeOf(err) != mib.FailCauseSignerUntrusted {
			t.Error(err)
		}
		var img bytes.Buffer
		if err := image.Pack(&img, fs, "fw/manifest.json"); err != nil {
			t.Fatal(err)
		}
		err := bank.Provision(bank.Options{
			Banks: [2]afero.Fs{afero.NewMemMapFs(), afero.NewMemMapFs()}, State: afero.NewMemMapFs(),
			Trust: image.TrustKeys(public), Hardware: "IAD-4FXS",
		}, &img, nil)
		if err != nil {
			t.Error(err)
		}
	}
	// Our signature by the tool's key is the tool's.
	var img bytes.Buffer
	if err := image.Build(&img, imagetest.Manifest("2.0.0"), imagetest.Payloads("2.0.0"), key); err != nil {
		t.Fatal(err)
	}
	h := imagetest.ReadHead(t, img.Bytes())
	write(t, filepath.Join(dir, "m"), h.Raw)
	write(t, filepath.Join(dir, "m.minisig"), h.Signature)
	minisignTool(t, dir, "", "-Vm", "m", "-p", "k.pub")
}

// TestEncryptedKeys interchange both ways.
func TestEncryptedKeys(t *testing.T) {
	if testing.Short() || iadtest.RaceDetector {
		t.Skip("scrypt takes seconds and a gigabyte, with the race detector minutes")
	}
	dir := t.TempDir()
	pub, priv, err := image.GenerateKey("secret")
	if err != nil || !image.KeyEncrypted(priv) {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "k.pub"), pub)
	write(t, filepath.Join(dir, "k.key"), priv)
	toolSigns(t, dir, "secret\n")

	minisignTool(t, dir, "secret\nsecret\n", "-G", "-p", "t.pub", "-s", "t.key")
	data := read(t, filepath.Join(dir, "t.key"))
	key, err := image.ReadPrivateKey(data, "secret")
	if err != nil || !image.KeyEncrypted(data) {
		t.Fatal(err)
	}
	public, err := image.ReadPublicKey(read(t, filepath.Join(dir, "t.pub")))
	if err != nil || !public.Equal(key.Public()) {
		t.Errorf("the private key does not belong to the public one: %v", err)
	}
}

// TestWrongPassword reads a key whose costs were set low, so that it is quick; what
// comes out is as wrong as with a wrong password.
func TestWrongPassword(t *testing.T) {
	file := make([]byte, 158)
	copy(file, "EdScB2")
	binary.LittleEndian.PutUint64(file[38:], 1<<15)
	binary.LittleEndian.PutUint64(file[46:], 1<<20)
	text := "untrusted comment: key\n" + base64.StdEncoding.EncodeToString(file) + "\n"
	if !image.KeyEncrypted([]byte(text)) {
		t.Error("KeyEncrypted is wrong")
	}
	if _, err := image.ReadPrivateKey([]byte(text), "wrong"); err == nil || !strings.Contains(err.Error(), "password") {
		t.Error(err)
	}
}

func TestKeysOfOtherSystems(t *testing.T) {
	pub, priv, err := image.GenerateKey("")
	if err != nil {
		t.Fatal(err)
	}
	dos := func(b []byte) []byte { return bytes.ReplaceAll(b, []byte("\n"), []byte("\r\n")) }
	key, err := image.ReadPrivateKey(dos(priv), "")
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range [][]byte{dos(pub), bytes.SplitAfter(pub, []byte("\n"))[1]} {
		if public, err := image.ReadPublicKey(text); err != nil || !public.Equal(key.Public()) {
			t.Errorf("%q: %v", text, err)
		}
	}
	for _, bad := range []string{"", "x", string(pub)} {
		if _, err := image.ReadPrivateKey([]byte(bad), ""); err == nil {
			t.Errorf("private key of %q", bad)
		}
	}
	if _, err := image.ReadPublicKey(priv); err == nil {
		t.Error("a private key is taken for a public one")
	}
	if _, err := image.SignManifest(nil, "two\nlines", key); err == nil {
		t.Error("a trusted comment of two lines")
	}
}
