package mib

import "errors"

// Final reports whether no operation is going on in this state.
func (e OperationState) Final() bool {
	return e == OperationStateIdle || e >= OperationStateSucceeded
}

// ParseFileType returns the file type with that label in IadUpgFileType.
func ParseFileType(name string) (FileType, bool) {
	for _, n := range namesFileType {
		if n.Name == name {
			return FileType(n.Number), true
		}
	}
	return 0, false
}

// CauseOf returns the failure cause that err carries, which is what the first error
// in its tree with a method Cause() FailCause returns, or otherwise if there is none.
func CauseOf(err error, otherwise FailCause) FailCause {
	if c, ok := errors.AsType[interface {
		error
		Cause() FailCause
	}](err); ok {
		return c.Cause()
	}
	return otherwise
}
