package bank

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/afero"

	"example.com/iad/bank/image"
	"example.com/iad/bank/image/frame"
	"example.com/iad/internal/crashfs"
	"example.com/iad/internal/iadtest"
	"example.com/iad/internal/imagetest"
	"example.com/iad/mib"
)

// noise is data that do not compress, so that every frame is as large as a frame can be.
func noise(n int) []byte {
	data := make([]byte, n)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(data)
	return data
}

// The old app resembles the new one; the new one does not compress.
var (
	newApp = noise(200_000)
	oldApp = func() []byte {
		old := append(bytes.Clone(newApp[:90_000]), "only in the old one"...)
		old = append(old, newApp[93_000:]...)
		for i := 0; i < len(old); i += 999 {
			old[i]++
		}
		return old
	}()
)

func appFiles(app []byte) []image.PayloadFile {
	files := imagetest.Payloads("2.0.0")
	for i := range files {
		if files[i].Name == "app" {
			files[i].Open = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(app)), nil }
		}
	}
	return files
}

// oldDevice is a device that runs the old app.
func oldDevice(t testing.TB) (Options, *Banks) {
	t.Helper()
	opt := device(t)
	opt.Banks[0], opt.Banks[1], opt.State = afero.NewMemMapFs(), afero.NewMemMapFs(), afero.NewMemMapFs()
	if err := Provision(opt, bytes.NewReader(imagetest.Tar(t, imagetest.Manifest("1.0.0"), appFiles(oldApp))), nil); err != nil {
		t.Fatal(err)
	}
	b, _ := boot(t, opt)
	return opt, b
}

// encodedFiles are the files of version 2.0.0; making the encodings takes a while.
var encodedFiles = map[imagetest.Which][]image.PayloadFile{}

func encodedPayloads(t testing.TB, which imagetest.Which) []image.PayloadFile {
	if encodedFiles[which] == nil {
		encodedFiles[which] = imagetest.Encoded(t, appFiles(newApp), oldApp, which)
	}
	return encodedFiles[which]
}

func encodedTar(t testing.TB, which imagetest.Which) []byte {
	return imagetest.Tar(t, imagetest.Manifest("2.0.0"), encodedPayloads(t, which))
}

func encodedSplit(t testing.TB, which imagetest.Which) *server {
	return &server{files: imagetest.SplitFiles(t, imagetest.Manifest("2.0.0"), encodedPayloads(t, which))}
}

// checkNewApp checks what bank 2 holds after an installation, and that it starts.
func checkNewApp(t *testing.T, opt Options, b *Banks) {
	t.Helper()
	got, err := afero.ReadFile(opt.Banks[1], "app")
	if err != nil || !bytes.Equal(got, newApp) {
		t.Errorf("app: %d bytes that differ, %v", len(got), err)
	}
	if err := b.Activate(2); err != nil {
		t.Error(err)
	}
	if m, err := Verify(opt, 2); err != nil || m.Format == image.PlainFormat {
		t.Errorf("%+v, %v", m, err)
	}
}

const splitName = "dir/" + image.ManifestName

// TestEncodings installs each form of an image with encodings, on a device that runs the base.
func TestEncodings(t *testing.T) {
	for name, test := range map[string]struct {
		src  *server
		file string
		// most is how many bytes may be fetched.
		most int64
		note string
	}{
		"full tar":              {serve("fw.iad", encodedTar(t, imagetest.Full)), "fw.iad", 220_000, ""},
		"delta tar":             {serve("fw.iad", encodedTar(t, imagetest.Delta)), "fw.iad", 40_000, "app.d-1.0.0, the difference from the running 1.0.0"},
		"full split":            {encodedSplit(t, imagetest.Full), splitName, 220_000, ""},
		"delta split":           {encodedSplit(t, imagetest.Delta|imagetest.Full), splitName, 40_000, "app.d-1.0.0, the difference from the running 1.0.0"},
		"plain from split form": {encodedSplit(t, imagetest.Delta|imagetest.Full), "dir/" + image.PlainManifestName, 220_000, ""},
	} {
		for _, noResume := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/no resume %v", name, noResume), func(t *testing.T) {
				opt, b := oldDevice(t)
				test.src.noResume = noResume
				res, err := b.Install(t.Context(), test.src, test.file, InstallOptions{})
				if err != nil {
					t.Fatal(err)
				}
				if res.Fetched > test.most || !strings.Contains(strings.Join(res.Notes, "\n"), test.note) || (test.note == "") != (len(res.Notes) == 0) {
					t.Errorf("%d bytes fetched, %q", res.Fetched, res.Notes)
				}
				if test.file == "dir/"+image.PlainManifestName {
					return
				}
				checkNewApp(t, opt, b)
			})
		}
	}
}

// TestDeltaFallsBack: what a difference needs is missing or damaged, or the difference itself
// is; all of the payload is fetched instead, once, and the reason is reported.
func TestDeltaFallsBack(t *testing.T) {
	for name, test := range map[string]struct {
		spoil func(opt Options, src *server)
		note  string
	}{
		"base was changed since": {func(opt Options, _ *server) { spoilAt(t, opt.Banks[0], "app", 5000) }, "app of the running 1.0.0 is not what was installed"},
		"base is shorter":        {func(opt Options, _ *server) { _ = afero.WriteFile(opt.Banks[0], "app", oldApp[:190_000], 0o644) }, "has 190000 bytes, not"},
		"base is gone":           {func(opt Options, _ *server) { _ = opt.Banks[0].Remove("app") }, "app of the running 1.0.0"},
		"base is spoilt between hash and use": {func(opt Options, src *server) {
			src.before = func(name string) {
				if strings.HasSuffix(name, "app.d-1.0.0") {
					spoilAt(t, opt.Banks[0], "app", 5000)
				}
			}
		}, "because the difference app.d-1.0.0 failed: payload app does not match the manifest"},
		"base is cut between hash and use": {func(opt Options, src *server) {
			src.before = func(name string) {
				if strings.HasSuffix(name, "app.d-1.0.0") {
					_ = afero.WriteFile(opt.Banks[0], "app", oldApp[:20_000], 0o644)
				}
			}
		}, "read the base of the difference"},
		"difference is missing":  {func(_ Options, src *server) { delete(src.files, "dir/app.d-1.0.0") }, "because the difference app.d-1.0.0 failed: "},
		"index is damaged":       {func(_ Options, src *server) { src.files["dir/app.d-1.0.0"][3] ^= 1 }, "the index of app.d-1.0.0: it does not match the manifest"},
		"frame is damaged":       {func(_ Options, src *server) { src.files["dir/app.d-1.0.0"][1000] ^= 1 }, "of app.d-1.0.0: it does not match the manifest"},
		"difference is cut":      {func(_ Options, src *server) { src.files["dir/app.d-1.0.0"] = src.files["dir/app.d-1.0.0"][:1000] }, "on the server"},
		"difference is too long": {func(_ Options, src *server) { src.files["dir/app.d-1.0.0"] = append(src.files["dir/app.d-1.0.0"], 0) }, "on the server"},
		"encodings are swapped":  {func(_ Options, src *server) { src.files["dir/app.d-1.0.0"] = src.files["dir/app.xz"] }, "on the server"},
		"difference of unstated length": {func(_ Options, src *server) {
			src.unsized = true
			src.files["dir/app.d-1.0.0"] = append(src.files["dir/app.d-1.0.0"], 0)
		}, "longer than the manifest says"},
	} {
		t.Run(name, func(t *testing.T) {
			opt, b := oldDevice(t)
			src := encodedSplit(t, imagetest.Delta|imagetest.Full)
			test.spoil(opt, src)
			res, err := b.Install(t.Context(), src, splitName, InstallOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if notes := strings.Join(res.Notes, "\n"); !strings.Contains(notes, test.note) || !strings.Contains(notes, "fetching app.xz") {
				t.Errorf("%q, want %q", notes, test.note)
			}
			full := 0 // what was stored may be complete
			for _, name := range src.names {
				if name == "dir/app.xz" {
					full++
				}
			}
			if full > 2 { // the index, then a frame in the middle
				t.Errorf("all of it was opened %d times: %q", full, src.names)
			}
			checkNewApp(t, opt, b)
		})
	}
}

// TestDeltaContinuesSpoiltPart: a loss of power has spoilt what was stored of a payload. It is
// made once more, and from the difference, whose base is still what it was; or from all of it, if
// that was changed as well.
func TestDeltaContinuesSpoiltPart(t *testing.T) {
	for name, spoilBase := range map[string]bool{"base intact": false, "base spoilt meanwhile": true} {
		t.Run(name, func(t *testing.T) {
			opt, b := oldDevice(t)
			src := encodedSplit(t, imagetest.Delta|imagetest.Full)
			src.cut = int64(len(src.files["dir/app.d-1.0.0"]) / 2)
			if _, err := b.Install(t.Context(), src, splitName, InstallOptions{}); !errors.Is(err, errBroken) {
				t.Fatal(err)
			}
			held := sizeOf(opt.Banks[1], "app")
			if held == 0 {
				t.Fatal("nothing is stored")
			}
			if err := afero.WriteFile(opt.Banks[1], "app", make([]byte, held), 0o755); err != nil {
				t.Fatal(err)
			}
			b, _ = boot(t, opt)
			src.cut, src.names = 0, nil
			src.before = func(name string) {
				if spoilBase && strings.HasSuffix(name, "app.d-1.0.0") {
					spoilAt(t, opt.Banks[0], "app", 190_000)
				}
			}
			res, err := b.Install(t.Context(), src, splitName, InstallOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if full := slices.Contains(src.names, "dir/app.xz"); full != spoilBase || !full && res.Fetched > 60_000 {
				t.Errorf("%d bytes fetched, by %q, %q", res.Fetched, src.names, res.Notes)
			}
			checkNewApp(t, opt, b)
		})
	}
}

// TestDeltaWithoutBase: an image that has only the difference is refused before anything is
// changed if it does not fit.
func TestDeltaWithoutBase(t *testing.T) {
	img := encodedTar(t, imagetest.Delta)
	for name, check := range map[string]bool{"install": false, "check only": true} {
		b, _ := boot(t, device(t))
		before := b.Status()
		_, err := b.Install(t.Context(), serve("fw.iad", img), "fw.iad", InstallOptions{CheckOnly: check})
		if causeOf(err) != mib.FailCausePreconditionMissing || !strings.Contains(err.Error(), "the running 1.0.0 has no file with SHA-256") {
			t.Errorf("%s: %v", name, err)
		}
		if after := b.Status(); !reflect.DeepEqual(after, before) {
			t.Errorf("%s: %+v, was %+v", name, after, before)
		}
	}
	opt := device(t)
	opt.Banks[0], opt.State = afero.NewMemMapFs(), afero.NewMemMapFs()
	if err := Provision(opt, bytes.NewReader(img), nil); causeOf(err) != mib.FailCausePreconditionMissing {
		t.Errorf("provision: %v", err)
	}
}

// TestDeltaOfKeptFile: an image that has only the difference from other software can be
// installed if the bank holds the file. If that is damaged, the image is refused before
// anything is changed.
func TestDeltaOfKeptFile(t *testing.T) {
	for name, spoilt := range map[string]bool{"intact": false, "damaged": true} {
		t.Run(name, func(t *testing.T) {
			opt := device(t)
			b, _ := boot(t, opt)
			if _, err := b.Install(t.Context(), serve("fw.iad", encodedTar(t, imagetest.Full)), "fw.iad", InstallOptions{}); err != nil {
				t.Fatal(err)
			}
			if spoilt {
				spoilAt(t, opt.Banks[1], "app", 5000)
			}
			status, files := b.Status(), snapshot(t, opt)
			_, err := b.Install(t.Context(), serve("fw.iad", encodedTar(t, imagetest.Delta)), "fw.iad", InstallOptions{})
			if !spoilt {
				if err != nil {
					t.Fatal(err)
				}
				checkNewApp(t, opt, b)
				return
			}
			if causeOf(err) != mib.FailCausePreconditionMissing {
				t.Error(err)
			}
			if now := b.Status(); !reflect.DeepEqual(now, status) {
				t.Errorf("%+v, was %+v", now, status)
			}
			if !reflect.DeepEqual(snapshot(t, opt), files) {
				t.Error("the bank was changed")
			}
		})
	}
}

// TestDamagedEncoding: without another encoding a damaged one is an error, and what was
// stored is continued later.
func TestDamagedEncoding(t *testing.T) {
	opt, b := oldDevice(t)
	src := encodedSplit(t, imagetest.Full)
	good := bytes.Clone(src.files["dir/app.xz"])
	src.files["dir/app.xz"][80_000] ^= 1
	if _, err := b.Install(t.Context(), src, splitName, InstallOptions{}); causeOf(err) != mib.FailCauseDigestMismatch || !errors.Is(err, image.ErrDamaged) {
		t.Fatal(err)
	}
	if s := b.Status().Banks[1]; s.State != mib.BankStateWriting || s.Cause != mib.FailCauseDigestMismatch {
		t.Errorf("%+v", s)
	}
	src.files["dir/app.xz"] = good
	res, err := b.Install(t.Context(), src, splitName, InstallOptions{})
	if err != nil || res.Fetched > 160_000 {
		t.Errorf("%d bytes fetched, %v", res.Fetched, err)
	}
	checkNewApp(t, opt, b)
}

// TestServerNeverResumesEncodings: a server starts each file at its beginning, whatever it
// was asked for.
func TestServerNeverResumesEncodings(t *testing.T) {
	opt, b := oldDevice(t)
	src := encodedSplit(t, imagetest.Full)
	src.cut = 150_000
	if _, err := b.Install(t.Context(), src, splitName, InstallOptions{}); !errors.Is(err, errBroken) {
		t.Fatal(err)
	}
	src.cut, src.alwaysWhole = 0, true
	if _, err := b.Install(t.Context(), src, splitName, InstallOptions{}); err != nil {
		t.Fatal(err)
	}
	checkNewApp(t, opt, b)
}

// TestEncodedResume breaks the connection off after any number of bytes, then goes on, also
// from another form and by another encoding.
func TestEncodedResume(t *testing.T) {
	full, split := serve("fw.iad", encodedTar(t, imagetest.Full)), encodedSplit(t, imagetest.Delta|imagetest.Full)
	onlyFull := encodedSplit(t, imagetest.Full)
	step := int64(9777)
	if iadtest.RaceDetector {
		step *= 5
	}
	for cut := int64(1); cut < 210_000; cut += step {
		for name, pair := range map[string][2]*server{
			"tar": {full, full}, "split": {onlyFull, onlyFull}, "delta": {split, split},
		} {
			opt, b := oldDevice(t)
			file := splitName
			if name == "tar" {
				file = "fw.iad"
			}
			src := pair[0]
			src.cut, src.noResume = cut, false
			_, err := b.Install(t.Context(), src, file, InstallOptions{})
			if err != nil && !errors.Is(err, errBroken) {
				t.Fatalf("%s, cut at %d: %v", name, cut, err)
			}
			if err == nil {
				continue
			}
			// Some of what was stored may be lost.
			if size := sizeOf(opt.Banks[1], "app"); size > 0 {
				truncate(t, opt.Banks[1], "app", max(0, size-cut%5000))
			}
			b, _ = boot(t, opt)
			again := pair[1]
			again.cut = 0
			held := sizeOf(opt.Banks[1], "app")
			res, err := b.Install(t.Context(), again, file, InstallOptions{})
			if err != nil {
				t.Fatalf("%s, cut at %d: %v", name, cut, err)
			}
			if name != "delta" && res.Fetched > 215_000-held+overRead {
				t.Errorf("%s, cut at %d: %d bytes held, %d fetched", name, cut, held, res.Fetched)
			}
			checkNewApp(t, opt, b)
		}
	}
	// A download that began with the difference goes on in full, at the same frame.
	opt, b := oldDevice(t)
	split.cut = int64(len(split.files["dir/app.d-1.0.0"]) / 2)
	if _, err := b.Install(t.Context(), split, splitName, InstallOptions{}); !errors.Is(err, errBroken) {
		t.Fatal(err)
	}
	held := sizeOf(opt.Banks[1], "app")
	b, _ = boot(t, opt)
	spoilAt(t, opt.Banks[0], "app", 190_000)
	split.cut = 0
	res, err := b.Install(t.Context(), split, splitName, InstallOptions{})
	if err != nil || held == 0 || res.Fetched > 215_000-held+overRead {
		t.Errorf("%d bytes held, %d fetched, %v", held, res.Fetched, err)
	}
	checkNewApp(t, opt, b)
}

// TestResumeAtFrameEdges breaks the connection off at the edges of frames, and one byte before and
// after them. What is stored then are the frames that came whole, and each download continues.
func TestResumeAtFrameEdges(t *testing.T) {
	step := 1
	if iadtest.RaceDetector {
		step = 11
	}
	for _, which := range []imagetest.Which{imagetest.Full, imagetest.Delta} {
		m, plain := imagetest.Manifest("2.0.0"), encodedPayloads(t, which)
		sealed, files := encrypted(t, which, imagetest.ModelKey.Recipient())
		for name, src := range map[string]*server{
			"plain": {files: imagetest.SplitFiles(t, m, plain)}, "encrypted": {files: imagetest.SplitFiles(t, sealed, files)},
		} {
			e := plain[0].Encodings[0]
			content := src.files["dir/"+e.File]
			x, err := frame.ParseIndex(content[:frame.IndexSize(int64(len(newApp)), e.Frame)], int64(len(content)), int64(len(newApp)), e.Frame)
			if err != nil {
				t.Fatal(err)
			}
			for k := 0; k < x.Count(); k += step {
				for d := int64(-1); d <= 1; d++ {
					opt, b := oldDevice(t)
					src.cut = x.Offset(k) + d
					want := x.Start(k)
					if d < 0 {
						want = max(0, want-int64(e.Frame))
					}
					if _, err := b.Install(t.Context(), src, splitName, InstallOptions{}); !errors.Is(err, errBroken) || sizeOf(opt.Banks[1], "app") != want {
						t.Fatalf("%s %s, cut at frame %d%+d: %d bytes stored, want %d, %v", name, e.File, k, d, sizeOf(opt.Banks[1], "app"), want, err)
					}
					b, _ = boot(t, opt)
					src.cut = 0
					if _, err := b.Install(t.Context(), src, splitName, InstallOptions{}); err != nil {
						t.Fatalf("%s %s, cut at frame %d%+d: %v", name, e.File, k, d, err)
					}
					checkNewApp(t, opt, b)
				}
			}
		}
	}
}

// overRead is how much may be read besides what is missing: the frame that was begun, and
// what is read over instead of opening the file again.
const overRead = frame.MinSize + 64<<10

func sizeOf(fs afero.Fs, name string) int64 {
	info, err := fs.Stat(name)
	if err != nil {
		return 0
	}
	return info.Size()
}

func truncate(t *testing.T, fs afero.Fs, name string, size int64) {
	t.Helper()
	data, err := afero.ReadFile(fs, name)
	if err == nil {
		err = afero.WriteFile(fs, name, data[:size], 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestExpectedDigestOfEncodings: the digest expected of the tar form may be that of the
// manifest, or of the file, for which all of it is fetched.
func TestExpectedDigestOfEncodings(t *testing.T) {
	img := encodedTar(t, imagetest.Full)
	manifest, err := hex.DecodeString(imagetest.ReadHead(t, img).Digest)
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		digest  []byte
		resumed bool
		cause   mib.FailCause
	}{
		"of the manifest": {manifest, true, 0},
		"of the file":     {sha(img), false, 0},
		"of another file": {sha(nil), false, mib.FailCauseDigestMismatch},
	} {
		opt, b := oldDevice(t)
		src := serve("fw.iad", img)
		src.cut = 150_000
		if _, err := b.Install(t.Context(), src, "fw.iad", InstallOptions{ExpectDigest: test.digest}); !errors.Is(err, errBroken) {
			t.Fatal(err)
		}
		src.cut = 0
		res, err := b.Install(t.Context(), src, "fw.iad", InstallOptions{ExpectDigest: test.digest})
		if test.cause != 0 {
			if causeOf(err) != test.cause {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err != nil || (res.Fetched < int64(len(img))) != test.resumed {
			t.Errorf("%s: %d bytes fetched, %v", name, res.Fetched, err)
		}
		if want := test.digest; !test.resumed && !bytes.Equal(res.Digest, want) {
			t.Errorf("%s: %x, want %x", name, res.Digest, want)
		}
		checkNewApp(t, opt, b)
	}
}

// TestSignedFrames: frames that a maker's tool should never have signed are refused, and the
// bank can be written again.
func TestSignedFrames(t *testing.T) {
	good, delta := encodedPayloads(t, imagetest.Full), encodedPayloads(t, imagetest.Delta)
	longer := imagetest.Encoded(t, appFiles(append(bytes.Clone(newApp[:frame.MinSize]), newApp...)), oldApp, imagetest.Full)
	other := imagetest.Encoded(t, appFiles(oldApp), newApp, imagetest.Full)
	for name, test := range map[string]struct {
		change func(e *image.EncodedFile)
		cause  mib.FailCause
	}{
		"content of another file": {func(e *image.EncodedFile) { *e = other[0].Encodings[0] }, 0},
		"a frame of other data":   {func(e *image.EncodedFile) { reframe(e, func(f [][]byte) { f[1] = f[0] }) }, mib.FailCauseDigestMismatch},
		"a frame with too much data": {func(e *image.EncodedFile) {
			reframe(e, func(f [][]byte) { f[len(f)-1] = frames(longer[0].Encodings[0])[0] })
		}, mib.FailCauseBadFormat},
		"a frame with too few data":  {func(e *image.EncodedFile) { reframe(e, func(f [][]byte) { f[0] = f[len(f)-1] }) }, mib.FailCauseBadFormat},
		"a frame of nothing":         {func(e *image.EncodedFile) { reframe(e, func(f [][]byte) { f[0] = []byte("nothing") }) }, mib.FailCauseBadFormat},
		"a difference":               {func(e *image.EncodedFile) { reframe(e, func(f [][]byte) { f[0] = frames(delta[0].Encodings[0])[0] }) }, 0},
		"an index of another length": {func(e *image.EncodedFile) { e.Content = e.Content[36:]; e.Size -= 36 }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			opt, b := oldDevice(t)
			e := good[0].Encodings[0]
			e.Content = bytes.Clone(e.Content)
			test.change(&e)
			files := append([]image.PayloadFile(nil), good...)
			files[0].Encodings = []image.EncodedFile{e}
			src := &server{files: imagetest.SplitFiles(t, imagetest.Manifest("2.0.0"), files)}
			_, err := b.Install(t.Context(), src, splitName, InstallOptions{})
			if err == nil || test.cause != 0 && causeOf(err) != test.cause {
				t.Errorf("%v, want cause %d", err, test.cause)
			}
			if c := causeOf(err); c != mib.FailCauseBadFormat && c != mib.FailCauseDigestMismatch && c != mib.FailCauseSizeMismatch {
				t.Errorf("cause %d: %v", c, err)
			}
			if _, err := image.InspectSplit(toFs(t, src.files), splitName); err == nil {
				t.Error("inspect accepts it")
			}
			if _, err := b.Install(t.Context(), encodedSplit(t, imagetest.Full), splitName, InstallOptions{}); err != nil {
				t.Fatal(err)
			}
			checkNewApp(t, opt, b)
		})
	}
}

func toFs(t *testing.T, files map[string][]byte) afero.Fs {
	fs := afero.NewMemMapFs()
	for name, data := range files {
		if err := afero.WriteFile(fs, name, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return fs
}

// frames returns the frames of an encoding of the apps.
func frames(e image.EncodedFile) (all [][]byte) {
	entries := 0
	for sum := int64(0); sum+int64(entries)*36 < e.Size; entries++ {
		sum += int64(uint32(e.Content[entries*36+2])<<8 | uint32(e.Content[entries*36+3]))
	}
	at := entries * 36
	for i := range entries {
		n := int(e.Content[i*36+2])<<8 | int(e.Content[i*36+3])
		all = append(all, e.Content[at:at+n])
		at += n
	}
	return all
}

// reframe changes the frames of an encoding and rebuilds its index.
func reframe(e *image.EncodedFile, change func(frames [][]byte)) {
	all := frames(*e)
	change(all)
	var index []byte
	for _, f := range all {
		index = frame.AppendEntry(index, f)
	}
	e.Content = append(index, bytes.Join(all, nil)...)
	e.Size, e.IndexSHA256 = int64(len(e.Content)), hex.EncodeToString(sha(index))
}

// encodedLife installs an image with encodings over software that is its base, from a server
// that breaks off once.
func encodedLife(src *server, name string) func(opt Options, w *reported) error {
	return func(opt Options, w *reported) error {
		b, _, err := start(opt)
		if err != nil {
			return err
		}
		src := *src
		for _, src.cut = range []int64{15_000, 0} {
			if _, err = b.Install(context.Background(), &src, name, InstallOptions{}); err == nil {
				break
			}
		}
		if err != nil {
			return err
		}
		w.ready = true
		if s := b.Status(); s.Next != 1 || s.Banks[1].Version != "2.0.0" || s.Banks[1].State != mib.BankStateReady {
			return fmt.Errorf("after the download: %+v", s)
		}
		got, err := readPayload(opt, 2, "app")
		if err == nil && !bytes.Equal(got, encodedApp) {
			err = errors.New("app differs")
		}
		return err
	}
}

// encodedApp is the app of the sweeps: like the running one in part, and long enough for
// several frames.
var encodedApp = append(noise(20_000), crashPayloads("1.0.0")["app"][:20_000]...)

func encodedLives(t testing.TB) map[string]crashfs.Sweep[reported] {
	lives := make(map[string]crashfs.Sweep[reported])
	for kind, target := range map[string]image.Target{"": image.TargetFile, "partition, ": image.TargetPartition} {
		d := blank()
		if target == image.TargetPartition {
			d = withPartitions(d, "")
		}
		d = provisionedOn(t, d)
		files := appFiles(encodedApp)[:2]
		files[0].Target = target
		for name, which := range map[string]imagetest.Which{"compressed": imagetest.Full, "delta": imagetest.Delta} {
			img := imagetest.Tar(t, imagetest.Manifest("2.0.0"), imagetest.Encoded(t, files, crashPayloads("1.0.0")["app"], which))
			lives[kind+name] = crashfs.Sweep[reported]{Start: d, Life: life(encodedLife(serve("fw.iad", img), "fw.iad"))}
		}
	}
	return lives
}

// TestCrashEncoded cuts the power at every write of an installation with encodings.
func TestCrashEncoded(t *testing.T) {
	for name, sweep := range encodedLives(t) {
		t.Run(name, func(t *testing.T) {
			sweep.Seed, sweep.Depth, sweep.Limit, sweep.Sample = 1, 2, 3, 40
			switch {
			case fullCrash():
				sweep.Limit, sweep.Sample, sweep.Mixtures = 0, 0, 6
			case iadtest.RaceDetector:
				sweep.Depth, sweep.Sample = 1, 20
			}
			result, err := sweep.Run()
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%s: %s", name, result)
			for _, f := range result.Faults {
				t.Error(f)
			}
		})
	}
}
