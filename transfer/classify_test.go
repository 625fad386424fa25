package transfer

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"example.com/iad/mib"
)

// TestReplyRules: every rule of the table decides something: no rule before it
// takes its replies away.
func TestReplyRules(t *testing.T) {
	for _, r := range replyRules {
		words := r.words
		if words == nil {
			words = []string{""}
		}
		decides := false
		for _, w := range words {
			for code := r.first; code <= min(r.last, r.first+999) && !decides; code++ {
				for _, doing := range []direction{either, getting, putting} {
					if r.doing != either && r.doing != doing {
						continue
					}
					e := &replyError{protocol: r.protocol, code: code, text: strings.ToUpper(w), doing: doing}
					decides = decides || e.cause() == r.cause
				}
			}
		}
		if !decides {
			t.Errorf("rule %+v never decides", r)
		}
		if r.cause.Explain().Remedy == "" {
			t.Errorf("cause %s has no remedy", r.cause)
		}
	}
}

type withCause struct{}

func (withCause) Error() string        { return "no settings" }
func (withCause) Cause() mib.FailCause { return 70 }

func TestClassify(t *testing.T) {
	op := func(err error) error { return &net.OpError{Op: "read", Err: err} }
	for _, x := range []struct {
		err  error
		want mib.FailCause
	}{
		{op(syscall.ECONNREFUSED), mib.FailCauseServerUnreachable},
		{op(syscall.ENETUNREACH), mib.FailCauseServerUnreachable},
		{op(syscall.EPERM), mib.FailCauseServerUnreachable},
		{op(os.NewSyscallError("sendto", syscall.EACCES)), mib.FailCauseServerUnreachable},
		{op(syscall.EINVAL), mib.FailCauseServerUnreachable},
		{&os.PathError{Op: "read", Path: "x", Err: syscall.EPERM}, mib.FailCauseOther},
		{op(syscall.ECONNRESET), mib.FailCauseConnectionLost},
		{op(os.ErrDeadlineExceeded), mib.FailCauseTransferTimeout},
		{io.ErrUnexpectedEOF, mib.FailCauseConnectionLost},
		{&net.DNSError{Err: "no such host", Name: "x"}, mib.FailCauseNameNotResolved},
		{&tls.CertificateVerificationError{Err: errors.New("expired")}, mib.FailCauseTlsFailed},
		{fmt.Errorf("wrapped: %w", context.DeadlineExceeded), mib.FailCauseDeadlineExceeded},
		{context.Canceled, mib.FailCauseAbortedByManager},
		{&replyError{protocol: mib.ProtocolFtp, code: 550, text: "x", doing: getting}, mib.FailCauseFileNotFound},
		{&replyError{protocol: mib.ProtocolTftp, code: 8, text: "x"}, mib.FailCauseProtocolError},
		{&replyError{protocol: mib.ProtocolFtp, code: 425, text: "x"}, mib.FailCauseProtocolError},
		{&replyError{protocol: mib.ProtocolFtp, code: 502, text: "x"}, mib.FailCauseProtocolError},
		{&causeError{mib.FailCauseFileTooLarge, errors.New("x")}, mib.FailCauseFileTooLarge},
		{&sourceError{io.ErrUnexpectedEOF}, mib.FailCauseOther},
		{&sourceError{withCause{}}, 70},
		{errors.New("x"), mib.FailCauseOther},
	} {
		if e := classify(x.err); e.Code != x.want {
			t.Errorf("%v: cause %d, want %d", x.err, e.Code, x.want)
		}
	}
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"plain": "plain", " a\r\nb\t": "a  b", "x\x1b[0m\x00\xff": "x?[0m??", "größer": "größer", strings.Repeat("ä", 20): "äää",
	} {
		if got := printable(in, 7); got != want {
			if len(want) > 7 {
				want = want[:7]
			}
			if got != strings.ToValidUTF8(want, "") {
				t.Errorf("%q becomes %q, want %q", in, got, want)
			}
		}
	}
}
