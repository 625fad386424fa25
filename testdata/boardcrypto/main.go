// Boardcrypto does what a board's program does with cryptography: random
// numbers, a signature, a transfer by TLS. Then it says how fast digests are.
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
	"errors"
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
		return errors.New("ed25519 accepts the wrong signature")
	}
	began := time.Now()
	if !ed25519.Verify(public, a, signature) {
		return errors.New("ed25519 rejects a signature that it accepted")
	}
	verified := time.Since(began)
	shaken, rest, err := transfer(public, private)
	if err != nil {
		return fmt.Errorf("TLS: %w", err)
	}
	fmt.Printf("signature %.1f ms, TLS handshake %d ms, TLS %.1f MB/s",
		verified.Seconds()*1e3, shaken.Milliseconds(), 1/rest.Seconds())
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

// transfer sends a megabyte from a server with a certificate of its own to a
// client that knows the certificate. It returns the times of the handshake and
// of the rest.
func transfer(public ed25519.PublicKey, private ed25519.PrivateKey) (shaken, rest time.Duration, err error) {
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"server"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		return 0, 0, err
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return 0, 0, err
	}
	roots := x509.NewCertPool()
	roots.AddCert(certificate)
	near, far := net.Pipe()
	server := tls.Server(far, &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: private}}})
	sent := bytes.Repeat([]byte("firmware"), 1<<17)
	go func() {
		_, _ = server.Write(sent) // the client sees the error
		_ = server.Close()
	}()
	client := tls.Client(near, &tls.Config{RootCAs: roots, ServerName: "server"})
	began := time.Now()
	if err := client.Handshake(); err != nil {
		return 0, 0, err
	}
	shaken = time.Since(began)
	received, err := io.ReadAll(client)
	if err == nil && !bytes.Equal(sent, received) {
		err = fmt.Errorf("%d other bytes received", len(received))
	}
	return shaken, time.Since(began) - shaken, err
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
