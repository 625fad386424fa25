package manager

import "errors"

var (
	// ErrDecision is wrapped by an error that ends a procedure because only a
	// person can decide how it continues. Nothing was overwritten.
	ErrDecision = errors.New("a decision is needed")

	// ErrNotRun is wrapped by the error of a check of new software that could not be
	// run: it says nothing about the software.
	ErrNotRun = errors.New("the program could not be run")

	// ErrUnchanged is wrapped by the error of a [Modifier] that changed nothing.
	ErrUnchanged = errors.New("nothing was changed")
)
