package bank

import (
	"bytes"
	"errors"
	"testing"

	"example.com/iad/internal/durable"
	"example.com/iad/mib"
)

// framed wraps the content of a boot record as it lies on the medium.
func framed(payload []byte) []byte {
	return durable.EncodeFrame(recordMagic, recordVersion, 1, payload)
}

// FuzzManifest: what is accepted is well-formed and survives being written again.
func FuzzManifest(f *testing.F) {
	f.Add(takeApart(f, "2.0.0").head.raw)
	f.Add([]byte(`{"format":1}`))
	f.Add([]byte(`{"format":1,"version":"1.0.0","hardware":["x"],"config_format":1,"payloads":[{"name":"a","size":0,"sha256":"","mode":"0644"}]}`))
	f.Add([]byte(`[[[[[[`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := ParseManifest(data)
		if err != nil {
			if causeOf(err) != mib.FailCauseBadFormat {
				t.Errorf("cause %d: %v", causeOf(err), err)
			}
			return
		}
		raw, err := m.marshal()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseManifest(raw); err != nil && len(raw) <= MaxManifest {
			t.Errorf("written again it is refused: %v\n%s", err, raw)
		}
		for _, p := range m.Payloads {
			if CheckName(p.Name) != nil || p.Size < 0 {
				t.Errorf("accepted %+v", p)
			}
		}
	})
}

// FuzzArchive: an image is read to its end or refused; what is accepted is the only
// way to write its content.
func FuzzArchive(f *testing.F) {
	var small bytes.Buffer
	if err := Build(&small, Manifest{Version: "1.0.0", Hardware: []string{"x"}, ConfigFormat: 1}, payloads("1.0.0")[1:], testKey); err != nil {
		f.Fatal(err)
	}
	f.Add(small.Bytes())
	f.Add(small.Bytes()[:1000])
	f.Add(make([]byte, trailerSize))
	f.Fuzz(func(t *testing.T, data []byte) {
		i, err := Inspect(bytes.NewReader(data))
		if err != nil {
			var e *Error
			if !errors.As(err, &e) {
				t.Errorf("an error without a cause: %v", err)
			}
			return
		}
		if i.Size != int64(len(data)) {
			t.Errorf("%d octets accepted as %d", len(data), i.Size)
		}
	})
}

// FuzzBootRecord: what is accepted is within its ranges and decides without harm.
func FuzzBootRecord(f *testing.F) {
	f.Add(encodeRecord(Record{Next: 1, Banks: [2]BankRecord{{State: StateGood}, {State: StateEmpty}}}))
	f.Add(encodeRecord(Record{Next: 2, Running: 1, Fallback: 1, Floor: "1.0.0", Banks: [2]BankRecord{{State: StateGood}, {State: StateTrial, TriesLeft: 3}}}))
	f.Add([]byte(`{"next":7}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := decodeRecord(data)
		if err != nil {
			return
		}
		again, err := decodeRecord(encodeRecord(r))
		if err != nil || again != r {
			t.Errorf("written and read again: %+v, %v", again, err)
		}
		d := Decide(r, [2]CheckResult{{Found: FoundComplete}, {Found: FoundDamaged}})
		if d.Bank != 1 || d.Record.check() != nil {
			t.Errorf("%+v", d)
		}
	})
}

// FuzzSignature: nothing but the maker's signature is accepted.
func FuzzSignature(f *testing.F) {
	p := takeApart(f, "2.0.0")
	f.Add(p.head.signature)
	f.Add([]byte("untrusted comment: \n\ntrusted comment: \n"))
	f.Fuzz(func(t *testing.T, signature []byte) {
		err := verifyManifest(p.head.raw, signature, trusted(testKey))
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
	pub, priv, err := KeyGen("")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(pub)
	f.Add(priv)
	f.Fuzz(func(t *testing.T, data []byte) {
		_, _ = ReadPublicKey(data)
		if !KeyEncrypted(data) { // decrypting takes a second
			_, _ = ReadPrivateKey(data, "")
		}
	})
}
