package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"example.com/iad/fleet/engine"
	"example.com/iad/fleet/seal"
)

// sealedWith is the entry in Settings that says which key secrets are sealed with, by its
// public key.
type sealedWith struct {
	PublicKey string `json:"public_key"`
}

var sealedWithKey = engine.Key("sealed-with")

// checkKey returns an error that wraps seal.ErrOtherKey unless the secrets are sealed with the
// key of s. The first process that opens a store decides which key that is.
func (s *Secrets) checkKey(ctx context.Context, settings *engine.Bucket) error {
	for {
		entry, err := settings.Get(ctx, sealedWithKey)
		if err != nil && !errors.Is(err, engine.ErrNotFound) {
			return err
		}
		var is sealedWith
		if json.Unmarshal(entry.Value, &is) == nil && is.PublicKey != "" {
			if is.PublicKey != s.key.Public() {
				return fmt.Errorf("the stored credentials are %w: its public key is %s, that of the key here %s", seal.ErrOtherKey, is.PublicKey, s.key.Public())
			}
			return nil
		}
		// It is missing or damaged: the secrets say which key it is.
		if err := s.opensSome(ctx); err != nil {
			return err
		}
		if err := s.setKey(ctx, settings, entry.Revision); !errors.Is(err, engine.ErrConflict) {
			return err
		}
	}
}

// opensSome returns an error that wraps seal.ErrOtherKey if there are secrets of another key and
// none of this one.
func (s *Secrets) opensSome(ctx context.Context) error {
	others := false
	err := s.bucket.Watch(ctx, ">", func(c engine.Change) error {
		if c.Synced {
			return errSynced
		}
		if c.Deleted {
			return nil
		}
		_, err := s.key.Open(c.Value)
		if err == nil {
			others = false
			return errSynced
		}
		others = others || errors.Is(err, seal.ErrOtherKey)
		return nil
	})
	if errors.Is(err, errSynced) {
		err = nil
	}
	if err == nil && others {
		return fmt.Errorf("the stored credentials are %w; the public key of the one here is %s", seal.ErrOtherKey, s.key.Public())
	}
	return err
}

// setKey says that secrets are sealed with the key of s from now on. It replaces the entry with
// this revision, 0: there is none.
func (s *Secrets) setKey(ctx context.Context, settings *engine.Bucket, revision uint64) error {
	value, err := json.Marshal(sealedWith{s.key.Public()})
	if err != nil {
		return err
	}
	if revision == 0 {
		_, err = settings.Create(ctx, sealedWithKey, value)
	} else {
		_, err = settings.Update(ctx, sealedWithKey, value, revision)
	}
	return err
}

// ReplaceKey makes key the one that secrets are sealed with from now on. What is sealed with
// another key stays, and cannot be opened until it is stored again.
func ReplaceKey(ctx context.Context, e *engine.Engine, key *seal.Key) error {
	settings, err := e.Bucket(ctx, engine.Settings)
	if err != nil {
		return err
	}
	s := &Secrets{key: key}
	for {
		entry, err := settings.Get(ctx, sealedWithKey)
		if err != nil && !errors.Is(err, engine.ErrNotFound) {
			return err
		}
		if err := s.setKey(ctx, settings, entry.Revision); !errors.Is(err, engine.ErrConflict) {
			return err
		}
	}
}
