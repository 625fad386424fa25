package engine

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Store holds blobs.
type Store struct {
	engine *Engine
	name   StoreName
	store  jetstream.ObjectStore
}

// Store returns a store of blobs.
func (e *Engine) Store(ctx context.Context, name StoreName) (*Store, error) {
	s := &Store{engine: e, name: name}
	err := e.persist(ctx, func(ctx context.Context) (err error) {
		s.store, err = e.js.ObjectStore(ctx, string(name))
		if errors.Is(err, jetstream.ErrBucketNotFound) {
			return jetstream.ErrStreamNotFound
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("engine: store %s: %w", name, err)
	}
	return s, nil
}

func (s *Store) wrap(name string, err error) error {
	if errors.Is(err, jetstream.ErrObjectNotFound) {
		err = ErrNotFound
	}
	return fmt.Errorf("%s %s: %w", s.name, name, err)
}

// Put stores a blob, in place of an earlier one of this name, reads it back, and returns its
// size and SHA-256 digest. open is called for each try.
func (s *Store) Put(ctx context.Context, name string, open func() (io.ReadCloser, error)) (size int64, digest []byte, err error) {
	err = s.engine.persist(ctx, func(try context.Context) error {
		r, err := open()
		if err != nil {
			return err
		}
		h := sha256.New()
		var n counter
		// A large blob takes longer than one request.
		_, err = s.store.Put(context.WithoutCancel(try), jetstream.ObjectMeta{Name: name}, io.TeeReader(readerUntil{ctx, r}, io.MultiWriter(h, &n)))
		size, digest = int64(n), h.Sum(nil)
		return errors.Join(err, r.Close())
	})
	if err == nil {
		err = s.verify(ctx, name, size, digest)
	}
	if err != nil {
		return 0, nil, s.wrap(name, err)
	}
	return size, digest, nil
}

// readBackTime is how long a node may lag behind that serves what was stored.
const readBackTime = 30 * time.Second

// verify reads a blob back until it is what was stored.
func (s *Store) verify(ctx context.Context, name string, size int64, digest []byte) error {
	ctx, cancel := context.WithTimeout(ctx, readBackTime)
	defer cancel()
	for {
		gotSize, got, err := s.Digest(ctx, name)
		if err == nil && (gotSize != size || !bytes.Equal(got, digest)) {
			err = fmt.Errorf("%d bytes with SHA-256 %x were stored, and %d with %x are read", size, digest, gotSize, got)
		}
		if err == nil || pause(ctx) != nil {
			return err
		}
	}
}

// readerUntil is a reader that fails when ctx has ended.
type readerUntil struct {
	ctx context.Context
	r   io.Reader
}

func (r readerUntil) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}

// Get writes a blob to w, which may get a part of it before an error. What was written is
// the blob if the error is nil.
func (s *Store) Get(ctx context.Context, name string, w io.Writer) error {
	var object jetstream.ObjectResult
	err := s.engine.persist(ctx, func(context.Context) (err error) {
		object, err = s.store.Get(ctx, name) // is read as long as this context lasts
		return err
	})
	if err != nil {
		return s.wrap(name, err)
	}
	defer object.Close()
	if _, err := io.Copy(w, object); err != nil {
		return s.wrap(name, err)
	}
	return nil
}

// Digest reads a blob back and returns its size and SHA-256 digest.
func (s *Store) Digest(ctx context.Context, name string) (int64, []byte, error) {
	h := sha256.New()
	var n counter
	if err := s.Get(ctx, name, io.MultiWriter(h, &n)); err != nil {
		return 0, nil, err
	}
	return int64(n), h.Sum(nil), nil
}

type counter int64

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}

// Has reports whether there is a blob of this name.
func (s *Store) Has(ctx context.Context, name string) (bool, error) {
	has := false
	err := s.engine.persist(ctx, func(ctx context.Context) error {
		_, err := s.store.GetInfo(ctx, name)
		has = err == nil
		if errors.Is(err, jetstream.ErrObjectNotFound) {
			return nil
		}
		return err
	})
	if err != nil {
		return false, s.wrap(name, err)
	}
	return has, nil
}

// Delete removes a blob. It does nothing if there is none.
func (s *Store) Delete(ctx context.Context, name string) error {
	err := s.engine.persist(ctx, func(ctx context.Context) error {
		err := s.store.Delete(ctx, name)
		if errors.Is(err, jetstream.ErrObjectNotFound) {
			return nil
		}
		return err
	})
	if err != nil {
		return s.wrap(name, err)
	}
	return nil
}
