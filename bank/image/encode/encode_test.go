package encode_test

import (
	"bytes"
	"encoding/hex"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"example.com/iad/bank/image"
	"example.com/iad/bank/image/encode"
	"example.com/iad/bank/image/frame"
)

func file(name string, content []byte) image.PayloadFile {
	return image.PayloadFile{Name: name, Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil }}
}

func noise(n int) []byte {
	data := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{3}).Read(data)
	return data
}

// TestPayload: which encodings are worth having.
func TestPayload(t *testing.T) {
	text := []byte(hex.EncodeToString(noise(10_000)))
	random := noise(15_000)
	like := encode.Base{Version: "1.0.0", Content: append(bytes.Clone(text[:15_000]), 'x')}
	likeRandom := encode.Base{Version: "1.0.0", Content: random[1000:]}
	unlike := encode.Base{Version: "0.9.0", Content: noise(17_000)[16_000:]}
	empty := encode.Base{Version: "0.1.0"}
	for name, test := range map[string]struct {
		content []byte
		bases   []encode.Base
		one     bool
		want    []string // the files
		dropped []string
	}{
		"compresses":                  {text, nil, false, []string{"app.xz"}, nil},
		"does not compress":           {random, nil, false, nil, []string{"app.xz"}},
		"empty":                       {nil, []encode.Base{like}, false, nil, nil},
		"difference":                  {text, []encode.Base{like}, false, []string{"app.d-1.0.0", "app.xz"}, nil},
		"difference, tar":             {text, []encode.Base{like}, true, []string{"app.d-1.0.0"}, nil},
		"useless difference":          {text, []encode.Base{unlike, empty}, false, []string{"app.xz"}, []string{"app.d-0.9.0"}},
		"useless difference, tar":     {text, []encode.Base{unlike}, true, []string{"app.xz"}, []string{"app.d-0.9.0"}},
		"several":                     {text, []encode.Base{unlike, like}, false, []string{"app.d-1.0.0", "app.xz"}, []string{"app.d-0.9.0"}},
		"difference of random data":   {random, []encode.Base{likeRandom}, false, []string{"app.d-1.0.0", "app.xz"}, nil},
		"useless, and incompressible": {random, []encode.Base{unlike}, true, nil, []string{"app.d-0.9.0", "app.xz"}},
	} {
		t.Run(name, func(t *testing.T) {
			f, results, err := encode.Payload(t.Context(), file("app", test.content), test.bases, encode.Options{One: test.one}, map[string]bool{"app": true})
			if err != nil {
				t.Fatal(err)
			}
			var files, dropped []string
			for _, e := range f.Encodings {
				files = append(files, e.File)
				if e.Size != int64(len(e.Content)) || e.Frame != frame.MaxSize {
					t.Errorf("%+v, %d bytes", e.Encoding, len(e.Content))
				}
			}
			for _, r := range results {
				if r.Dropped != "" {
					dropped = append(dropped, r.File)
				}
			}
			if !slices.Equal(files, test.want) || !slices.Equal(dropped, test.dropped) {
				t.Errorf("%q, dropped %q; want %q and %q", files, dropped, test.want, test.dropped)
			}
		})
	}
}

// TestNames: encodings have valid names that no other file has.
func TestNames(t *testing.T) {
	text := []byte(strings.Repeat("some text ", 1000))
	for _, name := range []string{"a", strings.Repeat("a", image.MaxName)} {
		taken := map[string]bool{name: true, "a.xz": true, "a-1.xz": true}
		before := len(taken)
		f, _, err := encode.Payload(t.Context(), file(name, text), []encode.Base{{Version: "1.0.0-" + strings.Repeat("b", 58), Content: text[:9000]}}, encode.Options{}, taken)
		if err != nil || len(f.Encodings) == 0 {
			t.Fatal(f.Encodings, err)
		}
		for _, e := range f.Encodings {
			if err := image.CheckName(e.File); err != nil || !taken[e.File] || e.File == "a.xz" || e.File == "a-1.xz" || e.File == name {
				t.Errorf("%q: %v", e.File, err)
			}
		}
		if len(taken) < before+len(f.Encodings) {
			t.Errorf("%d names are taken, %d before", len(taken), before)
		}
	}
}

// TestReproducible: encoding the same twice makes the same bytes, so that an image can be
// built again.
func TestReproducible(t *testing.T) {
	payload, base := noise(20_000), noise(10_000)
	var first []byte
	for range 3 {
		e, err := encode.XZDelta(t.Context(), "f", payload, base, frame.MinSize)
		if err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = e.Content
		}
		if !bytes.Equal(e.Content, first) {
			t.Fatal("another difference")
		}
	}
}

// decode decodes all frames of an encoding.
func decode(t *testing.T, e image.EncodedFile, length int, base []byte) (all []byte) {
	t.Helper()
	x, err := frame.ParseIndex(e.Content[:frame.IndexSize(int64(length), e.Frame)], e.Size, int64(length), e.Frame)
	if err != nil {
		t.Fatal(err)
	}
	d := frame.NewDecoder(e.Frame)
	for k := range x.Count() {
		content, err := image.Decode(d, &e.Encoding, x, k, e.Content[x.Offset(k):][:x.Length(k)], bytes.NewReader(base))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, content...)
	}
	return all
}

// TestManyPieces: records in another order need more steps than a frame may have. The
// difference is decoded all the same.
func TestManyPieces(t *testing.T) {
	for size, length := range map[int]int{frame.MinSize: 5 * frame.MinSize, frame.MaxSize: frame.MaxSize + 30_000} {
		base := noise(length)
		records := slices.Collect(slices.Chunk(base, 16))
		rand.New(rand.NewPCG(1, 2)).Shuffle(len(records), func(i, k int) { records[i], records[k] = records[k], records[i] })
		payload := bytes.Join(records, nil)
		e, err := encode.XZDelta(t.Context(), "f", payload, base, size)
		if err != nil {
			t.Fatal(err)
		}
		if got := decode(t, e, length, base); !bytes.Equal(got, payload) {
			t.Errorf("frames of %d bytes: %d bytes decoded, %d encoded", size, len(got), length)
		}
		if e.Size > int64(length)*8/10 {
			t.Errorf("frames of %d bytes: the difference has %d bytes, the payload %d", size, e.Size, length)
		}
	}
}
