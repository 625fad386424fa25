package manager

import (
	"fmt"

	"example.com/iad/mib"
)

// RefusalError is a command that the device did not accept; nothing started.
type RefusalError struct {
	Device string
	Kind   mib.OperationKind
	Cause  mib.FailCause
	Text   string // the device's words, or ours about the row it refused
	Set    *SetError
}

func (e *RefusalError) Error() string {
	s := fmt.Sprintf("%s refuses %s: %s", e.Device, e.Kind, Explain(e.Cause))
	if e.Text != "" {
		s += " (" + e.Text + ")"
	}
	if remedy := Remedy(e.Cause); remedy != "" {
		s += "; " + remedy
	}
	return s
}

func (e *RefusalError) Unwrap() error { return e.Set }

// Failure is an operation that did not succeed.
type Failure struct {
	Device string
	Step   Step
	Kind   mib.OperationKind
	State  mib.OperationState // failed or aborted; 0 if the manager gave up
	Phase  mib.OperationPhase
	Cause  mib.FailCause
	Text   string
	Advice mib.RetryAdvice
	// TimedOut: the scheduled time passed without a verdict.
	TimedOut bool
	// NoAnswer: the device did not answer; whether it took the command is not
	// known.
	NoAnswer bool
	// Refused: the device did not accept the command; the operation did not start.
	Refused bool
}

func (e *Failure) Error() string {
	s := fmt.Sprintf("%s: %s failed", e.Device, e.Kind)
	if e.Phase != 0 && e.Phase != mib.OperationPhaseNone {
		s += " while " + e.Phase.String()
	}
	s += ": " + Explain(e.Cause)
	if e.Text != "" {
		s += " (" + e.Text + ")"
	}
	if remedy := Remedy(e.Cause); remedy != "" {
		s += "; " + remedy
	}
	return s
}

// causeText explains one failure cause.
type causeText struct {
	what   string // what happened
	remedy string // what the operator can do; empty: nothing particular
	advice mib.RetryAdvice
}

// causes explains IadUpgFailCause to people. Its advice is what the manager
// assumes where the device's own is not known.
var causes = map[mib.FailCause]causeText{
	mib.FailCauseNone:                 {"no failure", "", mib.RetryAdviceNotApplicable},
	mib.FailCauseOther:                {"failed", "", mib.RetryAdviceRetryLater},
	mib.FailCauseUnsupported:          {"the device does not support this", "", mib.RetryAdviceDoNotRetry},
	mib.FailCauseBadRequest:           {"a parameter is missing or out of range", "check the options of the command", mib.RetryAdviceFixFirst},
	mib.FailCauseBusy:                 {"another operation is running", "wait for it, or end it with iadms abort", mib.RetryAdviceRetryLater},
	mib.FailCauseNotPermitted:         {"not permitted now or for this user", "check the credentials file and the device's policy", mib.RetryAdviceFixFirst},
	mib.FailCauseUnsupportedProtocol:  {"transfer protocol not supported", "choose another one with --protocol", mib.RetryAdviceFixFirst},
	mib.FailCauseIncompatibleHardware: {"the software is for other hardware", "choose an image that names this device's model", mib.RetryAdviceDoNotRetry},
	mib.FailCauseDowngradeRefused:     {"older than the device allows", "use --allow-downgrade, if it is above the device's floor", mib.RetryAdviceFixFirst},
	mib.FailCauseAlreadyInstalled:     {"this version is installed already", "use --force to install it again", mib.RetryAdviceDoNotRetry},
	mib.FailCausePreconditionMissing:  {"something must be done first", "", mib.RetryAdviceFixFirst},
	mib.FailCauseServiceInUse:         {"calls are in progress", "wait, or use --force", mib.RetryAdviceRetryLater},
	mib.FailCauseNameNotResolved:      {"the device cannot resolve the server's name", "give an IP address", mib.RetryAdviceFixFirst},
	mib.FailCauseServerUnreachable:    {"the device does not reach the file server", "check --advertise, routes and firewalls between device and server", mib.RetryAdviceRetryLater},
	mib.FailCauseServerBusy:           {"the file server refuses for now", "", mib.RetryAdviceRetryLater},
	mib.FailCauseAuthFailed:           {"the file server refused the log-in", "check user and password of the file server", mib.RetryAdviceFixFirst},
	mib.FailCauseFileNotFound:         {"the file is not on the server", "check its name and folder", mib.RetryAdviceFixFirst},
	mib.FailCauseAccessDenied:         {"the file server denied access", "check permissions on the server", mib.RetryAdviceFixFirst},
	mib.FailCauseRemoteStorageFull:    {"the file server has no space left", "make room on the server", mib.RetryAdviceFixFirst},
	mib.FailCauseRemoteFileExists:     {"the file server holds a file of this name already", "choose another name", mib.RetryAdviceFixFirst},
	mib.FailCauseTransferTimeout:      {"the transfer stalled", "", mib.RetryAdviceRetryNow},
	mib.FailCauseConnectionLost:       {"the transfer broke", "", mib.RetryAdviceRetryNow},
	mib.FailCauseProtocolError:        {"device and server did not understand each other", "try another protocol", mib.RetryAdviceRetryNow},
	mib.FailCauseFileTooLarge:         {"the file is too large", "", mib.RetryAdviceDoNotRetry},
	mib.FailCauseSizeMismatch:         {"the size is not the one announced", "", mib.RetryAdviceRetryNow},
	mib.FailCauseTlsFailed:            {"TLS refused or certificate not trusted", "check the server's certificate", mib.RetryAdviceFixFirst},
	mib.FailCauseBadFormat:            {"not a file of the expected kind", "", mib.RetryAdviceDoNotRetry},
	mib.FailCauseDigestMismatch:       {"the digest differs: the file was damaged or changed", "check the file on the server", mib.RetryAdviceRetryNow},
	mib.FailCauseSignatureInvalid:     {"the signature is not valid", "sign the image with a key that the device trusts", mib.RetryAdviceDoNotRetry},
	mib.FailCauseSignerUntrusted:      {"the signer is not trusted", "sign the image with a key that the device trusts", mib.RetryAdviceDoNotRetry},
	mib.FailCauseVersionMismatch:      {"not the version asked for", "", mib.RetryAdviceFixFirst},
	mib.FailCauseNoMemory:             {"the device is out of memory", "", mib.RetryAdviceRetryLater},
	mib.FailCauseStorageFull:          {"the device's store is full", "", mib.RetryAdviceFixFirst},
	mib.FailCauseEraseError:           {"the bank could not be erased", "", mib.RetryAdviceRetryNow},
	mib.FailCauseWriteError:           {"bank or store could not be written", "", mib.RetryAdviceRetryNow},
	mib.FailCauseReadBackMismatch:     {"what was written reads back differently", "suspect the flash memory", mib.RetryAdviceRetryNow},
	mib.FailCauseBankUnavailable:      {"the bank is running, locked or missing", "confirm or roll back software that is on trial first", mib.RetryAdviceFixFirst},
	mib.FailCauseBootFlagError:        {"the next bank could not be recorded", "", mib.RetryAdviceRetryNow},
	mib.FailCauseBootFailed:           {"the new software did not start", "", mib.RetryAdviceRestoreFirst},
	mib.FailCauseSelfTestFailed:       {"the new software started but is not healthy", "choose another image", mib.RetryAdviceRestoreFirst},
	mib.FailCauseConfirmTimeout:       {"the trial was not confirmed in time", "", mib.RetryAdviceRetryLater},
	mib.FailCauseWatchdogReset:        {"the watchdog restarted the new software", "", mib.RetryAdviceRestoreFirst},
	mib.FailCauseNoFallback:           {"no valid software in the other bank", "", mib.RetryAdviceDoNotRetry},
	mib.FailCauseRollbackFailed:       {"the old software could not be restored", "", mib.RetryAdviceRetryNow},
	mib.FailCauseConfigReadError:      {"configuration data could not be collected", "", mib.RetryAdviceRetryNow},
	mib.FailCauseConfigParseError:     {"the configuration file was not understood", "edit it", mib.RetryAdviceFixFirst},
	mib.FailCauseConfigFormatMismatch: {"written for another format", "convert it first", mib.RetryAdviceFixFirst},
	mib.FailCauseConvertFailed:        {"the conversion program reported an error", "edit the configuration data by hand", mib.RetryAdviceFixFirst},
	mib.FailCauseConvertTimeout:       {"the conversion program did not end in time", "", mib.RetryAdviceRetryLater},
	mib.FailCauseConvertToolMissing:   {"the device has no conversion program for these formats", "edit the configuration data by hand", mib.RetryAdviceFixFirst},
	mib.FailCauseConfigApplyError:     {"settings were refused", "edit the configuration data", mib.RetryAdviceFixFirst},
	mib.FailCauseConfigSaveError:      {"applied but not stored", "", mib.RetryAdviceRetryNow},
	mib.FailCauseAbortedByManager:     {"aborted by a manager", "", mib.RetryAdviceNotApplicable},
	mib.FailCauseAbortedLocally:       {"aborted at the device", "", mib.RetryAdviceRetryLater},
	mib.FailCauseDeadlineExceeded:     {"not ended in its time limit", "allow more with --time-limit", mib.RetryAdviceRetryNow},
	mib.FailCauseInterrupted:          {"interrupted by power loss or an unexpected restart", "", mib.RetryAdviceRetryNow},
	mib.FailCauseInternalError:        {"internal error of the device", "", mib.RetryAdviceRetryLater},
}

// Explain tells people what a failure cause means. A cause that this manager
// does not know is treated as other, with its number.
func Explain(c mib.FailCause) string {
	if t, ok := causes[c]; ok {
		return t.what
	}
	return fmt.Sprintf("failed, cause %d", c)
}

// Remedy tells what can be done about a cause, or nothing.
func Remedy(c mib.FailCause) string { return causes[c].remedy }

// adviceFor is the advice assumed for a cause that came without one.
func adviceFor(c mib.FailCause) mib.RetryAdvice {
	if t, ok := causes[c]; ok {
		return t.advice
	}
	return mib.RetryAdviceRetryLater
}
