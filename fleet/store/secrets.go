package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"example.com/iad/fleet"
	"example.com/iad/fleet/engine"
	"example.com/iad/fleet/seal"
)

// Secrets are the credentials, sealed. What was opened is kept in memory.
type Secrets struct {
	bucket *engine.Bucket
	key    *seal.Key

	mu     sync.Mutex
	opened map[string]openedSecret
}

type openedSecret struct {
	revision uint64
	secret   *fleet.Secret
}

// Digest is seal.Key.Digest.
func (s *Secrets) Digest(text string) string { return s.key.Digest(text) }

// Get returns the secret with this name. The error wraps engine.ErrNotFound if there is
// none.
func (s *Secrets) Get(ctx context.Context, name string) (*fleet.Secret, error) {
	entry, err := s.bucket.Get(ctx, engine.Key(name))
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if o, ok := s.opened[name]; ok && o.revision == entry.Revision {
		return o.secret, nil
	}
	secret, err := s.open(entry)
	if err != nil {
		return nil, err
	}
	if s.opened == nil {
		s.opened = make(map[string]openedSecret)
	}
	s.opened[name] = openedSecret{entry.Revision, secret}
	return secret, nil
}

// open decodes a secret and reports whether that is possible.
func (s *Secrets) open(entry engine.Entry) (*fleet.Secret, error) {
	plain, err := s.key.Open(entry.Value)
	if err != nil {
		return nil, s.bucket.Damaged(entry, err)
	}
	secret := new(fleet.Secret)
	if err := json.Unmarshal(plain, secret); err != nil || engine.Key(secret.Name) != entry.Key {
		return nil, s.bucket.Damaged(entry, errors.New("not a secret of this name")) // without what it contains
	}
	s.bucket.Sound(entry.Key, entry.Revision)
	return secret, nil
}

func (s *Secrets) sealed(secret *fleet.Secret) ([]byte, error) {
	plain, err := json.Marshal(secret)
	if err != nil {
		return nil, err
	}
	return s.key.Seal(plain)
}

// Create stores a new secret. The error wraps engine.ErrConflict if there is one of this name,
// which stays as it is.
func (s *Secrets) Create(ctx context.Context, secret *fleet.Secret) error {
	sealed, err := s.sealed(secret)
	if err != nil {
		return err
	}
	_, err = s.bucket.Create(ctx, engine.Key(secret.Name), sealed)
	return err
}

// Put stores a secret, in place of an earlier one of this name.
func (s *Secrets) Put(ctx context.Context, secret *fleet.Secret) error {
	sealed, err := s.sealed(secret)
	if err != nil {
		return err
	}
	key := engine.Key(secret.Name)
	for {
		_, err := s.bucket.Create(ctx, key, sealed)
		if !errors.Is(err, engine.ErrConflict) {
			return err
		}
		entry, err := s.bucket.Get(ctx, key)
		if errors.Is(err, engine.ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		if _, err = s.bucket.Update(ctx, key, sealed, entry.Revision); !errors.Is(err, engine.ErrConflict) {
			return err
		}
	}
}

// Change has change modify the secret with this name and stores it, again if somebody else changed
// it at the same time. An error of change ends that; with ErrUnchanged nothing is stored, and the
// error is nil.
func (s *Secrets) Change(ctx context.Context, name string, change func(*fleet.Secret) error) error {
	for {
		entry, err := s.bucket.Get(ctx, engine.Key(name))
		if err != nil {
			return err
		}
		secret, err := s.open(entry)
		if err != nil {
			return err
		}
		if err := change(secret); errors.Is(err, ErrUnchanged) {
			return nil
		} else if err != nil {
			return err
		}
		sealed, err := s.sealed(secret)
		if err != nil {
			return err
		}
		if _, err := s.bucket.Update(ctx, entry.Key, sealed, entry.Revision); !errors.Is(err, engine.ErrConflict) {
			return err
		}
	}
}

// Remove removes a secret that has been marked with Removing, or is damaged. It does nothing if
// there is none. The error wraps engine.ErrConflict if it is not marked, or not any more.
func (s *Secrets) Remove(ctx context.Context, name string) error {
	for {
		entry, err := s.bucket.Get(ctx, engine.Key(name))
		if errors.Is(err, engine.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		if secret, err := s.open(entry); err == nil && !secret.Removing {
			return fmt.Errorf("secret %s: %w: it is not to be removed", name, engine.ErrConflict)
		}
		if err := s.bucket.Delete(ctx, engine.Key(name), entry.Revision); !errors.Is(err, engine.ErrConflict) {
			return err
		}
	}
}

// Names returns the names of the secrets.
func (s *Secrets) Names(ctx context.Context) ([]string, error) {
	all, err := s.All(ctx)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(all))
	for i, secret := range all {
		names[i] = secret.Name
	}
	return names, nil
}

// All returns the secrets, without those that are damaged or sealed with another key.
func (s *Secrets) All(ctx context.Context) ([]*fleet.Secret, error) {
	var all []*fleet.Secret
	err := s.bucket.Watch(ctx, ">", func(c engine.Change) error {
		if c.Synced {
			return errSynced
		}
		if c.Deleted {
			s.bucket.Sound(c.Key, c.Revision)
			return nil
		}
		secret, err := s.open(c.Entry)
		if err != nil {
			return nil
		}
		all = append(all, secret)
		return nil
	})
	if !errors.Is(err, errSynced) {
		return nil, err
	}
	return all, nil
}

// Watch calls changed whenever a secret changes, and once at the start.
func (s *Secrets) Watch(ctx context.Context, changed func()) error {
	synced := false
	return s.bucket.Watch(ctx, ">", func(c engine.Change) error {
		if synced = synced || c.Synced; synced {
			changed()
		}
		return nil
	})
}
