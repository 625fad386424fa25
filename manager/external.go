package manager

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"

	"example.com/iad/mib"
)

// ExternalServer is a file server that somebody else runs. The image must lie
// there already, below Folder; backups are written there under names with the
// device and the time in them.
type ExternalServer struct {
	Server FileServerAddress
	Folder string // directory on the server; empty: where the server begins
	// TLS is for reading backups back over FTPS; nil: the system's roots. See [ServerTLS].
	TLS *tls.Config
	// Now tells the time for the names of backups; nil: time.Now.
	Now func() time.Time
}

var _ FileServer = (*ExternalServer)(nil)

// errPin: another certificate than the one with the fingerprint that was given.
var errPin = errors.New("the server's certificate is not the pinned one")

// ServerTLS knows a server by the SHA-256 digest of its certificate (DER), which then
// replaces every other check of it, or if pin is empty by the certificates of ca (PEM).
func ServerTLS(pin, ca []byte) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if len(pin) == 0 {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(ca) {
			return nil, errors.New("no certificate in PEM form in it")
		}
		return config, nil
	}
	if len(pin) != sha256.Size {
		return nil, fmt.Errorf("a SHA-256 digest has %d hexadecimal digits", 2*sha256.Size)
	}
	config.InsecureSkipVerify = true // in favour of the pin: no name, no date
	config.VerifyConnection = func(state tls.ConnectionState) error {
		if len(state.PeerCertificates) == 0 {
			return errPin
		}
		if got := sha256.Sum256(state.PeerCertificates[0].Raw); !bytes.Equal(got[:], pin) {
			return errPin
		}
		return nil
	}
	return config, nil
}

// Open implements FileServer. The protocol must be the server's.
func (e *ExternalServer) Open(p Protocol, device, _ string) (Session, error) {
	if p != e.Server.Protocol {
		return nil, fmt.Errorf("%s does not speak %s", e.Server, p)
	}
	return &externalSession{server: e, device: device}, nil
}

type externalSession struct {
	server *ExternalServer
	device string
}

func (s *externalSession) Address() FileServerAddress { return s.server.Server }

func (s *externalSession) Publish(img *Image) (folder, name string, err error) {
	return s.server.Folder, img.FileName(), nil
}

func (s *externalSession) NewBackup(kinds []mib.FileType) (string, []BackupFile, error) {
	now := s.server.Now
	if now == nil {
		now = time.Now
	}
	// The request number's randomness keeps two backups of one second apart.
	stamp := fmt.Sprintf("%s-%08x", now().UTC().Format("20060102T150405Z"), NewReqID())
	device := strings.ReplaceAll(folderName(s.device), "%", "_")
	files := make([]BackupFile, len(kinds))
	for i, kind := range kinds {
		files[i] = BackupFile{Kind: kind, Name: fmt.Sprintf("%s-%s-%s.cfg", device, stamp, kind)}
	}
	return s.server.Folder, files, nil
}

func (s *externalSession) Resume(string, []BackupFile) {}

func (s *externalSession) Keep(string, []BackupFile) error { return nil }

func (s *externalSession) Offer(string) {}

func (s *externalSession) Close() {}
