package manager

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"time"

	"github.com/spf13/afero"

	"example.com/iad/internal/durable"
)

// certificateFile holds the certificate that the FTP server made for itself, and its
// key. Devices know it by its fingerprint, so it is made once.
const (
	certificateFolder = "tls"
	certificateFile   = "tls/server.pem"
)

// loadCertificate returns the certificate that was made earlier, or makes one.
func loadCertificate(files afero.Fs, now time.Time) (tls.Certificate, error) {
	data, err := afero.ReadFile(files, certificateFile)
	if errors.Is(err, fs.ErrNotExist) {
		if data, err = makeCertificate(now); err != nil {
			return tls.Certificate{}, err
		}
		if err := durable.MkdirAll(files, certificateFolder, 0o700); err != nil {
			return tls.Certificate{}, err
		}
		err = durable.ReplaceFile(files, certificateFile, data, 0o600)
	}
	if err != nil {
		return tls.Certificate{}, err
	}
	c, err := tls.X509KeyPair(data, data)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("%s: %w: remove it to have a new one made, whose fingerprint devices must be told", certificateFile, err)
	}
	return c, nil
}

// makeCertificate makes a certificate that names no host: it is known by its
// fingerprint alone, and is good for as long as a device may stay in the field.
func makeCertificate(now time.Time) ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "iadms file server"},
		NotBefore: now.Add(-24 * time.Hour), NotAfter: now.AddDate(20, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if err := errors.Join(
		pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.Encode(&b, &pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}),
	); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
