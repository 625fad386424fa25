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
	Reply  string // the server's reply, printable and cut, "" when there was none
	Err    error  // what happened on our side, nil when only the server reported an error
}

// Error names the file, what happened and the server. The remedy is that of the cause
// in mib, which device and manager add where they show a failure.
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
	return b.String() + " (" + e.Server + ")"
}

// withoutSockets leaves out the addresses of our own sockets, which say nothing to
// the reader of the error; it names the server anyway.
func withoutSockets(err error) error {
	var op *net.OpError
	switch {
	case onSocket(syscall.EPERM, syscall.EACCES)(err):
		return errors.New("operation not permitted: a local firewall or route refuses it")
	case onSocket(syscall.EINVAL)(err):
		return errors.New("no route to this address")
	case errors.As(err, &op) && op.Err != nil:
		return op.Err
	case err == io.EOF, err == io.ErrUnexpectedEOF:
		return errors.New("the connection was lost")
	}
	return err
}

// Unwrap returns what happened on our side.
func (e *Error) Unwrap() error { return e.Err }

// Cause returns the cause as IadUpgFailCause has it. classify.go says how replies of
// servers and local errors lead to causes.
func (e *Error) Cause() mib.FailCause { return e.Code }

// printable makes text of strangers fit for a log line: valid UTF-8 without
// control characters, at most max bytes.
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
