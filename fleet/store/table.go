package store

import (
	"context"
	"encoding/json"
	"errors"

	"example.com/iad/fleet/engine"
)

// Table holds objects of one type.
type Table[T any] struct {
	bucket *engine.Bucket
	prefix []string // of all keys
	parts  int      // of a key, without prefix
	key    func(*T) []string
	// check says what is wrong with an object that could be decoded; nil: nothing is.
	check func(*T) error
}

func (t *Table[T]) path(parts []string) string {
	return engine.Key(append(append([]string(nil), t.prefix...), parts...)...)
}

// Get returns the object with this key and its revision. The error wraps
// engine.ErrNotFound if there is none, and engine.ErrDamaged if it cannot be decoded.
func (t *Table[T]) Get(ctx context.Context, key ...string) (*T, uint64, error) {
	entry, err := t.bucket.Get(ctx, t.path(key))
	if err != nil {
		return nil, 0, err
	}
	v, err := t.decode(entry)
	return v, entry.Revision, err
}

// decode decodes an object and reports whether that is possible.
func (t *Table[T]) decode(entry engine.Entry) (*T, error) {
	v := new(T)
	err := json.Unmarshal(entry.Value, v)
	if err == nil && t.path(t.key(v)) != entry.Key {
		err = errors.New("it names another object")
	}
	if err == nil && t.check != nil {
		err = t.check(v)
	}
	if err != nil {
		return nil, t.bucket.Damaged(entry, err)
	}
	t.bucket.Sound(entry.Key, entry.Revision)
	return v, nil
}

// Create stores a new object and returns its revision. The error wraps engine.ErrConflict
// if one with its key exists.
func (t *Table[T]) Create(ctx context.Context, v *T) (uint64, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return 0, err
	}
	return t.bucket.Create(ctx, t.path(t.key(v)), data)
}

// CreateAll stores the new ones of many objects; see engine.Bucket.CreateAll. It returns the
// revision of each, 0 if one with its key exists.
func (t *Table[T]) CreateAll(ctx context.Context, objects []*T) ([]uint64, error) {
	entries := make([]engine.Entry, len(objects))
	for i, v := range objects {
		data, err := json.Marshal(v)
		if err != nil {
			return nil, err
		}
		entries[i] = engine.Entry{Key: t.path(t.key(v)), Value: data}
	}
	err := t.bucket.CreateAll(ctx, entries)
	revisions := make([]uint64, len(entries))
	for i := range entries {
		revisions[i] = entries[i].Revision
	}
	return revisions, err
}

// Update replaces the object with this revision and returns the new one. The error wraps
// engine.ErrConflict if the object has another revision.
func (t *Table[T]) Update(ctx context.Context, v *T, revision uint64) (uint64, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return 0, err
	}
	return t.bucket.Update(ctx, t.path(t.key(v)), data, revision)
}

// Change has change modify the object with this key and stores it, again if somebody else
// changed it at the same time. An error of change ends that and is returned as it is; with
// ErrUnchanged nothing is stored, and the error is nil.
func (t *Table[T]) Change(ctx context.Context, change func(*T) error, key ...string) (*T, error) {
	for {
		v, revision, err := t.Get(ctx, key...)
		if err != nil {
			return nil, err
		}
		if err := change(v); errors.Is(err, ErrUnchanged) {
			return v, nil
		} else if err != nil {
			return v, err
		}
		if _, err := t.Update(ctx, v, revision); !errors.Is(err, engine.ErrConflict) {
			return v, err
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
}

// ErrUnchanged is returned by the function that Change calls if there is nothing to store.
var ErrUnchanged = errors.New("unchanged")

// Delete removes the object with this revision. The error wraps engine.ErrConflict if it
// has another one.
func (t *Table[T]) Delete(ctx context.Context, revision uint64, key ...string) error {
	return t.bucket.Delete(ctx, t.path(key), revision)
}

// pattern matches all keys that begin with these parts.
func (t *Table[T]) pattern(parts []string) string {
	if len(parts) == t.parts {
		return t.path(parts)
	}
	if len(t.prefix)+len(parts) == 0 {
		return ">"
	}
	return t.path(parts) + ".>"
}

// Change is what Watch reports.
type Change[T any] struct {
	// Value is the object; nil with Synced, and if the object was deleted or is damaged.
	Value    *T
	Revision uint64
	// Damaged: there is an object, but it cannot be decoded.
	Damaged bool
	// Key is the key in the bucket, which is the same for changes of one object.
	Key string
	// Synced: all objects that existed at the start have been reported.
	Synced bool
}

// Watch calls handle with the objects whose keys begin with these parts, then with a Change
// that is Synced, then with whatever changes, until ctx ends or handle returns an error. A
// damaged object is reported like one that was deleted, but for Damaged.
func (t *Table[T]) Watch(ctx context.Context, handle func(Change[T]) error, parts ...string) error {
	return t.bucket.Watch(ctx, t.pattern(parts), func(c engine.Change) error {
		change := Change[T]{Revision: c.Revision, Key: c.Key, Synced: c.Synced}
		switch {
		case c.Synced:
		case c.Deleted:
			t.bucket.Sound(c.Key, c.Revision)
		default:
			v, err := t.decode(c.Entry)
			change.Value, change.Damaged = v, err != nil
		}
		return handle(change)
	})
}

var errSynced = errors.New("synced")

// List returns the objects whose keys begin with these parts, without those that are
// damaged.
func (t *Table[T]) List(ctx context.Context, parts ...string) ([]*T, error) {
	list, _, err := t.ListAll(ctx, parts...)
	return list, err
}

// ListAll is like List, and returns the keys of damaged objects too, without the prefix of
// the table.
func (t *Table[T]) ListAll(ctx context.Context, parts ...string) (list []*T, damaged [][]string, err error) {
	err = t.Watch(ctx, func(c Change[T]) error {
		switch {
		case c.Synced:
			return errSynced
		case c.Damaged:
			if key, ok := t.Parts(c.Key); ok {
				damaged = append(damaged, key)
			}
		case c.Value != nil:
			list = append(list, c.Value)
		}
		return nil
	}, parts...)
	if !errors.Is(err, errSynced) {
		return nil, nil, err
	}
	return list, damaged, nil
}

// Parts returns the parts of a key in the bucket that are not the prefix of the table.
func (t *Table[T]) Parts(key string) ([]string, bool) {
	parts, ok := engine.ParseKey(key)
	if !ok || len(parts) != len(t.prefix)+t.parts {
		return nil, false
	}
	return parts[len(t.prefix):], true
}
