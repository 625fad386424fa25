package image_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"aead.dev/minisign"
	"github.com/spf13/afero"

	"example.com/iad/bank/image"
	"example.com/iad/internal/imagetest"
	"example.com/iad/internal/peers"
	"example.com/iad/mib"
)

// ring are keys that tests name by letters.
var ring = func() map[rune]minisign.PrivateKey {
	keys := map[rune]minisign.PrivateKey{'k': imagetest.Key}
	for i, r := range "ABCDxyz" {
		_, key, err := minisign.GenerateKey(bytes.NewReader(bytes.Repeat([]byte{byte(50 + i)}, 64)))
		if err != nil {
			panic(err)
		}
		keys[r] = key
	}
	return keys
}()

func public(names string) (keys []image.Key) {
	for _, r := range names {
		keys = append(keys, image.Key{PublicKey: ring[r].Public().(minisign.PublicKey)})
	}
	return keys
}

func private(names string) (keys []minisign.PrivateKey) {
	for _, r := range names {
		keys = append(keys, ring[r])
	}
	return keys
}

// A doc describes a trust document: "AB/2 x/1 by kAB".
func document(t testing.TB, serial uint32, text string) []byte {
	t.Helper()
	var roots, keys, by string
	var d image.Trust
	text = strings.NewReplacer("/", " ").Replace(text)
	if _, err := fmt.Sscanf(text, "%s %d %s %d by %s", &roots, &d.RootThreshold, &keys, &d.Threshold, &by); err != nil {
		t.Fatal(text, err)
	}
	d.Format, d.Serial, d.Roots, d.Keys = image.TrustFormat, serial, public(roots), public(keys)
	signed, err := d.Sign(private(by)...)
	if err != nil {
		t.Fatal(err)
	}
	return signed.Record()
}

// chainOf joins documents with serials from first on.
func chainOf(t testing.TB, first uint32, docs ...string) (chain []byte) {
	t.Helper()
	for i, text := range docs {
		chain = append(chain, document(t, first+uint32(i), text)...)
	}
	return chain
}

// carrying builds an image in tar form that carries a chain, signed by keys.
func carrying(t testing.TB, chain []byte, by string) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := image.Build(&b, imagetest.Manifest("2.0.0"), imagetest.WithChain(imagetest.Payloads("2.0.0"), chain), private(by)...); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestTrustChain(t *testing.T) {
	// A device has the key k, or followed the chain "first" from there.
	first := chainOf(t, 1, "ABC/2 x/1 by kAB")
	second := func(text string) []byte { return slices.Concat(first, document(t, 2, text)) }
	for name, c := range map[string]struct {
		held, chain []byte
		by          string
		serial      uint32 // that holds afterwards
		cause       mib.FailCause
	}{
		"key alone":                         {nil, nil, "k", 0, 0},
		"key alone, another signer":         {nil, nil, "x", 0, mib.FailCauseSignerUntrusted},
		"first document":                    {nil, first, "x", 1, 0},
		"first document, for old devices":   {nil, first, "kx", 1, 0},
		"first document, removed signer":    {nil, first, "k", 0, mib.FailCauseSignerUntrusted},
		"first document by a stranger":      {nil, chainOf(t, 1, "ABC/2 x/1 by yAB"), "x", 0, mib.FailCauseSignerUntrusted},
		"first document by one root":        {nil, chainOf(t, 1, "ABC/2 x/1 by kA"), "x", 0, mib.FailCauseSignerUntrusted},
		"two documents at once":             {nil, second("ABC/2 y/1 by BC"), "y", 2, 0},
		"held, no chain":                    {first, nil, "x", 1, 0},
		"held, no chain, old key":           {first, nil, "k", 1, mib.FailCauseSignerUntrusted},
		"held, the same chain":              {first, first, "x", 1, 0},
		"key rotated":                       {first, second("ABC/2 y/1 by AC"), "y", 2, 0},
		"key rotated, old key":              {first, second("ABC/2 y/1 by AC"), "x", 1, mib.FailCauseSignerUntrusted},
		"root lost and replaced":            {first, second("ABD/2 x/1 by ABD"), "x", 2, 0},
		"all roots replaced":                {first, second("D/1 x/1 by ABD"), "x", 2, 0},
		"new roots by their own only":       {first, second("D/1 x/1 by D"), "x", 1, mib.FailCauseSignerUntrusted},
		"new roots by the old only":         {first, second("D/1 x/1 by AB"), "x", 1, mib.FailCauseSignerUntrusted},
		"signing key must not rotate":       {first, second("ABC/2 y/1 by xA"), "y", 1, mib.FailCauseSignerUntrusted},
		"one root signs twice":              {first, second("ABC/2 y/1 by AA"), "y", 1, mib.FailCauseSignerUntrusted},
		"replayed chain, old key":           {second("ABC/2 y/1 by AC"), first, "x", 2, mib.FailCauseSignerUntrusted},
		"older image, key still good":       {second("ABC/2 xy/1 by AC"), first, "x", 2, 0},
		"another document with that serial": {first, chainOf(t, 1, "ABC/2 y/1 by kAB"), "y", 1, mib.FailCauseSignatureInvalid},
		"documents missing":                 {first, document(t, 3, "ABC/2 y/1 by AB"), "y", 1, mib.FailCausePreconditionMissing},
		"two must sign, one did":            {nil, chainOf(t, 1, "AB/1 xy/2 by kA"), "x", 0, mib.FailCauseSignerUntrusted},
		"two must sign, and did":            {nil, chainOf(t, 1, "AB/1 xyz/2 by kA"), "kzx", 1, 0},
		"two must sign, the same one did":   {nil, chainOf(t, 1, "AB/1 xy/2 by kA"), "xx", 0, mib.FailCauseSignerUntrusted},
		"not a chain":                       {nil, []byte("{}\n"), "x", 0, mib.FailCauseBadFormat},
	} {
		t.Run(name, func(t *testing.T) {
			trust := image.TrustKeys(public("k")[0].PublicKey)
			if c.held != nil {
				chain, err := image.ParseChain(c.held)
				if err != nil {
					t.Fatal(err)
				}
				if trust, err = chain.Follow(trust); err != nil {
					t.Fatal(err)
				}
			}
			img := carrying(t, c.chain, c.by)
			f := image.NewReader(t.Context(), reading{img}, "fw.iad")
			if err := f.ReadHead(); err != nil {
				t.Fatal(err)
			}
			got, err := f.Verify(trust)
			if causeOf(err) != c.cause || c.cause == 0 && err != nil {
				t.Errorf("%v; want cause %d", err, c.cause)
			}
			if got.Serial != max(c.serial, trust.Serial) {
				t.Errorf("serial %d holds, want %d", got.Serial, c.serial)
			}
			if _, err := image.Verify(bytes.NewReader(img), trust); causeOf(err) != c.cause {
				t.Errorf("Verify: %v; want cause %d", err, c.cause)
			}
			fs := afero.NewMemMapFs()
			if err := image.BuildSplit(fs, "dir", imagetest.Manifest("2.0.0"), imagetest.WithChain(imagetest.Payloads("2.0.0"), c.chain), private(c.by)...); err != nil {
				t.Fatal(err)
			}
			if _, err := image.VerifySplit(fs, "dir/"+image.ManifestName, trust); causeOf(err) != c.cause {
				t.Errorf("VerifySplit: %v; want cause %d", err, c.cause)
			}
		})
	}
}

// reading is the Source of one file, which it cannot open in the middle.
type reading struct{ data []byte }

func (s reading) Open(_ context.Context, _ string, offset int64) (io.ReadCloser, int64, error) {
	if offset != 0 {
		return nil, 0, image.ErrNoResume
	}
	return io.NopCloser(bytes.NewReader(s.data)), int64(len(s.data)), nil
}

// Whoever carries the files may change every byte of a chain, and of the signatures.
func TestTrustChainChanged(t *testing.T) {
	trust := image.TrustKeys(public("k")[0].PublicKey)
	good := chainOf(t, 1, "ABC/2 x/1 by kAB", "ABC/2 y/1 by AB")
	for i := range good {
		bad := slices.Clone(good)
		bad[i] ^= 1
		chain, err := image.ParseChain(bad)
		if err != nil {
			if causeOf(err) != mib.FailCauseBadFormat {
				t.Errorf("byte %d: %v", i, err)
			}
			continue
		}
		if got, err := chain.Follow(trust); err == nil && !bytes.Equal(signedLines(got.Record()), signedLines(document(t, 2, "ABC/2 y/1 by AB"))) {
			t.Errorf("byte %d: holds %q", i, got.Record())
		}
	}
}

// TestTrustKeyTwice: a key under two IDs is one key, and two keys under one ID are not told apart: neither makes two signers.
func TestTrustKeyTwice(t *testing.T) {
	under := func(key, id rune) image.Key {
		text, err := base64.StdEncoding.DecodeString(public(string(key))[0].String())
		if err != nil {
			t.Fatal(err)
		}
		other, err := base64.StdEncoding.DecodeString(public(string(id))[0].String())
		if err != nil {
			t.Fatal(err)
		}
		copy(text[2:10], other[2:10])
		var k image.Key
		if err := k.UnmarshalText([]byte(base64.StdEncoding.EncodeToString(text))); err != nil {
			t.Fatal(err)
		}
		return k
	}
	for name, keys := range map[string][]image.Key{
		"one key, two IDs": {under('x', 'x'), under('x', 'y')},
		"two keys, one ID": {under('x', 'x'), under('y', 'x')},
	} {
		for _, roots := range []bool{false, true} {
			d := image.Trust{Format: image.TrustFormat, Serial: 1, RootThreshold: 1, Threshold: 1, Roots: public("A"), Keys: public("z")}
			if roots {
				d.Roots, d.RootThreshold = keys, 2
			} else {
				d.Keys, d.Threshold = keys, 2
			}
			signed, err := d.Sign(private("kA")...)
			if err == nil {
				_, err = image.ParseChain(signed.Record())
			}
			if err == nil || !strings.Contains(err.Error(), "twice") {
				t.Errorf("%s, roots %v: %v", name, roots, err)
			}
		}
	}
}

// signedLines is a document without its signatures, of which the comments may change.
func signedLines(record []byte) []byte { return record[:bytes.IndexByte(record, '\n')] }

// TestSeveralSignaturesForMinisign: the minisign program, and devices that know one
// signature, read the first one.
func TestSeveralSignaturesForMinisign(t *testing.T) {
	program := peers.Find(t, "minisign")
	h := image.NewHead([]byte("manifest\n"), nil)
	signed, err := image.SignManifest(h.Raw, "test", private("xyzA")...)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, data := range map[string][]byte{"m": h.Raw, "m.minisig": signed} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for who, want := range map[rune]bool{'x': true, 'y': false} {
		cmd := exec.CommandContext(t.Context(), program, "-V", "-m", "m", "-P", public(string(who))[0].String())
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); (err == nil) != want {
			t.Errorf("%c: %v\n%s", who, err, out)
		}
	}
	var first minisign.Signature
	if err := first.UnmarshalText(signed); err != nil || !minisign.Verify(public("x")[0].PublicKey, h.Raw, signed) {
		t.Errorf("a program that knows one signature: %v", err)
	}
}

func FuzzTrustChain(f *testing.F) {
	f.Add(chainOf(f, 1, "ABC/2 x/1 by kAB"))
	f.Add(chainOf(f, 1, "ABC/2 x/1 by kAB", "ABD/2 yz/2 by ABD"))
	f.Add([]byte(`{"format":1,"serial":1,"roots":null,"root_threshold":1,"keys":[],"threshold":1}` + "\n"))
	trust := image.TrustKeys(public("k")[0].PublicKey)
	f.Fuzz(func(t *testing.T, data []byte) {
		chain, err := image.ParseChain(data)
		if err != nil {
			if causeOf(err) != mib.FailCauseBadFormat {
				t.Fatal(err)
			}
			return
		}
		var again []byte
		for _, d := range chain {
			again = append(again, d.Record()...)
		}
		if !bytes.Equal(again, data) {
			t.Errorf("%q is read as %q", data, again)
		}
		if got, err := chain.Follow(trust); err == nil && (got.Serial == 0) {
			t.Errorf("%q holds", data)
		} else if causeOf(err) == 0 && err != nil {
			t.Errorf("an error without a cause: %v", err)
		}
	})
}
