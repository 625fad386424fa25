package engine

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"time"

	"golang.org/x/crypto/argon2"
)

// certificateName is the name in the certificates of all nodes and workers: who has the secret is
// one of them, wherever it is.
const certificateName = "iadmsd"

// ClusterTLS returns what encrypts connections between nodes and workers that have the same secret,
// for Config.TLS and Remote.TLS. Everybody derives the key of one certificate authority from
// the secret, signs a certificate of its own with it, and accepts no others. So the secret
// itself is never sent to anybody who does not have it, and there are no files to renew.
func ClusterTLS(secret string) (*tls.Config, error) {
	// Somebody who connects sees a signature with this key and may try secrets with it: each
	// costs 19 MiB and 2 passes (RFC 9106), as for passwords.
	seed := argon2.IDKey([]byte(secret), []byte("iadmsd cluster certificate authority"), 2, 19<<10, 1, ed25519.SeedSize)
	caKey := ed25519.NewKeyFromSeed(seed)
	id := sha256.Sum256(caKey.Public().(ed25519.PublicKey))
	begin, end := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC) // no clock is needed
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "iadmsd cluster"}, NotBefore: begin, NotAfter: end,
		KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true, SubjectKeyId: id[:20],
	}
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	if err != nil {
		return nil, fmt.Errorf("engine: certificate: %w", err)
	}
	if ca, err = x509.ParseCertificate(der); err != nil {
		return nil, fmt.Errorf("engine: certificate: %w", err)
	}
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("engine: certificate: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("engine: certificate: %w", err)
	}
	own := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: certificateName}, DNSNames: []string{certificateName}, NotBefore: begin, NotAfter: end,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, BasicConstraintsValid: true,
	}
	if der, err = x509.CreateCertificate(rand.Reader, own, ca, public, caKey); err != nil {
		return nil, fmt.Errorf("engine: certificate: %w", err)
	}
	authority := x509.NewCertPool()
	authority.AddCert(ca)
	return &tls.Config{
		MinVersion: tls.VersionTLS13, ServerName: certificateName, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		RootCAs: authority, ClientCAs: authority, ClientAuth: tls.RequireAndVerifyClientCert,
	}, nil
}
