package manager

import "errors"

var (
	// ErrDecision is wrapped by an error that ends a procedure because only a
	// person can decide how it continues. Nothing was overwritten.
	ErrDecision = errors.New("a decision is needed")

	// ErrIdentity is wrapped by an error that ends a procedure because the device
	// that answers is not the one whose data or journal would be used.
	ErrIdentity = errors.New("another device")

	// ErrUnchanged is wrapped by the error of a [Modifier] that changed nothing.
	ErrUnchanged = errors.New("nothing was changed")
)
