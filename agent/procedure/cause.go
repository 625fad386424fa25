package procedure

import (
	"context"
	"errors"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"example.com/iad/mib"
)

// Cause is why an operation failed or a request was refused.
type Cause = mib.FailCause

// Failure causes; IadUpgFailCause says what each of them means.
const (
	CauseNone                 = mib.FailCauseNone
	CauseOther                = mib.FailCauseOther
	CauseUnsupported          = mib.FailCauseUnsupported
	CauseBadRequest           = mib.FailCauseBadRequest
	CauseBusy                 = mib.FailCauseBusy
	CauseNotPermitted         = mib.FailCauseNotPermitted
	CauseUnsupportedProtocol  = mib.FailCauseUnsupportedProtocol
	CauseIncompatibleHardware = mib.FailCauseIncompatibleHardware
	CauseDowngradeRefused     = mib.FailCauseDowngradeRefused
	CauseAlreadyInstalled     = mib.FailCauseAlreadyInstalled
	CausePreconditionMissing  = mib.FailCausePreconditionMissing
	CauseServiceInUse         = mib.FailCauseServiceInUse
	CauseNameNotResolved      = mib.FailCauseNameNotResolved
	CauseServerUnreachable    = mib.FailCauseServerUnreachable
	CauseServerBusy           = mib.FailCauseServerBusy
	CauseAuthFailed           = mib.FailCauseAuthFailed
	CauseFileNotFound         = mib.FailCauseFileNotFound
	CauseAccessDenied         = mib.FailCauseAccessDenied
	CauseRemoteStorageFull    = mib.FailCauseRemoteStorageFull
	CauseRemoteFileExists     = mib.FailCauseRemoteFileExists
	CauseTransferTimeout      = mib.FailCauseTransferTimeout
	CauseConnectionLost       = mib.FailCauseConnectionLost
	CauseProtocolError        = mib.FailCauseProtocolError
	CauseFileTooLarge         = mib.FailCauseFileTooLarge
	CauseSizeMismatch         = mib.FailCauseSizeMismatch
	CauseTLSFailed            = mib.FailCauseTlsFailed
	CauseBadFormat            = mib.FailCauseBadFormat
	CauseDigestMismatch       = mib.FailCauseDigestMismatch
	CauseSignatureInvalid     = mib.FailCauseSignatureInvalid
	CauseSignerUntrusted      = mib.FailCauseSignerUntrusted
	CauseVersionMismatch      = mib.FailCauseVersionMismatch
	CauseNoMemory             = mib.FailCauseNoMemory
	CauseStorageFull          = mib.FailCauseStorageFull
	CauseEraseError           = mib.FailCauseEraseError
	CauseWriteError           = mib.FailCauseWriteError
	CauseReadBackMismatch     = mib.FailCauseReadBackMismatch
	CauseBankUnavailable      = mib.FailCauseBankUnavailable
	CauseBootFlagError        = mib.FailCauseBootFlagError
	CauseBootFailed           = mib.FailCauseBootFailed
	CauseSelfTestFailed       = mib.FailCauseSelfTestFailed
	CauseConfirmTimeout       = mib.FailCauseConfirmTimeout
	CauseWatchdogReset        = mib.FailCauseWatchdogReset
	CauseNoFallback           = mib.FailCauseNoFallback
	CauseRollbackFailed       = mib.FailCauseRollbackFailed
	CauseConfigReadError      = mib.FailCauseConfigReadError
	CauseConfigParseError     = mib.FailCauseConfigParseError
	CauseConfigFormatMismatch = mib.FailCauseConfigFormatMismatch
	CauseConvertFailed        = mib.FailCauseConvertFailed
	CauseConvertTimeout       = mib.FailCauseConvertTimeout
	CauseConvertToolMissing   = mib.FailCauseConvertToolMissing
	CauseConfigApplyError     = mib.FailCauseConfigApplyError
	CauseConfigSaveError      = mib.FailCauseConfigSaveError
	CauseAbortedByManager     = mib.FailCauseAbortedByManager
	CauseAbortedLocally       = mib.FailCauseAbortedLocally
	CauseDeadlineExceeded     = mib.FailCauseDeadlineExceeded
	CauseInterrupted          = mib.FailCauseInterrupted
	CauseInternalError        = mib.FailCauseInternalError
)

// Causes lists the failure causes in ascending order.
func Causes() []Cause { return mib.FailCauses() }

// Advice is what the device thinks of trying again.
type Advice = mib.RetryAdvice

// Advice on trying again.
const (
	NotApplicable = mib.RetryAdviceNotApplicable
	RetryNow      = mib.RetryAdviceRetryNow
	RetryLater    = mib.RetryAdviceRetryLater
	FixFirst      = mib.RetryAdviceFixFirst
	DoNotRetry    = mib.RetryAdviceDoNotRetry
	RestoreFirst  = mib.RetryAdviceRestoreFirst
)

// AdviceFor returns the advice for a cause, retryLater for one that is not in
// the module.
func AdviceFor(c Cause) Advice { return c.Advice() }

// Failure is an error with the cause that the wire needs.
type Failure struct {
	Code Cause
	Text string
}

func (f *Failure) Error() string { return f.Text }

// Cause returns the number of IadUpgFailCause.
func (f *Failure) Cause() uint8 { return uint8(f.Code) }

func failure(c Cause, text string) *Failure { return &Failure{Code: c, Text: cut(text)} }

// classify turns any error into a Failure: that of the error's own cause if it
// has one, else internalError.
func classify(err error) *Failure {
	var f *Failure
	if errors.As(err, &f) {
		return failure(f.Code, f.Text)
	}
	var coded interface {
		error
		Cause() uint8
	}
	switch {
	case errors.As(err, &coded):
		return &Failure{Code: Cause(coded.Cause()), Text: cut(coded.Error())}
	case errors.Is(err, context.DeadlineExceeded):
		return failure(CauseDeadlineExceeded, "the time limit has passed")
	}
	return &Failure{Code: CauseInternalError, Text: cut(err.Error())}
}

// maxText is the size limit of the texts of IAD-UPGRADE-MIB in octets.
const maxText = 128

// cutAll joins findings, the most serious first, to a text for the MIB. Where there is
// not room for all, their details are left out, then the last ones are cut, as far as
// still something is said of each.
func cutAll(findings []string) string {
	const sep = "; "
	text := strings.Join(findings, sep)
	if len(text) <= maxText {
		return cut(text)
	}
	short := make([]string, len(findings))
	for i, f := range findings {
		short[i], _, _ = strings.Cut(f, ": ")
	}
	least := max(10, min(16, (maxText-len(sep)*(len(short)-1))/len(short)))
	for i := range slices.Backward(short) {
		over := len(strings.Join(short, sep)) - maxText
		if over > 0 {
			short[i] = cutTo(short[i], max(least, len(short[i])-over))
		}
	}
	return cut(strings.Join(short, sep))
}

// cut makes s printable, valid UTF-8 and short enough for the MIB.
func cut(s string) string { return cutTo(s, maxText) }

// cutTo is cut to a limit of at least some octets.
func cutTo(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == utf8.RuneError {
			return ' '
		}
		return r
	}, s)
	if len(s) <= limit {
		return s
	}
	end := limit - len("…")
	for !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + "…"
}
