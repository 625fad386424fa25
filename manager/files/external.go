package files

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"path"
	"strings"
	"time"

	"github.com/spf13/afero"

	"example.com/iad/internal/durable"
	"example.com/iad/manager/device"
	"example.com/iad/mib"
	"example.com/iad/transfer"
)

// ExternalServer is a file server that somebody else runs. The image must already be
// there, in Directory; backups are written there under names with the device and the time.
// If this machine can reach the server, it keeps a copy of each backup in Store, which
// can be compared, modified and recovered like those of [Servers].
type ExternalServer struct {
	Server    device.FileServerAddress
	Directory string // directory on the server; empty: where the server begins
	// TLS is for reading backups over FTPS; nil: the system's certificate authorities. See
	// [ServerTLS].
	TLS *tls.Config
	// Store has the copies, like the files of [Servers]; nil: no copies are made.
	Store afero.Fs
	// Now returns the time for the names of backups; nil: time.Now.
	Now func() time.Time
}

var _ FileServer = (*ExternalServer)(nil)

// errPin: the certificate does not have the configured fingerprint.
var errPin = errors.New("the server's certificate is not the pinned one")

// ServerTLS returns a configuration that verifies a server by the SHA-256 digest of its
// certificate (DER) alone, or with an empty pin by the certificate authorities in ca
// (PEM).
func ServerTLS(pin, ca []byte) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if len(pin) == 0 {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(ca) {
			return nil, errors.New("it contains no certificate in PEM form")
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

// Open implements FileServer. The protocol must be that of the server.
func (e *ExternalServer) Open(p device.Protocol, deviceID, target string) (Session, error) {
	if err := device.CheckDeviceID(target, []byte(deviceID)); err != nil {
		return nil, err
	}
	if p != e.Server.Protocol {
		return nil, fmt.Errorf("%s does not speak %s", e.Server, p)
	}
	return &externalSession{server: e, device: deviceID}, nil
}

type externalSession struct {
	server *ExternalServer
	device string
}

// Address omits the zone of a link-local address: it is one of this machine, and the
// device uses its own.
func (s *externalSession) Address() device.FileServerAddress {
	address := s.server.Server
	if a, err := netip.ParseAddr(address.Host); err == nil {
		address.Host = a.WithZone("").String()
	}
	return address
}

func (s *externalSession) Publish(img *Image) (dir, name string, err error) {
	return s.server.Directory, img.FileName(), nil
}

// home is the directory of the local copies of a device's backups.
func (s *externalSession) home() string { return path.Join("backup", device.DirectoryName(s.device)) }

// names returns names for files that are not used on the server yet, and the stamp in
// them.
func (s *externalSession) names(kinds []mib.FileType) (stamp string, files []BackupFile) {
	now := s.server.Now
	if now == nil {
		now = time.Now
	}
	// The request number's randomness keeps two backups of one second apart.
	stamp = fmt.Sprintf("%s-%08x", now().UTC().Format("20060102T150405Z"), device.NewReqID())
	deviceID := strings.ReplaceAll(device.DirectoryName(s.device), "%", "_")
	files = make([]BackupFile, len(kinds))
	for i, kind := range kinds {
		files[i] = BackupFile{Kind: kind, Name: fmt.Sprintf("%s-%s-%s.cfg", deviceID, stamp, kind)}
	}
	return stamp, files
}

// NewBackup returns the directory for the local copies; files have the same names there
// and on the server.
func (s *externalSession) NewBackup(kinds []mib.FileType) (string, []BackupFile, error) {
	stamp, files := s.names(kinds)
	if s.server.Store == nil {
		return s.server.Directory, files, nil
	}
	return path.Join(s.home(), stamp), files, nil
}

func (s *externalSession) Resume(string, []BackupFile) {}

// Seal does nothing: the operator of the server decides who may write there.
func (s *externalSession) Seal() {}

// here reports whether directory is on this machine. Journals of earlier versions name the
// server's.
func (s *externalSession) here(dir string) bool {
	return s.server.Store != nil && strings.HasPrefix(dir, "backup/")
}

// Keep marks the local copy as complete, if there is one of each file.
func (s *externalSession) Keep(dir string, files []BackupFile) error {
	if s.Local(dir, files) == nil {
		return nil
	}
	return markComplete(s.server.Store, dir, files)
}

func (s *externalSession) Offer(string) {}

// Digest implements Session: it reads the file back and keeps a copy.
func (s *externalSession) Digest(ctx context.Context, dir, name string) (int64, []byte, error) {
	if !s.here(dir) {
		return s.server.readBack(ctx, name, io.Discard)
	}
	var copied copyWriter
	size, digest, err := s.server.readBack(ctx, name, &copied)
	if err != nil || copied.tooLarge {
		return size, digest, err
	}
	err = durable.MkdirAll(s.server.Store, dir, 0o700)
	if err == nil {
		err = durable.ReplaceFile(s.server.Store, path.Join(dir, name), copied.data, 0o600)
	}
	if err != nil {
		return 0, nil, fmt.Errorf("copy of the backup on this machine: %w", err)
	}
	return size, digest, nil
}

func (s *externalSession) Directory(dir string) string {
	if s.here(dir) {
		return s.server.Directory
	}
	return dir
}

func (s *externalSession) Local(dir string, files []BackupFile) afero.Fs {
	if !s.here(dir) {
		return nil
	}
	for _, f := range files {
		if info, err := s.server.Store.Stat(path.Join(dir, f.Name)); err != nil || !info.Mode().IsRegular() {
			return nil
		}
	}
	return s.server.Store
}

func (s *externalSession) Place(dir string, files []BackupFile) string {
	place := strings.TrimSuffix(s.server.Server.String()+"/"+s.server.Directory, "/")
	if s.Local(dir, files) != nil {
		place += ", with a copy in " + dir
	}
	return place
}

// Provide uploads what the server does not have unchanged, under new names: data that
// were modified here or backed up elsewhere. Only files with a local copy can be
// uploaded; the others are where the device put them, and the device compares their
// digests.
func (s *externalSession) Provide(ctx context.Context, dir string, files []BackupFile) ([]BackupFile, error) {
	local := s.Local(dir, files)
	if local == nil {
		return files, nil
	}
	provided := make([]BackupFile, len(files))
	for i, f := range files {
		provided[i] = f
		if _, digest, err := s.server.readBack(ctx, f.Name, io.Discard); err == nil && bytes.Equal(digest, f.DeviceDigest) {
			continue
		} else if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		data, err := ReadAll(local, path.Join(dir, f.Name))
		if err != nil {
			return nil, err
		}
		_, fresh := s.names([]mib.FileType{f.Kind})
		provided[i].Name = fresh[0].Name
		if err := s.server.write(ctx, provided[i].Name, data); err != nil {
			return nil, fmt.Errorf("%s does not accept %s from this machine; put it there as %s, or recover without --server: %w",
				s.server.Server, path.Join(dir, f.Name), provided[i].Name, err)
		}
	}
	return provided, nil
}

func (s *externalSession) Close() {}

const (
	// maxReadBack is the maximum size of a backup that is read back, in bytes.
	maxReadBack = 64 << 20
	// readBackTime is the maximum time for one file, in either direction.
	readBackTime = 2 * time.Minute
	// readBackStall is how long a server may be silent.
	readBackStall = 10 * time.Second
)

// client returns a client for the server.
func (e *ExternalServer) client() (*transfer.Client, error) {
	return transfer.New(transfer.Server{
		Protocol: e.Server.Protocol, Host: e.Server.Host, Port: int(e.Server.Port),
		User: e.Server.User, Password: e.Server.Password, Path: e.Directory, Timeout: readBackStall,
	}, transfer.Options{MaxSize: maxReadBack, TLS: e.TLS})
}

// readBack copies a file from the server to to and returns its size and SHA-256 digest.
// The error wraps fs.ErrNotExist if the server reports that the file does not exist, and
// ErrNoDigest if the file cannot be read: some servers refuse to send any upload back,
// and others cannot be reached from here.
func (e *ExternalServer) readBack(ctx context.Context, name string, to io.Writer) (int64, []byte, error) {
	bounded, cancel := context.WithTimeout(ctx, readBackTime)
	defer cancel()
	size, digest, err := e.read(bounded, name, to)
	switch {
	case err == nil:
		return size, digest, nil
	case ctx.Err() != nil:
		return 0, nil, ctx.Err()
	}
	var failed *transfer.Error
	code := mib.FailCauseOther
	if errors.As(err, &failed) {
		code = failed.Code
	}
	switch code {
	case mib.FailCauseFileTooLarge:
		return 0, nil, fmt.Errorf("%w: %w", errTooLarge, err)
	case mib.FailCauseFileNotFound:
		return 0, nil, fmt.Errorf("%w: %w", fs.ErrNotExist, err)
	}
	reason := "the server refuses it (" + code.String() + ")"
	if failed != nil && failed.Reply == "" && failed.Err != nil {
		reason = failed.Err.Error()
	}
	return 0, nil, &NoDigestError{Reason: reason, err: fmt.Errorf("%w: %w", ErrNoDigest, err)}
}

func (e *ExternalServer) read(ctx context.Context, name string, to io.Writer) (int64, []byte, error) {
	client, err := e.client()
	if err != nil {
		return 0, nil, err
	}
	defer client.Close()
	file, _, err := client.Get(ctx, name, 0)
	if err != nil {
		return 0, nil, err
	}
	sum := sha256.New()
	size, err := io.Copy(io.MultiWriter(sum, to), file)
	return size, sum.Sum(nil), errors.Join(err, file.Close())
}

// write uploads a file and reads it back if the server permits that.
func (e *ExternalServer) write(ctx context.Context, name string, data []byte) error {
	ctx, cancel := context.WithTimeout(ctx, readBackTime)
	defer cancel()
	client, err := e.client()
	if err != nil {
		return err
	}
	defer client.Close()
	if _, err := client.Put(ctx, name, bytes.NewReader(data), int64(len(data))); err != nil {
		return err
	}
	want := sha256.Sum256(data)
	_, digest, err := e.readBack(ctx, name, io.Discard)
	switch {
	case errors.Is(err, ErrNoDigest): // the device compares what it gets
		return nil
	case err == nil && !bytes.Equal(digest, want[:]):
		return fmt.Errorf("%s: %s was stored with other contents than were sent", e.Server, name)
	}
	return err
}

// NoDigestError has a reason in our words, besides the error, which may be in the
// server's.
type NoDigestError struct {
	Reason string
	err    error
}

func (e *NoDigestError) Error() string { return e.err.Error() }
func (e *NoDigestError) Unwrap() error { return e.err }

// copyWriter collects a file of up to maxConfig bytes and drops a larger one.
type copyWriter struct {
	data     []byte
	tooLarge bool
}

func (w *copyWriter) Write(p []byte) (int, error) {
	if len(w.data)+len(p) > maxConfig {
		w.data, w.tooLarge = nil, true
	}
	if !w.tooLarge {
		w.data = append(w.data, p...)
	}
	return len(p), nil
}
