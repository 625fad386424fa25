package image

import (
	"bytes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"

	"golang.org/x/crypto/chacha20poly1305"

	"example.com/iad/bank/image/frame"
	"example.com/iad/internal/agefile"
	"example.com/iad/mib"
)

// contentKeySize is the size in bytes of the secret that all frames of an image are
// encrypted with. Manifest.Key has it in an age file.
const contentKeySize = 32

// frameCipher returns the cipher of an encoding, whose frames are numbered from 0: no two
// frames of an image have both key and nonce in common.
func frameCipher(contentKey []byte, file string) (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, contentKey, nil, "iad image frames "+file, chacha20poly1305.KeySize)
	if err != nil {
		return nil, err
	}
	return chacha20poly1305.New(key)
}

func frameNonce(k int) []byte {
	return binary.BigEndian.AppendUint64(make([]byte, 4, chacha20poly1305.NonceSize), uint64(k))
}

// An Opener decrypts the frames of an image. That of an image which is not encrypted is nil,
// and leaves frames as they are.
type Opener struct {
	key  []byte
	file string // that aead is for
	aead cipher.AEAD
}

// Opener returns the Opener of an image by one of the keys that its content key is encrypted
// to. Causes: keyMissing if there is none among them; badFormat.
func (m *Manifest) Opener(keys []agefile.Identity) (*Opener, error) {
	if m.Key == "" {
		return nil, nil
	}
	sealed, err := base64.StdEncoding.DecodeString(m.Key)
	var key []byte
	if err == nil {
		key, err = agefile.Decrypt(sealed, keys...)
	}
	switch {
	case errors.Is(err, agefile.ErrNotForKey):
		return nil, refuse(mib.FailCauseKeyMissing, "the image is encrypted, and the device has none of the keys for it")
	case err == nil && len(key) != contentKeySize:
		err = errors.New("wrong size")
	}
	if err != nil {
		return nil, &Error{Code: mib.FailCauseBadFormat, Text: "the key in the manifest is not valid", Err: err}
	}
	return &Opener{key: key}, nil
}

// Open decrypts frame k of an encoding, which matches the index, in place. Cause: badFormat.
func (o *Opener) Open(e *Encoding, k int, sealed []byte) ([]byte, error) {
	if o == nil {
		return sealed, nil
	}
	if o.aead == nil || o.file != e.File {
		aead, err := frameCipher(o.key, e.File)
		if err != nil {
			return nil, err
		}
		o.file, o.aead = e.File, aead
	}
	encoded, err := o.aead.Open(sealed[:0], frameNonce(k), sealed, nil)
	if err != nil {
		return nil, refuse(mib.FailCauseBadFormat, "frame %d of %s cannot be decrypted with the key of the image", k, e.File)
	}
	return encoded, nil
}

// Encrypt encrypts the encodings of files to recipients, of which there must be at least one,
// and returns the value for Manifest.Key. What has no encoding stays as it is.
func Encrypt(files []PayloadFile, recipients ...agefile.Recipient) (key string, err error) {
	contentKey := make([]byte, contentKeySize)
	rand.Read(contentKey)
	sealed, err := agefile.Encrypt(contentKey, recipients...)
	if err != nil {
		return "", err
	}
	for i := range files {
		p, err := describe(files[i])
		if err != nil {
			return "", err
		}
		for j := range files[i].Encodings {
			if err := files[i].Encodings[j].encrypt(contentKey, p.Size); err != nil {
				return "", err
			}
		}
	}
	return base64.StdEncoding.EncodeToString(sealed), nil
}

// encrypt encrypts the frames of the encoding of a payload of length bytes.
func (e *EncodedFile) encrypt(contentKey []byte, length int64) error {
	x, err := readIndex(bytes.NewReader(e.Content), &Payload{Size: length}, &e.Encoding)
	if err != nil {
		return err
	}
	aead, err := frameCipher(contentKey, e.File)
	if err != nil {
		return err
	}
	var index, frames []byte
	for k := range x.Count() {
		start := len(frames)
		frames = aead.Seal(frames, frameNonce(k), e.Content[x.Offset(k):][:x.Length(k)], nil)
		if n := len(frames) - start; int64(n) > frame.MaxEncoded(e.Frame) {
			return refuse(mib.FailCauseBadFormat, "%s: frame %d has %d bytes when it is encrypted, %d are allowed", e.File, k, n, frame.MaxEncoded(e.Frame))
		}
		index = frame.AppendEntry(index, frames[start:])
	}
	e.IndexSHA256 = digestOf(index)
	e.Content = append(index, frames...)
	e.Size = int64(len(e.Content))
	return nil
}
