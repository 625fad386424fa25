package bank

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"example.com/iad/bank/image"
	"example.com/iad/internal/agefile"
	"example.com/iad/internal/iadtest"
	"example.com/iad/internal/imagetest"
	"example.com/iad/mib"
)

// encrypted returns manifest and files of version 2.0.0, encrypted to recipients.
func encrypted(t testing.TB, which imagetest.Which, to ...agefile.Recipient) (image.Manifest, []image.PayloadFile) {
	t.Helper()
	return imagetest.Encrypted(t, imagetest.Manifest("2.0.0"), encodedPayloads(t, which), to...)
}

func otherKey(t testing.TB) agefile.Identity {
	t.Helper()
	key, err := agefile.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// TestEncryptedImages installs each form of an encrypted image. No file of it has content
// that somebody without the key could decode.
func TestEncryptedImages(t *testing.T) {
	to := imagetest.ModelKey.Recipient()
	tar := func(which imagetest.Which) *server {
		m, files := encrypted(t, which, otherKey(t).Recipient(), to)
		return serve("fw.iad", imagetest.Tar(t, m, files))
	}
	split := func(which imagetest.Which) *server {
		m, files := encrypted(t, which, to)
		return &server{files: imagetest.SplitFiles(t, m, files)}
	}
	for name, test := range map[string]struct {
		src  *server
		file string
		most int64
	}{
		"full tar":    {tar(imagetest.Full), "fw.iad", 220_000},
		"delta tar":   {tar(imagetest.Delta), "fw.iad", 40_000},
		"full split":  {split(imagetest.Full), splitName, 220_000},
		"delta split": {split(imagetest.Delta | imagetest.Full), splitName, 40_000},
	} {
		for file, data := range test.src.files {
			if bytes.Contains(data, newApp[1000:1100]) || bytes.Contains(data, []byte("\xfd7zXZ\x00")) {
				t.Errorf("%s: %s has plain content", name, file)
			}
		}
		for _, noResume := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/no resume %v", name, noResume), func(t *testing.T) {
				opt, b := oldDevice(t)
				test.src.noResume = noResume
				res, err := b.Install(t.Context(), test.src, test.file, InstallOptions{})
				if err != nil || res.Fetched > test.most {
					t.Fatalf("%d bytes fetched, %v", res.Fetched, err)
				}
				checkNewApp(t, opt, b)
			})
		}
	}
}

// TestEncryptedResume breaks the connection off after any number of bytes, then goes on, also
// by another encoding.
func TestEncryptedResume(t *testing.T) {
	m, files := encrypted(t, imagetest.Full, imagetest.ModelKey.Recipient())
	full, tar := &server{files: imagetest.SplitFiles(t, m, files)}, serve("fw.iad", imagetest.Tar(t, m, files))
	m, files = encrypted(t, imagetest.Full|imagetest.Delta, imagetest.ModelKey.Recipient())
	delta := &server{files: imagetest.SplitFiles(t, m, files)}
	step := int64(21_111)
	if iadtest.RaceDetector {
		step *= 4
	}
	for cut := int64(1); cut < 210_000; cut += step {
		for file, src := range map[string]*server{"fw.iad": tar, splitName: full} {
			opt, b := oldDevice(t)
			src.cut = cut
			if _, err := b.Install(t.Context(), src, file, InstallOptions{}); !errors.Is(err, errBroken) {
				if err != nil {
					t.Fatalf("%s, cut at %d: %v", file, cut, err)
				}
				continue
			}
			if size := sizeOf(opt.Banks[1], "app"); size > 0 {
				truncate(t, opt.Banks[1], "app", max(0, size-cut%5000))
			}
			b, _ = boot(t, opt)
			src.cut = 0
			held := sizeOf(opt.Banks[1], "app")
			res, err := b.Install(t.Context(), src, file, InstallOptions{})
			if err != nil || res.Fetched > 216_000-held+overRead {
				t.Fatalf("%s, cut at %d: %d bytes held, %d fetched, %v", file, cut, held, res.Fetched, err)
			}
			checkNewApp(t, opt, b)
		}
	}
	opt, b := oldDevice(t)
	delta.cut = int64(len(delta.files["dir/app.d-1.0.0"]) / 2)
	if _, err := b.Install(t.Context(), delta, splitName, InstallOptions{}); !errors.Is(err, errBroken) {
		t.Fatal(err)
	}
	b, _ = boot(t, opt)
	spoilAt(t, opt.Banks[0], "app", 190_000)
	delta.cut = 0
	held := sizeOf(opt.Banks[1], "app")
	if res, err := b.Install(t.Context(), delta, splitName, InstallOptions{}); err != nil || held == 0 || res.Fetched > 216_000-held+overRead {
		t.Errorf("%d bytes held, %d fetched, %v", held, res.Fetched, err)
	}
	checkNewApp(t, opt, b)
}

// TestImageKeyMissing: without a key for it, an image is refused before anything is changed,
// and one that is in the bank already needs no key.
func TestImageKeyMissing(t *testing.T) {
	m, files := encrypted(t, imagetest.Full, imagetest.ModelKey.Recipient())
	src := &server{files: imagetest.SplitFiles(t, m, files)}
	for name, keys := range map[string][]agefile.Identity{"no key": nil, "another key": {otherKey(t), otherKey(t)}} {
		opt, b := oldDevice(t)
		if _, err := b.Install(t.Context(), serve("fw.iad", encodedTar(t, imagetest.Full)), "fw.iad", InstallOptions{}); err != nil {
			t.Fatal(err)
		}
		opt.Keys = keys
		b, _ = boot(t, opt)
		before := b.Status()
		for _, o := range []InstallOptions{{}, {CheckOnly: true}, {Force: true}} {
			_, err := b.Install(t.Context(), src, splitName, o)
			if causeOf(err) != mib.FailCauseKeyMissing {
				t.Errorf("%s: %v", name, err)
			}
		}
		if after := b.Status(); !reflect.DeepEqual(after.Banks, before.Banks) {
			t.Errorf("%s: bank 2 was %+v and is %+v", name, before.Banks[1], after.Banks[1])
		}
		checkNewApp(t, opt, b)
	}
	opt, _ := oldDevice(t)
	opt.Keys = append([]agefile.Identity{otherKey(t)}, opt.Keys...) // while the key of the model is changed
	b, _ := boot(t, opt)
	if _, err := b.Install(t.Context(), src, splitName, InstallOptions{}); err != nil {
		t.Fatal(err)
	}
	opt.Keys = nil
	b, _ = boot(t, opt)
	if res, err := b.Install(t.Context(), src, splitName, InstallOptions{}); err != nil || !res.Already {
		t.Errorf("in the bank already: %+v, %v", res, err)
	}
	checkNewApp(t, opt, b)
}

// TestHostileEncryption: frames that do not belong where they are, or a key that is not that of
// the frames, are refused, even if they are signed; what is not signed is refused before it is
// decrypted.
func TestHostileEncryption(t *testing.T) {
	to := imagetest.ModelKey.Recipient()
	change := func(f func(m *image.Manifest, e *image.EncodedFile)) *server {
		m, files := encrypted(t, imagetest.Full, to)
		e := files[0].Encodings[0]
		e.Content = bytes.Clone(e.Content)
		f(&m, &e)
		files[0].Encodings = []image.EncodedFile{e}
		return &server{files: imagetest.SplitFiles(t, m, files)}
	}
	sealed := func(text string) string {
		data, err := agefile.Encrypt([]byte(text), to)
		if err != nil {
			t.Fatal(err)
		}
		return base64.StdEncoding.EncodeToString(data)
	}
	good := change(func(*image.Manifest, *image.EncodedFile) {})
	for name, test := range map[string]struct {
		src   *server
		cause mib.FailCause
	}{
		"frames swapped": {change(func(_ *image.Manifest, e *image.EncodedFile) {
			reframe(e, func(f [][]byte) { f[0], f[1] = f[1], f[0] })
		}), mib.FailCauseBadFormat},
		"a frame of another file": {change(func(_ *image.Manifest, e *image.EncodedFile) { e.File = "renamed.xz" }), mib.FailCauseBadFormat},
		"a frame that is not encrypted": {change(func(_ *image.Manifest, e *image.EncodedFile) {
			reframe(e, func(f [][]byte) { f[0] = frames(encodedPayloads(t, imagetest.Full)[0].Encodings[0])[0] })
		}), mib.FailCauseBadFormat},
		"an empty frame": {change(func(_ *image.Manifest, e *image.EncodedFile) {
			reframe(e, func(f [][]byte) { f[0] = f[0][:3] })
		}), mib.FailCauseBadFormat},
		"the key of another image": {change(func(m *image.Manifest, _ *image.EncodedFile) { m.Key = sealed(strings.Repeat("k", 32)) }), mib.FailCauseBadFormat},
		"a short key":              {change(func(m *image.Manifest, _ *image.EncodedFile) { m.Key = sealed("short") }), mib.FailCauseBadFormat},
		"a key that is damaged":    {change(func(m *image.Manifest, _ *image.EncodedFile) { m.Key = m.Key[:len(m.Key)-8] }), mib.FailCauseBadFormat},
		"a key that is no base64":  {change(func(m *image.Manifest, _ *image.EncodedFile) { m.Key = "***" }), mib.FailCauseBadFormat},
		"bits changed": {func() *server {
			src := change(func(*image.Manifest, *image.EncodedFile) {})
			src.files["dir/app.xz"][len(src.files["dir/app.xz"])/2] ^= 1
			return src
		}(), mib.FailCauseDigestMismatch},
		"cut": {func() *server {
			src := change(func(*image.Manifest, *image.EncodedFile) {})
			src.files["dir/app.xz"] = src.files["dir/app.xz"][:100_000]
			return src
		}(), mib.FailCauseSizeMismatch},
	} {
		t.Run(name, func(t *testing.T) {
			opt, b := oldDevice(t)
			if _, err := b.Install(t.Context(), test.src, splitName, InstallOptions{}); causeOf(err) != test.cause {
				t.Errorf("%v, want cause %d", err, test.cause)
			}
			if _, err := b.Install(t.Context(), good, splitName, InstallOptions{}); err != nil {
				t.Fatal(err)
			}
			checkNewApp(t, opt, b)
		})
	}
}

// FuzzContentKey gives a device a manifest's key made by anybody.
func FuzzContentKey(f *testing.F) {
	m, _ := encrypted(f, imagetest.Full, imagetest.ModelKey.Recipient())
	f.Add(m.Key)
	f.Add("")
	f.Fuzz(func(t *testing.T, key string) {
		m := image.Manifest{Key: key}
		opener, err := m.Opener([]agefile.Identity{imagetest.ModelKey})
		if c := causeOf(err); err != nil && c != mib.FailCauseBadFormat && c != mib.FailCauseKeyMissing {
			t.Fatalf("cause %d: %v", c, err)
		}
		if (opener == nil) != (err != nil || key == "") {
			t.Fatalf("%v, %v", opener, err)
		}
		frame := []byte("a frame that nobody encrypted")
		if _, err := opener.Open(&image.Encoding{File: "f"}, 0, frame); err == nil && opener != nil {
			t.Fatal("it was decrypted")
		}
	})
}
