package manager

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/textproto"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/jlaffaye/ftp"
	"github.com/pin/tftp/v3"

	"example.com/iad/internal/ftpcontrol"
)

const (
	// maxReadBack is the largest backup that is read back, in octets.
	maxReadBack = 64 << 20
	// readBackTime is how long reading one back may take in all.
	readBackTime = 2 * time.Minute
	// readBackStall is how long a server may be silent.
	readBackStall = 10 * time.Second
)

// readBack reads a file on the server and returns its size and SHA-256 digest. The
// error wraps fs.ErrNotExist if the server says that there is no such file, and
// ErrNoDigest if the file cannot be read: the server refuses it, as some do with all
// uploads, or cannot be reached from here.
func (e *ExternalServer) readBack(name string) (int64, []byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), readBackTime)
	defer cancel()
	sum := &boundedSum{ctx: ctx, hash: sha256.New()}
	read := e.readFTP
	if e.Server.Protocol == TFTP {
		read = e.readTFTP
	}
	err := read(ctx, name, sum)
	reason := unreadable(err)
	err = e.plain(err)
	switch {
	case err == nil:
		return sum.size, sum.hash.Sum(nil), nil
	case errors.Is(err, errTooLarge):
		return 0, nil, fmt.Errorf("%s: %s: %w", e.Server, name, err)
	case saysMissing(err):
		return 0, nil, fmt.Errorf("%s: %s: %w: %w", e.Server, name, fs.ErrNotExist, err)
	}
	return 0, nil, &noDigestError{reason: reason, err: fmt.Errorf("%w: %s: %s: %w", ErrNoDigest, e.Server, name, err)}
}

// noDigestError has besides what happened, in the server's words if it spoke, a reason
// in ours.
type noDigestError struct {
	reason string
	err    error
}

func (e *noDigestError) Error() string { return e.err.Error() }
func (e *noDigestError) Unwrap() error { return e.err }

// unreadable tells why a file cannot be read without quoting the server.
func unreadable(err error) string {
	var refused *textproto.Error
	var local net.Error
	var certificate *tls.CertificateVerificationError
	switch {
	case errors.As(err, &refused):
		return fmt.Sprintf("the server refuses it (%d)", refused.Code)
	case errors.As(err, &certificate), errors.Is(err, errPin), errors.Is(err, ftpcontrol.ErrReplyTooLong):
		return err.Error()
	case errors.As(err, &local):
		return local.Error()
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "the connection broke off"
	}
	return "the server does not hand it out"
}

// plain drops what an error wraps, but for what readBack asks for, and with it the
// password: some servers quote the commands that they refuse, PASS too.
func (e *ExternalServer) plain(err error) error {
	if err == nil || errors.Is(err, errTooLarge) || e.Server.Password == "" {
		return err
	}
	return errors.New(strings.ReplaceAll(err.Error(), e.Server.Password, "***"))
}

// saysMissing tells whether a server's words mean that there is no such file. FTP has
// one reply code, 550, for that and for a file that may not be read.
func saysMissing(err error) bool {
	text := strings.ToLower(err.Error())
	return strings.Contains(text, "no such file") || strings.Contains(text, "not found") || strings.Contains(text, "code: 1,")
}

// boundedSum digests what a server sends, within limits.
type boundedSum struct {
	ctx  context.Context
	hash interface {
		io.Writer
		Sum([]byte) []byte
	}
	size int64
}

func (s *boundedSum) Write(p []byte) (int, error) {
	if s.size += int64(len(p)); s.size > maxReadBack {
		return 0, fmt.Errorf("%w: more than %d octets", errTooLarge, maxReadBack)
	}
	if err := s.ctx.Err(); err != nil {
		return 0, err
	}
	return s.hash.Write(p)
}

func (e *ExternalServer) address(usual uint16) string {
	port := e.Server.Port
	if port == 0 {
		port = usual
	}
	return net.JoinHostPort(e.Server.Host, strconv.Itoa(int(port)))
}

// readTFTP reads in lockstep, by pin/tftp: backups are small.
func (e *ExternalServer) readTFTP(_ context.Context, name string, to io.Writer) error {
	client, err := tftp.NewClient(e.address(69))
	if err != nil {
		return err
	}
	client.SetBlockSize(1428)
	client.SetTimeout(2 * time.Second)
	client.SetRetries(int(readBackStall / (2 * time.Second)))
	file, err := client.Receive(name, "octet")
	if err != nil {
		return err
	}
	_, err = file.WriteTo(to)
	return err
}

func (e *ExternalServer) readFTP(ctx context.Context, name string, to io.Writer) (err error) {
	dial := &ftpDialer{ctx: ctx}
	options := []ftp.DialOption{ftp.DialWithDialFunc(dial.dial), ftp.DialWithShutTimeout(readBackStall)}
	if e.Server.Protocol == FTPS {
		if dial.tls = e.TLS; dial.tls == nil {
			dial.tls = &tls.Config{MinVersion: tls.VersionTLS12}
		}
		if dial.tls = dial.tls.Clone(); dial.tls.ServerName == "" {
			dial.tls.ServerName = e.Server.Host
		}
		if dial.tls.ClientSessionCache == nil { // some servers want the control connection's session on data connections
			dial.tls.ClientSessionCache = tls.NewLRUClientSessionCache(1)
		}
		options = append(options, ftp.DialWithExplicitTLS(dial.tls))
	}
	conn, err := ftp.Dial(e.address(21), options...)
	if err != nil {
		return err
	}
	defer func() {
		if qerr := conn.Quit(); err == nil && !errors.Is(qerr, io.EOF) {
			err = notReply(qerr)
		}
	}()
	user, password := e.Server.User, e.Server.Password
	if user == "" {
		user, password = "anonymous", "anonymous"
	}
	if err := conn.Login(user, password); err != nil {
		return err
	}
	file, err := conn.Retr(name)
	if err != nil {
		return err
	}
	_, err = io.Copy(to, file)
	return errors.Join(err, file.Close())
}

// notReply drops what a server has to say when it is left.
func notReply(err error) error {
	var reply *textproto.Error
	if errors.As(err, &reply) {
		return nil
	}
	return err
}

// ftpDialer opens an FTP client's connections: all of them end with ctx and are given
// up when the server is silent, or says more in a reply than replies have.
type ftpDialer struct {
	ctx  context.Context
	tls  *tls.Config // for data connections; the library sees to the control connection
	data bool        // the control connection is open
}

func (d *ftpDialer) dial(network, address string) (net.Conn, error) {
	dialer := net.Dialer{Timeout: readBackStall}
	conn, err := dialer.DialContext(d.ctx, network, address)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(d.ctx, func() { _ = conn.Close() }) // its reader learns of it
	closing := closingConn{conn, stop}
	if !d.data {
		d.data = true
		return ftpcontrol.New(closing, readBackStall), nil
	}
	patient := &patientConn{closing, readBackStall}
	if d.tls != nil {
		return tls.Client(patient, d.tls), nil
	}
	return patient, nil
}

// Digest implements Session: the file is read back.
func (s *externalSession) Digest(folder, name string) (int64, []byte, error) {
	return s.server.readBack(path.Join(folder, name))
}
