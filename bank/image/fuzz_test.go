package image_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"

	"example.com/iad/bank/image"
	"example.com/iad/internal/imagetest"
	"example.com/iad/mib"
)

// FuzzManifest: what is accepted is well-formed and survives being written again.
func FuzzManifest(f *testing.F) {
	f.Add(imagetest.TakeApart(f, "2.0.0").Head.Raw)
	f.Add([]byte(`{"format":1}`))
	f.Add([]byte(`{"format":1,"version":"1.0.0","hardware":["x"],"config_format":1,"payloads":[{"name":"a","size":0,"sha256":"","mode":"0644"}]}`))
	f.Add([]byte(`[[[[[[`))
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
	f.Add([]byte("untrusted comment: \n\ntrusted comment: \n"))
	f.Fuzz(func(t *testing.T, signature []byte) {
		err := image.NewHead(p.Head.Raw, signature).VerifySignature(imagetest.Trust(imagetest.Key))
		if err == nil {
			// Only the comment that is not covered may differ.
			if tail := bytes.SplitN(signature, []byte("\n"), 2); len(tail) != 2 || !bytes.Contains(signature, []byte("version:2.0.0")) {
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
