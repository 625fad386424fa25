package image

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"aead.dev/minisign"

	"example.com/iad/mib"
)

// Keys and signatures are minisign's (https://jedisct1.github.io/minisign/): they
// interchange with the minisign tool.

// GenerateKey makes a new key pair as minisign writes them: pub for NAME.pub, priv for
// NAME.key. priv is encrypted with password unless that is "".
func GenerateKey(password string) (pub, priv []byte, err error) {
	public, private, err := minisign.GenerateKey(nil)
	if err != nil {
		return nil, nil, err
	}
	if pub, err = public.MarshalText(); err != nil {
		return nil, nil, err
	}
	if password == "" {
		priv, err = private.MarshalText()
	} else {
		priv, err = minisign.EncryptKey(password, private)
	}
	if err != nil {
		return nil, nil, err
	}
	// The minisign tool wants whole lines.
	return append(pub, '\n'), append(priv, '\n'), nil
}

// KeyEncrypted reports whether a private key file needs a password.
func KeyEncrypted(data []byte) bool { return minisign.IsEncrypted(trimKey(data)) }

// ReadPrivateKey reads a private key file of minisign. password is used only if
// the key is encrypted.
func ReadPrivateKey(data []byte, password string) (minisign.PrivateKey, error) {
	data = trimKey(data)
	if minisign.IsEncrypted(data) {
		key, err := minisign.DecryptKey(password, data)
		if err != nil {
			return minisign.PrivateKey{}, fmt.Errorf("private key: wrong password or damaged file: %w", err)
		}
		return key, nil
	}
	var key minisign.PrivateKey
	if err := key.UnmarshalText(data); err != nil {
		return minisign.PrivateKey{}, fmt.Errorf("private key: %w", err)
	}
	return key, nil
}

// ErrPrivateKey is wrapped by the error of ReadPublicKey for a private key.
var ErrPrivateKey = errors.New("that is a private key; name the public key, and keep this one away from devices")

// ReadPublicKey reads a public key: a file of minisign or its second line alone.
func ReadPublicKey(data []byte) (minisign.PublicKey, error) {
	var key minisign.PublicKey
	data = trimKey(data)
	if isPrivateKey(data) {
		return key, ErrPrivateKey
	}
	if err := key.UnmarshalText(data); err != nil {
		return minisign.PublicKey{}, fmt.Errorf("public key: %w", err)
	}
	return key, nil
}

// isPrivateKey reports whether data looks like a private key, also a damaged one or
// one of another program.
func isPrivateKey(data []byte) bool {
	for line := range bytes.Lines(data) {
		line = bytes.TrimSpace(line)
		if bytes.HasPrefix(line, []byte("-----BEGIN ")) && bytes.Contains(line, []byte("PRIVATE KEY")) {
			return true
		}
		// Minisign's: "Ed", then the key derivation, "Sc" or none, then "B2". A
		// public key has a random number there.
		raw := make([]byte, base64.StdEncoding.DecodedLen(len(line)))
		n, _ := base64.StdEncoding.Decode(raw, line)
		if raw = raw[:n]; bytes.HasPrefix(raw, []byte("EdScB2")) || bytes.HasPrefix(raw, []byte("Ed\x00\x00B2")) {
			return true
		}
	}
	return false
}

// trimKey accepts the line ends and the byte order mark of other systems' editors.
func trimKey(data []byte) []byte {
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	return bytes.TrimSpace(bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n")))
}

// SignManifest signs the bytes of a manifest with keys. The trusted comment, which the
// signature of the first key covers too, says what was signed; the device ignores it.
func SignManifest(manifest []byte, trustedComment string, keys ...minisign.PrivateKey) ([]byte, error) {
	return addSignatures(nil, manifest, trustedComment, keys)
}

// addSignatures adds signatures of message by keys to a file of signatures, which may be
// empty. A signature by the same key is replaced.
//
// The file is one of minisign's, with the first signature. Others follow in its untrusted
// comment: so programs that know one signature read the first one.
func addSignatures(file, message []byte, trustedComment string, keys []minisign.PrivateKey) ([]byte, error) {
	if strings.ContainsAny(trustedComment, "\r\n") {
		return nil, fmt.Errorf("sign: the trusted comment must be one line")
	}
	var all []minisign.Signature
	if len(file) > 0 {
		var err error
		if all, err = parseSignatures(file); err != nil {
			return nil, err
		}
	}
	r := minisign.NewReader(bytes.NewReader(message))
	if _, err := io.Copy(io.Discard, r); err != nil {
		return nil, err
	}
	for _, key := range keys {
		at := slices.IndexFunc(all, func(s minisign.Signature) bool { return s.KeyID == key.ID() })
		if at < 0 {
			at, all = len(all), append(all, minisign.Signature{})
		}
		comment := ""
		if at == 0 {
			comment = trustedComment
		}
		if err := all[at].UnmarshalText(r.SignWithComments(key, comment, "")); err != nil {
			return nil, err
		}
	}
	if len(all) == 0 {
		return nil, errors.New("sign: no key")
	}
	comment := "signature from " + keyName(all[0].KeyID)
	for i, s := range all[1:] {
		if i == 0 {
			comment += moreSignatures
		}
		comment += " " + encodeSignature(&s)
	}
	all[0].UntrustedComment = comment
	text, err := all[0].MarshalText()
	if err == nil && len(text) > MaxSignature {
		err = fmt.Errorf("%d signatures take %d bytes, %d at most", len(all), len(text), MaxSignature)
	}
	return text, err
}

// moreSignatures comes before the other signatures in an untrusted comment.
const moreSignatures = "; also"

// sizes of what is in a signature, in bytes
const (
	algorithmSize = 2
	signatureHead = algorithmSize + 8 // and the key's ID
	signatureSize = signatureHead + 2*ed25519.SignatureSize
)

// encodeSignature writes a signature as one word: algorithm, key ID, signature, signature of
// the trusted comment, and the comment.
func encodeSignature(s *minisign.Signature) string {
	b := binary.LittleEndian.AppendUint16(nil, s.Algorithm)
	b = binary.LittleEndian.AppendUint64(b, s.KeyID)
	b = append(append(b, s.Signature[:]...), s.CommentSignature[:]...)
	return base64.StdEncoding.EncodeToString(append(b, s.TrustedComment...))
}

func decodeSignature(word string) (s minisign.Signature, ok bool) {
	b, err := base64.StdEncoding.DecodeString(word)
	if err != nil || len(b) < signatureSize {
		return s, false
	}
	s.Algorithm = binary.LittleEndian.Uint16(b)
	s.KeyID = binary.LittleEndian.Uint64(b[algorithmSize:])
	b = b[signatureHead:]
	b = b[copy(s.Signature[:], b):]
	s.TrustedComment = string(b[copy(s.CommentSignature[:], b):])
	return s, true
}

// parseSignatures reads a file of signatures.
func parseSignatures(file []byte) ([]minisign.Signature, error) {
	var first minisign.Signature
	if err := first.UnmarshalText(file); err != nil {
		return nil, &Error{Code: mib.FailCauseSignatureInvalid, Text: "not a minisign signature", Err: err}
	}
	all := []minisign.Signature{first}
	// What cannot be read there may be somebody's comment.
	_, more, _ := strings.Cut(first.UntrustedComment, moreSignatures)
	for _, word := range strings.Fields(more) {
		if s, ok := decodeSignature(word); ok {
			all = append(all, s)
		}
	}
	return all, nil
}

func keyName(id uint64) string { return fmt.Sprintf("minisign key %016X", id) }

// VerifySignature verifies the signatures by the keys of trust. Causes: signerUntrusted if
// too few of them signed, signatureInvalid if it is not a signature of this manifest.
func (h *Head) VerifySignature(trust *Trust) error {
	return verifySignatures("the manifest", h.Raw, h.Signature, trust.Keys, trust.Threshold)
}

// verifySignatures verifies that threshold of keys, and at least one, signed message.
func verifySignatures(what string, message, file []byte, keys []Key, threshold int) error {
	good, others, err := signaturesBy(keys, message, file)
	if err != nil {
		return err
	}
	switch {
	case len(good) >= max(threshold, 1):
		return nil
	case len(good) > 0:
		return refuse(mib.FailCauseSignerUntrusted, "%s is signed by %d of the keys that are trusted here, and %d must sign", what, len(good), threshold)
	case slices.ContainsFunc(keys, func(k Key) bool { return k.ID() == others[0] }):
		return refuse(mib.FailCauseSignatureInvalid, "the signature by %s does not match %s", keyName(others[0]), what)
	}
	return refuse(mib.FailCauseSignerUntrusted, "%s is signed by %s, which is not trusted here", what, keyName(others[0]))
}

// signaturesBy returns the signatures of a message, at most one by each of keys, that are in a
// file and verify. others are the IDs of the keys that the other signatures there name, first those
// of keys.
func signaturesBy(keys []Key, message, file []byte) (good []minisign.Signature, others []uint64, err error) {
	all, err := parseSignatures(file)
	if err != nil {
		return nil, nil, err
	}
	var unknown []uint64
	for _, key := range keys {
		for i := range all {
			if all[i].KeyID != key.ID() {
				continue
			}
			if text, err := all[i].MarshalText(); err == nil && minisign.Verify(key.PublicKey, message, text) {
				good = append(good, all[i])
				break
			}
			others = append(others, key.ID())
		}
	}
	for i := range all {
		if !slices.ContainsFunc(keys, func(k Key) bool { return k.ID() == all[i].KeyID }) {
			unknown = append(unknown, all[i].KeyID)
		}
	}
	return good, append(others, unknown...), nil
}
