package files

import (
	"github.com/spf13/afero"

	"example.com/iad/manager/device"
	"example.com/iad/mib"
)

// FileServer keeps images and backups. [Servers] is one; [ExternalServer]
// describes any other.
type FileServer interface {
	// Open prepares the server for one device. target is where the device is
	// reached by SNMP.
	Open(p device.Protocol, deviceID, target string) (Session, error)
}

// Session is one device's use of a file server. Close takes away what Open
// and the other calls allowed the device; files stay.
type Session interface {
	Address() device.FileServerAddress
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
