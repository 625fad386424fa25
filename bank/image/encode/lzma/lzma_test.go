package lzma_test

import (
	"bytes"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	other "github.com/ulikunitz/xz/lzma"

	"example.com/iad/bank/image/encode/lzma"
	"example.com/iad/internal/iadtest"
)

func decode(t testing.TB, packed []byte) []byte {
	t.Helper()
	r, err := other.Reader2Config{DictCap: 4 << 20}.NewReader2(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

var allProperties = []lzma.Properties{{0, 0, 0}, {3, 0, 2}, {0, 2, 2}, {4, 0, 0}, {0, 4, 4}, {2, 2, 1}, {1, 3, 3}}

func noise(n int) []byte {
	data := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{5}).Read(data)
	return data
}

// TestRoundTrip: another decoder decodes what was encoded.
func TestRoundTrip(t *testing.T) {
	text := []byte(strings.Repeat("all work and no play makes a dull boy; ", 200))
	records := make([]byte, 40_000)
	for i := range records {
		records[i] = byte(i / 7 * (i % 4))
	}
	for name, data := range map[string][]byte{
		"nothing":           nil,
		"one byte":          {1},
		"two bytes":         {1, 1},
		"text":              text,
		"zeros":             make([]byte, 100_000),
		"records":           records,
		"noise":             noise(70_000),
		"noise, then text":  append(noise(70_000), text...),
		"text, then noise":  append(bytes.Clone(text), noise(70_000)...),
		"between":           bytes.Join([][]byte{text, noise(66_000), text, noise(300), records, noise(66_000)[:65_000]}, nil),
		"nearly the same":   bytes.Join([][]byte{noise(5000), bytes.Map(func(r rune) rune { return r ^ 1 }, []byte("a")), noise(5000)}, nil),
		"long match, noise": append(make([]byte, 2*273+1), noise(10)...),
	} {
		matches := lzma.FindMatches(data, max(len(data), 1))
		properties := allProperties
		if iadtest.RaceDetector { // nothing here runs side by side
			properties = properties[1:2]
		}
		for _, p := range properties {
			packed := lzma.Encode(matches, p)
			if got := decode(t, packed); !bytes.Equal(got, data) {
				t.Fatalf("%s, %+v: %d bytes decoded, %d encoded", name, p, len(got), len(data))
			}
			if limit := len(data) + len(data)/20_000*3 + 20; len(packed) > limit {
				t.Errorf("%s, %+v: %d bytes of %d", name, p, len(packed), len(data))
			}
		}
	}
}

// TestManyChunks encodes more than a chunk can hold, packed and unpacked.
func TestManyChunks(t *testing.T) {
	if iadtest.RaceDetector {
		t.Skip("takes a minute under the race detector, and nothing runs side by side; make test runs it without")
	}
	hexadecimal := make([]byte, 300_000) // half of its size is left
	for i, b := range noise(len(hexadecimal)) {
		hexadecimal[i] = "0123456789abcdef"[b&15]
	}
	for name, data := range map[string][]byte{"packed": hexadecimal, "unpacked": make([]byte, 3<<20)} {
		packed := lzma.Encode(lzma.FindMatches(data, len(data)), allProperties[1])
		if got := decode(t, packed); !bytes.Equal(got, data) {
			t.Errorf("%s: %d bytes decoded, %d encoded", name, len(got), len(data))
		}
	}
}

// TestWindow: matches do not go back further than they may.
func TestWindow(t *testing.T) {
	data := append(noise(10_000), noise(10_000)...)
	for window, repeats := range map[int]bool{9_999: false, 10_000: true} {
		matches := lzma.FindMatches(data, window)
		packed := lzma.Encode(matches, allProperties[1])
		if (len(packed) < 11_000) != repeats {
			t.Errorf("window of %d bytes: %d bytes", window, len(packed))
		}
		if got := decode(t, packed); !bytes.Equal(got, data) {
			t.Errorf("window of %d bytes: %d bytes decoded", window, len(got))
		}
	}
}

// TestCompresses: the parser beats the other encoder of Go by far.
func TestCompresses(t *testing.T) {
	var data []byte
	r := rand.New(rand.NewPCG(1, 1))
	words := strings.Fields("load store add branch call return shift compare jump trap sync move push pop")
	for len(data) < 60_000 {
		data = append(data, words[r.IntN(len(words))]...)
		data = append(data, ' ', byte('0'+r.IntN(10)), '\n')
	}
	var b bytes.Buffer
	w, err := other.Writer2Config{Properties: &other.Properties{LC: 3, PB: 2}, DictCap: 1 << 16}.NewWriter2(&b)
	if err == nil {
		_, err = w.Write(data)
	}
	if err != nil || w.Close() != nil {
		t.Fatal(err)
	}
	if ours := len(lzma.Encode(lzma.FindMatches(data, len(data)), allProperties[1])); ours > b.Len()*95/100 {
		t.Errorf("%d bytes, the other encoder makes %d", ours, b.Len())
	}
}

// FuzzEncode: whatever is encoded is decoded again.
func FuzzEncode(f *testing.F) {
	f.Add([]byte("abcabcabcabd"), byte(0))
	f.Add(bytes.Repeat([]byte{0, 1, 0, 2}, 500), byte(1))
	f.Add(noise(3000), byte(2))
	f.Fuzz(func(t *testing.T, data []byte, p byte) {
		if len(data) == 0 {
			return
		}
		packed := lzma.Encode(lzma.FindMatches(data, len(data)), allProperties[int(p)%len(allProperties)])
		if got := decode(t, packed); !bytes.Equal(got, data) {
			t.Errorf("%d bytes decoded, %d encoded", len(got), len(data))
		}
	})
}
