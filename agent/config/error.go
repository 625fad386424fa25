package config

import (
	"errors"
	"fmt"
	"syscall"
)

// Cause is a failure cause; the numbers are those of IadUpgFailCause.
type Cause uint8

// Failure causes of this package.
const (
	CauseFileTooLarge       Cause = 31
	CauseStorageFull        Cause = 51
	CauseWriteError         Cause = 53
	CauseReadError          Cause = 70
	CauseParseError         Cause = 71
	CauseFormatMismatch     Cause = 72
	CauseConvertFailed      Cause = 73
	CauseConvertTimeout     Cause = 74
	CauseConvertToolMissing Cause = 75
	CauseSaveError          Cause = 77
)

// Error tells what went wrong with configuration data.
type Error struct {
	// Code is the failure cause.
	Code Cause
	// Subject is the kind of data or the file concerned, or empty.
	Subject string
	Err     error
}

func (e *Error) Error() string {
	if e.Subject == "" {
		return e.Err.Error()
	}
	return e.Subject + ": " + e.Err.Error()
}

// Unwrap returns the error underneath.
func (e *Error) Unwrap() error { return e.Err }

// Cause returns the number of the failure cause in IadUpgFailCause.
func (e *Error) Cause() uint8 { return uint8(e.Code) }

func fail(code Cause, subject string, err error) error {
	return &Error{Code: code, Subject: subject, Err: err}
}

func parseError(format string, args ...any) error {
	return fail(CauseParseError, "", fmt.Errorf(format, args...))
}

// failWrite is fail for an error of a writing file system.
func failWrite(code Cause, subject string, err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		code = CauseStorageFull
	}
	return fail(code, subject, err)
}

// causeOf returns the failure cause that err carries, or otherwise if it
// carries none.
func causeOf(err error, otherwise Cause) Cause {
	var carrier interface{ Cause() uint8 }
	if errors.As(err, &carrier) {
		return Cause(carrier.Cause())
	}
	return otherwise
}
