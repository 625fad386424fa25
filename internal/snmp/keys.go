package snmp

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/des"
	"crypto/hmac"
	"encoding/binary"
	"errors"
)

// Limits of RFC 3411 section 5 and RFC 3414 sections 5 and 11.2.
const (
	MaxUserName   = 32
	MinEngineID   = 5
	MaxEngineID   = 32
	MinPassphrase = 8
)

// TimeWindow is how far a message's time may be off, in seconds (RFC 3414
// section 2.2.3).
const TimeWindow = 150

// MasterKey is the key Ku that a passphrase stands for (RFC 3414 section 2.6).
type MasterKey struct {
	auth AuthProtocol
	key  []byte
}

// NewMasterKey hashes a megabyte, so whoever needs the key again keeps it.
func NewMasterKey(auth AuthProtocol, passphrase string) MasterKey {
	return MasterKey{auth, hashPassphrase(auth, []byte(passphrase))}
}

// hashPassphrase is RFC 3414 appendix A.2, which RFC 7860 takes over.
func hashPassphrase(auth AuthProtocol, passphrase []byte) []byte {
	if auth == NoAuth || len(passphrase) == 0 {
		return nil
	}
	const total = 1 << 20
	// A multiple of the passphrase that is long enough not to be hashed in pieces.
	chunk := bytes.Repeat(passphrase, 1+4096/len(passphrase))
	h := authProtocols[auth].hash()
	for left := total; left > 0; left -= len(chunk) {
		h.Write(chunk[:min(left, len(chunk))])
	}
	return h.Sum(nil)
}

// localize makes the key for one engine (RFC 3414 appendix A.2).
func (m MasterKey) localize(engineID []byte) []byte {
	if m.auth == NoAuth {
		return nil
	}
	h := authProtocols[m.auth].hash()
	h.Write(m.key)
	h.Write(engineID)
	h.Write(m.key)
	return h.Sum(nil)
}

// Keys are a user's keys localized to one engine.
type Keys struct {
	auth    AuthProtocol
	priv    PrivProtocol
	authKey []byte
	privKey []byte
}

// ErrDecrypt says that a scoped PDU could not be decrypted.
var ErrDecrypt = errors.New("decryption error")

// NewKeys makes keys for authentication. It costs a few hashes, so it may be
// done before anybody is known to have sent a message.
func NewKeys(auth MasterKey, engineID []byte) *Keys {
	return &Keys{auth: auth.auth, authKey: auth.localize(engineID)}
}

// AddPrivacy adds the key for privacy, from the master key of its passphrase. For
// AES192C and AES256C that hashes another megabyte.
func (k *Keys) AddPrivacy(priv PrivProtocol, m MasterKey, engineID []byte) {
	k.priv = priv
	if priv == NoPriv {
		return
	}
	key, n := m.localize(engineID), privProtocols[priv].keyLen
	for len(key) < n {
		switch priv {
		case AES192C, AES256C: // draft-reeder-snmpv3-usm-3dese-00 section 2.1
			key = append(key, MasterKey{m.auth, hashPassphrase(m.auth, key)}.localize(engineID)...)
		default: // draft-blumenthal-aes-usm-04 section 3.1.2.1
			h := authProtocols[m.auth].hash()
			h.Write(key)
			key = h.Sum(key)
		}
	}
	k.privKey = key[:n]
}

// Digest is what authenticates a message, given in parts, in which
// msgAuthenticationParameters are zeros.
func (k *Keys) Digest(parts ...[]byte) []byte {
	p := authProtocols[k.auth]
	mac := hmac.New(p.hash, k.authKey)
	for _, part := range parts {
		mac.Write(part)
	}
	return mac.Sum(nil)[:p.macLen]
}

// encrypt returns plain encrypted and msgPrivacyParameters. The same salt
// must not be given twice within one engineBoots.
func (k *Keys) encrypt(boots, time int32, salt uint64, plain []byte) (data, privParams []byte, err error) {
	privParams = binary.BigEndian.AppendUint64(nil, salt)
	if k.priv == DES {
		// RFC 3414 section 8.1.1.1: engineBoots, then a local integer.
		binary.BigEndian.PutUint32(privParams, uint32(boots))
		block, err := des.NewCipher(k.privKey[:8])
		if err != nil {
			return nil, nil, err
		}
		data = append(data, plain...)
		for len(data)%des.BlockSize != 0 {
			data = append(data, 0)
		}
		cipher.NewCBCEncrypter(block, k.desIV(privParams)).CryptBlocks(data, data)
		return data, privParams, nil
	}
	block, err := aes.NewCipher(k.privKey)
	if err != nil {
		return nil, nil, err
	}
	data = make([]byte, len(plain))
	cfb128(block, aesIV(boots, time, privParams), data, plain, false)
	return data, privParams, nil
}

// decrypt returns the plain text of data, with the padding of DES.
func (k *Keys) decrypt(boots, time int32, privParams, data []byte) ([]byte, error) {
	if len(privParams) != 8 || k.priv == NoPriv {
		return nil, ErrDecrypt
	}
	plain := make([]byte, len(data))
	if k.priv == DES {
		if len(data)%des.BlockSize != 0 {
			return nil, ErrDecrypt
		}
		block, err := des.NewCipher(k.privKey[:8])
		if err != nil {
			return nil, err
		}
		cipher.NewCBCDecrypter(block, k.desIV(privParams)).CryptBlocks(plain, data)
		return plain, nil
	}
	block, err := aes.NewCipher(k.privKey)
	if err != nil {
		return nil, err
	}
	cfb128(block, aesIV(boots, time, privParams), plain, data, true)
	return plain, nil
}

func (k *Keys) desIV(salt []byte) []byte {
	iv := make([]byte, des.BlockSize)
	for i := range iv {
		iv[i] = k.privKey[8+i] ^ salt[i]
	}
	return iv
}

func aesIV(boots, time int32, salt []byte) (iv [aes.BlockSize]byte) {
	binary.BigEndian.PutUint32(iv[:], uint32(boots))
	binary.BigEndian.PutUint32(iv[4:], uint32(time))
	copy(iv[8:], salt)
	return iv
}

// cfb128 is the cipher feedback mode of RFC 3826 section 3.1.3. The standard
// library deprecates its own, since new designs need authentication in the
// same step; here the digest covers the encrypted text.
func cfb128(block cipher.Block, iv [aes.BlockSize]byte, dst, src []byte, decrypting bool) {
	for len(src) > 0 {
		block.Encrypt(iv[:], iv[:])
		n := min(len(src), len(iv))
		for i := range n {
			in := src[i]
			dst[i] = in ^ iv[i]
			if decrypting {
				iv[i] = in
			} else {
				iv[i] = dst[i]
			}
		}
		src, dst = src[n:], dst[n:]
	}
}

// AuthKey is the key for authentication, nil without authentication. Do not change it.
func (k *Keys) AuthKey() []byte { return k.authKey }

// PrivKey is the key for privacy, nil without privacy. Do not change it.
func (k *Keys) PrivKey() []byte { return k.privKey }

// WithKeys returns keys of the same protocols; a key that is nil remains that of k. The lengths must
// be those of the keys of k.
func (k *Keys) WithKeys(auth, priv []byte) (*Keys, error) {
	changed := *k
	for _, c := range []struct {
		key   *[]byte
		given []byte
	}{{&changed.authKey, auth}, {&changed.privKey, priv}} {
		if c.given == nil {
			continue
		}
		if len(c.given) != len(*c.key) {
			return nil, ErrKeyLength
		}
		*c.key = c.given
	}
	return &changed, nil
}

// ErrKeyLength says that a key, or a change of one, has another length than the protocol asks for.
var ErrKeyLength = errors.New("wrong length of a key")

// ChangedKey applies a value of the textual convention KeyChange (RFC 3414 section 5) to the key old, which
// belongs to a user with the authentication protocol auth: that one's hash serves for both of the user's keys.
func ChangedKey(auth AuthProtocol, old, change []byte) ([]byte, error) {
	n := len(old)
	if auth == NoAuth || n == 0 || len(change) != 2*n {
		return nil, ErrKeyLength
	}
	random, delta := change[:n], change[n:]
	key := make([]byte, 0, n)
	for temp := old; len(key) < n; {
		h := authProtocols[auth].hash()
		h.Write(temp)
		h.Write(random)
		temp = h.Sum(nil)
		for _, b := range temp[:min(len(temp), n-len(key))] {
			key = append(key, b^delta[len(key)])
		}
	}
	return key, nil
}
