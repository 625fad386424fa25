package mib

// Caller describes the sender of a request.
type Caller struct {
	// Private is true if nobody on the way could read the request: SNMPv3
	// with privacy, or a master agent on a Unix socket that promises it.
	Private bool
	// Name is the user, community or front end, for logs.
	Name string
	// Zone is the interface that the request came in by if its sender's address is
	// link-local, else empty.
	Zone string
}

// Assignment is one varbind of a SET after its object, instance, type, size
// and range were found to be in order. BITS have as many bytes as the object
// has bits.
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
	// *SetError if not, whose Index is the Pos of the assignment that is to
	// blame; any other error travels as genErr.
	Test(caller Caller, changes []Assignment) (Transaction, error)
}

// Refuser is an Instrumentation that hears of the SETs that the tree refuses by what
// the module says, without asking it.
type Refuser interface {
	Refused(vbs []Varbind, e *SetError)
}

// View is a consistent state of the objects. One goroutine uses it. What it
// returns is not changed by the tree, and may be handed out again.
type View interface {
	// Value returns the value of a scalar or column instance; ok is false if
	// there is no such instance. BITS may be shorter than the object has
	// bits.
	Value(o *Object, index OID) (v Value, ok bool)
	// Rows returns the indexes of the rows of a table, in lexicographic
	// order, each once. o is the row object (the "Entry").
	Rows(o *Object) []OID
}

// Transaction is a tested SET on its way (RFC 2741 section 7.2.4). The front
// end calls
//
//   - Commit, then Done: the SET succeeded and the response has left;
//   - Commit, then Undo: this or another party's Commit failed, or the session
//     with the master agent broke before Done;
//   - Done alone: another party refused its Test.
//
// Exactly one of Undo and Done is called, at the end. Work that a SET starts
// begins at Done after Commit and is not waited for.
type Transaction interface {
	// Commit makes the assignments visible. It either makes all of them, or
	// none and returns a *SetError with status commitFailed.
	Commit() error
	// Undo takes a Commit back, and releases what Test reserved. It does
	// nothing more after a Commit that failed. An error means undoFailed.
	Undo() error
	// Done ends the transaction and releases what Test reserved.
	Done()
}
