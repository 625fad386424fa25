// Package release holds no code: it tests what "make release" makes, and the recipes for Buildroot and Yocto.
package release

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"aead.dev/minisign"
	"github.com/google/go-cmp/cmp"

	"example.com/iad/internal/peers"
)

const (
	top     = "../.."
	version = "9.9.9-rc1" // a candidate: the change log needs no section for it
)

// run runs a program and returns what it printed.
func run(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(cmd.Args, " "), err, out)
	}
	return string(out)
}

// TestRefusals: what cannot become a release is refused before anything is built.
func TestRefusals(t *testing.T) {
	dir := t.TempDir()
	public := filepath.Join(dir, "public")
	if err := os.WriteFile(public, []byte("untrusted comment: minisign public key\nRWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ version, key, want string }{
		{"", "x", "no version; usage: make release VERSION=1.2.0 KEY=release.key"},
		{"1.2", "x", "version 1.2: want a version such as 1.2.0 or 1.2.0-rc1"},
		{"1.2.0-dirty", "x", "version 1.2.0-dirty: want"},
		{"1.2.0", "", "no key: a release is signed."},
		{"1.2.0", filepath.Join(dir, "none"), "no such file"},
		{"1.2.0", public, "is not a private key of minisign"},
	} {
		cmd := exec.CommandContext(t.Context(), top+"/.ci/release/make", test.version)
		cmd.Env = append(os.Environ(), "KEY="+test.key)
		out, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(string(out), test.want) {
			t.Errorf("VERSION=%s KEY=%s: %v, want %q in\n%s", test.version, test.key, err, test.want, out)
		}
	}
}

// build makes a release in a clone of this working tree and returns its directory.
func build(t *testing.T, key string, env ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 40*time.Minute)
	defer cancel()
	clone := filepath.Join(t.TempDir(), "clone")
	run(t, exec.CommandContext(ctx, "git", "clone", "--quiet", top, clone))
	if err := os.Symlink(peers.Dir(), filepath.Join(clone, ".peers")); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	cmd := exec.CommandContext(ctx, "make", "--no-print-directory", "-C", clone, "release", "VERSION="+version, "KEY="+key)
	cmd.Env = append(os.Environ(), env...)
	t.Logf("%s(%s)", run(t, cmd), time.Since(begun).Round(time.Second))
	return filepath.Join(clone, "bin", "release")
}

// digests returns the SHA-256 of each file in a directory.
func digests(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for _, e := range entries {
		found[e.Name()] = digest(t, filepath.Join(dir, e.Name()))
	}
	return found
}

// digest returns the SHA-256 of a file.
func digest(t *testing.T, name string) string {
	t.Helper()
	sum := sha256.Sum256([]byte(read(t, name)))
	return hex.EncodeToString(sum[:])
}

// unpack unpacks an archive into a new directory and returns the one that all of it is in.
func unpack(t *testing.T, name string) string {
	t.Helper()
	dir := t.TempDir()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	zr, err := gzip.NewReader(f)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	base := strings.TrimSuffix(filepath.Base(name), ".tar.gz")
	for tr := tar.NewReader(zr); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return filepath.Join(dir, base)
		} else if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if first, _, _ := strings.Cut(path.Clean(h.Name), "/"); first != base {
			t.Fatalf("%s: %s is not in the directory %s", name, h.Name, base)
		}
		file := filepath.Join(dir, filepath.FromSlash(path.Clean("/"+h.Name)))
		switch h.Typeflag {
		case tar.TypeDir:
			err = os.MkdirAll(file, 0o755)
		case tar.TypeReg:
			var text []byte
			if text, err = io.ReadAll(tr); err == nil {
				err = os.WriteFile(file, text, os.FileMode(h.Mode))
			}
		default:
			t.Errorf("%s: %s has the type %c", name, h.Name, h.Typeflag)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestRelease makes the same release twice, in two directories and the second time without anything that Go has compiled before,
// and checks it with tools of others. PROCESSORS selects some.
func TestRelease(t *testing.T) {
	if os.Getenv("IAD_RELEASE") != "full" {
		t.Skip("make release-test runs this test")
	}
	dir := t.TempDir()
	key, public := filepath.Join(dir, "release.key"), filepath.Join(dir, "release.pub")
	run(t, exec.CommandContext(t.Context(), peers.Find(t, "minisign"), "-G", "-W", "-s", key, "-p", public))

	release := build(t, key)
	sums := digests(t, release)
	if diff := cmp.Diff(sums, digests(t, build(t, key, "GOCACHE="+filepath.Join(dir, "cache")))); diff != "" {
		t.Errorf("two releases of one commit differ (-first +second):\n%s", diff)
	}

	t.Run("signature", func(t *testing.T) { signature(t, release, public, sums) })
	t.Run("changes", func(t *testing.T) {
		text, err := os.ReadFile(filepath.Join(release, "CHANGES.md"))
		if err != nil || !bytes.HasPrefix(text, []byte("### ")) {
			t.Errorf("CHANGES.md: %v, it starts with %.40q", err, text)
		}
	})
	archives, err := filepath.Glob(filepath.Join(release, "iad-*-linux-*.tar.gz"))
	if err != nil || len(archives) == 0 {
		t.Fatalf("no archives: %v", err)
	}
	unpacked, programs := make([]string, len(archives)), map[string]string{} // iad by processor
	for i, archive := range archives {
		unpacked[i] = unpack(t, archive)
		_, processor, _ := strings.Cut(filepath.Base(unpacked[i]), "-linux-")
		programs[processor] = filepath.Join(unpacked[i], "iad")
	}
	t.Run("bills of materials", func(t *testing.T) {
		for _, dir := range unpacked {
			contents(t, release, dir)
		}
		cmd := exec.CommandContext(t.Context(), "go", "test", "-count=1", "-v", "./sbom")
		cmd.Dir, cmd.Env = top+"/.ci/release", append(os.Environ(), "IAD_SBOMS="+release)
		if out := run(t, cmd); !strings.Contains(out, "--- PASS: TestSchema/iad-") {
			t.Errorf("the schema was not used:\n%s", out)
		}
	})
	source := filepath.Join(release, "iad-"+version+".tar.gz")
	t.Run("Buildroot", func(t *testing.T) { buildroot(t, release, source, sums, programs) })
	t.Run("Yocto", func(t *testing.T) { yocto(t, release, source, sums, programs) })
}

// signature compares SHA256SUMS with the files and with its signature, by another program than the one that signed.
func signature(t *testing.T, release, public string, sums map[string]string) {
	key, err := minisign.PublicKeyFromFile(public)
	if err != nil {
		t.Fatal(err)
	}
	list, err := os.ReadFile(filepath.Join(release, "SHA256SUMS"))
	if err != nil {
		t.Fatal(err)
	}
	sig, err := os.ReadFile(filepath.Join(release, "SHA256SUMS.minisig"))
	if err != nil {
		t.Fatal(err)
	}
	if !minisign.Verify(key, list, sig) {
		t.Error("SHA256SUMS.minisig is not the signature of SHA256SUMS")
	}
	var s minisign.Signature
	if err := s.UnmarshalText(sig); err != nil || !strings.HasPrefix(s.TrustedComment, "iad "+version+", commit ") {
		t.Errorf("trusted comment %q, %v", s.TrustedComment, err)
	}
	// As docs/install.md says, with the tools of a user.
	for _, command := range [][]string{{peers.Find(t, "minisign"), "-V", "-p", public, "-m", "SHA256SUMS"}, {"sha256sum", "--check", "--ignore-missing", "--quiet", "SHA256SUMS"}} {
		cmd := exec.CommandContext(t.Context(), command[0], command[1:]...)
		cmd.Dir = release
		run(t, cmd)
	}
	want := map[string]string{}
	for line := range strings.Lines(string(list)) {
		sum, name, _ := strings.Cut(strings.TrimSpace(line), "  ")
		want[name] = sum
	}
	got := map[string]string{}
	for name, sum := range sums {
		if !strings.HasPrefix(name, "SHA256SUMS") {
			got[name] = sum
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("SHA256SUMS (-list +files):\n%s", diff)
	}
}

// contents compares the programs of an unpacked archive with their bills of materials.
func contents(t *testing.T, release, dir string) {
	t.Helper()
	for _, name := range []string{"LICENSES.txt", "README.md", "CHANGELOG.md", "IAD-UPGRADE-MIB.txt", "man/iad.1", "completion/iad.bash"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Size() == 0 {
			t.Errorf("%s: %s: %v", filepath.Base(dir), name, err)
		}
	}
	var found []string
	for _, program := range []string{"iad", "iadms", "iadsim", "iadlab", "iadmsd"} {
		info, err := buildinfo.ReadFile(filepath.Join(dir, program))
		if errors.Is(err, os.ErrNotExist) {
			continue
		} else if err != nil {
			t.Fatal(err)
		}
		found = append(found, program)
		text, err := os.ReadFile(filepath.Join(release, program+"-"+version+".cdx.json"))
		if err != nil {
			t.Fatal(err)
		}
		var bom struct {
			Metadata struct {
				Component struct{ Name, Version string }
			}
			Components []struct{ Name, Version string }
		}
		if err := json.Unmarshal(text, &bom); err != nil {
			t.Fatal(err)
		}
		if got := bom.Metadata.Component; got.Name != "example.com/iad" || got.Version != "v"+version {
			t.Errorf("the bill of materials of %s is for %s %s", program, got.Name, got.Version)
		}
		want := []string{"std " + info.GoVersion}
		for _, m := range info.Deps {
			want = append(want, m.Path+" "+m.Version)
		}
		var got []string
		for _, c := range bom.Components {
			got = append(got, c.Name+" "+c.Version)
		}
		slices.Sort(want)
		slices.Sort(got)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s of %s (-program +bill of materials):\n%s", program, filepath.Base(dir), diff)
		}
	}
	_, processor, _ := strings.Cut(filepath.Base(dir), "-linux-")
	want := []string{"iad"}
	switch processor {
	case "amd64", "arm64":
		want = []string{"iad", "iadms", "iadsim", "iadlab", "iadmsd"}
	case "armv7":
		want = []string{"iad", "iadms", "iadsim", "iadlab"}
	}
	if diff := cmp.Diff(want, found); diff != "" {
		t.Errorf("programs of %s (-want +found):\n%s", filepath.Base(dir), diff)
	}
}
