package mib

import (
	"fmt"
	"strconv"
)

// Status is an error-status of SNMPv2 (RFC 3416 section 3); AgentX uses the
// same numbers (RFC 2741 section 6.2.16).
type Status uint8

// Error-status values that the tree returns.
const (
	NoError             Status = 0
	TooBig              Status = 1
	GenErr              Status = 5
	NoAccess            Status = 6
	WrongType           Status = 7
	WrongLength         Status = 8
	WrongEncoding       Status = 9
	WrongValue          Status = 10
	NoCreation          Status = 11
	InconsistentValue   Status = 12
	ResourceUnavailable Status = 13
	CommitFailed        Status = 14
	UndoFailed          Status = 15
	AuthorizationError  Status = 16
	NotWritable         Status = 17
	InconsistentName    Status = 18
)

var statusNames = [...]string{
	"noError", "tooBig", "noSuchName", "badValue", "readOnly", "genErr", "noAccess", "wrongType", "wrongLength",
	"wrongEncoding", "wrongValue", "noCreation", "inconsistentValue", "resourceUnavailable", "commitFailed",
	"undoFailed", "authorizationError", "notWritable", "inconsistentName",
}

// String returns the name of the error-status in RFC 3416, or its number.
func (s Status) String() string {
	if int(s) < len(statusNames) {
		return statusNames[s]
	}
	return strconv.Itoa(int(s))
}

// SetError refuses a SET.
type SetError struct {
	Status Status
	// Index is the position of the offending varbind, counted from 1, or 0
	// if it is none in particular.
	Index int
	// Reason is for logs; it does not travel.
	Reason string
}

func (e *SetError) Error() string {
	return fmt.Sprintf("SET refused: %v, error-index %d: %s", e.Status, e.Index, e.Reason)
}
