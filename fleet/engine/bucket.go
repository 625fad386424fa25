package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
)

var (
	// ErrNotFound: there is no entry with this key, no blob with this name.
	ErrNotFound = errors.New("not found")
	// ErrConflict: the entry has another revision than the caller had read, or exists
	// already. Nothing was written.
	ErrConflict = errors.New("changed by somebody else")
)

// Entry is a key and its value. Revision is its number in the bucket, which grows with
// every write.
type Entry struct {
	Key      string
	Value    []byte
	Revision uint64
}

// Bucket holds entries.
type Bucket struct {
	engine *Engine
	name   BucketName
	kv     jetstream.KeyValue
}

// Bucket returns a bucket.
func (e *Engine) Bucket(ctx context.Context, name BucketName) (*Bucket, error) {
	b := &Bucket{engine: e, name: name}
	err := e.persist(ctx, func(ctx context.Context) (err error) {
		b.kv, err = e.js.KeyValue(ctx, string(name))
		if errors.Is(err, jetstream.ErrBucketNotFound) {
			return jetstream.ErrStreamNotFound
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("engine: bucket %s: %w", name, err)
	}
	return b, nil
}

// Key joins the parts of a key. Whatever a part contains, different parts make different
// keys, and a part with "." is one part of the key.
func Key(parts ...string) string {
	var b strings.Builder
	for i, part := range parts {
		if i > 0 {
			b.WriteByte('.')
		}
		if part == "" {
			b.WriteByte('=')
		}
		for _, c := range []byte(part) {
			if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' {
				b.WriteByte(c)
			} else {
				fmt.Fprintf(&b, "=%02X", c)
			}
		}
	}
	return b.String()
}

func (b *Bucket) wrap(key string, err error) error {
	return fmt.Errorf("%s %s: %w", b.name, key, err)
}

// Get returns an entry. The error wraps ErrNotFound if there is none.
func (b *Bucket) Get(ctx context.Context, key string) (Entry, error) {
	var entry Entry
	err := b.engine.persist(ctx, func(ctx context.Context) error {
		got, err := b.kv.Get(ctx, key)
		if errors.Is(err, jetstream.ErrKeyNotFound) { // deleted ones included
			return ErrNotFound
		}
		if err == nil {
			entry = Entry{Key: got.Key(), Value: got.Value(), Revision: got.Revision()}
		}
		return err
	})
	if err != nil {
		return Entry{}, b.wrap(key, err)
	}
	return entry, nil
}

// Create writes an entry and returns its revision. The error wraps ErrConflict if one
// exists. What cannot be read from the disk any more is replaced.
func (b *Bucket) Create(ctx context.Context, key string, value []byte) (uint64, error) {
	revision, err := b.put(ctx, key, value, 0, false)
	if !errors.Is(err, ErrConflict) {
		return revision, err
	}
	var last *jetstream.RawStreamMsg
	lookErr := b.engine.persist(ctx, func(ctx context.Context) (err error) {
		last, err = b.lastMessage(ctx, key)
		return err
	})
	switch {
	case lookErr != nil:
		return 0, b.wrap(key, lookErr)
	case last != nil && last.Header.Get("KV-Operation") == "":
		return 0, err
	case last != nil: // a deleted entry leaves a mark with a revision
		return b.put(ctx, key, value, last.Sequence, false)
	}
	// It has expired meanwhile, or cannot be read. In the latter case the revision stays.
	var first, second conflict
	errors.As(err, &first)
	revision, err = b.put(ctx, key, value, 0, false)
	if errors.As(err, &second) && second.last == first.last && second.last != 0 {
		return b.put(ctx, key, value, second.last, false)
	}
	return revision, err
}

// Update replaces the entry with this revision and returns the new one. The error wraps
// ErrConflict if the entry has another revision.
func (b *Bucket) Update(ctx context.Context, key string, value []byte, revision uint64) (uint64, error) {
	if revision == 0 {
		return 0, b.wrap(key, errors.New("update needs a revision"))
	}
	return b.put(ctx, key, value, revision, false)
}

// Delete removes the entry with this revision.
func (b *Bucket) Delete(ctx context.Context, key string, revision uint64) error {
	_, err := b.put(ctx, key, nil, revision, true)
	return err
}

// put writes if the last revision of the key is the given one. When it is repeated because
// no answer came, its message ID keeps it from failing by its own success: nodes recognize
// the ID for a while, mostly, and it is stored with the entry.
func (b *Bucket) put(ctx context.Context, key string, value []byte, revision uint64, remove bool) (uint64, error) {
	if len(value) > maxValue {
		return 0, b.wrap(key, fmt.Errorf("a value of %d bytes is larger than %d", len(value), maxValue))
	}
	msg := nats.NewMsg(bucketSubject(b.name, key))
	msg.Data = value
	if remove {
		msg.Header.Set("KV-Operation", "DEL")
	}
	id := nuid.Next()
	var written uint64
	repeated := false
	err := b.engine.persist(ctx, func(ctx context.Context) error {
		ack, err := b.engine.js.PublishMsg(ctx, msg, jetstream.WithMsgID(id), jetstream.WithExpectLastSequencePerSubject(revision), jetstream.WithRetryAttempts(0))
		switch {
		case err == nil:
			written = ack.Sequence
		case wrongSequence(err) && repeated:
			written, err = b.writtenAs(ctx, key, id)
		case wrongSequence(err):
			err = conflictOf(err)
		default:
			repeated = true
		}
		return err
	})
	if err != nil {
		return 0, b.wrap(key, err)
	}
	return written, nil
}

// writtenAs returns the revision of an entry if it was written with this message ID, and
// ErrConflict otherwise.
func (b *Bucket) writtenAs(ctx context.Context, key, id string) (uint64, error) {
	last, err := b.lastMessage(ctx, key)
	switch {
	case err != nil:
		return 0, err
	case last == nil || last.Header.Get(jetstream.MsgIDHeader) != id:
		return 0, ErrConflict
	}
	return last.Sequence, nil
}

// lastMessage returns what was written last for keys that match a pattern, by the leader;
// nil if nothing was.
func (b *Bucket) lastMessage(ctx context.Context, pattern string) (*jetstream.RawStreamMsg, error) {
	s, err := b.engine.js.Stream(ctx, bucketStream(b.name))
	if err != nil {
		return nil, err
	}
	msg, err := s.GetLastMsgForSubject(ctx, bucketSubject(b.name, pattern))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil, nil
	}
	return msg, err
}

// conflict is an ErrConflict; last is the revision that the entry has instead, 0 if that is
// not known.
type conflict struct{ last uint64 }

func (conflict) Error() string        { return ErrConflict.Error() }
func (conflict) Is(target error) bool { return target == ErrConflict }

// conflictOf returns the conflict that a node answers; its text alone has the number.
func conflictOf(err error) conflict {
	var c conflict
	var api *jetstream.APIError
	if errors.As(err, &api) {
		if _, err := fmt.Sscanf(api.Description, "wrong last sequence: %d", &c.last); err != nil {
			return conflict{}
		}
	}
	return c
}

func wrongSequence(err error) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) && api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence
}

// Keys returns the keys that match a pattern, where * stands for one part and > for the
// rest.
func (b *Bucket) Keys(ctx context.Context, pattern string) ([]string, error) {
	found := make(map[string]bool)
	err := b.watch(ctx, pattern, func(c Change) error {
		switch {
		case c.Synced:
			return errSynced
		case c.Deleted:
			delete(found, c.Key)
		default:
			found[c.Key] = true
		}
		return nil
	}, jetstream.MetaOnly())
	if !errors.Is(err, errSynced) {
		return nil, err
	}
	return slices.Sorted(maps.Keys(found)), nil
}

var errSynced = errors.New("synced")

// last returns the revision of the newest entry that matches a pattern, by the leader, 0 if
// there is none.
func (b *Bucket) last(ctx context.Context, pattern string) (uint64, error) {
	if b.name == Leases { // what it returns may have expired before it is seen
		return 0, nil
	}
	var last uint64
	err := b.engine.persist(ctx, func(ctx context.Context) error {
		msg, err := b.lastMessage(ctx, pattern)
		if msg != nil {
			last = msg.Sequence
		}
		return err
	})
	return last, err
}

// Change is what Watch reports.
type Change struct {
	Entry
	// Deleted: the entry was deleted. Expired leases are not reported.
	Deleted bool
	// Synced: all entries that existed at the start have been reported. The other fields are
	// empty.
	Synced bool
}

// Watch calls handle with every entry that matches a pattern, then with a Change that is
// Synced, then with whatever changes, until ctx ends or handle returns an error. Everything
// whose write was acknowledged before the call is reported before Synced. If an entry
// changes quickly, only the last change is certain to be reported.
func (b *Bucket) Watch(ctx context.Context, pattern string, handle func(Change) error) error {
	return b.watch(ctx, pattern, handle)
}

func (b *Bucket) watch(ctx context.Context, pattern string, handle func(Change) error, options ...jetstream.WatchOpt) error {
	// The node that serves the watch may lag behind.
	last, err := b.last(ctx, pattern)
	if err != nil {
		return b.wrap(pattern, err)
	}
	var w jetstream.KeyWatcher
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	err = b.engine.persist(ctx, func(context.Context) (err error) {
		w, err = b.kv.Watch(ctx, pattern, options...) // lasts as long as this context
		return err
	})
	if err != nil {
		return b.wrap(pattern, err)
	}
	defer func() { _ = w.Stop() }() // what it returns has no consequence
	var seen uint64
	complete, synced := false, false
	quiet := time.NewTicker(silence)
	defer quiet.Stop()
	heard := true
	for {
		if complete && !synced && seen >= last {
			synced = true
			quiet.Stop()
			if err := handle(Change{Synced: true}); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-quiet.C: // what is damaged on the disk is counted, but never delivered
			if heard {
				heard = false
				continue
			}
			more, err := b.engine.more(ctx, bucketStream(b.name), bucketSubject(b.name, pattern), seen)
			if err != nil {
				return b.wrap(pattern, err)
			}
			if !more {
				complete, last = true, seen
			}
		case entry, ok := <-w.Updates():
			heard = true
			if !ok {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				return b.wrap(pattern, errors.New("the engine ended the watch"))
			}
			if entry == nil {
				complete = true
				continue
			}
			seen = max(seen, entry.Revision())
			change := Change{Deleted: entry.Operation() != jetstream.KeyValuePut}
			change.Entry = Entry{Key: entry.Key(), Value: entry.Value(), Revision: entry.Revision()}
			if err := handle(change); err != nil {
				return err
			}
		}
	}
}
