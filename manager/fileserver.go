package manager

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/afero"

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

// ParseProtocol reads a protocol's name in the module.
func ParseProtocol(s string) (Protocol, error) {
	for p := TFTP; p <= FTPS; p++ {
		if s == p.String() {
			return p, nil
		}
	}
	return 0, fmt.Errorf("%q is no transfer protocol: use tftp, ftp or ftps", s)
}

// FileServerAddress says where a device finds files: one row of
// iadUpgServerTable without its path.
type FileServerAddress struct {
	Protocol Protocol
	Host     string // IP address or, for devices that resolve names, DNS name
	Port     uint16 // 0: the usual one
	User     string // not used with TFTP
	Password string
	Timeout  time.Duration // nothing arrives for so long: given up; 1 s to 600 s
}

// String shows the server without its password.
func (a FileServerAddress) String() string {
	host := a.Host
	if a.Port != 0 {
		host = net.JoinHostPort(a.Host, strconv.Itoa(int(a.Port)))
	}
	return a.Protocol.String() + "://" + host
}

// FileServer keeps images and backups. [Servers] is one; [ExternalServer]
// describes any other.
type FileServer interface {
	// Open prepares the server for one device. target is where the device is
	// reached by SNMP.
	Open(p Protocol, device, target string) (Session, error)
}

// Session is one device's use of a file server. Close takes away what Open
// and the other calls allowed the device; files stay.
type Session interface {
	Address() FileServerAddress
	// Publish makes an image readable and returns its folder and name.
	Publish(img *Image) (folder, name string, err error)
	// NewBackup prepares a place where the device may write one file of each
	// kind, and returns the folder and the files' names. Nothing that lies on
	// the server already has these names.
	NewBackup(kinds []mib.FileType) (folder string, files []BackupFile, err error)
	// Resume opens a place that NewBackup prepared in an earlier session.
	Resume(folder string, files []BackupFile)
	// Seal ends writing to the place that NewBackup or Resume opened, also by uploads
	// in progress.
	Seal()
	// Keep marks a backup as complete, durably, where the server can.
	Keep(folder string, files []BackupFile) error
	// Offer lets the device read the files of a folder of its backups.
	Offer(folder string)
	// Digest returns size and SHA-256 digest of a file on the server, or an
	// error wrapping ErrNoDigest if the server cannot tell.
	Digest(folder, name string) (int64, []byte, error)
	// Directory is the directory on the server that the device uses for a folder.
	Directory(folder string) string
	// Local returns where the files of a folder are on this machine, nil if one of
	// them is not here.
	Local(folder string, files []BackupFile) afero.Fs
	// Place says for people where the files of a folder are.
	Place(folder string, files []BackupFile) string
	// Provide makes the files of a folder available to the device and returns them
	// under the names that they have in Directory.
	Provide(folder string, files []BackupFile) ([]BackupFile, error)
	Close()
}

// folderName turns a device identity into a folder name: what is not a
// letter, a digit, "-" or "_" becomes %XX, so that no two devices share one.
func folderName(device string) string {
	var b strings.Builder
	for _, c := range []byte(device) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_':
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	if b.Len() == 0 {
		return "%" // an empty name would be the folder above
	}
	return b.String()
}
