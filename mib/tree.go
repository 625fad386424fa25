package mib

import "fmt"

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
	return fmt.Sprintf("SET refused: error-status %d, error-index %d: %s", e.Status, e.Index, e.Reason)
}

// Caller says what is known of who sends a request.
type Caller struct {
	// Private is true if nobody on the way could read the request: SNMPv3
	// with privacy, or a master agent on a Unix socket that promises it.
	Private bool
	// Name is the user, community or front end, for logs.
	Name string
}

// Assignment is one varbind of a SET after its object, instance, type, size
// and range were found to be in order.
type Assignment struct {
	// Pos is the position of the varbind in the request, counted from 1.
	Pos    int
	Object *Object
	// Index is the instance: {0} for a scalar, the row for a column.
	Index OID
	Value Value
}

// Instrumentation is the device behind the tree.
type Instrumentation interface {
	// View returns a state in which all varbinds of one request are read,
	// so that they agree with each other. It must not block.
	View() View
	// Test checks whether all assignments can be made together and reserves
	// what they need. It changes nothing that a View shows. It returns a
	// *SetError if not, with the Pos of the assignment that is to blame.
	Test(caller Caller, changes []Assignment) (Transaction, error)
}

// View is a consistent state of the objects.
type View interface {
	// Value returns the value of a scalar or column instance; ok is false if
	// there is no such instance.
	Value(o *Object, index OID) (v Value, ok bool)
	// Rows returns the indexes of the rows of a table, in lexicographic
	// order. o is the row object (the "Entry").
	Rows(o *Object) []OID
}

// Transaction is a tested SET on its way, in the order of RFC 2741 section
// 7.2.4: Commit, then Done, or Commit, then Undo, or Done alone after a
// Test that another party refused. Work that a SET starts begins at Done
// after Commit, that is once the response has left; it is not waited for.
type Transaction interface {
	// Commit makes the assignments visible. An error is a *SetError with
	// status commitFailed and undoes everything.
	Commit() error
	// Undo takes a Commit back; an error means undoFailed.
	Undo() error
	// Done ends the transaction and releases what Test reserved. Exactly one
	// of Undo and Done is called at the end.
	Done()
}
