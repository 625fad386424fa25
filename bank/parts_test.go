package bank

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"

	"aead.dev/minisign"
	"github.com/spf13/afero"

	"example.com/iad/mib"
)

// parts takes an image apart, so that a test can put it together wrongly.
type parts struct {
	head  *head
	files map[string][]byte
}

func takeApart(t testing.TB, version string) *parts {
	t.Helper()
	p := &parts{files: make(map[string][]byte)}
	var err error
	if p.head, err = readHead(bytes.NewReader(tarImage(t, manifest(version)))); err != nil {
		t.Fatal(err)
	}
	if err := p.head.parse(); err != nil {
		t.Fatal(err)
	}
	for _, f := range payloads(version) {
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		if p.files[f.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

// member is one member of a tar file, with any header.
type member struct {
	header []byte
	data   []byte
}

func (p *parts) members() []member {
	all := []member{
		{header(ManifestName, int64(len(p.head.raw)), manifestTag), p.head.raw},
		{header(SignatureName, int64(len(p.head.signature)), manifestTag), p.head.signature},
	}
	for _, f := range p.head.manifest.Payloads {
		all = append(all, member{header(f.Name, f.Size, f.Mode), p.files[f.Name]})
	}
	return all
}

func join(members []member, trailer int) []byte {
	var b []byte
	for _, m := range members {
		b = append(append(append(b, m.header...), m.data...), padding(int64(len(m.data)))...)
	}
	return append(b, make([]byte, trailer)...)
}

func (p *parts) tar() []byte { return join(p.members(), trailerSize) }

// split is a server that has the split form in the folder dir.
func (p *parts) split() *server {
	s := &server{files: map[string][]byte{"dir/manifest.json": p.head.raw, "dir/manifest.json.minisig": p.head.signature}}
	for name, data := range p.files {
		s.files["dir/"+name] = data
	}
	return s
}

// resign changes the manifest and signs it with key.
func (p *parts) resign(t testing.TB, change func(m *Manifest), key minisign.PrivateKey) *parts {
	t.Helper()
	m := *p.head.manifest
	m.Payloads = slices.Clone(m.Payloads)
	change(&m)
	raw, err := m.marshal()
	if err != nil {
		t.Fatal(err)
	}
	return p.withManifest(t, raw, key)
}

// withManifest signs raw, whatever it is.
func (p *parts) withManifest(t testing.TB, raw []byte, key minisign.PrivateKey) *parts {
	t.Helper()
	signature, err := Sign(raw, key, "test")
	if err != nil {
		t.Fatal(err)
	}
	h := newHead(raw, signature)
	h.manifest = p.head.manifest
	return &parts{head: h, files: p.files}
}

// withField sets one field of the manifest's JSON without signing it again.
func (p *parts) withField(t testing.TB, path []any, value any) *parts {
	t.Helper()
	var doc any
	if err := json.Unmarshal(p.head.raw, &doc); err != nil {
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
	h := newHead(raw, p.head.signature)
	h.manifest = p.head.manifest
	return &parts{head: h, files: p.files}
}

// snapshot is everything on the device.
func snapshot(t testing.TB, opt Options) map[string]string {
	t.Helper()
	all := make(map[string]string)
	for i, fs := range []afero.Fs{opt.Banks[0], opt.Banks[1], opt.State} {
		infos, err := afero.ReadDir(fs, ".")
		if err != nil {
			t.Fatal(err)
		}
		for _, info := range infos {
			data, err := afero.ReadFile(fs, info.Name())
			if err != nil {
				t.Fatal(err)
			}
			all[fmt.Sprint(i, " ", info.Name())] = string(data)
		}
	}
	return all
}

// refused installs from src and expects a refusal with that cause. before says that
// nothing at all may have been changed.
func refused(t *testing.T, src *server, name string, want mib.FailCause, before bool) {
	t.Helper()
	opt := device(t)
	b, _ := boot(t, opt)
	was := snapshot(t, opt)
	_, err := b.Install(context.Background(), src, name, InstallOptions{})
	var e *Error
	if !errors.As(err, &e) || e.Code != want {
		t.Fatalf("got %v, want cause %d", err, want)
	}
	if before && !maps.Equal(snapshot(t, opt), was) {
		t.Error("something was changed")
	}
	is := snapshot(t, opt)
	for name, data := range was {
		if strings.HasPrefix(name, "0 ") && is[name] != data {
			t.Errorf("the running bank was changed: %s", name)
		}
	}
	if s := b.Status(); s.Next != 1 || s.Banks[1].State >= StateReady {
		t.Errorf("after the refusal: %+v", s)
	}
	if err := b.Activate(2); err == nil {
		t.Error("the refused software could be activated")
	}
}
