// Package agefile reads and writes age files (age-encryption.org/v1) for X25519 keys,
// the part of the format that a device needs: a tenth of the code of filippo.io/age,
// which reads and writes the same files and is what the programs for operators and
// makers use.
//
// A file is encrypted as a whole in memory. It is neither signed nor bound to its
// sender: everybody who knows a recipient can make a file for it.
package agefile

import (
	"bytes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/chacha20poly1305"
)

const (
	intro       = "age-encryption.org/v1\n"
	stanza      = "-> X25519 "
	footer      = "---"
	wrapLabel   = "age-encryption.org/v1/X25519"
	fileKeySize = 16
	nonceSize   = 16
	chunkSize   = 64 << 10
	keySize     = 32
	// maxHeader bounds what is searched for the end of a header: hundreds of recipients.
	maxHeader = 64 << 10
)

var (
	// ErrNotForKey says that a file is encrypted, but not to any of the keys.
	ErrNotForKey = errors.New("it is encrypted to other keys")
	// ErrFormat says that data are not an age file, or that it was changed or cut off.
	ErrFormat = errors.New("it is not an age file, or damaged")
)

// Is reports whether data begin as an age file does.
func Is(data []byte) bool { return bytes.HasPrefix(data, []byte(intro)) }

// A Recipient is a public key.
type Recipient [keySize]byte

// ParseRecipient reads a recipient as age writes it, "age1...".
func ParseRecipient(s string) (r Recipient, err error) {
	key, ok := decodeBech32(recipientPrefix, s)
	if !ok {
		return r, fmt.Errorf("%.80q is not an age recipient, which begins with age1 and has 62 characters", s)
	}
	return Recipient(key), nil
}

// String returns the recipient as age writes it.
func (r Recipient) String() string { return encodeBech32(recipientPrefix, r[:]) }

// An Identity is a private key.
type Identity struct{ key *ecdh.PrivateKey }

// NewIdentity makes an identity.
func NewIdentity() (Identity, error) {
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	return Identity{key}, err
}

// IdentityOf returns the identity with the given 32 bytes, which Bytes returned.
func IdentityOf(key []byte) (Identity, error) {
	k, err := ecdh.X25519().NewPrivateKey(key)
	return Identity{k}, err
}

// ReadIdentities reads a file of age-keygen: lines that begin with AGE-SECRET-KEY-1,
// empty lines, and comments that begin with #. It has at least one identity.
func ReadIdentities(data []byte) (ids []Identity, err error) {
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		key, ok := decodeBech32(identityPrefix, strings.ToLower(line))
		if !ok || line != strings.ToUpper(line) {
			return nil, errors.New("a line is not an age identity, which begins with AGE-SECRET-KEY-1") // and must not be shown
		}
		id, err := IdentityOf(key)
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	if len(ids) == 0 {
		return nil, errors.New("there is no age identity in it, which begins with AGE-SECRET-KEY-1")
	}
	return ids, nil
}

// Bytes returns the secret.
func (id Identity) Bytes() []byte { return id.key.Bytes() }

// Recipient returns the public key.
func (id Identity) Recipient() Recipient { return Recipient(id.key.PublicKey().Bytes()) }

// Encrypt returns an age file with plain for the recipients, of which there must be at
// least one.
func Encrypt(plain []byte, recipients ...Recipient) ([]byte, error) {
	if len(recipients) == 0 {
		return nil, errors.New("there is nobody to encrypt to")
	}
	fileKey := make([]byte, fileKeySize)
	rand.Read(fileKey)
	chunks := max(1, (len(plain)+chunkSize-1)/chunkSize)
	out := make([]byte, 0, len(intro)+len(recipients)*128+128+nonceSize+len(plain)+chunks*chacha20poly1305.Overhead)
	out = append(out, intro...)
	for _, r := range recipients {
		to, err := ecdh.X25519().NewPublicKey(r[:])
		if err != nil {
			return nil, err
		}
		once, err := NewIdentity()
		if err != nil {
			return nil, err
		}
		share := once.key.PublicKey().Bytes()
		aead, err := wrapping(once.key, to, share, r[:])
		if err != nil {
			return nil, err
		}
		out = append(out, stanza...)
		out = base64.RawStdEncoding.AppendEncode(out, share)
		out = append(out, '\n')
		out = base64.RawStdEncoding.AppendEncode(out, aead.Seal(nil, make([]byte, chacha20poly1305.NonceSize), fileKey, nil))
		out = append(out, '\n')
	}
	out = append(out, footer...)
	mac, err := macOf(fileKey, out)
	if err != nil {
		return nil, err
	}
	out = append(out, ' ')
	out = base64.RawStdEncoding.AppendEncode(out, mac)
	out = append(out, '\n')
	nonce := make([]byte, nonceSize)
	rand.Read(nonce)
	out = append(out, nonce...)
	body, err := body(fileKey, nonce)
	if err != nil {
		return nil, err
	}
	for i := range chunks {
		chunk := plain[i*chunkSize : min(len(plain), (i+1)*chunkSize)]
		out = body.Seal(out, chunkNonce(i, i == chunks-1), chunk, nil)
	}
	return out, nil
}

// Decrypt returns what is in an age file. The error wraps ErrNotForKey if the file is
// encrypted to none of the identities, and ErrFormat if it is not whole.
func Decrypt(data []byte, ids ...Identity) ([]byte, error) {
	fileKey, body, err := open(data, ids)
	if err != nil {
		return nil, err
	}
	return decryptBody(fileKey, body)
}

// open finds the file key, and checks the header with it.
func open(data []byte, ids []Identity) (fileKey, rest []byte, err error) {
	if !Is(data) {
		return nil, nil, ErrFormat
	}
	line := func() (string, bool) {
		end := bytes.IndexByte(rest[:min(len(rest), maxHeader)], '\n')
		if end < 0 {
			return "", false
		}
		text := string(rest[:end])
		rest = rest[end+1:]
		return text, true
	}
	rest = data[len(intro):]
	for len(data)-len(rest) <= maxHeader {
		text, ok := line()
		if !ok {
			return nil, nil, ErrFormat
		}
		if mac, ok := strings.CutPrefix(text, footer+" "); ok {
			if fileKey == nil {
				return nil, nil, ErrNotForKey
			}
			signed := data[:len(data)-len(rest)-len(mac)-2] // without the blank and the end of the line
			want, err := macOf(fileKey, signed)
			got, ok := decode64(mac)
			if err != nil || !ok || !hmac.Equal(got, want) {
				return nil, nil, ErrFormat
			}
			return fileKey, rest, nil
		}
		share, mine := strings.CutPrefix(text, stanza)
		if !isStanza(text) {
			return nil, nil, ErrFormat
		}
		// The body: lines of 64 characters, and a shorter one that ends it.
		wrapped := ""
		for {
			text, ok := line()
			if !ok || len(text) > 64 {
				return nil, nil, ErrFormat
			}
			wrapped += text
			if len(text) < 64 {
				break
			}
		}
		sealed, ok := decode64(wrapped)
		if !ok {
			return nil, nil, ErrFormat
		}
		if !mine || fileKey != nil {
			continue
		}
		public, ok := decode64(share)
		if !ok || len(public) != keySize || len(sealed) != fileKeySize+chacha20poly1305.Overhead {
			return nil, nil, ErrFormat
		}
		from, err := ecdh.X25519().NewPublicKey(public)
		if err != nil {
			return nil, nil, ErrFormat
		}
		for _, id := range ids {
			aead, err := wrapping(id.key, from, public, id.key.PublicKey().Bytes())
			if err != nil {
				return nil, nil, ErrFormat
			}
			if key, err := aead.Open(nil, make([]byte, chacha20poly1305.NonceSize), sealed, nil); err == nil {
				fileKey = key
				break
			}
		}
	}
	return nil, nil, ErrFormat
}

// isStanza reports whether a line begins a stanza: an arrow, and words of visible
// characters with a blank between them.
func isStanza(line string) bool {
	words, ok := strings.CutPrefix(line, "->")
	for len(words) > 0 && ok {
		word := strings.TrimPrefix(words, " ")
		end := strings.IndexByte(word+" ", ' ')
		ok = len(word) < len(words) && end > 0
		for i := range end {
			ok = ok && word[i] > ' ' && word[i] <= '~'
		}
		words = word[end:]
	}
	return ok && line != "->"
}

func decryptBody(fileKey, data []byte) ([]byte, error) {
	if len(data) < nonceSize+chacha20poly1305.Overhead {
		return nil, ErrFormat
	}
	aead, err := body(fileKey, data[:nonceSize])
	if err != nil {
		return nil, err
	}
	const sealedSize = chunkSize + chacha20poly1305.Overhead
	data = data[nonceSize:]
	plain := make([]byte, 0, len(data))
	for i := 0; ; i++ {
		chunk := data[:min(len(data), sealedSize)]
		data = data[len(chunk):]
		last := len(data) == 0
		if len(chunk) < chacha20poly1305.Overhead || last && i > 0 && len(chunk) == chacha20poly1305.Overhead {
			return nil, ErrFormat // only an empty file has an empty chunk
		}
		if plain, err = aead.Open(plain, chunkNonce(i, last), chunk, nil); err != nil {
			return nil, ErrFormat
		}
		if last {
			return plain, nil
		}
	}
}

// wrapping returns the cipher that the file key is wrapped with: own is this side's key,
// other the other one's, share the sender's public key and to the recipient's.
func wrapping(own *ecdh.PrivateKey, other *ecdh.PublicKey, share, to []byte) (cipher.AEAD, error) {
	secret, err := own.ECDH(other)
	if err != nil {
		return nil, err
	}
	return derived(secret, append(append([]byte{}, share...), to...), wrapLabel)
}

func body(fileKey, nonce []byte) (cipher.AEAD, error) { return derived(fileKey, nonce, "payload") }

func derived(secret, salt []byte, label string) (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, secret, salt, label, keySize)
	if err != nil {
		return nil, err
	}
	return chacha20poly1305.New(key)
}

// macOf authenticates a header up to and including its footer.
func macOf(fileKey, header []byte) ([]byte, error) {
	key, err := hkdf.Key(sha256.New, fileKey, nil, "header", keySize)
	if err != nil {
		return nil, err
	}
	mac := hmac.New(sha256.New, key)
	mac.Write(header)
	return mac.Sum(nil), nil
}

func chunkNonce(n int, last bool) []byte {
	nonce := make([]byte, chacha20poly1305.NonceSize)
	binary.BigEndian.PutUint64(nonce[3:], uint64(n))
	if last {
		nonce[11] = 1
	}
	return nonce
}

// decode64 decodes canonical base64 without padding.
func decode64(s string) ([]byte, bool) {
	if strings.ContainsAny(s, "\r\n") { // which the decoder skips
		return nil, false
	}
	data, err := base64.RawStdEncoding.Strict().DecodeString(s)
	return data, err == nil
}
