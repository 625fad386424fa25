package mib

import (
	"errors"
	"fmt"
)

// Test checks a SET as a whole and reserves what it needs (RFC 3416 section
// 4.2.5; RFC 2741 section 7.2.4.1). Nothing changes by it. The error is a
// *SetError always.
//
// The varbinds are judged one after the other by what the module says and by
// which instances exist, each in the order of the RFC: notWritable for a name
// below no writable object, wrongType, wrongLength, wrongValue, noCreation
// for an instance that is not there. The first varbind that fails is
// reported. If none does, the Instrumentation judges all of them together.
// An instance named twice with the same value counts once; with different
// values the later varbind is answered with inconsistentValue, since
// assignments are simultaneous. noAccess, for names outside the view, and
// wrongEncoding are for the front end.
func (t *Tree) Test(caller Caller, vbs []Varbind) (Transaction, error) {
	reader := t.Read()
	changes := make([]Assignment, 0, len(vbs))
	seen := make(map[string]int, len(vbs))
	for i, vb := range vbs {
		a, status, reason := reader.assignment(vb)
		if status != NoError {
			return nil, t.refuse(vbs, &SetError{Status: status, Index: i + 1, Reason: reason})
		}
		a.Pos = i + 1
		key := string(vb.OID.key())
		if j, twice := seen[key]; twice {
			if !changes[j].Value.Equal(a.Value) {
				return nil, t.refuse(vbs, &SetError{Status: InconsistentValue, Index: i + 1, Reason: a.Object.Name + ": two values in one SET"})
			}
			continue
		}
		seen[key] = len(changes)
		changes = append(changes, a)
	}
	if len(changes) == 0 {
		return nothing{}, nil
	}
	tx, err := t.inst.Test(caller, changes)
	if err != nil {
		return nil, asSetError(err, GenErr, len(vbs))
	}
	return tx, nil
}

// refuse passes a SET that is refused before the Instrumentation sees it to a [Refuser].
func (t *Tree) refuse(vbs []Varbind, e *SetError) error {
	if r, ok := t.inst.(Refuser); ok {
		r.Refused(vbs, e)
	}
	return e
}

// assignment judges one varbind.
func (r *Reader) assignment(vb Varbind) (Assignment, Status, string) {
	o, index, ok := r.tree.module.Lookup(vb.OID)
	if !ok || o.Access != ReadWrite {
		return Assignment{}, NotWritable, fmt.Sprintf("%v is below no writable object", vb.OID)
	}
	if status, reason := o.Check(vb.Value); status != NoError {
		return Assignment{}, status, reason
	}
	if _, ok := r.value(o, index); !ok {
		return Assignment{}, NoCreation, fmt.Sprintf("%s.%v does not exist", o.Name, index)
	}
	v := vb.Value
	if o.IsBits {
		v.Bytes = o.pad(v.Bytes)
	}
	return Assignment{Object: o, Index: index, Value: v}, NoError, ""
}

// Set is Test and Commit. The caller calls Done on the transaction once the
// response has left. After an error there is nothing more to call: a failed
// commit has been undone, or the error is undoFailed.
func (t *Tree) Set(caller Caller, vbs []Varbind) (Transaction, *SetError) {
	tx, err := t.Test(caller, vbs)
	if err != nil {
		return nil, asSetError(err, GenErr, len(vbs))
	}
	if err := tx.Commit(); err != nil {
		if undo := tx.Undo(); undo != nil {
			return nil, &SetError{Status: UndoFailed, Reason: undo.Error()}
		}
		e := asSetError(err, CommitFailed, len(vbs))
		return nil, &SetError{Status: CommitFailed, Index: e.Index, Reason: e.Reason}
	}
	return tx, nil
}

// asSetError makes sure that only what may travel does: another error
// becomes fallback, and where no varbind in particular is to blame the first
// one is, since RFC 3416 section 4.2.5 wants one for all errors but
// undoFailed.
func asSetError(err error, fallback Status, varbinds int) *SetError {
	var e *SetError
	if !errors.As(err, &e) || e.Status == NoError || e.Status > InconsistentName {
		return &SetError{Status: fallback, Index: min(1, varbinds), Reason: err.Error()}
	}
	if e.Index < 1 || e.Index > varbinds {
		return &SetError{Status: e.Status, Index: min(1, varbinds), Reason: e.Reason}
	}
	return e
}

// nothing is the transaction of a SET without varbinds.
type nothing struct{}

func (nothing) Commit() error { return nil }
func (nothing) Undo() error   { return nil }
func (nothing) Done()         {}
