package files

import (
	"context"
	"github.com/spf13/afero"

	"example.com/iad/manager/device"
	"example.com/iad/mib"
)

// FileServer keeps images and backups. [Servers] is one; [ExternalServer]
// describes any other.
type FileServer interface {
	// Open prepares the server for one device, whose SNMP address is target.
	Open(p device.Protocol, deviceID, target string) (Session, error)
}

// ShortLived is implemented by a FileServer that may end before a procedure does.
type ShortLived interface {
	// EndsWithProcess reports whether the server ends with the program that runs the
	// procedure, so that a program which resumes it has another server.
	EndsWithProcess() bool
}

// Session is one device's use of a file server. Close revokes what the other calls
// permitted; files stay.
type Session interface {
	Address() device.FileServerAddress
	// Publish makes an image readable and returns its directory and name.
	Publish(img *Image) (dir, name string, err error)
	// NewBackup prepares a directory where the device may write one file of each kind, and
	// returns it with the names of the files. No existing file on the server has one of
	// these names.
	NewBackup(kinds []mib.FileType) (dir string, files []BackupFile, err error)
	// Resume opens a directory that NewBackup prepared in an earlier session.
	Resume(dir string, files []BackupFile)
	// Seal ends writing to the directory of NewBackup or Resume, including uploads in
	// progress.
	Seal()
	// Keep marks a backup as complete, durably, if the server supports that.
	Keep(dir string, files []BackupFile) error
	// Offer lets the device read the files in a directory of its backups.
	Offer(dir string)
	// Digest returns the size and SHA-256 digest of a file on the server. The error wraps
	// ErrNoDigest if the server does not report them, and not if ctx has ended.
	Digest(ctx context.Context, dir, name string) (int64, []byte, error)
	// Directory returns the directory on the server for a directory.
	Directory(dir string) string
	// Local returns the file system of this machine with the files of a directory, nil if one
	// of them is not there.
	Local(dir string, files []BackupFile) afero.Fs
	// Place describes for people where the files of a directory are.
	Place(dir string, files []BackupFile) string
	// Provide makes the files of a directory available to the device and returns them under
	// their names in Directory.
	Provide(ctx context.Context, dir string, files []BackupFile) ([]BackupFile, error)
	Close()
}
