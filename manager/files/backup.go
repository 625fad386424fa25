package files

import (
	"errors"

	"example.com/iad/mib"
)

// BackupFile is one file of a backup, as both sides see it.
type BackupFile struct {
	Kind         mib.FileType
	Name         string
	Size         int64
	Format       uint32 // of the configuration data
	DeviceDigest []byte // SHA-256 of what the device sent
	ServerDigest []byte // of what lies on the server; nil if it cannot tell
}

// ModifiedMark stands between the name of a backup's folder and the number of
// a modification of it.
const ModifiedMark = ".modified-"

// maxConfig bounds a configuration file that is read as a whole, in bytes.
const maxConfig = 16 << 20

// ErrNoDigest says that a file server cannot tell the digest of a file.
var ErrNoDigest = errors.New("the file server does not tell digests")

// ConfigKinds are the kinds of configuration data, in the module's order.
var ConfigKinds = []mib.FileType{
	mib.FileTypeUserData, mib.FileTypePortData, mib.FileTypeProtocolParams,
	mib.FileTypeDefaultParams, mib.FileTypeOtherData,
}
