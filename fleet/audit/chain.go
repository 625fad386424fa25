package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"example.com/iad/fleet"
)

// Head is the end of a chain: the number and the digest of its last entry. The zero Head
// is that of an empty chain. The digest is empty if the last entry is damaged.
type Head struct {
	Seq    uint64
	Digest string
}

// chain returns e as the entry after a head, and its JSON.
func chain(e fleet.AuditEntry, after Head, now time.Time) (fleet.AuditEntry, []byte, error) {
	e.Seq, e.Time, e.Previous = after.Seq+1, now.UTC().Round(0), after.Digest
	digest, err := digestOf(e)
	if err != nil {
		return e, nil, err
	}
	e.Digest = digest
	text, err := json.Marshal(e)
	return e, text, err
}

func digestOf(e fleet.AuditEntry) (string, error) {
	e.Digest = ""
	text, err := json.Marshal(e)
	if err != nil {
		return "", fmt.Errorf("audit entry %s %s: %w", e.Action, e.Object, err)
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:]), nil
}

// ChainError says where a chain is broken.
type ChainError struct {
	// Seq is the number of the first entry that is wrong, or that is missing.
	Seq     uint64
	Problem string
}

func (e *ChainError) Error() string { return fmt.Sprintf("audit entry %d: %s", e.Seq, e.Problem) }

// errContinued is returned by next with an entry that was added when the service could not read
// the entry before.
var errContinued = errors.New("added when the service could not read the entry before")

// next checks the JSON of the entry after a head.
func next(text []byte, after Head) (fleet.AuditEntry, error) {
	wrong := func(format string, args ...any) (fleet.AuditEntry, error) {
		return fleet.AuditEntry{}, &ChainError{Seq: after.Seq + 1, Problem: fmt.Sprintf(format, args...)}
	}
	var e fleet.AuditEntry
	if err := json.Unmarshal(text, &e); err != nil {
		return wrong("not an entry: %s", strings.TrimPrefix(err.Error(), "json: "))
	}
	// Everything in the text must count: there are no other fields and no second ones.
	if again, err := json.Marshal(e); err != nil || !bytes.Equal(again, text) {
		return wrong("written in another form than the service writes")
	}
	digest, err := digestOf(e)
	switch {
	case err != nil:
		return wrong("%v", err)
	case e.Seq != after.Seq+1:
		return wrong("missing; number %d follows", e.Seq)
	case len(e.Damaged) > 0: // it has no digest
		return e, nil
	case e.Previous == "" && after.Digest != "" && e.Digest == digest: // the service could not read it
		return e, errContinued
	case e.Previous != after.Digest && (after.Digest != "" || after.Seq == 0):
		return wrong("its predecessor was changed: the digest is not the one that this entry has")
	case e.Digest != digest:
		return wrong("changed: its digest is not that of its content")
	}
	return e, nil
}

// Verify checks the entries that are read, one on each line, after a head, and returns the
// new one. The error is a *ChainError, several that are joined, or one of reading. An
// incomplete last line, which remains when power is lost, is an error that wraps
// ErrIncomplete; the head is then that of what is complete. Entries that the service found
// damaged are errors, but the chain is checked to its end.
func Verify(r io.Reader, after Head) (Head, error) {
	var damaged []error
	head, err := verify(r, after, func(problem *ChainError) { damaged = append(damaged, problem) })
	return head, errors.Join(append(damaged, err)...)
}

// verify is Verify, which calls damaged with what the service found damaged.
func verify(r io.Reader, after Head, damaged func(*ChainError)) (Head, error) {
	lines := newLineReader(r)
	for {
		text, err := lines.next()
		if errors.Is(err, io.EOF) {
			return after, nil
		}
		if err != nil {
			return after, err
		}
		e, err := next(text, after)
		switch {
		case errors.Is(err, errContinued):
			damaged(&ChainError{Seq: after.Seq, Problem: "damaged where the service stores it; the file has it as it was"})
		case err != nil:
			return after, err
		case e.Action == actionMissing:
			damaged(&ChainError{Seq: e.Seq, Problem: "missing where the service stores it"})
		case len(e.Damaged) > 0:
			damaged(&ChainError{Seq: e.Seq, Problem: "damaged where the service stores it; the file has what is left of it"})
		}
		if after = (Head{e.Seq, e.Digest}); len(e.Damaged) > 0 {
			after.Digest = ""
		}
	}
}

// ErrIncomplete says that the last line of a file is not complete.
var ErrIncomplete = errors.New("the last line is not complete")
