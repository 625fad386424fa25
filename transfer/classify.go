package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"

	"example.com/iad/mib"
	"example.com/iad/transfer/tftp"
)

// direction distinguishes downloads from uploads where a reply means different things.
type direction uint8

const (
	either direction = iota
	getting
	putting
)

// replyError is a refusal in the server's own words.
type replyError struct {
	protocol mib.Protocol  // TFTP, or FTP for FTPS as well
	code     int           // TFTP error code or FTP reply code
	text     string        // as received
	doing    direction     // either while connecting and logging in
	hint     mib.FailCause // overrides the table if an earlier reply was more specific; 0 if not
}

func (e *replyError) Error() string {
	if e.protocol == mib.ProtocolTftp {
		return fmt.Sprintf("TFTP error %d: %s", e.code, e.text)
	}
	return fmt.Sprintf("%d %s", e.code, e.text)
}

// causeError is a failure on our side whose cause is known where it occurs.
type causeError struct {
	cause mib.FailCause
	err   error
}

func (e *causeError) Error() string { return e.err.Error() }
func (e *causeError) Unwrap() error { return e.err }

// replyRule maps replies to a cause. The first rule that fits counts.
type replyRule struct {
	protocol    mib.Protocol
	first, last int       // codes
	doing       direction // either: both
	words       []string  // one of these is in the text, in any case; nil: any text
	cause       mib.FailCause
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
	{mib.ProtocolTftp, 3, 3, either, nil, mib.FailCauseRemoteStorageFull},
	{mib.ProtocolTftp, 6, 6, either, nil, mib.FailCauseRemoteFileExists},
	{mib.ProtocolTftp, 0, 2, either, wordsFull, mib.FailCauseRemoteStorageFull},
	{mib.ProtocolTftp, 0, 2, either, wordsNotFound, mib.FailCauseFileNotFound},
	{mib.ProtocolTftp, 0, 2, either, wordsExists, mib.FailCauseRemoteFileExists},
	{mib.ProtocolTftp, 0, 2, either, wordsDenied, mib.FailCauseAccessDenied},
	{mib.ProtocolTftp, 0, 0, either, wordsBusy, mib.FailCauseServerBusy},
	{mib.ProtocolTftp, 0, 0, either, wordsStalled, mib.FailCauseTransferTimeout},
	{mib.ProtocolTftp, 1, 1, either, nil, mib.FailCauseFileNotFound},
	{mib.ProtocolTftp, 2, 2, either, nil, mib.FailCauseAccessDenied},
	{mib.ProtocolTftp, 0, 65535, either, nil, mib.FailCauseProtocolError},

	// pure-ftpd's last reply when the data connection broke early is sometimes the
	// transfer rate under the code of its first one.
	{mib.ProtocolFtp, 100, 199, getting, nil, mib.FailCauseConnectionLost},
	{mib.ProtocolFtp, 100, 199, putting, nil, mib.FailCauseConnectionLost},
	{mib.ProtocolFtp, 400, 599, either, wordsFull, mib.FailCauseRemoteStorageFull},
	{mib.ProtocolFtp, 452, 452, either, nil, mib.FailCauseRemoteStorageFull},
	{mib.ProtocolFtp, 552, 552, either, nil, mib.FailCauseRemoteStorageFull},
	{mib.ProtocolFtp, 400, 599, either, wordsTLS, mib.FailCauseTlsFailed},
	{mib.ProtocolFtp, 421, 421, either, nil, mib.FailCauseServerBusy},
	{mib.ProtocolFtp, 430, 430, either, nil, mib.FailCauseAuthFailed},
	{mib.ProtocolFtp, 530, 532, either, nil, mib.FailCauseAuthFailed},
	{mib.ProtocolFtp, 332, 332, either, nil, mib.FailCauseAuthFailed},
	{mib.ProtocolFtp, 522, 522, either, nil, mib.FailCauseTlsFailed},
	{mib.ProtocolFtp, 534, 536, either, nil, mib.FailCauseTlsFailed},
	{mib.ProtocolFtp, 426, 426, either, nil, mib.FailCauseConnectionLost},
	{mib.ProtocolFtp, 451, 451, putting, wordsUnwritten, mib.FailCauseRemoteStorageFull},
	{mib.ProtocolFtp, 451, 451, either, nil, mib.FailCauseConnectionLost},
	{mib.ProtocolFtp, 425, 425, either, nil, mib.FailCauseProtocolError},
	{mib.ProtocolFtp, 450, 450, either, wordsNotFound, mib.FailCauseFileNotFound},
	{mib.ProtocolFtp, 450, 450, either, nil, mib.FailCauseServerBusy},
	{mib.ProtocolFtp, 500, 599, either, wordsNotFound, mib.FailCauseFileNotFound},
	{mib.ProtocolFtp, 500, 599, putting, wordsExists, mib.FailCauseRemoteFileExists},
	{mib.ProtocolFtp, 550, 553, either, wordsDenied, mib.FailCauseAccessDenied},
	{mib.ProtocolFtp, 550, 550, getting, nil, mib.FailCauseFileNotFound},
	{mib.ProtocolFtp, 550, 553, putting, nil, mib.FailCauseAccessDenied},
	{mib.ProtocolFtp, 100, 999, either, nil, mib.FailCauseProtocolError},
}

func (e *replyError) cause() mib.FailCause {
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
	return mib.FailCauseProtocolError
}

// says reports whether one of the words is in the text.
func (e *replyError) says(words []string) bool {
	text := strings.ToLower(e.text)
	return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(text, w) })
}

// localRules is the table of errors on our side, most specific first.
var localRules = []struct {
	fits  func(error) bool
	cause mib.FailCause
}{
	{is(context.DeadlineExceeded), mib.FailCauseDeadlineExceeded},
	{is(context.Canceled), mib.FailCauseAbortedByManager},
	{as[*net.DNSError](), mib.FailCauseNameNotResolved},
	{certificateRefused, mib.FailCauseTlsFailed},
	{is(errCancelled), mib.FailCauseAbortedByManager},
	{is(tftp.ErrSilent), mib.FailCauseTransferTimeout},
	{is(tftp.ErrUnconfirmed), mib.FailCauseTransferTimeout},
	{is(tftp.ErrNothingThrough), mib.FailCauseTransferTimeout},
	{is(tftp.ErrNoAnswer), mib.FailCauseServerUnreachable},
	{is(tftp.ErrGone), mib.FailCauseConnectionLost},
	{is(os.ErrDeadlineExceeded), mib.FailCauseTransferTimeout},
	{is(syscall.ETIMEDOUT), mib.FailCauseTransferTimeout},
	{is(syscall.ECONNREFUSED), mib.FailCauseServerUnreachable},
	{is(syscall.EHOSTUNREACH), mib.FailCauseServerUnreachable},
	{is(syscall.ENETUNREACH), mib.FailCauseServerUnreachable},
	{is(syscall.EADDRNOTAVAIL), mib.FailCauseServerUnreachable},
	// A firewall, routes of type prohibit and blackhole, an interface that is gone.
	{onSocket(syscall.EPERM, syscall.EACCES, syscall.EINVAL, syscall.ENODEV, syscall.ENETDOWN, syscall.EAFNOSUPPORT), mib.FailCauseServerUnreachable},
	{is(syscall.ECONNRESET), mib.FailCauseConnectionLost},
	{is(syscall.EPIPE), mib.FailCauseConnectionLost},
	// After a broken connection: a dying server may write in the clear.
	{tlsBroken, mib.FailCauseTlsFailed},
	{is(io.EOF), mib.FailCauseConnectionLost},
	{is(io.ErrUnexpectedEOF), mib.FailCauseConnectionLost},
	{is(net.ErrClosed), mib.FailCauseConnectionLost},
	{is(tftp.ErrMalformed), mib.FailCauseProtocolError},
	{is(tftp.ErrBlockTooLong), mib.FailCauseProtocolError},
	{is(errOptionsRefused), mib.FailCauseProtocolError},
	{is(errReplyTooLong), mib.FailCauseProtocolError},
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
	if cause := mib.CauseOf(err, 0); cause != 0 {
		return &Error{Code: cause, Err: err}
	}
	for _, r := range localRules {
		if r.fits(err) {
			return &Error{Code: r.cause, Err: err}
		}
	}
	return &Error{Code: mib.FailCauseOther, Err: err}
}
