package image

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"

	"aead.dev/minisign"

	"example.com/iad/mib"
)

// Names and bounds of trust documents.
const (
	// TrustName is the payload with the chain of trust documents that an image carries. It is
	// the first payload, a file of the bank, and has no encodings.
	TrustName = "trust.chain"
	// TrustFormat is the format of trust documents.
	TrustFormat = 1

	// MaxTrustChain bounds a chain in bytes, MaxTrustDocuments the documents in it.
	MaxTrustChain     = 64 << 10
	MaxTrustDocuments = 16
	// MaxTrustKeys bounds the roots and the keys of a document, MaxThreshold the number of
	// them that must sign.
	MaxTrustKeys = 8
	MaxThreshold = 4
)

// A Trust says who may sign software, and who may change that. It is a trust document, or
// comes from public keys alone, see [TrustKeys].
type Trust struct {
	Format int `json:"format"`
	// Serial numbers the documents of a chain without gaps, from 1 on; 0 for public keys
	// alone. No device goes back to a lower one.
	Serial uint32 `json:"serial"`
	// Roots sign this document, RootThreshold of them, and the next one.
	Roots         []Key `json:"roots"`
	RootThreshold int   `json:"root_threshold"`
	// Keys sign the manifests of images, Threshold of them.
	Keys      []Key `json:"keys"`
	Threshold int   `json:"threshold"`

	document   []byte // the line that the signatures cover
	signatures []byte
}

// A Key is a public key, in JSON the second line of minisign's file.
type Key struct{ minisign.PublicKey }

// MarshalText writes the key as one line.
func (k Key) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// Name is how texts refer to the key.
func (k Key) Name() string { return keyName(k.ID()) }

// TrustKeys is the trust of a device that has public keys alone: each may sign software, and
// each may sign the first trust document.
func TrustKeys(keys ...minisign.PublicKey) *Trust {
	t := &Trust{RootThreshold: 1, Threshold: 1}
	for _, k := range keys {
		t.Keys = append(t.Keys, Key{k})
	}
	t.Roots = t.Keys
	return t
}

// With returns what holds with the content of another file: a public key, which is trusted
// too, or a trust chain, whose last document holds in place of public keys and of older
// documents. Its signatures by its own roots are verified.
func (t *Trust) With(file []byte) (*Trust, error) {
	if !bytes.HasPrefix(file, []byte("{")) {
		key, err := ReadPublicKey(file)
		if err != nil || t.Serial > 0 {
			return t, err
		}
		keys := append(slices.Clone(t.Keys), Key{key})
		return &Trust{RootThreshold: 1, Threshold: 1, Keys: keys, Roots: keys}, nil
	}
	chain, err := ParseChain(file)
	if err != nil {
		return t, err
	}
	last := chain.Last()
	if err := last.verify(last); err != nil {
		return t, err
	}
	if last.Serial < t.Serial {
		last = t
	}
	return last, nil
}

// Record returns the document and its signatures as they stand in a chain.
func (t *Trust) Record() []byte { return slices.Concat(t.document, t.signatures) }

// A Chain is a series of trust documents whose serials ascend by one. In a file, each is a
// line of JSON, followed by its signatures in the form of those of a manifest.
type Chain []*Trust

// ParseChain reads a chain and verifies no signature. Cause: badFormat.
func ParseChain(data []byte) (Chain, error) {
	c, err := parseChain(data)
	if err != nil {
		return nil, &Error{Code: mib.FailCauseBadFormat, Text: "the trust documents are not valid", Err: err}
	}
	return c, nil
}

func parseChain(data []byte) (c Chain, err error) {
	if len(data) == 0 || len(data) > MaxTrustChain {
		return nil, fmt.Errorf("%d bytes, 1 to %d wanted", len(data), MaxTrustChain)
	}
	for len(data) > 0 {
		line := data[:bytes.IndexByte(data, '\n')+1]
		t, err := parseTrust(line)
		if err != nil {
			return nil, fmt.Errorf("document %d: %w", len(c)+1, err)
		}
		data = data[len(line):]
		// No line of a signature begins with a brace.
		if next := bytes.Index(slices.Concat([]byte("\n"), data), []byte("\n{")); next >= 0 {
			t.signatures, data = data[:next], data[next:]
		} else {
			t.signatures, data = data, nil
		}
		switch {
		case len(t.signatures) > MaxSignature:
			return nil, fmt.Errorf("document %d: signatures of %d bytes, %d at most", len(c)+1, len(t.signatures), MaxSignature)
		case len(c) == MaxTrustDocuments:
			return nil, fmt.Errorf("more than %d documents", MaxTrustDocuments)
		case len(c) > 0 && t.Serial != c[len(c)-1].Serial+1:
			return nil, fmt.Errorf("serial %d follows %d", t.Serial, c[len(c)-1].Serial)
		}
		c = append(c, t)
	}
	return c, nil
}

// parseTrust reads a document, which must be written exactly as marshal writes it: so nothing
// in it can be read in two ways.
func parseTrust(line []byte) (*Trust, error) {
	t := new(Trust)
	if err := json.Unmarshal(line, t); err != nil {
		return nil, err
	}
	if t.Format != TrustFormat {
		return nil, fmt.Errorf("format %d; this software reads format %d", t.Format, TrustFormat)
	}
	if err := t.check(); err != nil {
		return nil, err
	}
	if err := t.marshal(); err != nil {
		return nil, err
	}
	if !bytes.Equal(t.document, line) {
		return nil, fmt.Errorf("serial %d is not written in the one way that is allowed", t.Serial)
	}
	return t, nil
}

func (t *Trust) marshal() error {
	line, err := json.Marshal(t)
	t.document = append(line, '\n')
	return err
}

// check judges the values.
func (t *Trust) check() error {
	if t.Serial == 0 {
		return fmt.Errorf("the serial must be 1 or more")
	}
	if err := checkKeys("roots", t.Roots, t.RootThreshold); err != nil {
		return err
	}
	return checkKeys("keys", t.Keys, t.Threshold)
}

// sameKey reports whether two keys are the same, whatever IDs their files give them.
func sameKey(a, b Key) bool {
	const id = 10 // algorithm and ID come first
	x, errX := base64.StdEncoding.DecodeString(a.String())
	y, errY := base64.StdEncoding.DecodeString(b.String())
	return errX == nil && errY == nil && len(x) > id && len(y) > id && bytes.Equal(x[id:], y[id:])
}

func checkKeys(what string, keys []Key, threshold int) error {
	if len(keys) == 0 || len(keys) > MaxTrustKeys {
		return fmt.Errorf("%d %s, 1 to %d wanted", len(keys), what, MaxTrustKeys)
	}
	if threshold < 1 || threshold > min(len(keys), MaxThreshold) {
		return fmt.Errorf("%d of %d %s must sign; 1 to %d wanted", threshold, len(keys), what, min(len(keys), MaxThreshold))
	}
	for i, k := range keys {
		if slices.ContainsFunc(keys[:i], func(o Key) bool { return sameKey(o, k) || o.ID() == k.ID() }) {
			return fmt.Errorf("%s is listed twice among the %s", k.Name(), what)
		}
	}
	return nil
}

// Last returns the newest document.
func (c Chain) Last() *Trust { return c[len(c)-1] }

// Follow returns what a device trusts that holds a document, or keys alone, once it has read
// the chain: the chain's last document, or held if that is newer. Each document must be
// signed by the roots of the one before and by its own. Causes: signerUntrusted,
// signatureInvalid; preconditionMissing if documents between held and the chain are missing.
func (c Chain) Follow(held *Trust) (*Trust, error) {
	for _, t := range c {
		switch {
		case t.Serial < held.Serial:
			continue
		case t.Serial == held.Serial:
			if !bytes.Equal(t.document, held.document) {
				return nil, refuse(mib.FailCauseSignatureInvalid, "trust document %d is not the one that is held here", t.Serial)
			}
			continue
		case t.Serial != held.Serial+1:
			return nil, refuse(mib.FailCausePreconditionMissing, "the trust documents begin with serial %d, and serial %d is held here: install software with the documents in between first", t.Serial, held.Serial)
		}
		if err := t.verify(held); err != nil {
			return nil, err
		}
		held = t
	}
	return held, nil
}

// verify verifies the signatures of a document by the roots of the one before and its own.
func (t *Trust) verify(before *Trust) error {
	what := fmt.Sprintf("trust document %d", t.Serial)
	if err := verifySignatures(what, t.document, t.signatures, before.Roots, before.RootThreshold); err != nil {
		return err
	}
	return verifySignatures(what, t.document, t.signatures, t.Roots, t.RootThreshold)
}

// errNoChain says that the image has no trust chain.
var errNoChain = errors.New("no trust chain")

// verifyChain verifies the signatures of the head and parses the manifest. read reads the
// trust chain: of an image that has one, and before the signer is called unknown.
func (h *Head) verifyChain(trust *Trust, read func() ([]byte, error)) (*Trust, error) {
	unknown := h.Verify(trust)
	if unknown == nil && h.Manifest.Payload(TrustName) == nil || unknown != nil && mib.CauseOf(unknown, 0) != mib.FailCauseSignerUntrusted {
		return trust, unknown
	}
	data, err := read()
	if err != nil {
		if unknown != nil && missing(err) {
			err = unknown
		}
		return trust, err
	}
	chain, err := ParseChain(data)
	if err != nil {
		return trust, err
	}
	next, err := chain.Follow(trust)
	if err != nil {
		return trust, err
	}
	if err := h.Verify(next); err != nil {
		if last := chain.Last().Serial; last < next.Serial {
			err = &Error{Code: mib.CauseOf(err, mib.FailCauseSignerUntrusted), Err: err,
				Text: fmt.Sprintf("its trust documents end with serial %d, and serial %d is held here", last, next.Serial)}
		}
		return trust, err
	}
	p := h.Manifest.Payload(TrustName)
	if p == nil {
		return trust, refuse(mib.FailCauseBadFormat, "the manifest does not name the trust chain of the image")
	}
	return next, hashPayload(io.Discard, bytes.NewReader(data), *p)
}

// missing reports whether an error means that the file does not exist.
func missing(err error) bool {
	cause := mib.CauseOf(err, 0)
	return errors.Is(err, errNoChain) || errors.Is(err, os.ErrNotExist) || cause == mib.FailCauseFileNotFound || cause == mib.FailCauseAccessDenied
}

// readTrustMember reads the header of the first payload in tar form and, if that is a trust
// chain, the payload. read is all that was read.
func readTrustMember(r io.Reader) (chain, read []byte, err error) {
	block := make([]byte, blockSize)
	if err := readFull(r, block); err != nil {
		return nil, nil, err
	}
	if name, _, _ := bytes.Cut(block, []byte{0}); string(name) != TrustName {
		return nil, block, errNoChain
	}
	size, err := strconv.ParseUint(string(block[124:135]), 8, 63)
	if err != nil || size > MaxTrustChain {
		return nil, nil, refuse(mib.FailCauseBadFormat, "%s is larger than %d bytes", TrustName, MaxTrustChain)
	}
	data := make([]byte, padded(int64(size)))
	if err := readFull(r, data); err != nil {
		return nil, nil, err
	}
	return data[:size], append(block, data...), nil
}

// Sign returns the document with signatures by keys besides those that it has. A signature by
// the same key is replaced. It is an error if the values of the document are not valid.
func (t *Trust) Sign(keys ...minisign.PrivateKey) (*Trust, error) {
	signed := *t
	if err := signed.check(); err != nil {
		return nil, err
	}
	if err := signed.marshal(); err != nil {
		return nil, err
	}
	if !bytes.Equal(signed.document, t.document) {
		signed.signatures = nil // of another document
	}
	var err error
	if len(keys) > 0 {
		signed.signatures, err = addSignatures(signed.signatures, signed.document, fmt.Sprintf("trust document %d", t.Serial), keys)
	}
	return &signed, err
}

// Next returns the document to change and sign as the next one of a chain.
func (t *Trust) Next() *Trust {
	next := *t
	next.Serial++
	next.Roots, next.Keys = slices.Clone(t.Roots), slices.Clone(t.Keys)
	next.document, next.signatures = nil, nil
	return &next
}

// SignedBy returns which of keys signed the document.
func (t *Trust) SignedBy(keys []Key) (signed []Key) {
	for _, k := range keys {
		if verifySignatures("", t.document, t.signatures, []Key{k}, 1) == nil {
			signed = append(signed, k)
		}
	}
	return signed
}

// SignatureIDs returns the IDs of the keys that the signatures name, unverified.
func (t *Trust) SignatureIDs() (ids []uint64) {
	all, err := parseSignatures(t.signatures)
	if err != nil {
		return nil
	}
	for _, s := range all {
		ids = append(ids, s.KeyID)
	}
	return ids
}

// Missing returns how many roots of the document before, and how many of its own, must still
// sign the last document.
func (c Chain) Missing() (before, own int) {
	last := c.Last()
	if len(c) > 1 {
		b := c[len(c)-2]
		before = max(0, b.RootThreshold-len(last.SignedBy(b.Roots)))
	}
	return before, max(0, last.RootThreshold-len(last.SignedBy(last.Roots)))
}
