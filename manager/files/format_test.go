package files

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/afero"

	"example.com/iad/bank/image"
	"example.com/iad/internal/imagetest"
)

// TestForFormat: what is published depends on the formats that the device reads.
func TestForFormat(t *testing.T) {
	m, payloads := imagetest.Manifest("2.0.0"), imagetest.Payloads("2.0.0")
	base := imagetest.Content("1.0.0", "app", 50_000)
	encoded := imagetest.Encoded(t, payloads, base, imagetest.Full|imagetest.Delta)
	fs := afero.NewMemMapFs()
	put := func(name string, data []byte) {
		if err := afero.WriteFile(fs, name, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, data := range imagetest.SplitFiles(t, m, encoded) {
		put(name, data)
	}
	put("plain.iad", imagetest.Build(t, m))
	put("full.iad", imagetest.Tar(t, m, imagetest.Encoded(t, payloads, base, imagetest.Full)))
	open := func(name string) *Image {
		t.Helper()
		img, err := OpenImage(fs, name)
		if err != nil {
			t.Fatal(err)
		}
		return img
	}
	split, plain, full := open("dir/manifest.json"), open("plain.iad"), open("full.iad")
	for name, test := range map[string]struct {
		img    *Image
		format int
		want   string // the file, "" is refused
		why    string
	}{
		"plain for an old device":      {plain, 0, "plain.iad", ""},
		"plain for a new device":       {plain, 2, "plain.iad", ""},
		"compressed for an old device": {full, 0, "", "full.iad is in image format 2, and the device reads format 1 only; use the manifest"},
		"compressed for a new device":  {full, 2, "full.iad", "reads image format 2"},
		"compressed for a later one":   {full, 3, "full.iad", "reads image format 2"},
		"split for an old device":      {split, 0, "manifest-1.json", "format 1 only: it fetches the plain files, by manifest-1.json"},
		"split for format 1":           {split, 1, "manifest-1.json", "format 1 only"},
		"split for a new device":       {split, 2, "manifest.json", "reads image format 2"},
	} {
		img, why, err := test.img.ForFormat(test.format)
		if err != nil {
			why = err.Error()
		}
		if (err == nil) != (test.want != "") || err == nil && img.FileName() != test.want || !strings.Contains(why, test.why) || test.why == "" && why != "" {
			t.Errorf("%s: %v, %q, %v", name, img, why, err)
		}
	}
	if want := []string{"app.d-1.0.0", "app.xz", "data.bin", "empty", "manifest.json", "manifest.json.minisig", "selftest"}; !slices.Equal(sortedKeys(split.sources()), want) {
		t.Errorf("%q are published", sortedKeys(split.sources()))
	}
	if want := []string{"app", "data.bin", "empty", "manifest-1.json", "manifest-1.json.minisig", "selftest"}; !slices.Equal(sortedKeys(split.Plain.sources()), want) {
		t.Errorf("%q are published for old devices", sortedKeys(split.Plain.sources()))
	}
	// A bank that was written from either is from this image.
	for _, img := range []*Image{split, split.Plain} {
		if !slices.ContainsFunc(split.ManifestDigests(), func(d []byte) bool { return bytes.Equal(d, img.ManifestDigest) }) {
			t.Errorf("%s does not count", img.FileName())
		}
	}
	// Devices without iadUpgImageFormat know the digest of the file only.
	if !bytes.Equal(full.RequestDigest(2), full.ManifestDigest) || !bytes.Equal(plain.RequestDigest(0), plain.Digest) || !bytes.Equal(plain.RequestDigest(1), plain.ManifestDigest) {
		t.Error("another digest is expected")
	}

	// What is beside a manifest must belong to it.
	for name, spoil := range map[string]func(){
		"another plain image": func() {
			for name, data := range imagetest.SplitFiles(t, imagetest.Manifest("1.5.0"), imagetest.Payloads("1.5.0")) {
				put(strings.Replace(name, image.ManifestName, image.PlainManifestName, 1), data)
			}
		},
		"an encoding of another size": func() { put("dir/app.xz", []byte("short")) },
		"no encoding":                 func() { _ = fs.Remove("dir/app.xz") },
	} {
		for name, data := range imagetest.SplitFiles(t, m, encoded) {
			put(name, data)
		}
		spoil()
		if _, err := OpenImage(fs, "dir/manifest.json"); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
	// Without a plain image beside it, old devices cannot have it.
	for name, data := range imagetest.SplitFiles(t, m, encoded) {
		put(name, data)
	}
	_ = fs.Remove("dir/" + image.PlainManifestName)
	if _, _, err := open("dir/manifest.json").ForFormat(1); err == nil {
		t.Error("an old device is offered what it cannot read")
	}
}

func sortedKeys(sources map[string]imageSource) (names []string) {
	for name := range sources {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
