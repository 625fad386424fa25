// Package seal encrypts secrets with the cluster's key, in the format of age
// (age-encryption.org/v1). The key is a file outside the data directory, the same on all
// nodes and workers: without it, a copy of the data reveals no credentials.
package seal

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"filippo.io/age"
	"github.com/spf13/afero"

	"example.com/iad/internal/durable"
)

// maxSealed is the maximum size of what Open reads, in bytes.
const maxSealed = 1 << 20

// Key encrypts and decrypts.
type Key struct{ identity *age.X25519Identity }

// NewKey makes a key.
func NewKey() (*Key, error) {
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		return nil, fmt.Errorf("sealing key: %w", err)
	}
	return &Key{identity}, nil
}

// ReadKey reads the key in a file, as age-keygen writes it.
func ReadKey(name string) (*Key, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("sealing key: %w", err)
	}
	defer f.Close()
	identities, err := age.ParseIdentities(io.LimitReader(f, 64<<10))
	if err != nil {
		return nil, fmt.Errorf("sealing key %s: %w", name, err)
	}
	if len(identities) == 1 {
		if identity, ok := identities[0].(*age.X25519Identity); ok {
			return &Key{identity}, nil
		}
	}
	return nil, fmt.Errorf("sealing key %s: the file must have one key, which begins with AGE-SECRET-KEY-1", name)
}

// ReadOrCreateKey reads the key in a file, which it creates if it does not exist.
func ReadOrCreateKey(name string) (key *Key, created bool, err error) {
	key, err = ReadKey(name)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, false, err
	}
	if key, err = NewKey(); err != nil {
		return nil, false, err
	}
	return key, true, key.write(name)
}

// write creates the file. It never replaces one, and after a power cut the file is complete
// or does not exist.
func (k *Key) write(name string) error {
	dir := filepath.Dir(name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("sealing key: %w", err)
	}
	f, err := os.CreateTemp(dir, ".key-*") // with mode 0600
	if err != nil {
		return fmt.Errorf("sealing key: %w", err)
	}
	defer os.Remove(f.Name())
	_, err = fmt.Fprintf(f, "# public key: %s\n%s\n", k.identity.Recipient(), k.identity)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("sealing key %s: %w", name, err)
	}
	if err := os.Link(f.Name(), name); err != nil {
		return fmt.Errorf("sealing key: %w", err)
	}
	if err := durable.SyncDir(afero.NewOsFs(), dir); err != nil {
		return fmt.Errorf("sealing key %s: %w", name, err)
	}
	return nil
}

// Public returns the public key, which belongs to no other key and reveals nothing.
func (k *Key) Public() string { return k.identity.Recipient().String() }

// Digest returns a digest of a text, in hexadecimal digits, from which nobody without the key
// can find out the text by trying.
func (k *Key) Digest(text string) string {
	h := hmac.New(sha256.New, []byte(k.identity.String()))
	h.Write([]byte(text))
	return hex.EncodeToString(h.Sum(nil))
}

// Seal encrypts.
func (k *Key) Seal(plain []byte) ([]byte, error) {
	var sealed bytes.Buffer
	w, err := age.Encrypt(&sealed, k.identity.Recipient())
	if err == nil {
		_, err = w.Write(plain)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	return sealed.Bytes(), nil
}

// ErrOtherKey: what is sealed is sealed with another key.
var ErrOtherKey = errors.New("sealed with another key")

// Open decrypts what Seal has encrypted with the same key. The error wraps ErrOtherKey if it
// was another one.
func (k *Key) Open(sealed []byte) ([]byte, error) {
	r, err := age.Decrypt(bytes.NewReader(sealed), k.identity)
	if noMatch := new(age.NoIdentityMatchError); errors.As(err, &noMatch) {
		return nil, ErrOtherKey
	}
	if err != nil {
		return nil, fmt.Errorf("sealed data are damaged: %w", err)
	}
	plain, err := io.ReadAll(io.LimitReader(r, maxSealed))
	if err != nil {
		return nil, fmt.Errorf("sealed data are damaged: %w", err)
	}
	return plain, nil
}
