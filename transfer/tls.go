package transfer

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"net"
)

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

func (t *tlsSettings) client(c net.Conn) *tls.Conn { return tls.Client(c, t.config) }
