package bank

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"aead.dev/minisign"

	"example.com/iad/bank/image"
	"example.com/iad/internal/iadtest"
	"example.com/iad/internal/imagetest"
	"example.com/iad/mib"
)

// TestTamperedManifest changes every field of the signed manifest.
func TestTamperedManifest(t *testing.T) {
	p := imagetest.TakeApart(t, "2.0.0")
	for _, test := range []struct {
		path  []any
		value any
	}{
		{[]any{"format"}, 2},
		{[]any{"version"}, "2.0.1"},
		{[]any{"hardware", 0}, "IAD-2FXS"},
		{[]any{"config_format"}, 2},
		{[]any{"no_reset"}, true},
		{[]any{"min_version"}, "0.0.1"},
		{[]any{"floor"}, "2.0.0"},
		{[]any{"payloads", 0, "name"}, "other"},
		{[]any{"payloads", 0, "size"}, 69_999},
		{[]any{"payloads", 0, "sha256"}, strings.Repeat("0", 64)},
		{[]any{"payloads", 0, "mode"}, "0777"},
		{[]any{"payloads"}, []any{}},
		{[]any{"selftest"}, "app"},
		{[]any{"converters"}, []any{map[string]any{"from": 1, "to": 2, "payload": "app"}}},
		{[]any{"unknown"}, true},
	} {
		t.Run(fmt.Sprint(test.path...), func(t *testing.T) {
			bad := p.WithField(t, test.path, test.value)
			refused(t, serve("fw.iad", bad.Tar()), "fw.iad", mib.FailCauseSignatureInvalid, true)
			refused(t, split(bad), "dir/manifest.json", mib.FailCauseSignatureInvalid, true)
		})
	}
}

// TestSignedNonsense has what a maker's tool should never have signed.
func TestSignedNonsense(t *testing.T) {
	p := imagetest.TakeApart(t, "2.0.0")
	for name, change := range map[string]func(m *image.Manifest){
		"newer format":             func(m *image.Manifest) { m.Format = image.ManifestFormat + 1 },
		"no version":               func(m *image.Manifest) { m.Version = "" },
		"odd version":              func(m *image.Manifest) { m.Version = "v2" },
		"long version":             func(m *image.Manifest) { m.Version = "2.0.0-" + strings.Repeat("a", 64) },
		"odd min_version":          func(m *image.Manifest) { m.MinVersion = "1" },
		"odd floor":                func(m *image.Manifest) { m.Floor = "../x" },
		"floor above version":      func(m *image.Manifest) { m.Floor = "2.0.1" },
		"no hardware":              func(m *image.Manifest) { m.Hardware = nil },
		"empty hardware":           func(m *image.Manifest) { m.Hardware = []string{""} },
		"unprintable hardware":     func(m *image.Manifest) { m.Hardware = []string{"a\x00b"} },
		"no configuration format":  func(m *image.Manifest) { m.ConfigFormat = 0 },
		"no payloads":              func(m *image.Manifest) { m.Payloads = []image.Payload{} },
		"too many payloads":        func(m *image.Manifest) { m.Payloads = make([]image.Payload, image.MaxPayloads+1) },
		"payload outside":          func(m *image.Manifest) { m.Payloads[0].Name = "../app" },
		"payload in a directory":   func(m *image.Manifest) { m.Payloads[0].Name = "bin/app" },
		"absolute payload":         func(m *image.Manifest) { m.Payloads[0].Name = "/app" },
		"payload of dots":          func(m *image.Manifest) { m.Payloads[0].Name = ".." },
		"hidden payload":           func(m *image.Manifest) { m.Payloads[0].Name = ".app" },
		"nameless payload":         func(m *image.Manifest) { m.Payloads[0].Name = "" },
		"long payload name":        func(m *image.Manifest) { m.Payloads[0].Name = strings.Repeat("a", image.MaxName+1) },
		"backslash":                func(m *image.Manifest) { m.Payloads[0].Name = `a\b` },
		"control character":        func(m *image.Manifest) { m.Payloads[0].Name = "a\nb" },
		"payload as the manifest":  func(m *image.Manifest) { m.Payloads[0].Name = image.ManifestName },
		"payload as the signature": func(m *image.Manifest) { m.Payloads[0].Name = image.SignatureName },
		"payload as a part of it":  func(m *image.Manifest) { m.Payloads[0].Name = image.ManifestName + ".tmp" },
		"payload twice":            func(m *image.Manifest) { m.Payloads[0].Name = m.Payloads[1].Name },
		"negative size":            func(m *image.Manifest) { m.Payloads[0].Size = -1 },
		"huge size":                func(m *image.Manifest) { m.Payloads[0].Size = image.MaxSize + 1 },
		"huge sum":                 func(m *image.Manifest) { m.Payloads[0].Size, m.Payloads[1].Size = image.MaxSize, image.MaxSize },
		"short hash":               func(m *image.Manifest) { m.Payloads[0].SHA256 = "00" },
		"upper-case hash":          func(m *image.Manifest) { m.Payloads[0].SHA256 = strings.ToUpper(m.Payloads[0].SHA256) },
		"missing self-test":        func(m *image.Manifest) { m.SelfTest = "none" },
		"missing converter":        func(m *image.Manifest) { m.Converters = []image.Converter{{From: 1, To: 2, Payload: "none"}} },
		"converter to the same":    func(m *image.Manifest) { m.Converters = []image.Converter{{From: 1, To: 1, Payload: "app"}} },
		"two converters": func(m *image.Manifest) {
			m.Converters = []image.Converter{{From: 1, To: 2, Payload: "app"}, {From: 1, To: 2, Payload: "app"}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			bad := p.Resign(t, change, imagetest.Key)
			refused(t, serve("fw.iad", bad.Tar()), "fw.iad", mib.FailCauseBadFormat, true)
			refused(t, split(bad), "dir/manifest.json", mib.FailCauseBadFormat, true)
		})
	}
	raw := string(p.Head.Raw)
	for name, text := range map[string]string{
		"field twice":        strings.Replace(raw, `"version"`, `"version": "9.9.9", "version"`, 1),
		"other spelling":     strings.Replace(raw, `"version"`, `"Version"`, 1),
		"unknown field":      strings.Replace(raw, `"version"`, `"extra": 1, "version"`, 1),
		"null":               strings.Replace(raw, `"2.0.0"`, `null`, 1),
		"something after it": raw + "{}",
		"not UTF-8":          strings.Replace(raw, "2.0.0", "2.0.0\xff", 1),
		"cut":                raw[:len(raw)/2],
		"mode too large":     strings.Replace(raw, `"0755"`, `"4755"`, 1),
		"mode a number":      strings.Replace(raw, `"0755"`, `493`, 1),
		"mode of the wild":   strings.Replace(raw, `"0755"`, `"+755"`, 1),
		"size a fraction":    strings.Replace(raw, `70000`, `70000.5`, 1),
		"an array":           "[" + raw + "]",
		"a number":           "{1}",
	} {
		t.Run(name, func(t *testing.T) {
			if text == raw {
				t.Fatal("nothing changed")
			}
			bad := p.WithManifest(t, []byte(text), imagetest.Key)
			refused(t, serve("fw.iad", bad.Tar()), "fw.iad", mib.FailCauseBadFormat, true)
			if text[0] == '{' { // or it is taken for the tar form
				refused(t, split(bad), "dir/manifest.json", mib.FailCauseBadFormat, true)
			}
		})
	}
}

// TestNewerFormat: a maker's image of a later format is refused by its number, not by
// the first field that this software does not know.
func TestNewerFormat(t *testing.T) {
	p := imagetest.TakeApart(t, "2.0.0")
	later := strings.Replace(string(p.Head.Raw), `"format": 1`, `"encryption": {"kind": "age"}, "format": 4`, 1)
	later = strings.Replace(later, `70000`, `"70000"`, 1)
	if !strings.Contains(later, "encryption") {
		t.Fatal("nothing changed")
	}
	want := "format 4; this software reads formats 1 to 3"
	if _, err := image.ParseManifest([]byte(later)); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("ParseManifest: %v, want %q", err, want)
	}
	signed := p.WithManifest(t, []byte(later), imagetest.Key)
	for name, src := range map[string]*server{"fw.iad": serve("fw.iad", signed.Tar()), "dir/manifest.json": split(signed)} {
		b, _ := boot(t, device(t))
		if _, err := b.Install(t.Context(), src, name, InstallOptions{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("install of %s: %v, want %q", name, err, want)
		}
	}
}

// TestTamperedSignature has everything that is not the maker's signature of this
// manifest.
func TestTamperedSignature(t *testing.T) {
	p := imagetest.TakeApart(t, "2.0.0")
	_, otherKey, err := minisign.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := image.SignManifest(p.Head.Raw, "x", otherKey)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(p.Head.Signature), "\n")
	foreignLines := strings.SplitAfter(string(foreign), "\n")
	for name, test := range map[string]struct {
		signature string
		want      mib.FailCause
	}{
		"of another file":         {string(imagetest.TakeApart(t, "1.9.0").Head.Signature), mib.FailCauseSignatureInvalid},
		"by another key":          {string(foreign), mib.FailCauseSignerUntrusted},
		"changed trusted comment": {strings.Replace(string(p.Head.Signature), "version:2", "version:3", 1), mib.FailCauseSignatureInvalid},
		"swapped global one":      {lines[0] + lines[1] + lines[2] + foreignLines[3], mib.FailCauseSignatureInvalid},
		"not a signature":         {"hello", mib.FailCauseSignatureInvalid},
		"cut":                     {lines[0] + lines[1], mib.FailCauseSignatureInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			bad := p.WithSignature([]byte(test.signature))
			refused(t, serve("fw.iad", bad.Tar()), "fw.iad", test.want, true)
			refused(t, split(bad), "dir/manifest.json", test.want, true)
		})
	}
	t.Run("none", func(t *testing.T) {
		m := p.Members()
		refused(t, serve("fw.iad", imagetest.Join(append(m[:1], m[2:]...), imagetest.TrailerSize)), "fw.iad", mib.FailCauseBadFormat, true)
		refused(t, split(p.WithSignature(nil)), "dir/manifest.json", mib.FailCauseSignatureInvalid, true)
	})
	t.Run("too long", func(t *testing.T) {
		bad := p.WithSignature(append(slices.Clone(p.Head.Signature), make([]byte, image.MaxSignature)...))
		refused(t, serve("fw.iad", bad.Tar()), "fw.iad", mib.FailCauseBadFormat, true)
		refused(t, split(bad), "dir/manifest.json", mib.FailCauseBadFormat, true)
	})
}

// raw changes a header byte by byte and repairs its checksum.
func rawHeader(h []byte, change func(h []byte)) []byte {
	h = slices.Clone(h)
	change(h)
	copy(h[148:], "        ")
	sum := 0
	for _, c := range h {
		sum += int(c)
	}
	copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
	return h
}

func set(at int, text string) func(h []byte) { return func(h []byte) { copy(h[at:], text) } }

// TestTamperedHeaders changes the tar headers of the first member, which must be
// noticed before the bank is touched, and of a payload.
func TestTamperedHeaders(t *testing.T) {
	p := imagetest.TakeApart(t, "2.0.0")
	for name, change := range map[string]func(h []byte){
		"name":              set(0, "x"),
		"name outside":      set(0, "../manifest.json"),
		"mode":              set(100, "0000777\x00"),
		"setuid":            set(100, "0004755\x00"),
		"user":              set(108, "0000001\x00"),
		"group":             set(116, "0000001\x00"),
		"size":              set(124, "00000000001\x00"),
		"huge size":         set(124, "77777777777\x00"),
		"size in base 256":  set(124, "\x80\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x10"),
		"negative size":     set(124, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
		"time":              set(136, "00000000001\x00"),
		"hard link":         set(156, "1"),
		"symbolic link":     func(h []byte) { h[156] = '2'; copy(h[157:], "/etc/passwd") },
		"character device":  set(156, "3"),
		"block device":      set(156, "4"),
		"directory":         set(156, "5"),
		"fifo":              set(156, "6"),
		"contiguous":        set(156, "7"),
		"sparse":            set(156, "S"),
		"pax header":        set(156, "x"),
		"global pax header": set(156, "g"),
		"long name":         set(156, "L"),
		"old regular file":  set(156, "\x00"),
		"gnu magic":         set(257, "ustar  \x00"),
		"no magic":          set(257, "\x00\x00\x00\x00\x00\x00\x00\x00"),
		"user name":         set(265, "root"),
		"device number":     set(329, "0000001\x00"),
		"prefix":            set(345, "dir"),
		"sparse map":        set(386, "00000000001\x0000000000001\x00"),
		"bytes in the rest": set(511, "x"),
	} {
		t.Run(name, func(t *testing.T) {
			m := p.Members()
			m[0].Header = rawHeader(m[0].Header, change)
			src := serve("fw.iad", imagetest.Join(m, imagetest.TrailerSize))
			refused(t, src, "fw.iad", mib.FailCauseBadFormat, true)
			m = p.Members()
			m[3].Header = rawHeader(m[3].Header, change)
			refused(t, serve("fw.iad", imagetest.Join(m, imagetest.TrailerSize)), "fw.iad", mib.FailCauseBadFormat, false)
		})
	}
	t.Run("checksum", func(t *testing.T) {
		m := p.Members()
		m[0].Header = slices.Clone(m[0].Header)
		m[0].Header[148] ^= 1
		refused(t, serve("fw.iad", imagetest.Join(m, imagetest.TrailerSize)), "fw.iad", mib.FailCauseBadFormat, true)
	})
}

// TestTamperedStructure changes order, number and content of the members. Where the
// server reports the size of the file, a wrong one is noticed before the bank is
// touched.
func TestTamperedStructure(t *testing.T) {
	p := imagetest.TakeApart(t, "2.0.0")
	extra := imagetest.Member{Header: imagetest.Header("extra", 5, 0o644), Data: []byte("extra")}
	insert := func(at int) func(m []imagetest.Member) []imagetest.Member {
		return func(m []imagetest.Member) []imagetest.Member { return slices.Insert(m, at, extra) }
	}
	for _, test := range []struct {
		name    string
		change  func(m []imagetest.Member) []imagetest.Member
		trailer int
		sized   mib.FailCause // with a server that reports the size, noticed before
		unsized mib.FailCause // with one that does not
		before  bool          // also without the size
	}{
		{"signature first", func(m []imagetest.Member) []imagetest.Member { m[0], m[1] = m[1], m[0]; return m }, imagetest.TrailerSize, mib.FailCauseBadFormat, mib.FailCauseBadFormat, true},
		{"payload first", func(m []imagetest.Member) []imagetest.Member { m[0], m[2] = m[2], m[0]; return m }, imagetest.TrailerSize, mib.FailCauseBadFormat, mib.FailCauseBadFormat, true},
		{"member before all", insert(0), imagetest.TrailerSize, mib.FailCauseBadFormat, mib.FailCauseBadFormat, true},
		{"member before the signature", insert(1), imagetest.TrailerSize, mib.FailCauseBadFormat, mib.FailCauseBadFormat, true},
		{"member before the payloads", insert(2), imagetest.TrailerSize, mib.FailCauseSizeMismatch, mib.FailCauseBadFormat, false},
		{"member between payloads", insert(4), imagetest.TrailerSize, mib.FailCauseSizeMismatch, mib.FailCauseBadFormat, false},
		{"member at the end", insert(6), imagetest.TrailerSize, mib.FailCauseSizeMismatch, mib.FailCauseBadFormat, false},
		{"manifest twice", func(m []imagetest.Member) []imagetest.Member { return slices.Insert(m, 1, m[0]) }, imagetest.TrailerSize, mib.FailCauseBadFormat, mib.FailCauseBadFormat, true},
		{"payload twice", func(m []imagetest.Member) []imagetest.Member { return slices.Insert(m, 3, m[2]) }, imagetest.TrailerSize, mib.FailCauseSizeMismatch, mib.FailCauseBadFormat, false},
		{"payload missing", func(m []imagetest.Member) []imagetest.Member { return slices.Delete(m, 3, 4) }, imagetest.TrailerSize, mib.FailCauseSizeMismatch, mib.FailCauseBadFormat, false},
		{"no payloads", func(m []imagetest.Member) []imagetest.Member { return m[:2] }, imagetest.TrailerSize, mib.FailCauseSizeMismatch, mib.FailCauseBadFormat, false},
		{"no end", func(m []imagetest.Member) []imagetest.Member { return m }, 0, mib.FailCauseSizeMismatch, mib.FailCauseSizeMismatch, false},
		{"half an end", func(m []imagetest.Member) []imagetest.Member { return m }, imagetest.BlockSize, mib.FailCauseSizeMismatch, mib.FailCauseSizeMismatch, false},
		{"longer end", func(m []imagetest.Member) []imagetest.Member { return m }, imagetest.TrailerSize + imagetest.BlockSize, mib.FailCauseSizeMismatch, mib.FailCauseSizeMismatch, false},
		{"empty", func([]imagetest.Member) []imagetest.Member { return nil }, 0, mib.FailCauseSizeMismatch, mib.FailCauseSizeMismatch, true},
		{"only an end", func([]imagetest.Member) []imagetest.Member { return nil }, imagetest.TrailerSize, mib.FailCauseBadFormat, mib.FailCauseBadFormat, true},
		{"payloads in another order", func(m []imagetest.Member) []imagetest.Member { m[3], m[5] = m[5], m[3]; return m }, imagetest.TrailerSize, mib.FailCauseBadFormat, mib.FailCauseBadFormat, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			img := imagetest.Join(test.change(p.Members()), test.trailer)
			src := serve("fw.iad", img)
			refused(t, src, "fw.iad", test.sized, test.sized == mib.FailCauseSizeMismatch || test.before)
			src.unsized = true
			refused(t, src, "fw.iad", test.unsized, test.before)
		})
	}
	t.Run("padding", func(t *testing.T) {
		img := p.Tar()
		end := p.Offset(0) - 1
		img[end] = 1
		refused(t, serve("fw.iad", img), "fw.iad", mib.FailCauseBadFormat, true)
	})
	t.Run("payload padding", func(t *testing.T) {
		img := p.Tar()
		img[p.Offset(1)-1] = 1
		refused(t, serve("fw.iad", img), "fw.iad", mib.FailCauseBadFormat, false)
	})
}

// TestEveryFlippedBit flips bits all over the image.
func TestEveryFlippedBit(t *testing.T) {
	p := imagetest.TakeApart(t, "2.0.0")
	img := p.Tar()
	stride := 97
	if iadtest.RaceDetector {
		stride = 997
	}
	for at := 0; at < len(img); at += stride {
		bad := slices.Clone(img)
		bad[at] ^= 1 << (at % 8)
		opt := device(t)
		b, _ := boot(t, opt)
		_, err := b.Install(context.Background(), serve("fw.iad", bad), "fw.iad", InstallOptions{})
		var e *Error
		if !errors.As(err, &e) {
			// What the signature does not cover is its own untrusted comment.
			if at > imagetest.BlockSize+len(p.Head.Raw) && int64(at) < p.Offset(0) {
				continue
			}
			t.Fatalf("byte %d: %v", at, err)
		}
		if int64(at) >= p.Offset(0) && e.Code != mib.FailCauseDigestMismatch && e.Code != mib.FailCauseBadFormat {
			t.Errorf("byte %d: %v", at, err)
		}
		if s := b.Status(); s.Next != 1 || s.Banks[1].State >= mib.BankStateReady {
			t.Errorf("byte %d: %+v", at, s)
		}
	}
}

// TestEveryTruncation cuts the image at many places.
func TestEveryTruncation(t *testing.T) {
	img := imagetest.TakeApart(t, "2.0.0").Tar()
	for n := 0; n < len(img); n += 509 {
		opt := device(t)
		b, _ := boot(t, opt)
		src := serve("fw.iad", img[:n])
		src.unsized = true
		_, err := b.Install(context.Background(), src, "fw.iad", InstallOptions{})
		var e *Error
		if !errors.As(err, &e) || e.Code != mib.FailCauseSizeMismatch {
			t.Errorf("cut to %d bytes: %v", n, err)
		}
		if s := b.Status(); s.Next != 1 || s.Banks[1].State >= mib.BankStateReady {
			t.Errorf("cut to %d bytes: %+v", n, s)
		}
	}
}

// TestReplay offers a properly signed image of old software.
func TestReplay(t *testing.T) {
	refused(t, serve("fw.iad", imagetest.TakeApart(t, "0.9.0").Tar()), "fw.iad", mib.FailCauseDowngradeRefused, true)
}

// TestTamperedSplitPayload changes payloads of the split form.
func TestTamperedSplitPayload(t *testing.T) {
	p := imagetest.TakeApart(t, "2.0.0")
	for name, test := range map[string]struct {
		change  func(s *server)
		unsized bool
		want    mib.FailCause
	}{
		"flipped bit":                  {func(s *server) { s.files["dir/app"][5] ^= 1 }, false, mib.FailCauseDigestMismatch},
		"short":                        {func(s *server) { s.files["dir/app"] = s.files["dir/app"][1:] }, false, mib.FailCauseSizeMismatch},
		"long":                         {func(s *server) { s.files["dir/app"] = append(s.files["dir/app"], 0) }, false, mib.FailCauseSizeMismatch},
		"short, size not reported":     {func(s *server) { s.files["dir/app"] = s.files["dir/app"][1:] }, true, mib.FailCauseSizeMismatch},
		"long, size not reported":      {func(s *server) { s.files["dir/app"] = append(s.files["dir/app"], 0) }, true, mib.FailCauseSizeMismatch},
		"empty one long, size unknown": {func(s *server) { s.files["dir/empty"] = []byte{1} }, true, mib.FailCauseSizeMismatch},
	} {
		t.Run(name, func(t *testing.T) {
			src := split(p)
			for name, data := range src.files {
				src.files[name] = slices.Clone(data)
			}
			test.change(src)
			src.unsized = test.unsized
			refused(t, src, "dir/manifest.json", test.want, false)
		})
	}
}
