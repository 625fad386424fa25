package files

import (
	"context"
	"crypto/subtle"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	ftpserver "github.com/fclairamb/ftpserverlib"
	"github.com/spf13/afero"
)

// ftpDriver connects ftpserverlib to the store.
type ftpDriver struct {
	ctx         context.Context
	store       *store
	settings    *ftpserver.Settings
	certificate tls.Certificate
	clients     *limitListener
	limited     *limitedLog // of refusals
}

var (
	_ ftpserver.MainDriver                        = (*ftpDriver)(nil)
	_ ftpserver.MainDriverExtensionPassiveWrapper = (*ftpDriver)(nil)
	_ ftpserver.MainDriverExtensionUserVerifier   = (*ftpDriver)(nil)
)

// serveFTP serves FTP clients on l until ctx ends. Users are those of the grants; there
// is no anonymous access. TLS is optional (RFC 4217).
func serveFTP(ctx context.Context, l net.Listener, s *store, cfg ServersConfig, certificate tls.Certificate) error {
	clients := newLimitListener(closingListener{l, ctx}, s.log)
	settings := &ftpserver.Settings{
		Listener:          clients,
		PublicHost:        publicIPv4(cfg.Advertise),
		IdleTimeout:       60,
		ConnectionTimeout: 10,
		// With DisableActiveMode the library would reply 421, after which clients hang up.
		ActiveConnectionsCheck: noActiveConnections,
		PublicIPResolver:       localIPv4,
		DisableSite:            true,
		DisableMFMT:            true,
		DefaultTransferType:    ftpserver.TransferTypeBinary,
		Banner:                 "iadms file server",
	}
	if cfg.PassivePorts[0] != 0 {
		settings.PassiveTransferPortRange = ftpserver.PortRange{Start: cfg.PassivePorts[0], End: cfg.PassivePorts[1]}
	}
	server := ftpserver.NewFtpServer(&ftpDriver{ctx: ctx, store: s, settings: settings, certificate: certificate, clients: clients, limited: newLimitedLog(s.log)})
	if err := server.Listen(); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() {
		if err := server.Stop(); err != nil {
			s.log.Debug("FTP listener closed twice", "err", err)
		}
	})
	defer stop()
	err := server.Serve()
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// noActiveConnections is not one of the library's requirements, so no address meets it:
// PORT and EPRT are refused with 501, and the server never connects to a client.
const noActiveConnections = ftpserver.DataConnectionRequirement(-1)

// The library's reply to PORT and EPRT, and the one that clients get instead (RFC 959,
// section 4.2.1). Over TLS they get the library's.
const (
	refusedActive = "501 Your request does not meet the configured security requirements\r\n"
	activeReply   = "502 Active mode is not implemented; use EPSV or PASV\r\n"
)

// localIPv4 returns the address for the reply to PASV. Over IPv6 there is none, and
// 0.0.0.0 stands for the server's own, where the library would reply 421.
func localIPv4(cc ftpserver.ClientContext) (string, error) {
	local, err := netip.ParseAddrPort(cc.LocalAddr().String())
	if err != nil || !local.Addr().Unmap().Is4() {
		return netip.IPv4Unspecified().String(), nil
	}
	return local.Addr().Unmap().String(), nil
}

// publicIPv4 returns host if the reply to PASV can contain it (RFC 959).
func publicIPv4(host string) string {
	if ip := net.ParseIP(host); ip != nil && ip.To4() != nil {
		return host
	}
	return ""
}

func (d *ftpDriver) GetSettings() (*ftpserver.Settings, error) { return d.settings, nil }

func (d *ftpDriver) ClientConnected(ftpserver.ClientContext) (string, error) {
	return "iadms file server", nil
}

// WrapPassiveListener makes data connections end with the server too.
func (d *ftpDriver) WrapPassiveListener(l net.Listener) (net.Listener, error) {
	return timeoutListener{closingListener{l, d.ctx}}, nil
}

func (d *ftpDriver) ClientDisconnected(ftpserver.ClientContext) {}

func (d *ftpDriver) GetTLSConfig() (*tls.Config, error) {
	return &tls.Config{Certificates: []tls.Certificate{d.certificate}, MinVersion: tls.VersionTLS12}, nil
}

// PreAuthUser prevents the password of a user that requires TLS from being sent without
// it.
func (d *ftpDriver) PreAuthUser(cc ftpserver.ClientContext, user string) error {
	d.store.mu.Lock()
	g := d.store.grants[user]
	d.store.mu.Unlock()
	if g == nil || !g.secure {
		return nil
	}
	return cc.SetTLSRequirement(ftpserver.MandatoryEncryption)
}

func (d *ftpDriver) AuthUser(cc ftpserver.ClientContext, user, pass string) (ftpserver.ClientDriver, error) {
	d.store.mu.Lock()
	g := d.store.grants[user]
	d.store.mu.Unlock()
	if g == nil || subtle.ConstantTimeCompare([]byte(pass), []byte(g.password)) != 1 {
		d.clients.recordLogin(cc.RemoteAddr(), false)
		d.limited.warn("FTP log-in refused", "client", cc.RemoteAddr(), "user", beginning(user))
		return nil, errors.New("user name or password wrong")
	}
	d.clients.recordLogin(cc.RemoteAddr(), true)
	return &ftpFS{ctx: d.ctx, client: cc, access: access{store: d.store, grant: g}}, nil
}

// ftpFS is one user's view of the store.
type ftpFS struct {
	ctx    context.Context
	client ftpserver.ClientContext
	access access
}

// protected refuses data connections without TLS to users that require it. The library
// does so too, but with 421.
func (f *ftpFS) protected() error {
	if f.access.grant.secure && !f.client.HasTLSForTransfers() {
		return errUnprotected
	}
	return nil
}

var errUnprotected = errors.New("TLS required on data connections; send PROT P")

var (
	_ ftpserver.ClientDriver                      = (*ftpFS)(nil)
	_ ftpserver.ClientDriverExtentionFileTransfer = (*ftpFS)(nil)
	_ ftpserver.ClientDriverExtensionFileList     = (*ftpFS)(nil)
)

// GetHandle opens a file for RETR, STOR or APPE; the first two also follow REST.
func (f *ftpFS) GetHandle(name string, flags int, offset int64) (ftpserver.FileTransfer, error) {
	if err := f.protected(); err != nil {
		return nil, err
	}
	if flags&(os.O_WRONLY|os.O_RDWR) == 0 {
		file, _, err := f.access.open(name)
		if err != nil {
			f.access.store.log.Warn("FTP read refused", "file", name, "err", err)
			return nil, plainError(err)
		}
		return &ftpDownload{File: file, limited: limitedReader{ctx: f.ctx, r: file, l: f.access.limits(name)}, store: f.access.store, name: name}, nil
	}
	var up *upload
	var err error
	switch {
	case flags&os.O_APPEND != 0:
		up, err = f.access.resume(f.ctx, name, -1)
	case offset > 0:
		up, err = f.access.resume(f.ctx, name, offset)
	default:
		up, err = f.access.create(f.ctx, name)
	}
	if err != nil {
		f.access.store.log.Warn("FTP write refused", "file", name, "err", err)
		return nil, ftpError(err)
	}
	return &ftpUpload{upload: up}, nil
}

// ftpError adds the errors that ftpserverlib translates into reply codes.
func ftpError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return ftpExceeded{errors.New("disk full")}
	case errors.Is(err, errTooLarge), errors.Is(err, errFull):
		return ftpExceeded{err}
	case errors.Is(err, errFileName), errors.Is(err, errNoUpload), errors.Is(err, errOffset):
		return fmt.Errorf("%w: %w", ftpserver.ErrFileNameNotAllowed, err)
	}
	return plainError(err)
}

// ftpExceeded is answered with 552. Its text stands alone, because the library's phrases
// come before it and devices keep only one line.
type ftpExceeded struct{ error }

func (e ftpExceeded) Unwrap() error        { return e.error }
func (e ftpExceeded) Is(target error) bool { return target == ftpserver.ErrStorageExceeded }

func (f *ftpFS) ReadDir(name string) ([]os.FileInfo, error) {
	if err := f.protected(); err != nil {
		return nil, err
	}
	list, err := f.access.readDir(name)
	return list, plainError(err)
}

func (f *ftpFS) Stat(name string) (os.FileInfo, error) {
	info, err := f.access.stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fs.ErrNotExist
	}
	return info, plainError(err)
}

func (f *ftpFS) Remove(name string) error { return plainError(f.access.remove(name)) }
func (f *ftpFS) Rename(oldname, newname string) error {
	return ftpError(f.access.rename(oldname, newname))
}
func (f *ftpFS) Name() string { return "iadms" }

// Devices do not use the rest of afero.Fs.

func (f *ftpFS) Create(string) (afero.File, error)                     { return nil, fs.ErrPermission }
func (f *ftpFS) Open(string) (afero.File, error)                       { return nil, fs.ErrPermission }
func (f *ftpFS) OpenFile(string, int, os.FileMode) (afero.File, error) { return nil, fs.ErrPermission }
func (f *ftpFS) Mkdir(string, os.FileMode) error                       { return fs.ErrPermission }
func (f *ftpFS) MkdirAll(string, os.FileMode) error                    { return fs.ErrPermission }
func (f *ftpFS) RemoveAll(string) error                                { return fs.ErrPermission }
func (f *ftpFS) Chmod(string, os.FileMode) error                       { return fs.ErrPermission }
func (f *ftpFS) Chown(string, int, int) error                          { return fs.ErrPermission }
func (f *ftpFS) Chtimes(string, time.Time, time.Time) error            { return fs.ErrPermission }

// ftpDownload reads at the rate limit.
type ftpDownload struct {
	afero.File
	limited limitedReader
	store   *store
	name    string
	octets  int64
	failure error
}

func (d *ftpDownload) Read(p []byte) (int, error) {
	n, err := d.limited.Read(p)
	d.octets += int64(n)
	return n, err
}

func (d *ftpDownload) TransferError(err error) { d.failure = err }

func (d *ftpDownload) Close() error {
	if d.failure != nil {
		d.store.log.Warn("file sent only in part", "protocol", "FTP", "file", d.name, "bytes", d.octets, "err", d.failure)
	} else {
		d.store.log.Info("file sent", "protocol", "FTP", "file", d.name, "bytes", d.octets)
	}
	return d.File.Close()
}

// ftpUpload commits at Close, or keeps what arrived if the transfer failed.
type ftpUpload struct {
	*upload
	failure error
}

var errUploadOnly = errors.New("an upload is written from where it goes on")

func (u *ftpUpload) Read([]byte) (int, error) { return 0, errUploadOnly }
func (u *ftpUpload) TransferError(err error)  { u.failure = err }

// Write wraps errors for the reply to the client.
func (u *ftpUpload) Write(p []byte) (int, error) {
	n, err := u.upload.Write(p)
	return n, ftpError(err)
}

// Seek is called with the offset of REST, which is where the upload already is.
func (u *ftpUpload) Seek(offset int64, whence int) (int64, error) {
	if whence != io.SeekStart || offset != u.size {
		return 0, errUploadOnly
	}
	return offset, nil
}

func (u *ftpUpload) Close() error {
	if u.failure != nil {
		u.breakOff(u.failure)
		return nil
	}
	return ftpError(u.commit())
}

var _ io.ReadWriteSeeker = (*ftpUpload)(nil)
