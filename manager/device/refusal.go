package device

import (
	"fmt"

	"example.com/iad/mib"
)

// RefusalError is a command that the device did not accept; no operation was started.
type RefusalError struct {
	Device string
	Kind   mib.OperationKind
	Cause  mib.FailCause
	Text   string // the device's words, or ours about the row it refused
	Set    *SetError
}

func (e *RefusalError) Error() string {
	s := fmt.Sprintf("%s refuses %s: %s", e.Device, e.Kind, e.Cause.Explain().What)
	if e.Text != "" {
		s += " (" + e.Text + ")"
	}
	if remedy := e.Cause.Explain().Remedy; remedy != "" {
		s += "; " + remedy
	}
	return s
}

func (e *RefusalError) Unwrap() error { return e.Set }
