package manager

import (
	"crypto/tls"
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
	// TLS is for reading backups back over FTPS; nil: the system's roots.
	TLS *tls.Config
	// Now tells the time for the names of backups; nil: time.Now.
	Now func() time.Time
}

var _ FileServer = (*ExternalServer)(nil)

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

func (s *externalSession) Offer(string) {}

func (s *externalSession) Close() {}
