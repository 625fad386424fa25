// Boardcrypto does what a board's program does with cryptography: random
// numbers, a signature, a TLS handshake. Then it says how fast digests are.
// "make cross" builds it like iad, with the same changes of Go's source, and
// runs it under qemu.
package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"hash/crc32"
	"io"
	"math/big"
	"net"
	"os"
	"time"

	"golang.org/x/crypto/blake2b"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	a, b := make([]byte, 4096), make([]byte, 4096)
	for _, p := range [][]byte{a, b} {
		if _, err := rand.Read(p); err != nil {
			return err
		}
	}
	if bytes.Equal(a, b) {
		return fmt.Errorf("crypto/rand repeats itself: %x", a[:16])
	}
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		return err
	}
	signature := ed25519.Sign(private, a)
	if !ed25519.Verify(public, a, signature) || ed25519.Verify(public, b, signature) {
		return fmt.Errorf("ed25519 accepts the wrong signature")
	}
	began := time.Now()
	if err := handshake(public, private); err != nil {
		return fmt.Errorf("TLS: %w", err)
	}
	fmt.Printf("TLS handshake %d ms", time.Since(began).Milliseconds())
	for _, digest := range []struct {
		name string
		sum  func([]byte)
	}{
		{"SHA-256", func(p []byte) { sha256.Sum256(p) }},
		{"BLAKE2b", func(p []byte) { blake2b.Sum512(p) }},
		{"CRC-32", func(p []byte) { crc32.ChecksumIEEE(p) }},
	} {
		fmt.Printf(", %s %.1f MB/s", digest.name, speed(digest.sum))
	}
	fmt.Println()
	return nil
}

// handshake sends a line from a server with a certificate of its own to a
// client that knows the certificate.
func handshake(public ed25519.PublicKey, private ed25519.PrivateKey) error {
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"server"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		return err
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AddCert(certificate)
	near, far := net.Pipe()
	server := tls.Server(far, &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: private}}})
	go func() {
		_, _ = server.Write([]byte("hello")) // the client sees the error
		_ = server.Close()
	}()
	got, err := io.ReadAll(tls.Client(near, &tls.Config{RootCAs: roots, ServerName: "server"}))
	if err == nil && string(got) != "hello" {
		err = fmt.Errorf("received %q", got)
	}
	return err
}

// speed returns megabytes a second.
func speed(sum func([]byte)) float64 {
	data := make([]byte, 1<<16)
	n := 0
	began := time.Now()
	for time.Since(began) < 200*time.Millisecond {
		sum(data)
		n += len(data)
	}
	return float64(n) / 1e6 / time.Since(began).Seconds()
}
