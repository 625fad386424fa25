package device

import (
	"fmt"
	"net"
	"strconv"
	"time"

	"example.com/iad/mib"
)

// Protocol is a file transfer protocol of IadUpgProtocol.
type Protocol = mib.Protocol

// Protocols of IadUpgProtocol.
const (
	TFTP = mib.ProtocolTftp
	FTP  = mib.ProtocolFtp
	FTPS = mib.ProtocolFtps
)

// ParseProtocol parses a protocol's name in the module.
func ParseProtocol(s string) (Protocol, error) {
	for p := TFTP; p <= FTPS; p++ {
		if s == p.String() {
			return p, nil
		}
	}
	return 0, fmt.Errorf("unknown transfer protocol %q (want tftp, ftp or ftps)", s)
}

// FileServerAddress is where a device finds files: a row of iadUpgServerTable without its
// path.
type FileServerAddress struct {
	Protocol Protocol
	Host     string // IP address or, for devices that resolve names, DNS name
	Port     uint16 // 0: the usual one
	User     string // not used with TFTP
	Password string
	Timeout  time.Duration // nothing arrives for so long: given up; 1 s to 600 s
}

// String returns the server without its password.
func (a FileServerAddress) String() string {
	host := a.Host
	if a.Port != 0 {
		host = net.JoinHostPort(a.Host, strconv.Itoa(int(a.Port)))
	}
	return a.Protocol.String() + "://" + host
}
