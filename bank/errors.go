package bank

import (
	"errors"
	"fmt"
	"syscall"

	"example.com/iad/bank/image"
	"example.com/iad/mib"
)

// An Error is a failure of this package, or one of package image with what was being
// done. Errors of a Source are passed on as they are, wrapped.
type Error struct {
	Code mib.FailCause
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
func (e *Error) Cause() mib.FailCause { return e.Code }

// refuse makes an Error without a reason beneath.
func refuse(code mib.FailCause, format string, args ...any) *Error {
	return &Error{Code: code, Text: fmt.Sprintf(format, args...)}
}

// storeError distinguishes a full bank from one that cannot be written.
func storeError(err error, format string, args ...any) *Error {
	code := mib.FailCauseWriteError
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		code = mib.FailCauseStorageFull
	}
	return &Error{Code: code, Text: fmt.Sprintf(format, args...), Err: err}
}

// refusal returns the cause of an error of this package or of package image, 0 for any
// other error, such as one from a Source.
func refusal(err error) mib.FailCause {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	var img *image.Error
	if errors.As(err, &img) {
		return img.Code
	}
	return 0
}

// maxText is the maximum size, in bytes, of the texts in the MIB.
const maxText = 128

// shorten cuts s to maxText bytes without splitting a character.
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
