package config

import (
	"errors"
	"fmt"
	"syscall"

	"example.com/iad/mib"
)

// Error is an error about configuration data.
type Error struct {
	// Code is the failure cause.
	Code mib.FailCause
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
func (e *Error) Cause() mib.FailCause { return e.Code }

func fail(code mib.FailCause, subject string, err error) error {
	return &Error{Code: code, Subject: subject, Err: err}
}

func parseError(format string, args ...any) error {
	return fail(mib.FailCauseConfigParseError, "", fmt.Errorf(format, args...))
}

// failWrite is fail for an error of a writing file system.
func failWrite(code mib.FailCause, subject string, err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		code = mib.FailCauseStorageFull
	}
	return fail(code, subject, err)
}
