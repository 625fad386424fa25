package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"example.com/iad/fleet"
	"example.com/iad/fleet/engine"
)

// Log is the append-only log that holds the chain; *engine.Log is one.
type Log interface {
	AppendAfter(ctx context.Context, last uint64, key string, data []byte) (uint64, error)
	Last(ctx context.Context) (engine.Message, error)
	Read(ctx context.Context, from uint64, pattern string, follow bool, handle func(engine.Message) error) error
	// Damaged reports an entry that cannot be decoded, and returns an error about it.
	Damaged(m engine.Message, problem error) error
}

var _ Log = (*engine.Log)(nil)

// Audit adds entries and reads them. It is safe for concurrent use, here and by other
// processes on the same log.
type Audit struct {
	log Log
	now func() time.Time

	mu   sync.Mutex
	head *Head // nil: not known
}

// New returns the audit in a log.
func New(log Log) *Audit { return &Audit{log: log, now: time.Now} }

// Append adds an entry, of which it sets number, time and digests, and returns it.
func (a *Audit) Append(ctx context.Context, e fleet.AuditEntry) (fleet.AuditEntry, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for {
		if a.head == nil {
			head, err := a.last(ctx)
			if err != nil {
				return e, err
			}
			a.head = &head
		}
		entry, text, err := chain(e, *a.head, a.now())
		if err != nil {
			return e, err
		}
		seq, err := a.log.AppendAfter(ctx, a.head.Seq, key(&e), text)
		switch {
		case errors.Is(err, engine.ErrConflict): // another process was faster
			a.head = nil
			continue
		case err != nil:
			a.head = nil
			return e, fmt.Errorf("the audit: %w", err)
		case seq != entry.Seq:
			return e, fmt.Errorf("the audit: entry %d is stored as number %d", entry.Seq, seq)
		}
		a.head = &Head{entry.Seq, entry.Digest}
		return entry, nil
	}
}

// key is the key of an entry in the log, by which Find finds requests.
func key(e *fleet.AuditEntry) string {
	if e.Request == "" || e.Denied {
		return engine.Key(e.Action)
	}
	return engine.Key(e.Action, e.Actor, e.Request)
}

// Find returns the entry of an actor's request, and whether it was carried out. Requests are
// known by the ID that the actor gave them.
func (a *Audit) Find(ctx context.Context, action, actor, request string) (entry fleet.AuditEntry, found bool, err error) {
	err = a.log.Read(ctx, 1, engine.Key(action, actor, request), false, func(m engine.Message) error {
		e, err := parse(m)
		if err != nil {
			return a.log.Damaged(m, err)
		}
		entry = e
		return errEnd
	})
	if errors.Is(err, errEnd) {
		return entry, true, nil
	}
	return entry, false, err
}

// last returns the end of the chain. It continues after a damaged entry.
func (a *Audit) last(ctx context.Context) (Head, error) {
	m, err := a.log.Last(ctx)
	if errors.Is(err, engine.ErrNotFound) {
		return Head{}, nil
	}
	if err != nil {
		return Head{}, fmt.Errorf("the audit: %w", err)
	}
	e, err := parse(m)
	if err != nil {
		_ = a.log.Damaged(m, err) // which reports it
		return Head{m.Sequence, ""}, nil
	}
	return Head{e.Seq, e.Digest}, nil
}

func parse(m engine.Message) (fleet.AuditEntry, error) {
	var e fleet.AuditEntry
	if err := json.Unmarshal(m.Data, &e); err != nil || e.Seq != m.Sequence {
		return e, &ChainError{Seq: m.Sequence, Problem: "not an entry"}
	}
	return e, nil
}

// actionMissing is the action of what stands for an entry that is missing.
const actionMissing = "audit.missing"

// missing is what stands for an entry that is missing, before one of this time. It reports that.
func (a *Audit) missing(seq uint64, before time.Time) fleet.AuditEntry {
	_ = a.log.Damaged(engine.Message{Sequence: seq}, errors.New("missing")) // which reports it
	e := damaged(engine.Message{Sequence: seq, Time: before})
	e.Action = actionMissing
	return e
}

// damaged is what stands for an entry that is damaged.
func damaged(m engine.Message) fleet.AuditEntry {
	e := fleet.AuditEntry{Seq: m.Sequence, Time: m.Time.UTC(), Actor: "iadmsd", Action: "audit.damaged", Object: fmt.Sprintf("audit/%d", m.Sequence), Damaged: m.Data}
	if len(e.Damaged) == 0 {
		e.Damaged = []byte("(nothing)")
	}
	return e
}

// Query selects entries.
type Query struct {
	// Before is the number of the entry before which the result begins; 0: with the newest.
	Before uint64
	// Actor, Action and Object are the beginnings of these fields; empty: all.
	Actor, Action, Object string
	// Limit is the maximum number of entries; 0: 50.
	Limit int
}

// window is how many entries are read at once, and maxScan how many for one query.
const (
	window  = 1000
	maxScan = 200_000
)

// Read returns the entries that q selects, the newest first. Of a long record it looks
// through the 200,000 entries before Before; if it finds fewer than Limit there, the
// number of the last one is where to continue, or else Before less 200,000.
func (a *Audit) Read(ctx context.Context, q Query) ([]fleet.AuditEntry, error) {
	limit := q.Limit
	if limit <= 0 {
		limit = 50
	}
	head, err := a.last(ctx)
	if err != nil {
		return nil, err
	}
	before := head.Seq + 1
	if q.Before > 0 {
		before = min(q.Before, before)
	}
	var found []fleet.AuditEntry
	for scanned := 0; before > 1 && len(found) < limit && scanned < maxScan; scanned += window {
		from := uint64(1)
		if before > window {
			from = before - window
		}
		part, err := a.part(ctx, from, before, &q)
		if err != nil {
			return nil, err
		}
		slices.Reverse(part)
		found = append(found, part...)
		before = from
	}
	return found[:min(len(found), limit)], nil
}

// errEnd ends a Read.
var errEnd = errors.New("end of the part")

// part returns the matching entries from a number on and before another.
func (a *Audit) part(ctx context.Context, from, before uint64, q *Query) ([]fleet.AuditEntry, error) {
	var part []fleet.AuditEntry
	add := func(e fleet.AuditEntry) {
		if strings.HasPrefix(e.Actor, q.Actor) && strings.HasPrefix(e.Action, q.Action) && strings.HasPrefix(e.Object, q.Object) {
			part = append(part, e)
		}
	}
	expected, at := from, time.Time{}
	// skipped adds what is missing before a number.
	skipped := func(seq uint64) {
		for ; expected < seq; expected++ {
			add(a.missing(expected, at))
		}
		expected = seq + 1
	}
	err := a.log.Read(ctx, from, ">", false, func(m engine.Message) error {
		if m.Sequence >= before {
			return errEnd
		}
		at = m.Time
		skipped(m.Sequence)
		e, err := parse(m)
		if err != nil {
			_ = a.log.Damaged(m, err) // which reports it
			e = damaged(m)
		}
		add(e)
		return nil
	})
	if err != nil && !errors.Is(err, errEnd) {
		return nil, err
	}
	skipped(before)
	return part, nil
}
