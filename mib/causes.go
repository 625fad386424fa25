package mib

import "fmt"

// Explanation is what people and programs can know about a failure cause.
type Explanation struct {
	Cause FailCause
	// Advice on retrying; it is iadUpgOpAdvice of a failed operation.
	Advice RetryAdvice
	// What happened, as part of a sentence.
	What string
	// Remedy is what an operator with a management system can do, as part of
	// a sentence; empty: nothing in particular.
	Remedy string
	// Objects is what somebody who works with the objects of the module can
	// do, in Markdown.
	Objects string
}

// explanations has one row for each value of IadUpgFailCause, in ascending
// order. It is the only such table: device and manager, documentation and
// history all take their advice from it.
//
//   - A failure that persists until the request, a file, the server or the
//     device's contents change is fixFirst, also where another operation helps
//     (unsupported, alreadyInstalled, badFormat, noFallback, rollbackFailed).
//     doNotRetry is for a file that no change of a parameter makes fit.
//   - Software that did not start, hung or is not healthy is doNotRetry: the
//     device has already returned to the old software when it reports this, and
//     the same file would fail again.
//   - A medium or a server that refuses something would refuse it again at
//     once; a pause lets it recover (protocolError, eraseError, writeError,
//     bootFlagError, configReadError, configSaveError, deadlineExceeded). A
//     name may resolve later, because name servers fail for a while.
//   - Nothing is wrong with a request that a manager has aborted.
var explanations = []Explanation{
	{FailCauseNone, RetryAdviceNotApplicable,
		"no failure", "",
		"nothing"},
	{FailCauseOther, RetryAdviceRetryLater,
		"failed", "",
		"read `iadUpgOpFailText`"},
	{FailCauseUnsupported, RetryAdviceFixFirst,
		"the device does not support this", "",
		"read `iadUpgOpKindsSupported` for what the device can do"},
	{FailCauseBadRequest, RetryAdviceFixFirst,
		"a parameter is missing or out of range", "check the options of the command",
		"correct the parameter that the text names and make a new request"},
	{FailCauseBusy, RetryAdviceRetryLater,
		"another operation is running", "wait for it, or end it with iadms abort",
		"wait for the end of the operation in `iadUpgOpId`, or abort it"},
	{FailCauseNotPermitted, RetryAdviceFixFirst,
		"not permitted now or for this user", "check the credentials file and the device's policy",
		"too late to abort: wait for the end, then return to the old software with `restoreOldSoftware` if necessary"},
	{FailCauseUnsupportedProtocol, RetryAdviceFixFirst,
		"transfer protocol not supported", "choose another one with --protocol",
		"choose one of `iadUpgProtocolsSupported`"},
	{FailCauseIncompatibleHardware, RetryAdviceDoNotRetry,
		"the software is for other hardware", "choose an image that names this device's model",
		"get the software for `iadUpgHardwareRevision`"},
	{FailCauseDowngradeRefused, RetryAdviceFixFirst,
		"older than the device allows", "use --allow-downgrade, unless the version is below the device's floor",
		"set `allowDowngrade` if you intend a downgrade; versions below the floor are never accepted"},
	{FailCauseAlreadyInstalled, RetryAdviceFixFirst,
		"this version is already installed", "use --force to install it again",
		"nothing to do; set `force` to write it again"},
	{FailCausePreconditionMissing, RetryAdviceFixFirst,
		"something must be done first", "",
		"first do what the text names: download, reset, or install the intermediate version"},
	{FailCauseServiceInUse, RetryAdviceRetryLater,
		"calls are in progress", "wait, or use --force",
		"retry when no calls are in progress, or set `force`"},
	{FailCauseNameNotResolved, RetryAdviceRetryLater,
		"the device cannot resolve the server's name", "give an IP address",
		"check the host name in `iadUpgServerAddress` and the device's resolver, or write the IP address"},
	{FailCauseServerUnreachable, RetryAdviceRetryLater,
		"the device cannot reach the file server", "check --advertise, routes and firewalls between device and server",
		"check the address, the port, firewalls and that the server is running"},
	{FailCauseServerBusy, RetryAdviceRetryLater,
		"the file server is busy", "retry later, with fewer devices at a time",
		"the server is overloaded: retry later, and let fewer devices transfer at the same time"},
	{FailCauseAuthFailed, RetryAdviceFixFirst,
		"the file server refused the log-in", "check user and password of the file server",
		"write `iadUpgServerUser` and `iadUpgServerPassword` again"},
	{FailCauseFileNotFound, RetryAdviceFixFirst,
		"the file is not on the server", "check its name and directory",
		"check `iadUpgFileName` and `iadUpgServerPath`; TFTP servers often need the file to exist before an upload"},
	{FailCauseAccessDenied, RetryAdviceFixFirst,
		"the file server denied access", "check permissions on the server",
		"check the permissions on the server"},
	{FailCauseRemoteStorageFull, RetryAdviceFixFirst,
		"the file server has no space left", "free space on the server",
		"free space on the server"},
	{FailCauseRemoteFileExists, RetryAdviceFixFirst,
		"a file of this name is already on the server", "choose another name",
		"remove the file on the server or choose another name"},
	{FailCauseTransferTimeout, RetryAdviceRetryNow,
		"the transfer stalled", "check the connection between device and server",
		"retry; raise `iadUpgServerTimeout` on slow links"},
	{FailCauseConnectionLost, RetryAdviceRetryNow,
		"the connection to the file server was lost", "check the connection between device and server",
		"retry; a download resumes where it stopped if the server supports that"},
	{FailCauseProtocolError, RetryAdviceRetryLater,
		"the file server's reply was not as expected", "try another protocol",
		"read the server's message in the text, and check its log"},
	{FailCauseFileTooLarge, RetryAdviceDoNotRetry,
		"the file is too large", "choose a smaller file",
		"the software does not fit into this device; compare its size with `iadUpgBankCapacity`"},
	{FailCauseSizeMismatch, RetryAdviceRetryNow,
		"the size differs from the announced one", "check that the file on the server is complete",
		"check `iadUpgFileExpectSize` and that the file on the server is complete"},
	{FailCauseTlsFailed, RetryAdviceFixFirst,
		"TLS refused or certificate not trusted", "check the server's certificate and the device's clock",
		"check the server's certificate and what the device trusts"},
	{FailCauseBadFormat, RetryAdviceFixFirst,
		"not a file of the expected kind", "check the name of the file",
		"check that the name is that of the right file"},
	{FailCauseDigestMismatch, RetryAdviceRetryNow,
		"the digest differs: the file was damaged or changed", "check the file on the server",
		"check `iadUpgFileExpectDigest`; upload the file again; if the failure persists, the file is damaged"},
	{FailCauseSignatureInvalid, RetryAdviceDoNotRetry,
		"the signature is not valid", "sign the image with a key that the device trusts",
		"do not use this file; get it again from its maker"},
	{FailCauseSignerUntrusted, RetryAdviceDoNotRetry,
		"the signer is not trusted", "sign the image with a key that the device trusts",
		"sign the software with a key that the device trusts"},
	{FailCauseVersionMismatch, RetryAdviceFixFirst,
		"the version is not the requested one", "choose the image of that version",
		"correct `iadUpgReqVersion` or the file name"},
	{FailCauseKeyMissing, RetryAdviceFixFirst,
		"the file is encrypted to keys that the device does not have", "encrypt it to the device, or give the device the key",
		"encrypt configuration files to `iadUpgBackupRecipient`; software to a key that the device has"},
	{FailCauseNoMemory, RetryAdviceRetryLater,
		"the device is out of memory", "retry later, or reset the device",
		"retry later, after a reset if necessary"},
	{FailCauseStorageFull, RetryAdviceFixFirst,
		"the device's store is full", "free space on the device",
		"free space on the device; `reset`, `restoreOldSoftware`, `abort` and `confirm` still work"},
	{FailCauseEraseError, RetryAdviceRetryLater,
		"the bank could not be erased", "check the flash memory of the device if it fails again",
		"retry; if the failure persists, the flash is failing"},
	{FailCauseWriteError, RetryAdviceRetryLater,
		"bank or store could not be written", "check the flash memory of the device if it fails again",
		"retry; if the failure persists, the flash is failing"},
	{FailCauseReadBackMismatch, RetryAdviceRetryNow,
		"data read back from flash differ from what was written", "check the flash memory of the device",
		"retry; if the failure persists, the flash is failing"},
	{FailCauseBankUnavailable, RetryAdviceFixFirst,
		"the bank is running, locked or missing", "confirm or roll back software that is on trial first",
		"name the other bank; if software is on trial, confirm it or restore the old software first"},
	{FailCauseBootFlagError, RetryAdviceRetryLater,
		"the next bank could not be recorded", "check the flash memory of the device if it fails again",
		"retry; the bank that boots next is unchanged"},
	{FailCauseBootFailed, RetryAdviceDoNotRetry,
		"the new software did not start", "choose another image",
		"the new software was given up; do not use this file"},
	{FailCauseSelfTestFailed, RetryAdviceDoNotRetry,
		"the new software started but is not healthy", "choose another image",
		"the new software was given up; the text says what is not healthy"},
	{FailCauseConfirmTimeout, RetryAdviceRetryLater,
		"the trial was not confirmed in time", "upgrade again, and confirm the software within the confirm window",
		"the new software was given up; activate it again and send `confirm` within `iadUpgConfirmWindow`"},
	{FailCauseWatchdogReset, RetryAdviceDoNotRetry,
		"the watchdog restarted the new software", "choose another image",
		"the new software hung; the device returned to the old software"},
	{FailCauseNoFallback, RetryAdviceFixFirst,
		"no valid software in the other bank", "install software into the other bank first",
		"the other bank holds nothing to return to: download software into it"},
	{FailCauseRollbackFailed, RetryAdviceFixFirst,
		"the old software could not be restored", "look at the banks with iadms status, then install software that works",
		"read `iadUpgBankTable`; download working software into the other bank"},
	{FailCauseConfigReadError, RetryAdviceRetryLater,
		"configuration data could not be collected", "check the configuration data on the device",
		"retry later; the configuration data on the device may be damaged"},
	{FailCauseConfigParseError, RetryAdviceFixFirst,
		"the configuration file was not understood", "edit it",
		"correct the file: its first line is `iad-config KIND FORMAT`"},
	{FailCauseConfigFormatMismatch, RetryAdviceFixFirst,
		"written for another format", "convert it first",
		"set `convertFirst`, or convert the file by hand"},
	{FailCauseConvertFailed, RetryAdviceFixFirst,
		"the conversion program reported an error", "edit the configuration data by hand",
		"read the text, which is the last line of output of the conversion program; edit the files and recover them"},
	{FailCauseConvertTimeout, RetryAdviceRetryLater,
		"the conversion program did not finish in time", "convert the configuration data with --convert-with or --edit",
		"retry; if it fails again, convert the files by hand"},
	{FailCauseConvertToolMissing, RetryAdviceFixFirst,
		"the device has no conversion program for these formats", "edit the configuration data by hand",
		"convert the files by hand, or install software with a converter"},
	{FailCauseConfigApplyError, RetryAdviceFixFirst,
		"the device rejected settings", "edit the configuration data",
		"correct the settings that the text names; the previous data are in force"},
	{FailCauseConfigSaveError, RetryAdviceRetryLater,
		"applied but not stored", "check the flash memory of the device if it fails again",
		"retry later; check the device's storage"},
	{FailCauseAbortedByManager, RetryAdviceRetryNow,
		"aborted by a manager", "repeat the command if it is still wanted",
		"repeat the request if it is still wanted"},
	{FailCauseAbortedLocally, RetryAdviceRetryLater,
		"aborted at the device", "ask on site, then repeat the command",
		"ask on site, then repeat the request"},
	{FailCauseDeadlineExceeded, RetryAdviceRetryLater,
		"not finished within its time limit", "allow more with --time-limit",
		"raise `iadUpgReqTimeLimit`, or find out what is slow"},
	{FailCauseInterrupted, RetryAdviceRetryNow,
		"interrupted by power loss or an unexpected restart", "repeat the command; a download resumes where it stopped",
		"repeat the request; a download resumes where it stopped"},
	{FailCauseInternalError, RetryAdviceRetryLater,
		"internal error of the device", "report it to the device's maker, with the device's log",
		"report it with the text and the device's log"},
}

var explained = func() map[FailCause]Explanation {
	m := make(map[FailCause]Explanation, len(explanations))
	for _, e := range explanations {
		m[e.Cause] = e
	}
	return m
}()

// FailCauses lists the failure causes of the module in ascending order.
func FailCauses() []FailCause {
	list := make([]FailCause, len(explanations))
	for i, e := range explanations {
		list[i] = e.Cause
	}
	return list
}

// Explain returns what is known about a failure cause. One that is not in
// the module counts as other and is named by its number.
func (e FailCause) Explain() Explanation {
	x, known := explained[e]
	if !known {
		x = explained[FailCauseOther]
		x.Cause, x.What = e, fmt.Sprintf("failed, cause %d", e)
	}
	return x
}

// Advice is what iadUpgOpAdvice says about a failure cause.
func (e FailCause) Advice() RetryAdvice { return e.Explain().Advice }
