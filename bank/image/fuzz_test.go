package image_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"testing"

	"aead.dev/minisign"

	"example.com/iad/bank/image"
	"example.com/iad/bank/image/frame"
	"example.com/iad/internal/agefile"
	"example.com/iad/internal/imagetest"
	"example.com/iad/mib"
)

// FuzzManifest: what is accepted is well-formed and survives being written again.
func FuzzManifest(f *testing.F) {
	f.Add(imagetest.TakeApart(f, "2.0.0").Head.Raw)
	f.Add([]byte(`{"format":1}`))
	f.Add([]byte(`{"format":1,"version":"1.0.0","hardware":["x"],"config_format":1,"payloads":[{"name":"a","size":0,"sha256":"","mode":"0644"}]}`))
	f.Add([]byte(`[[[[[[`))
	encoded := imagetest.Encoded(f, imagetest.Payloads("2.0.0"), imagetest.Content("1.0.0", "app", 70_000), imagetest.Full|imagetest.Delta)
	f.Add(imagetest.SplitFiles(f, imagetest.Manifest("2.0.0"), encoded)["dir/"+image.ManifestName])
	m, sealed := imagetest.Encrypted(f, imagetest.Manifest("2.0.0"), encoded, imagetest.ModelKey.Recipient())
	f.Add(imagetest.SplitFiles(f, m, sealed)["dir/"+image.ManifestName])
	f.Add(imagetest.SplitFiles(f, m, imagetest.WithChain(sealed, []byte("{}\n")))["dir/"+image.ManifestName])
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := image.ParseManifest(data)
		if err != nil {
			if causeOf(err) != mib.FailCauseBadFormat {
				t.Errorf("cause %d: %v", causeOf(err), err)
			}
			return
		}
		raw, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := image.ParseManifest(raw); err != nil && len(raw) <= image.MaxManifest {
			t.Errorf("written again it is refused: %v\n%s", err, raw)
		}
		for _, p := range m.Payloads {
			if image.CheckName(p.Name) != nil || p.Size < 0 {
				t.Errorf("accepted %+v", p)
			}
		}
	})
}

// FuzzArchive: an image is read to its end or refused; what is accepted is the only
// way to write its content.
func FuzzArchive(f *testing.F) {
	var small bytes.Buffer
	if err := image.Build(&small, image.Manifest{Version: "1.0.0", Hardware: []string{"x"}, ConfigFormat: 1}, imagetest.Payloads("1.0.0")[1:], imagetest.Key); err != nil {
		f.Fatal(err)
	}
	f.Add(small.Bytes())
	f.Add(small.Bytes()[:1000])
	f.Add(make([]byte, imagetest.TrailerSize))
	f.Fuzz(func(t *testing.T, data []byte) {
		i, err := image.Inspect(bytes.NewReader(data))
		if err != nil {
			var e *image.Error
			if !errors.As(err, &e) {
				t.Errorf("an error without a cause: %v", err)
			}
			return
		}
		if i.Size != int64(len(data)) {
			t.Errorf("%d bytes accepted as %d", len(data), i.Size)
		}
	})
}

// FuzzSignature: nothing but the maker's signature is accepted.
func FuzzSignature(f *testing.F) {
	p := imagetest.TakeApart(f, "2.0.0")
	f.Add(p.Head.Signature)
	// All of the line but the last bytes of the signature: where others follow, they are encoded with what comes next.
	own := bytes.Split(p.Head.Signature, []byte("\n"))[1][:96]
	f.Add([]byte("untrusted comment: \n\ntrusted comment: \n"))
	_, other, err := image.GenerateKey("")
	if err != nil {
		f.Fatal(err)
	}
	second, err := image.ReadPrivateKey(other, "")
	if err != nil {
		f.Fatal(err)
	}
	for _, keys := range [][]minisign.PrivateKey{{imagetest.Key, second}, {second, imagetest.Key}} {
		signature, err := image.SignManifest(p.Head.Raw, "file:manifest.json\tversion:2.0.0", keys...)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(signature)
	}
	f.Fuzz(func(t *testing.T, signature []byte) {
		err := image.NewHead(p.Head.Raw, signature).VerifySignature(imagetest.Trust(imagetest.Key))
		if err == nil {
			// Comments and signatures by others may differ; breaks in base64 do not count.
			signature = bytes.ReplaceAll(bytes.ReplaceAll(signature, []byte("\r"), nil), []byte("\n"), nil)
			if !bytes.Contains(signature, own) {
				t.Errorf("accepted %q", signature)
			}
			return
		}
		if c := causeOf(err); c != mib.FailCauseSignatureInvalid && c != mib.FailCauseSignerUntrusted {
			t.Errorf("cause %d: %v", c, err)
		}
	})
}

// FuzzKey: damaged key files are errors.
func FuzzKey(f *testing.F) {
	pub, priv, err := image.GenerateKey("")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(pub)
	f.Add(priv)
	f.Fuzz(func(t *testing.T, data []byte) {
		_, _ = image.ReadPublicKey(data)
		if !image.KeyEncrypted(data) { // decrypting takes a second
			_, _ = image.ReadPrivateKey(data, "")
		}
	})
}

// FuzzSealedFrame: of an encrypted frame nothing is decrypted but the frame itself, at its place
// and in its file.
func FuzzSealedFrame(f *testing.F) {
	content := imagetest.Content("2.0.0", "app", 20_000)
	files := []image.PayloadFile{{Name: "app", Mode: 0o755, Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil }}}
	plain := imagetest.Encoded(f, files, imagetest.Content("1.0.0", "app", 20_000), imagetest.Full|imagetest.Delta)
	m, sealed := imagetest.Encrypted(f, imagetest.Manifest("2.0.0"), plain, imagetest.ModelKey.Recipient())
	type place struct {
		file string
		k    int
	}
	var places []place
	frames := func(files []image.PayloadFile) map[place][]byte {
		all := make(map[place][]byte)
		for _, e := range files[0].Encodings {
			x, err := frame.ParseIndex(e.Content[:frame.IndexSize(int64(len(content)), e.Frame)], e.Size, int64(len(content)), e.Frame)
			if err != nil {
				f.Fatal(err)
			}
			for k := range x.Count() {
				places = append(places, place{e.File, k})
				all[place{e.File, k}] = e.Content[x.Offset(k):][:x.Length(k)]
			}
		}
		return all
	}
	want, encrypted := frames(plain), frames(sealed)
	opener, err := m.Opener([]agefile.Identity{imagetest.ModelKey})
	if err != nil {
		f.Fatal(err)
	}
	for i, p := range places {
		f.Add(i, p.file, p.k, 0, []byte(nil), 0)
	}
	f.Add(0, "app.xz", 1, 5, []byte{1}, 0)
	f.Add(0, "app.xz", 0, 0, []byte(nil), 1)
	// A frame, by number, is said to be frame k of a file; it is changed at a byte, and cut.
	f.Fuzz(func(t *testing.T, number int, file string, k, at int, change []byte, cut int) {
		is := places[uint(number)%uint(len(places))]
		data := bytes.Clone(encrypted[is])
		for i, c := range change {
			data[(uint(at)+uint(i))%uint(len(data))] ^= c
		}
		data = data[:len(data)-int(uint(cut)%uint(len(data)))]
		same := bytes.Equal(data, encrypted[is]) && is == place{file, k}
		got, err := opener.Open(&image.Encoding{File: file}, k, data)
		switch {
		case err != nil && (same || causeOf(err) != mib.FailCauseBadFormat):
			t.Errorf("cause %d: %v", causeOf(err), err)
		case err == nil && (!same || !bytes.Equal(got, want[is])):
			t.Errorf("%+v as frame %d of %q is decrypted", is, k, file)
		}
	})
}
