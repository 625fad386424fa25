package image

import (
	"fmt"

	"example.com/iad/mib"
)

// An Error says why an image is refused. Errors of a Source or a file system are passed
// on as they are, wrapped.
type Error struct {
	Code mib.FailCause
	Text string // what is wrong
	Err  error  // the reason beneath, or nil
}

func (e *Error) Error() string {
	if e.Err != nil {
		return e.Text + ": " + e.Err.Error()
	}
	return e.Text
}

// Unwrap returns the reason beneath.
func (e *Error) Unwrap() error { return e.Err }

// Cause is the number of the failure cause in the MIB.
func (e *Error) Cause() mib.FailCause { return e.Code }

// refuse makes an Error without a reason beneath.
func refuse(code mib.FailCause, format string, args ...any) *Error {
	return &Error{Code: code, Text: fmt.Sprintf(format, args...)}
}
