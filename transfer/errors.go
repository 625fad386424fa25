package transfer

import (
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"unicode"
	"unicode/utf8"
)

// Cause is the failure cause of an error: a number of IadUpgFailCause.
type Cause uint8

// The causes that this package reports.
const (
	CauseOther               Cause = 2
	CauseBadRequest          Cause = 11
	CauseUnsupportedProtocol Cause = 14
	CauseNameNotResolved     Cause = 20
	CauseServerUnreachable   Cause = 21
	CauseServerBusy          Cause = 22
	CauseAuthFailed          Cause = 23
	CauseFileNotFound        Cause = 24
	CauseAccessDenied        Cause = 25
	CauseRemoteStorageFull   Cause = 26
	CauseRemoteFileExists    Cause = 27
	CauseTransferTimeout     Cause = 28
	CauseConnectionLost      Cause = 29
	CauseProtocolError       Cause = 30
	CauseFileTooLarge        Cause = 31
	CauseSizeMismatch        Cause = 32
	CauseTLSFailed           Cause = 33
	CauseDigestMismatch      Cause = 41
	CauseAborted             Cause = 80 // the context was cancelled
	CauseDeadlineExceeded    Cause = 82 // the context's deadline passed
)

// ErrNoResume is wrapped by the error of a Get with an offset where the server
// cannot start in the middle of a file: TFTP never can.
var ErrNoResume = errors.New("server cannot resume a file")

// Error is what every transfer that fails returns.
type Error struct {
	Op     string // "get", "put", "verify", "connect"
	Server string // the server's URL, without a password
	File   string // the file's name as asked for, "" when no file is concerned
	Code   Cause
	Reply  string // the server's own words, printable and cut, "" when it said nothing
	Err    error  // what happened on our side, nil when only the server spoke
}

// Error names the file, what happened, the server and what can be done.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Op)
	if e.File != "" {
		b.WriteString(" " + printable(e.File, 64))
	}
	b.WriteString(": ")
	switch {
	case e.Reply != "":
		b.WriteString(e.Reply)
	case e.Err != nil:
		b.WriteString(printable(withoutSockets(e.Err).Error(), 96))
	}
	b.WriteString(" (" + e.Server)
	if r := remedies[e.Code]; r != "" {
		b.WriteString("; " + r)
	}
	return b.String() + ")"
}

// withoutSockets leaves out the addresses of our own sockets, which mean nothing
// to who reads the error; the server is named anyway.
func withoutSockets(err error) error {
	var op *net.OpError
	switch {
	case onSocket(syscall.EPERM, syscall.EACCES)(err):
		return errors.New("operation not permitted: a local firewall or route refuses it")
	case onSocket(syscall.EINVAL)(err):
		return errors.New("no way to this address from here")
	case errors.As(err, &op) && op.Err != nil:
		return op.Err
	case err == io.EOF, err == io.ErrUnexpectedEOF:
		return errors.New("the connection broke off")
	}
	return err
}

// Unwrap returns what happened on our side.
func (e *Error) Unwrap() error { return e.Err }

// Cause returns the number of IadUpgFailCause.
func (e *Error) Cause() uint8 { return uint8(e.Code) }

// remedies are what helps against each cause whatever led to it. How server replies
// and local errors lead to causes is in classify.go; whether to try again is for the
// device to say.
var remedies = map[Cause]string{
	CauseBadRequest:          "correct the name or the address",
	CauseUnsupportedProtocol: "use tftp, ftp or ftps",
	CauseNameNotResolved:     "check the host name and the name server",
	CauseServerUnreachable:   "check address, port, route and that the server runs",
	CauseServerBusy:          "try again later",
	CauseAuthFailed:          "check user and password",
	CauseFileNotFound:        "check file name and directory",
	CauseAccessDenied:        "check the permissions on the server",
	CauseRemoteStorageFull:   "make room on the server",
	CauseRemoteFileExists:    "use another name or remove the file",
	CauseTransferTimeout:     "check the line",
	CauseConnectionLost:      "check the line and the server",
	CauseProtocolError:       "check the server's settings",
	CauseFileTooLarge:        "use a smaller file",
	CauseSizeMismatch:        "check the file on the server",
	CauseTLSFailed:           "use ftps; check certificate, pin and the device's clock",
	CauseDigestMismatch:      "transfer it again",
	CauseDeadlineExceeded:    "allow more time",
}

// printable makes text of strangers fit for a log line: valid UTF-8 without
// control characters, at most max octets.
func printable(s string, max int) string {
	s = strings.TrimSpace(s)
	if len(s) > 4*max {
		s = s[:4*max]
	}
	s = strings.Map(func(r rune) rune {
		switch {
		case r == utf8.RuneError:
			return '?'
		case r == '\r' || r == '\n' || r == '\t':
			return ' '
		case !unicode.IsPrint(r):
			return '?'
		}
		return r
	}, s)
	if len(s) <= max {
		return s
	}
	cut := max
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut]
}
