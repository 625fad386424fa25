package manager

import (
	"errors"
	"fmt"

	"example.com/iad/mib"
)

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
	// TimedOut: the time limit passed without a result.
	TimedOut bool
	// NoAnswer: the device did not answer, so it is not known whether it received the
	// command.
	NoAnswer bool
	// Refused: the device did not accept the first command; nothing was started.
	Refused bool
	// Software: the new software itself is at fault. It would fail again.
	Software bool
	// Decision: an operator has to decide how to continue; nothing was overwritten. The
	// Failure then wraps ErrDecision.
	Decision bool
}

// Unwrap implements errors.Unwrap.
func (e *Failure) Unwrap() error {
	if e.Decision {
		return ErrDecision
	}
	return nil
}

func (e *Failure) Error() string {
	if e.Decision && !e.Software {
		return fmt.Sprintf("%s: %s", e.Device, e.Text)
	}
	s := fmt.Sprintf("%s: %s failed", e.Device, e.Kind)
	if e.Phase != 0 && e.Phase != mib.OperationPhaseNone {
		s += " while " + e.Phase.String()
	}
	switch what := e.Cause.Explain().What; {
	case e.Cause == mib.FailCauseOther && e.Text != "":
		s += ": " + e.Text // it says "failed" already
	case e.Text != "":
		s += ": " + what + " (" + e.Text + ")"
	default:
		s += ": " + what
	}
	if remedy := e.Cause.Explain().Remedy; remedy != "" {
		s += "; " + remedy
	}
	return s
}

var (
	// ErrDecision is wrapped by an error that ends a procedure because an operator has to
	// decide how to continue. Nothing was overwritten.
	ErrDecision = errors.New("a decision is needed")

	// ErrNotRun is wrapped by the error of a check of new software that could not be
	// run: it says nothing about the software.
	ErrNotRun = errors.New("the program could not be run")

	// ErrUnchanged is wrapped by the error of a [Modifier] that changed nothing.
	ErrUnchanged = errors.New("nothing was changed")
)
