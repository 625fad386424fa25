package imagetest

import (
	"encoding/json"
	"io"
	"slices"
	"testing"

	"aead.dev/minisign"

	"example.com/iad/bank/image"
)

// Parts are an image taken apart, so that a test can put it together wrongly.
type Parts struct {
	Head  *image.Head
	Files map[string][]byte // the payloads
}

// TakeApart builds an image of a version and takes it apart.
func TakeApart(t testing.TB, version string) *Parts {
	t.Helper()
	p := &Parts{Head: ReadHead(t, Build(t, Manifest(version))), Files: make(map[string][]byte)}
	for _, f := range Payloads(version) {
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		if p.Files[f.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

// A Member is one member of a tar file, with any header.
type Member struct {
	Header []byte
	Data   []byte
}

// Members returns the members of the tar form.
func (p *Parts) Members() []Member {
	all := []Member{
		{Header(image.ManifestName, int64(len(p.Head.Raw)), 0o644), p.Head.Raw},
		{Header(image.SignatureName, int64(len(p.Head.Signature)), 0o644), p.Head.Signature},
	}
	for _, f := range p.Head.Manifest.Payloads {
		all = append(all, Member{Header(f.Name, f.Size, f.Mode), p.Files[f.Name]})
	}
	return all
}

// Join puts members together, with so many zeros at the end.
func Join(members []Member, trailer int) []byte {
	var b []byte
	for _, m := range members {
		b = append(append(b, m.Header...), m.Data...)
		b = append(b, make([]byte, -len(b)&(BlockSize-1))...)
	}
	return append(b, make([]byte, trailer)...)
}

// Tar returns the tar form.
func (p *Parts) Tar() []byte { return Join(p.Members(), TrailerSize) }

// Offset is where the header of payload i stands in the tar form.
func (p *Parts) Offset(i int) int64 { return int64(len(Join(p.Members()[:2+i], 0))) }

// Split returns the files of the split form in the directory dir by their names.
func (p *Parts) Split(dir string) map[string][]byte {
	files := map[string][]byte{dir + "/" + image.ManifestName: p.Head.Raw, dir + "/" + image.SignatureName: p.Head.Signature}
	for name, data := range p.Files {
		files[dir+"/"+name] = data
	}
	return files
}

// Resign changes the manifest and signs it with key.
func (p *Parts) Resign(t testing.TB, change func(m *image.Manifest), key minisign.PrivateKey) *Parts {
	t.Helper()
	m := *p.Head.Manifest
	m.Payloads = slices.Clone(m.Payloads)
	change(&m)
	raw, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return p.WithManifest(t, append(raw, '\n'), key)
}

// WithManifest signs raw, whatever it is.
func (p *Parts) WithManifest(t testing.TB, raw []byte, key minisign.PrivateKey) *Parts {
	t.Helper()
	signature, err := image.SignManifest(raw, "test", key)
	if err != nil {
		t.Fatal(err)
	}
	return p.withHead(raw, signature)
}

// WithSignature has another signature, whatever it is.
func (p *Parts) WithSignature(signature []byte) *Parts { return p.withHead(p.Head.Raw, signature) }

// WithField sets one field of the manifest's JSON without signing it again.
func (p *Parts) WithField(t testing.TB, path []any, value any) *Parts {
	t.Helper()
	var doc any
	if err := json.Unmarshal(p.Head.Raw, &doc); err != nil {
		t.Fatal(err)
	}
	at := doc
	for _, key := range path[:len(path)-1] {
		switch k := key.(type) {
		case string:
			at = at.(map[string]any)[k]
		case int:
			at = at.([]any)[k]
		}
	}
	switch k := path[len(path)-1].(type) {
	case string:
		at.(map[string]any)[k] = value
	case int:
		at.([]any)[k] = value
	}
	raw, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	return p.withHead(raw, p.Head.Signature)
}

// withHead has another head; the payloads stay those of the manifest that was built.
func (p *Parts) withHead(raw, signature []byte) *Parts {
	h := image.NewHead(raw, signature)
	h.Manifest = p.Head.Manifest
	return &Parts{Head: h, Files: p.Files}
}
