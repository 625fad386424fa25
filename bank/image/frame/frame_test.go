package frame_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"github.com/ulikunitz/xz"

	"example.com/iad/bank/image"
	"example.com/iad/bank/image/encode"
	"example.com/iad/bank/image/frame"
	"example.com/iad/internal/peers"
)

const size = frame.MinSize

// contents are payloads of all kinds.
func contents() map[string][]byte {
	noise := make([]byte, 5*size)
	_, _ = rand.NewChaCha8([32]byte{2}).Read(noise)
	text := []byte(strings.Repeat("all work and no play ", 1000))
	return map[string][]byte{
		"one byte":    {7},
		"zeros":       make([]byte, 3*size),
		"noise":       noise,
		"text":        text,
		"whole frame": noise[:size],
		"frame + 1":   noise[:size+1],
		"mixed":       bytes.Join([][]byte{text, noise, text}, noise[:77]),
	}
}

// decodeAll decodes all frames of an encoding, and each one once more alone.
func decodeAll(t testing.TB, e image.EncodedFile, length int, base []byte) []byte {
	t.Helper()
	index := frame.IndexSize(int64(length), e.Frame)
	x, err := frame.ParseIndex(e.Content[:index], e.Size, int64(length), e.Frame)
	if err != nil {
		t.Fatal(err)
	}
	decoder := frame.NewDecoder(e.Frame)
	var all []byte
	for k := range x.Count() {
		encoded := e.Content[x.Offset(k):][:x.Length(k)]
		if !x.Matches(k, encoded) {
			t.Errorf("frame %d does not match the index", k)
		}
		for _, d := range []*frame.Decoder{decoder, frame.NewDecoder(e.Frame)} {
			content, err := image.Decode(d, &e.Encoding, x, k, encoded, bytes.NewReader(base))
			if err != nil {
				t.Fatalf("frame %d: %v", k, err)
			}
			if d == decoder {
				if x.Find(int64(len(all))) != k || x.Start(k) != int64(len(all)) {
					t.Errorf("frame %d stands for byte %d", k, len(all))
				}
				all = append(all, content...)
			} else if !bytes.HasSuffix(all, content) {
				t.Errorf("frame %d depends on the ones before", k)
			}
		}
	}
	return all
}

func TestRoundTrip(t *testing.T) {
	for name, payload := range contents() {
		for baseName, base := range contents() {
			if baseName != name && baseName != "mixed" && baseName != "one byte" {
				continue
			}
			e, err := encode.XZDelta(t.Context(), "f", payload, base, size)
			if err != nil {
				t.Fatal(err)
			}
			if got := decodeAll(t, e, len(payload), base); !bytes.Equal(got, payload) {
				t.Errorf("%s from %s: %d bytes decoded, %d encoded", name, baseName, len(got), len(payload))
			}
			if name == baseName && len(payload) > size && e.Size > int64(len(payload))/10 {
				t.Errorf("%s: %d bytes of difference from itself", name, e.Size)
			}
		}
		e, err := encode.XZ(t.Context(), "f", payload, size)
		if err != nil {
			t.Fatal(err)
		}
		if got := decodeAll(t, e, len(payload), nil); !bytes.Equal(got, payload) {
			t.Errorf("%s: %d bytes decoded, %d encoded", name, len(got), len(payload))
		}
	}
}

// TestRandomEdits makes differences of payloads that were edited in many places.
func TestRandomEdits(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	base := contents()["mixed"]
	for range 8 {
		payload := bytes.Clone(base)
		for range 1 + r.IntN(8) {
			at, n := r.IntN(len(payload)), r.IntN(3000)
			end := min(at+n, len(payload))
			switch r.IntN(4) {
			case 0:
				payload = append(payload[:at:at], payload[end:]...)
			case 1:
				payload = append(payload[:at:at], append(bytes.Clone(base[:n]), payload[at:]...)...)
			case 2:
				for i := at; i < end; i += 1 + r.IntN(9) {
					payload[i] += byte(r.IntN(256))
				}
			case 3:
				payload = append(bytes.Clone(payload[at:]), payload[:at]...)
			}
		}
		e, err := encode.XZDelta(t.Context(), "f", payload, base, size)
		if err != nil {
			t.Fatal(err)
		}
		if got := decodeAll(t, e, len(payload), base); !bytes.Equal(got, payload) {
			t.Errorf("%d bytes decoded, %d encoded", len(got), len(payload))
		}
	}
}

// TestXZReadsFrames: the frames are files of the xz format.
func TestXZReadsFrames(t *testing.T) {
	program := peers.Find(t, "xz")
	payload, base := contents()["mixed"], contents()["text"]
	full, err := encode.XZ(t.Context(), "f", payload, size)
	if err != nil {
		t.Fatal(err)
	}
	delta, err := encode.XZDelta(t.Context(), "f", payload, base, size)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range []image.EncodedFile{full, delta} {
		index := frame.IndexSize(int64(len(payload)), size)
		x, err := frame.ParseIndex(e.Content[:index], e.Size, int64(len(payload)), size)
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), program, "--decompress", "--stdout")
		cmd.Stdin = bytes.NewReader(e.Content[index:]) // streams may be put together
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s: %v", e.Codec, err)
		}
		if e.Codec == frame.XZ && !bytes.Equal(out, payload) {
			t.Errorf("xz decodes %d bytes, %d were encoded", len(out), len(payload))
		}
		if e.Codec == frame.XZDelta && len(out) < len(payload) {
			t.Errorf("xz decodes %d bytes of %d frames", len(out), x.Count())
		}
	}
	// The other way round: what xz makes of a frame is accepted.
	cmd := exec.CommandContext(t.Context(), program, "--format=xz", "--lzma2=preset=9,dict=4KiB", "--stdout")
	cmd.Stdin = bytes.NewReader(payload[:size])
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := frame.NewDecoder(size).Decode(out, size); err != nil || !bytes.Equal(got, payload[:size]) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	for _, option := range []string{"--lzma2=preset=9,dict=8KiB", "--arm=start=0", "--x86", "--delta=dist=4"} {
		options := []string{"--format=xz", "--stdout", option}
		if !strings.HasPrefix(option, "--lzma2") {
			options = append(options, "--lzma2=preset=9,dict=4KiB")
		}
		cmd := exec.CommandContext(t.Context(), program, options...)
		cmd.Stdin = bytes.NewReader(payload[:size])
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		_, err = frame.NewDecoder(size).Decode(out, size)
		if want := map[bool]string{true: "dictionary", false: "filter"}[strings.HasPrefix(option, "--lzma2")]; err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want an error about the %s", option, err, want)
		}
	}
}

// stream makes an xz stream.
func stream(t testing.TB, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := xz.WriterConfig{DictCap: size, CheckSum: xz.CRC32}.NewWriter(&b)
	if err == nil {
		_, err = w.Write(data)
	}
	if err = errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// delta puts a frame of a difference together.
func delta(control, literals, added []byte) []byte {
	head := binary.AppendUvarint(nil, uint64(len(control)))
	head = binary.AppendUvarint(head, uint64(len(literals)))
	return bytes.Join([][]byte{head, control, literals, added}, nil)
}

func steps(numbers ...int64) (control []byte) {
	for i, n := range numbers {
		if i%3 == 2 {
			control = binary.AppendVarint(control, n)
		} else {
			control = binary.AppendUvarint(control, uint64(n))
		}
	}
	return control
}

func TestHostileFrames(t *testing.T) {
	text := []byte("some content")
	good := stream(t, text)
	blocks := func() []byte {
		var b bytes.Buffer
		w, err := xz.WriterConfig{DictCap: size, BlockSize: 5}.NewWriter(&b)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = w.Write(text)
		_ = w.Close()
		return b.Bytes()
	}()
	bomb := stream(t, make([]byte, 1<<20))
	for name, test := range map[string]struct {
		encoded []byte
		n       int
	}{
		"nothing":         {nil, 1},
		"no stream":       {[]byte("no stream at all, but long enough for one, as it seems to be"), 1},
		"too short":       {good, len(text) + 1},
		"too long":        {good, len(text) - 1},
		"bomb":            {bomb, size},
		"four streams":    {bytes.Repeat(good, 4), 4 * len(text)},
		"several blocks":  {blocks, len(text)},
		"something after": {append(bytes.Clone(good), 0, 0, 0, 0), len(text)},
		"cut":             {good[:len(good)-1], len(text)},
		"second is cut":   {append(bytes.Clone(good), good[:len(good)-4]...), 2 * len(text)},
		"only a footer":   {good[len(good)-12:], len(text)},
	} {
		d := frame.NewDecoder(size)
		if got, err := d.Decode(test.encoded, test.n); err == nil {
			t.Errorf("%s: decoded as %q", name, got)
		}
		if got, err := d.Decode(good, len(text)); err != nil || !bytes.Equal(got, text) {
			t.Errorf("after %s: %q, %v", name, got, err)
		}
	}
	if got, err := frame.NewDecoder(size).Decode(bytes.Repeat(good, 3), 3*len(text)); err != nil || !bytes.Equal(got, bytes.Repeat(text, 3)) {
		t.Errorf("three streams: %q, %v", got, err)
	}
}

func TestHostileDeltas(t *testing.T) {
	base := []byte("0123456789")
	const n = 6
	for name, test := range map[string]struct {
		frame []byte
		want  string // "" is refused
	}{
		"copy":                      {delta(steps(6, 0, 0), nil, make([]byte, 6)), "012345"},
		"seek, copy and literal":    {delta(steps(0, 1, 4, 2, 0, -4, 2, 1, 0), []byte("<>"), make([]byte, 4)), "<4523>"},
		"added":                     {delta(steps(6, 0, 0), nil, []byte{1, 1, 1, 1, 1, 255}), "123454"},
		"literals":                  {delta(steps(0, 6, 0), []byte("abcdef"), nil), "abcdef"},
		"to the end of the base":    {delta(steps(0, 0, 4, 6, 0, 0), nil, make([]byte, 6)), "456789"},
		"past the end of the base":  {delta(steps(0, 0, 5, 6, 0, 0), nil, make([]byte, 6)), ""},
		"before the base":           {delta(steps(0, 0, -1, 6, 0, 0), nil, make([]byte, 6)), ""},
		"far outside the base":      {delta(steps(0, 0, 1<<62, 6, 0, 0), nil, make([]byte, 6)), ""},
		"far before the base":       {delta(steps(0, 0, -1<<63, 6, 0, 0), nil, make([]byte, 6)), ""},
		"last seek past the base":   {delta(steps(6, 0, 5), nil, make([]byte, 6)), ""},
		"less than the content":     {delta(steps(5, 0, 0), nil, make([]byte, 5)), ""},
		"more than the content":     {delta(steps(7, 0, 0), nil, make([]byte, 7)), ""},
		"huge copy":                 {delta(steps(-1, 0, 0), nil, nil), ""},
		"huge literal":              {delta(steps(1, -1, 0), nil, nil), ""},
		"fewer literals than said":  {delta(steps(5, 1, 0), []byte("ab"), make([]byte, 5)), ""},
		"more literals than said":   {delta(steps(0, 6, 0), []byte("a"), make([]byte, 5)), ""},
		"too much added":            {delta(steps(6, 0, 0), nil, make([]byte, 7)), ""},
		"too little added":          {delta(steps(6, 0, 0), nil, make([]byte, 5)), ""},
		"control data cut":          {delta(steps(6, 0, 0)[:2], nil, make([]byte, 6)), ""},
		"no control data":           {delta(nil, nil, make([]byte, 6)), ""},
		"long control data":         {delta(bytes.Repeat(steps(0, 0, 0), size), nil, nil), ""},
		"many literals":             {append(steps(1, 1<<40), 0), ""},
		"empty":                     {[]byte{0}, ""},
		"many steps of no bytes":    {delta(append(bytes.Repeat(steps(0, 0, 0), 100), steps(6, 0, 0)...), nil, make([]byte, 6)), "012345"},
		"literals before a copy":    {delta(steps(0, 3, 7, 3, 0, 0), []byte("abc"), make([]byte, 3)), "abc789"},
		"the same piece repeatedly": {delta(steps(2, 0, -2, 2, 0, -2, 2, 0, 0), nil, make([]byte, 6)), "010101"},
	} {
		got, err := frame.NewDecoder(size).DecodeDelta(stream(t, test.frame), n, bytes.NewReader(base), int64(len(base)))
		if test.want == "" && err == nil || string(got) != test.want {
			t.Errorf("%s: %q, %v, want %q", name, got, err, test.want)
		}
		var unread *frame.BaseError
		if errors.As(err, &unread) {
			t.Errorf("%s: the base is blamed: %v", name, err)
		}
	}
	var unread *frame.BaseError
	if _, err := frame.NewDecoder(size).DecodeDelta(stream(t, delta(steps(6, 0, 0), nil, make([]byte, 6))), n, bytes.NewReader(base[:3]), int64(len(base))); !errors.As(err, &unread) || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a base that is too short: %v", err)
	}
}

func TestIndexes(t *testing.T) {
	entry := func(n uint32) []byte { return append(binary.BigEndian.AppendUint32(nil, n), make([]byte, 32)...) }
	for name, test := range map[string]struct {
		raw              []byte
		fileSize, length int64
		ok               bool
	}{
		"one frame":         {entry(10), 46, 1, true},
		"two frames":        {append(entry(10), entry(11)...), 93, size + 1, true},
		"too few entries":   {entry(10), 46, size + 1, false},
		"too many entries":  {append(entry(10), entry(11)...), 93, size, false},
		"cut":               {entry(10)[:35], 45, 1, false},
		"empty frame":       {entry(0), 36, 1, false},
		"large frame":       {entry(uint32(frame.MaxEncoded(size))), 36 + frame.MaxEncoded(size), size, true},
		"too large frame":   {entry(uint32(frame.MaxEncoded(size)) + 1), 37 + frame.MaxEncoded(size), size, false},
		"huge frame":        {entry(1<<32 - 1), 1<<32 + 35, size, false},
		"file is longer":    {entry(10), 47, 1, false},
		"file is shorter":   {entry(10), 45, 1, false},
		"index too long":    {bytes.Repeat(entry(1), 1821), 1821 * 37, 1821 * size, false},
		"longest index":     {bytes.Repeat(entry(1), 1820), 1820 * 37, 1820 * size, true},
		"nothing":           {nil, 0, 0, true},
		"nothing, and more": {nil, 1, 0, false},
	} {
		if _, err := frame.ParseIndex(test.raw, test.fileSize, test.length, size); (err == nil) != test.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
	for n, ok := range map[int]bool{0: false, -4096: false, 2048: false, 4096: true, 5000: false, 256 << 10: true, 512 << 10: false} {
		if err := frame.CheckSize(n); (err == nil) != ok {
			t.Errorf("frame size %d: %v", n, err)
		}
	}
}

// TestDecoderMemory: a decoder takes about twice the frame size, however many frames it
// decodes, and whatever they hold.
func TestDecoderMemory(t *testing.T) {
	payload := bytes.Repeat(contents()["mixed"], 3)
	e, err := encode.XZDelta(context.Background(), "f", payload, payload, 64<<10)
	if err != nil {
		t.Fatal(err)
	}
	x, err := frame.ParseIndex(e.Content[:frame.IndexSize(int64(len(payload)), e.Frame)], e.Size, int64(len(payload)), e.Frame)
	if err != nil {
		t.Fatal(err)
	}
	base := bytes.NewReader(payload)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	d := frame.NewDecoder(e.Frame)
	for range 20 {
		for k := range x.Count() {
			if _, err := image.Decode(d, &e.Encoding, x, k, e.Content[x.Offset(k):][:x.Length(k)], base); err != nil {
				t.Fatal(err)
			}
		}
	}
	runtime.ReadMemStats(&after)
	if spent := after.TotalAlloc - before.TotalAlloc; spent > 300<<10 {
		t.Errorf("%d bytes allocated for %d frames of %d bytes", spent, 20*x.Count(), e.Frame)
	}
}

// FuzzDecode: no frame panics, or is decoded to something else than by another decoder.
func FuzzDecode(f *testing.F) {
	for _, content := range contents() {
		content = content[:min(len(content), size)]
		f.Add(stream(f, content), uint16(len(content)-1))
	}
	f.Add(bytes.Repeat(stream(f, []byte("content")), 3), uint16(20))
	f.Add([]byte("\xfd7zXZ\x00\x00\x01"), uint16(1))
	f.Fuzz(func(t *testing.T, encoded []byte, n uint16) {
		length := int(n)%size + 1
		for _, encoded := range [][]byte{encoded, mendSums(encoded)} {
			content, err := frame.NewDecoder(size).Decode(encoded, length)
			if err != nil {
				continue
			}
			if len(content) != length {
				t.Errorf("%d bytes, not %d", len(content), length)
			}
			r, err := xz.NewReader(bytes.NewReader(encoded))
			if err != nil {
				continue // a checksum is wrong
			}
			if other, err := io.ReadAll(r); err == nil && !bytes.Equal(content, other) {
				t.Errorf("%d bytes, another decoder makes other %d", len(content), len(other))
			}
		}
	})
}

// mendSums makes the checksums of headers and footer right, as far as they can be found, so
// that the fuzzer gets past them.
func mendSums(encoded []byte) []byte {
	b := bytes.Clone(encoded)
	if len(b) < 40 {
		return b
	}
	copy(b, "\xfd7zXZ\x00")
	binary.LittleEndian.PutUint32(b[8:], crc32.ChecksumIEEE(b[6:8]))
	if n := (int(b[12]) + 1) * 4; 12+n <= len(b) {
		binary.LittleEndian.PutUint32(b[12+n-4:], crc32.ChecksumIEEE(b[12:12+n-4]))
	}
	footer := b[len(b)-12:]
	copy(footer[8:], b[6:8])
	copy(footer[10:], "YZ")
	binary.LittleEndian.PutUint32(footer, crc32.ChecksumIEEE(footer[4:10]))
	return b
}

// FuzzDelta: whatever a difference says, it is refused or makes as many bytes as it should, from
// nothing but the base.
func FuzzDelta(f *testing.F) {
	f.Add(delta(steps(0, 1, 4, 2, 0, -4, 2, 1, 0), []byte("<>"), make([]byte, 4)), uint16(6))
	f.Add(delta(steps(6, 0, 0), nil, make([]byte, 6)), uint16(6))
	f.Add(delta(steps(0, 6, 0), []byte("abcdef"), nil), uint16(6))
	base := []byte("0123456789")
	f.Fuzz(func(t *testing.T, program []byte, n uint16) {
		length := int(n)%size + 1
		if len(program) > 2*size {
			return
		}
		content, err := frame.NewDecoder(size).DecodeDelta(stream(t, program), length, bytes.NewReader(base), int64(len(base)))
		var unread *frame.BaseError
		switch {
		case errors.As(err, &unread):
			t.Errorf("outside the base: %v", err)
		case err == nil && len(content) != length:
			t.Errorf("%d bytes, not %d", len(content), length)
		}
	})
}

// FuzzIndex: an index that is accepted has its frames one after the other in the file.
func FuzzIndex(f *testing.F) {
	f.Add(append([]byte{0, 0, 0, 10}, make([]byte, 32)...), int64(46), int64(1))
	f.Fuzz(func(t *testing.T, raw []byte, fileSize, length int64) {
		if length < 0 || length > 1<<32 {
			return
		}
		x, err := frame.ParseIndex(raw, fileSize, length, size)
		if err != nil {
			return
		}
		at, content := int64(len(raw)), int64(0)
		for k := range x.Count() {
			if x.Offset(k) != at || x.Start(k) != content || x.Content(k) < 1 || x.Content(k) > size {
				t.Errorf("frame %d at %d, %d bytes of content at %d", k, x.Offset(k), x.Content(k), x.Start(k))
			}
			at, content = at+int64(x.Length(k)), content+int64(x.Content(k))
		}
		if at != fileSize || content != length {
			t.Errorf("%d bytes of %d, %d of content of %d", at, fileSize, content, length)
		}
	})
}
