package transfer

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"

	"example.com/iad/internal/ftpcontrol"
	"example.com/iad/transfer/tftp"
)

// direction tells downloads from uploads where a reply means different things.
type direction uint8

const (
	either direction = iota
	getting
	putting
)

// replyError is a refusal in the server's own words.
type replyError struct {
	protocol Protocol  // TFTP, or FTP for FTPS as well
	code     int       // TFTP error code or FTP reply code
	text     string    // as received
	doing    direction // either while connecting and logging in
	hint     Cause     // overrides the table when what was learned before tells more; 0 if not
}

func (e *replyError) Error() string {
	if e.protocol == TFTP {
		return fmt.Sprintf("TFTP error %d: %s", e.code, e.text)
	}
	return fmt.Sprintf("%d %s", e.code, e.text)
}

// causeError is a failure on our side whose cause is known where it occurs.
type causeError struct {
	cause Cause
	err   error
}

func (e *causeError) Error() string { return e.err.Error() }
func (e *causeError) Unwrap() error { return e.err }

// replyRule maps replies to a cause. The first rule that fits counts.
type replyRule struct {
	protocol    Protocol
	first, last int       // codes
	doing       direction // either: both
	words       []string  // one of these is in the text, in any case; nil: any text
	cause       Cause
}

// Words that servers use. FTP has one code for many reasons, TFTP servers use
// code 0 or 2 with the text of the operating system.
var (
	wordsFull     = []string{"space left", "disk full", "full disk", "quota", "storage allocation", "file system full"}
	wordsNotFound = []string{"no such file", "not found", "not exist", "cannot find", "can't find", "could not find", "no such directory"}
	wordsDenied   = []string{"permission", "denied", "not permitted", "not allowed", "forbidden", "access violation", "unauthorized", "read-only"}
	// What vsftpd, pure-ftpd and proftpd say when the disk is full.
	wordsUnwritten = []string{"local file", "write to file", "input/output error"}
	wordsTLS       = []string{"must use encryption", "ssl/tls required", "cleartext sessions", "tls required"}
	wordsBusy      = []string{"too many", "try again", "busy", "room is needed", "server stops"}
	wordsStalled   = []string{"does not answer", "timed out", "timeout"}
	wordsExists    = []string{"already exist", "file exists", "overwrite"}
)

// replyRules is the table of what servers say. Tests hold it against real
// servers (matrix_test.go).
var replyRules = []replyRule{
	{TFTP, 3, 3, either, nil, CauseRemoteStorageFull},
	{TFTP, 6, 6, either, nil, CauseRemoteFileExists},
	{TFTP, 0, 2, either, wordsFull, CauseRemoteStorageFull},
	{TFTP, 0, 2, either, wordsNotFound, CauseFileNotFound},
	{TFTP, 0, 2, either, wordsExists, CauseRemoteFileExists},
	{TFTP, 0, 2, either, wordsDenied, CauseAccessDenied},
	{TFTP, 0, 0, either, wordsBusy, CauseServerBusy},
	{TFTP, 0, 0, either, wordsStalled, CauseTransferTimeout},
	{TFTP, 1, 1, either, nil, CauseFileNotFound},
	{TFTP, 2, 2, either, nil, CauseAccessDenied},
	{TFTP, 0, 65535, either, nil, CauseProtocolError},

	{FTP, 400, 599, either, wordsFull, CauseRemoteStorageFull},
	{FTP, 452, 452, either, nil, CauseRemoteStorageFull},
	{FTP, 552, 552, either, nil, CauseRemoteStorageFull},
	{FTP, 400, 599, either, wordsTLS, CauseTLSFailed},
	{FTP, 421, 421, either, nil, CauseServerBusy},
	{FTP, 430, 430, either, nil, CauseAuthFailed},
	{FTP, 530, 532, either, nil, CauseAuthFailed},
	{FTP, 332, 332, either, nil, CauseAuthFailed},
	{FTP, 522, 522, either, nil, CauseTLSFailed},
	{FTP, 534, 536, either, nil, CauseTLSFailed},
	{FTP, 426, 426, either, nil, CauseConnectionLost},
	{FTP, 451, 451, putting, wordsUnwritten, CauseRemoteStorageFull},
	{FTP, 451, 451, either, nil, CauseConnectionLost},
	{FTP, 425, 425, either, nil, CauseProtocolError},
	{FTP, 450, 450, either, wordsNotFound, CauseFileNotFound},
	{FTP, 450, 450, either, nil, CauseServerBusy},
	{FTP, 500, 599, either, wordsNotFound, CauseFileNotFound},
	{FTP, 500, 599, putting, wordsExists, CauseRemoteFileExists},
	{FTP, 550, 553, either, wordsDenied, CauseAccessDenied},
	{FTP, 550, 550, getting, nil, CauseFileNotFound},
	{FTP, 550, 553, putting, nil, CauseAccessDenied},
	{FTP, 100, 999, either, nil, CauseProtocolError},
}

func (e *replyError) cause() Cause {
	if e.hint != 0 {
		return e.hint
	}
	for _, r := range replyRules {
		if r.protocol != e.protocol || e.code < r.first || e.code > r.last || r.doing != either && r.doing != e.doing {
			continue
		}
		if r.words == nil || e.says(r.words) {
			return r.cause
		}
	}
	return CauseProtocolError
}

// says reports whether one of the words is in the text.
func (e *replyError) says(words []string) bool {
	text := strings.ToLower(e.text)
	return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(text, w) })
}

// localRules is the table of errors on our side, most telling first.
var localRules = []struct {
	fits  func(error) bool
	cause Cause
}{
	{is(context.DeadlineExceeded), CauseDeadlineExceeded},
	{is(context.Canceled), CauseAborted},
	{as[*net.DNSError](), CauseNameNotResolved},
	{as[*tls.CertificateVerificationError](), CauseTLSFailed},
	{as[x509.UnknownAuthorityError](), CauseTLSFailed},
	{is(errCancelled), CauseAborted},
	{is(tftp.ErrSilent), CauseTransferTimeout},
	{is(tftp.ErrNothingThrough), CauseTransferTimeout},
	{is(tftp.ErrNoAnswer), CauseServerUnreachable},
	{is(tftp.ErrGone), CauseConnectionLost},
	{is(os.ErrDeadlineExceeded), CauseTransferTimeout},
	{is(syscall.ETIMEDOUT), CauseTransferTimeout},
	{is(syscall.ECONNREFUSED), CauseServerUnreachable},
	{is(syscall.EHOSTUNREACH), CauseServerUnreachable},
	{is(syscall.ENETUNREACH), CauseServerUnreachable},
	{is(syscall.EADDRNOTAVAIL), CauseServerUnreachable},
	// A firewall, routes of type prohibit and blackhole, an interface that is gone.
	{onSocket(syscall.EPERM, syscall.EACCES, syscall.EINVAL, syscall.ENODEV, syscall.ENETDOWN, syscall.EAFNOSUPPORT), CauseServerUnreachable},
	{is(syscall.ECONNRESET), CauseConnectionLost},
	{is(syscall.EPIPE), CauseConnectionLost},
	// After a broken connection: a dying server may write in the clear.
	{as[tls.RecordHeaderError](), CauseTLSFailed},
	{as[tls.AlertError](), CauseTLSFailed},
	{is(io.EOF), CauseConnectionLost},
	{is(io.ErrUnexpectedEOF), CauseConnectionLost},
	{is(net.ErrClosed), CauseConnectionLost},
	{is(tftp.ErrMalformed), CauseProtocolError},
	{is(tftp.ErrBlockTooLong), CauseProtocolError},
	{is(errOptionsRefused), CauseProtocolError},
	{is(ftpcontrol.ErrReplyTooLong), CauseProtocolError},
}

func is(target error) func(error) bool {
	return func(err error) bool { return errors.Is(err, target) }
}

// onSocket fits errors of a socket: the same ones of a file mean something else.
func onSocket(targets ...syscall.Errno) func(error) bool {
	return func(err error) bool {
		var op *net.OpError
		var code syscall.Errno
		return errors.As(err, &op) && errors.As(op, &code) && slices.Contains(targets, code)
	}
}

func as[T error]() func(error) bool {
	return func(err error) bool {
		var t T
		return errors.As(err, &t)
	}
}

// classify finds the cause of an error. An error that brings its own cause, as
// one from the reader of an upload may, keeps it.
func classify(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		c := *e
		return &c
	}
	var reply *replyError
	if errors.As(err, &reply) {
		return &Error{Code: reply.cause(), Reply: printable(reply.Error(), 96), Err: err}
	}
	var known *causeError
	if errors.As(err, &known) {
		return &Error{Code: known.cause, Err: err}
	}
	var other interface{ Cause() uint8 }
	if errors.As(err, &other) {
		return &Error{Code: Cause(other.Cause()), Err: err}
	}
	for _, r := range localRules {
		if r.fits(err) {
			return &Error{Code: r.cause, Err: err}
		}
	}
	return &Error{Code: CauseOther, Err: err}
}
