//go:build noftps

package transfer

import (
	"net"

	"github.com/jlaffaye/ftp"
)

// HasFTPS reports whether the program has FTPS.
const HasFTPS = false

// TLSConfig says how the servers of FTPS are authenticated.
type TLSConfig struct{}

// TrustOnly returns false: without FTPS there is nothing to trust.
func TrustOnly([]byte) (*TLSConfig, bool) { return nil, false }

// tlsSettings are never made: Server.check refuses FTPS.
type tlsSettings struct{}

func newTLSSettings(Server, Options) *tlsSettings    { return nil }
func (t *tlsSettings) client(net.Conn) securedConn   { panic("built without FTPS") }
func (t *tlsSettings) option() (none ftp.DialOption) { panic("built without FTPS") }
func certificateRefused(error) bool                  { return false }
func tlsBroken(error) bool                           { return false }
