package bank

import (
	"errors"
	"fmt"
	"syscall"
)

// A Cause says why something failed, by the number that IadUpgFailCause of
// IAD-UPGRADE-MIB gives to it.
type Cause uint8

// The causes that this package reports.
const (
	CauseNone                 Cause = 1
	CauseOther                Cause = 2
	CauseBadRequest           Cause = 11
	CauseBusy                 Cause = 12
	CauseIncompatibleHardware Cause = 15
	CauseDowngradeRefused     Cause = 16
	CauseAlreadyInstalled     Cause = 17
	CausePreconditionMissing  Cause = 18
	CauseFileTooLarge         Cause = 31
	CauseSizeMismatch         Cause = 32
	CauseBadFormat            Cause = 40
	CauseDigestMismatch       Cause = 41
	CauseSignatureInvalid     Cause = 42
	CauseSignerUntrusted      Cause = 43
	CauseVersionMismatch      Cause = 44
	CauseStorageFull          Cause = 51
	CauseEraseError           Cause = 52
	CauseWriteError           Cause = 53
	CauseReadBackMismatch     Cause = 54
	CauseBankUnavailable      Cause = 55
	CauseBootFlagError        Cause = 60
	CauseBootFailed           Cause = 61
	CauseNoFallback           Cause = 65
	CauseInterrupted          Cause = 83
)

// An Error is a failure of this package. Errors of a Source are passed on as they
// are, wrapped.
type Error struct {
	Code Cause
	Op   string // what was being done, such as "activate bank 2"
	Text string // what is wrong and what helps
	Err  error  // the reason beneath, or nil
}

func (e *Error) Error() string {
	s := e.Text
	if e.Op != "" {
		s = e.Op + ": " + s
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the reason beneath.
func (e *Error) Unwrap() error { return e.Err }

// Cause is the number of the failure cause in the MIB.
func (e *Error) Cause() uint8 { return uint8(e.Code) }

// refuse makes an Error without a reason beneath.
func refuse(code Cause, format string, args ...any) *Error {
	return &Error{Code: code, Text: fmt.Sprintf(format, args...)}
}

// storeError tells a full bank from one that cannot be written.
func storeError(err error, format string, args ...any) *Error {
	code := CauseWriteError
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		code = CauseStorageFull
	}
	return &Error{Code: code, Text: fmt.Sprintf(format, args...), Err: err}
}

// causeOf is the cause that an error carries, CauseOther if it carries none.
func causeOf(err error) Cause {
	var c interface{ Cause() uint8 }
	if errors.As(err, &c) {
		return Cause(c.Cause())
	}
	return CauseOther
}

// maxText is the size of the MIB's texts for humans in octets.
const maxText = 128

// shorten cuts s to maxText octets without splitting a character.
func shorten(s string) string {
	if len(s) <= maxText {
		return s
	}
	cut := maxText
	for cut > 0 && s[cut]&0xC0 == 0x80 {
		cut--
	}
	return s[:cut]
}
