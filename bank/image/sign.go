package image

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
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

// SignManifest signs the bytes of a manifest. The trusted comment, which the signature
// covers too, says what was signed; the device ignores it.
func SignManifest(manifest []byte, key minisign.PrivateKey, trustedComment string) ([]byte, error) {
	if strings.ContainsAny(trustedComment, "\r\n") {
		return nil, fmt.Errorf("sign: the trusted comment must be one line")
	}
	r := minisign.NewReader(bytes.NewReader(manifest))
	if _, err := io.Copy(io.Discard, r); err != nil {
		return nil, err
	}
	return r.SignWithComments(key, trustedComment, "signature from "+keyName(key.ID())), nil
}

func keyName(id uint64) string { return fmt.Sprintf("minisign key %016X", id) }

// VerifySignature verifies the signature by the keys in trust. Causes: signerUntrusted if
// none of them made it, signatureInvalid if it is not a signature of this manifest.
func (h *Head) VerifySignature(trust []minisign.PublicKey) error {
	var s minisign.Signature
	if err := s.UnmarshalText(h.Signature); err != nil {
		return &Error{Code: mib.FailCauseSignatureInvalid, Text: "not a minisign signature", Err: err}
	}
	known := false
	for _, key := range trust {
		if key.ID() != s.KeyID {
			continue
		}
		known = true
		if minisign.Verify(key, h.Raw, h.Signature) {
			return nil
		}
	}
	if known {
		return refuse(mib.FailCauseSignatureInvalid, "the signature by %s does not match the manifest", keyName(s.KeyID))
	}
	return refuse(mib.FailCauseSignerUntrusted, "signed by %s, which is not trusted here", keyName(s.KeyID))
}
