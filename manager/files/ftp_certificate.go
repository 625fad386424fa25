package files

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
	"path"
	"sync"
	"time"

	"github.com/spf13/afero"

	"example.com/iad/internal/durable"
)

// certificateFile has the certificate that the FTP server made for itself, and its key.
// Devices know its fingerprint, so it is made only once.
const (
	certificateDirectory = "tls"
	certificateFile      = "tls/server.pem"
)

// loadCertificate returns the existing certificate, or makes one. Several programs that
// make one at the same time all get the same.
func loadCertificate(files afero.Fs, now time.Time) (tls.Certificate, error) {
	makingCertificate.Lock()
	defer makingCertificate.Unlock()
	data, err := afero.ReadFile(files, certificateFile)
	if errors.Is(err, fs.ErrNotExist) {
		if err := createCertificate(files, now); err != nil {
			return tls.Certificate{}, err
		}
		data, err = afero.ReadFile(files, certificateFile)
	}
	if err != nil {
		return tls.Certificate{}, err
	}
	c, err := tls.X509KeyPair(data, data)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("%s: %w: remove it to create a new one, and configure its fingerprint on the devices", certificateFile, err)
	}
	return c, nil
}

// makingCertificate is for file systems that rename a directory over another one, such as
// those in memory.
var makingCertificate sync.Mutex

// createCertificate makes a certificate in a directory of its own, and renames that to
// the certificate's directory if it does not exist. A directory is never renamed over one
// with contents, so the first of several programs wins, and the others use its
// certificate.
func createCertificate(files afero.Fs, now time.Time) error {
	data, err := makeCertificate(now)
	if err != nil {
		return err
	}
	dir := certificateDirectory + "." + rand.Text()
	if err := durable.MkdirAll(files, dir, 0o700); err != nil {
		return err
	}
	err = durable.ReplaceFile(files, path.Join(dir, path.Base(certificateFile)), data, 0o600)
	if err == nil {
		removeEmpty(files, certificateDirectory)
		err = durable.Rename(files, dir, certificateDirectory)
	}
	if err == nil {
		return nil
	}
	if removed := durable.RemoveAll(files, dir); removed != nil {
		err = errors.Join(err, removed)
	}
	if _, there := files.Stat(certificateFile); there == nil {
		return nil // another program was first
	}
	if entries, listed := afero.ReadDir(files, certificateDirectory); listed != nil || len(entries) == 0 {
		return err
	}
	// The directory has other contents: only the file itself is missing.
	return durable.ReplaceFile(files, certificateFile, data, 0o600)
}

// removeEmpty removes a directory that has nothing but what a killed replacement left. It
// stays if it is no longer empty by then.
func removeEmpty(files afero.Fs, dir string) {
	entries, err := afero.ReadDir(files, dir)
	if err != nil || len(entries) > 1 {
		return
	}
	for _, e := range entries {
		if e.Name() != path.Base(certificateFile)+".tmp" {
			return
		}
		_ = files.Remove(path.Join(dir, e.Name())) // if it stays, so does the directory
	}
	_ = files.Remove(dir) // if it stays, renaming fails
}

// makeCertificate makes a certificate that names no host: devices know it by its
// fingerprint, for as long as they are in the field.
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
