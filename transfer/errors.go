package transfer

import (
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"unicode"
	"unicode/utf8"

	"example.com/iad/mib"
)

// ErrNoResume is wrapped by the error of a Get with an offset where the server
// cannot start in the middle of a file: TFTP never can.
var ErrNoResume = errors.New("server cannot resume a file")

// Error is what every transfer that fails returns.
type Error struct {
	Op     string // "get", "put", "verify", "connect"
	Server string // the server's URL, without a password
	File   string // the file's name as asked for, "" when no file is concerned
	Code   mib.FailCause
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
func (e *Error) Cause() mib.FailCause { return e.Code }

// remedies are what helps against each cause whatever led to it. How server replies
// and local errors lead to causes is in classify.go; whether to try again is for the
// device to say.
var remedies = map[mib.FailCause]string{
	mib.FailCauseBadRequest:          "correct the name or the address",
	mib.FailCauseUnsupportedProtocol: "use tftp, ftp or ftps",
	mib.FailCauseNameNotResolved:     "check the host name and the name server",
	mib.FailCauseServerUnreachable:   "check address, port, route and that the server runs",
	mib.FailCauseServerBusy:          "try again later",
	mib.FailCauseAuthFailed:          "check user and password",
	mib.FailCauseFileNotFound:        "check file name and directory",
	mib.FailCauseAccessDenied:        "check the permissions on the server",
	mib.FailCauseRemoteStorageFull:   "make room on the server",
	mib.FailCauseRemoteFileExists:    "use another name or remove the file",
	mib.FailCauseTransferTimeout:     "check the line",
	mib.FailCauseConnectionLost:      "check the line and the server",
	mib.FailCauseProtocolError:       "check the server's settings",
	mib.FailCauseFileTooLarge:        "use a smaller file",
	mib.FailCauseSizeMismatch:        "check the file on the server",
	mib.FailCauseTlsFailed:           "use ftps; check certificate, pin and the device's clock",
	mib.FailCauseDigestMismatch:      "transfer it again",
	mib.FailCauseDeadlineExceeded:    "allow more time",
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
