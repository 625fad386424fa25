package procedure

import (
	"context"
	"errors"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Cause is why an operation failed or a request was refused; the numbers are
// those of IadUpgFailCause.
type Cause uint8

// Failure causes; IadUpgFailCause says what each of them means.
const (
	CauseNone                 Cause = 1
	CauseOther                Cause = 2
	CauseUnsupported          Cause = 10
	CauseBadRequest           Cause = 11
	CauseBusy                 Cause = 12
	CauseNotPermitted         Cause = 13
	CauseUnsupportedProtocol  Cause = 14
	CauseIncompatibleHardware Cause = 15
	CauseDowngradeRefused     Cause = 16
	CauseAlreadyInstalled     Cause = 17
	CausePreconditionMissing  Cause = 18
	CauseServiceInUse         Cause = 19
	CauseNameNotResolved      Cause = 20
	CauseServerUnreachable    Cause = 21
	CauseServerBusy           Cause = 22
	CauseAuthFailed           Cause = 23
	CauseFileNotFound         Cause = 24
	CauseAccessDenied         Cause = 25
	CauseRemoteStorageFull    Cause = 26
	CauseRemoteFileExists     Cause = 27
	CauseTransferTimeout      Cause = 28
	CauseConnectionLost       Cause = 29
	CauseProtocolError        Cause = 30
	CauseFileTooLarge         Cause = 31
	CauseSizeMismatch         Cause = 32
	CauseTLSFailed            Cause = 33
	CauseBadFormat            Cause = 40
	CauseDigestMismatch       Cause = 41
	CauseSignatureInvalid     Cause = 42
	CauseSignerUntrusted      Cause = 43
	CauseVersionMismatch      Cause = 44
	CauseNoMemory             Cause = 50
	CauseStorageFull          Cause = 51
	CauseEraseError           Cause = 52
	CauseWriteError           Cause = 53
	CauseReadBackMismatch     Cause = 54
	CauseBankUnavailable      Cause = 55
	CauseBootFlagError        Cause = 60
	CauseBootFailed           Cause = 61
	CauseSelfTestFailed       Cause = 62
	CauseConfirmTimeout       Cause = 63
	CauseWatchdogReset        Cause = 64
	CauseNoFallback           Cause = 65
	CauseRollbackFailed       Cause = 66
	CauseConfigReadError      Cause = 70
	CauseConfigParseError     Cause = 71
	CauseConfigFormatMismatch Cause = 72
	CauseConvertFailed        Cause = 73
	CauseConvertTimeout       Cause = 74
	CauseConvertToolMissing   Cause = 75
	CauseConfigApplyError     Cause = 76
	CauseConfigSaveError      Cause = 77
	CauseAbortedByManager     Cause = 80
	CauseAbortedLocally       Cause = 81
	CauseDeadlineExceeded     Cause = 82
	CauseInterrupted          Cause = 83
	CauseInternalError        Cause = 84
)

var causeNames = []string{
	CauseNone: "none", CauseOther: "other", CauseUnsupported: "unsupported", CauseBadRequest: "badRequest",
	CauseBusy: "busy", CauseNotPermitted: "notPermitted", CauseUnsupportedProtocol: "unsupportedProtocol",
	CauseIncompatibleHardware: "incompatibleHardware", CauseDowngradeRefused: "downgradeRefused",
	CauseAlreadyInstalled: "alreadyInstalled", CausePreconditionMissing: "preconditionMissing",
	CauseServiceInUse: "serviceInUse", CauseNameNotResolved: "nameNotResolved", CauseServerUnreachable: "serverUnreachable", CauseServerBusy: "serverBusy", CauseAuthFailed: "authFailed", CauseFileNotFound: "fileNotFound", CauseAccessDenied: "accessDenied", CauseRemoteStorageFull: "remoteStorageFull",
	CauseRemoteFileExists: "remoteFileExists", CauseTransferTimeout: "transferTimeout", CauseConnectionLost: "connectionLost", CauseProtocolError: "protocolError", CauseFileTooLarge: "fileTooLarge", CauseSizeMismatch: "sizeMismatch", CauseTLSFailed: "tlsFailed", CauseBadFormat: "badFormat", CauseDigestMismatch: "digestMismatch", CauseSignatureInvalid: "signatureInvalid", CauseSignerUntrusted: "signerUntrusted",
	CauseVersionMismatch: "versionMismatch", CauseNoMemory: "noMemory", CauseStorageFull: "storageFull",
	CauseEraseError: "eraseError", CauseWriteError: "writeError", CauseReadBackMismatch: "readBackMismatch",
	CauseBankUnavailable: "bankUnavailable", CauseBootFlagError: "bootFlagError", CauseBootFailed: "bootFailed",
	CauseSelfTestFailed: "selfTestFailed", CauseConfirmTimeout: "confirmTimeout", CauseWatchdogReset: "watchdogReset", CauseNoFallback: "noFallback", CauseRollbackFailed: "rollbackFailed", CauseConfigReadError: "configReadError", CauseConfigParseError: "configParseError", CauseConfigFormatMismatch: "configFormatMismatch", CauseConvertFailed: "convertFailed", CauseConvertTimeout: "convertTimeout",
	CauseConvertToolMissing: "convertToolMissing", CauseConfigApplyError: "configApplyError",
	CauseConfigSaveError: "configSaveError", CauseAbortedByManager: "abortedByManager", CauseAbortedLocally: "abortedLocally", CauseDeadlineExceeded: "deadlineExceeded", CauseInterrupted: "interrupted",
	CauseInternalError: "internalError",
}

func (c Cause) String() string { return name(causeNames, int(c)) }

// Causes lists the failure causes in ascending order.
func Causes() (list []Cause) {
	for c, n := range causeNames {
		if n != "" {
			list = append(list, Cause(c))
		}
	}
	return list
}

// Advice is what the device thinks of trying again; the numbers are those of
// IadUpgRetryAdvice.
type Advice uint8

// Advice on trying again.
const (
	NotApplicable Advice = 1 + iota
	RetryNow
	RetryLater
	FixFirst
	DoNotRetry
	RestoreFirst
)

var adviceNames = []string{NotApplicable: "notApplicable", RetryNow: "retryNow", RetryLater: "retryLater",
	FixFirst: "fixFirst", DoNotRetry: "doNotRetry", RestoreFirst: "restoreFirst"}

func (a Advice) String() string { return name(adviceNames, int(a)) }

// advice has an entry for each cause; it is iadUpgOpAdvice for it.
var advice = map[Cause]Advice{
	CauseNone: NotApplicable, CauseOther: RetryLater,
	CauseUnsupported: FixFirst, CauseBadRequest: FixFirst, CauseBusy: RetryLater, CauseNotPermitted: FixFirst,
	CauseUnsupportedProtocol: FixFirst, CauseIncompatibleHardware: DoNotRetry, CauseDowngradeRefused: FixFirst,
	CauseAlreadyInstalled: FixFirst, CausePreconditionMissing: FixFirst, CauseServiceInUse: RetryLater,
	CauseNameNotResolved: RetryLater, CauseServerUnreachable: RetryLater, CauseServerBusy: RetryLater,
	CauseAuthFailed: FixFirst, CauseFileNotFound: FixFirst, CauseAccessDenied: FixFirst,
	CauseRemoteStorageFull: FixFirst, CauseRemoteFileExists: FixFirst, CauseTransferTimeout: RetryNow,
	CauseConnectionLost: RetryNow, CauseProtocolError: RetryLater, CauseFileTooLarge: DoNotRetry,
	CauseSizeMismatch: RetryNow, CauseTLSFailed: FixFirst,
	CauseBadFormat: FixFirst, CauseDigestMismatch: RetryNow, CauseSignatureInvalid: DoNotRetry,
	CauseSignerUntrusted: DoNotRetry, CauseVersionMismatch: FixFirst,
	CauseNoMemory: RetryLater, CauseStorageFull: FixFirst, CauseEraseError: RetryLater, CauseWriteError: RetryLater,
	CauseReadBackMismatch: RetryNow, CauseBankUnavailable: FixFirst,
	CauseBootFlagError: RetryLater, CauseBootFailed: DoNotRetry, CauseSelfTestFailed: DoNotRetry,
	CauseConfirmTimeout: RetryLater, CauseWatchdogReset: DoNotRetry, CauseNoFallback: FixFirst,
	CauseRollbackFailed:  FixFirst,
	CauseConfigReadError: RetryLater, CauseConfigParseError: FixFirst, CauseConfigFormatMismatch: FixFirst,
	CauseConvertFailed: FixFirst, CauseConvertTimeout: RetryLater, CauseConvertToolMissing: FixFirst,
	CauseConfigApplyError: FixFirst, CauseConfigSaveError: RetryLater,
	CauseAbortedByManager: RetryNow, CauseAbortedLocally: RetryLater, CauseDeadlineExceeded: RetryLater,
	CauseInterrupted: RetryNow, CauseInternalError: RetryLater,
}

// AdviceFor returns the advice for a cause, retryLater for one that is not in
// the module.
func AdviceFor(c Cause) Advice {
	if a, ok := advice[c]; ok {
		return a
	}
	return RetryLater
}

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
