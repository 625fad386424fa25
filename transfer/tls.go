//go:build !noftps

package transfer

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"

	"github.com/jlaffaye/ftp"
)

// HasFTPS reports whether the program has FTPS. The build tag noftps leaves it
// out, and crypto/tls with it.
const HasFTPS = true

// TLSConfig says how the servers of FTPS are authenticated.
type TLSConfig = tls.Config

// TrustOnly returns settings that trust what the certificates (PEM) sign and
// nothing else, and false if there are no certificates.
func TrustOnly(certificates []byte) (*TLSConfig, bool) {
	roots := x509.NewCertPool()
	found := roots.AppendCertsFromPEM(certificates)
	return &tls.Config{RootCAs: roots}, found
}

// tlsSettings secure the connections of one session.
type tlsSettings struct{ config *tls.Config }

// newTLSSettings completes the configuration: the server's name, a cache of
// sessions (servers want the data connection to resume the control connection's
// session, as a proof that both are the same client) and the pin.
func newTLSSettings(server Server, options Options) *tlsSettings {
	config := options.TLS.Clone()
	if config == nil {
		config = &tls.Config{}
	}
	if config.ServerName == "" {
		config.ServerName = server.Host
	}
	if config.ClientSessionCache == nil {
		config.ClientSessionCache = tls.NewLRUClientSessionCache(4)
	}
	if options.Pin != nil {
		pin := bytes.Clone(options.Pin)
		config.InsecureSkipVerify = true // in favour of the pin: no name, no date
		config.VerifyConnection = func(state tls.ConnectionState) error {
			if len(state.PeerCertificates) == 0 {
				return errors.New("the server sent no certificate")
			}
			if got := sha256.Sum256(state.PeerCertificates[0].Raw); !bytes.Equal(got[:], pin) {
				return errors.New("the server's certificate is not the pinned one")
			}
			return nil
		}
	}
	return &tlsSettings{config}
}

func (t *tlsSettings) client(c net.Conn) securedConn { return tls.Client(c, t.config) }

// option has the library ask for protected data connections.
func (t *tlsSettings) option() ftp.DialOption { return ftp.DialWithTLS(t.config) }

// certificateRefused reports whether the server is not the one that it should be.
func certificateRefused(err error) bool {
	return as[*tls.CertificateVerificationError]()(err) || as[x509.UnknownAuthorityError]()(err)
}

// tlsBroken reports whether the peer does not speak TLS, or rejected ours.
func tlsBroken(err error) bool { return as[tls.RecordHeaderError]()(err) || as[tls.AlertError]()(err) }
