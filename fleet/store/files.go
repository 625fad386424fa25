package store

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"example.com/iad/fleet"
	"example.com/iad/fleet/engine"
)

// lockImage waits until no other process adds or removes the image.
func (s *Store) lockImage(ctx context.Context, digest string) (*engine.Lease, error) {
	return s.Engine.Acquire(ctx, engine.Key(imageLease, digest), nil)
}

// AddImage stores the file of an image, which must have the image's digest, and then what
// is known of it. It does nothing if both are there.
func (s *Store) AddImage(ctx context.Context, image *fleet.Image, open func() (io.ReadCloser, error)) error {
	lease, err := s.lockImage(ctx, image.Digest)
	if err != nil {
		return err
	}
	defer lease.Release()
	if _, _, err := s.Images.Get(ctx, image.Digest); err == nil {
		if has, err := s.imageFiles.Has(ctx, image.Digest); err != nil || has {
			return err
		}
	}
	_, digest, err := s.imageFiles.Put(ctx, image.Digest, open)
	if err != nil {
		return err
	}
	if got := hex.EncodeToString(digest); got != image.Digest {
		return fmt.Errorf("image %s: the SHA-256 of what was stored is %s", image.Digest, got)
	}
	if _, err := s.Images.Create(ctx, image); err != nil && !errors.Is(err, engine.ErrConflict) {
		return err
	}
	return nil
}

// RemoveImage removes an image and then its file: a file without an image does no harm.
func (s *Store) RemoveImage(ctx context.Context, digest string) error {
	lease, err := s.lockImage(ctx, digest)
	if err != nil {
		return err
	}
	defer lease.Release()
	_, revision, err := s.Images.Get(ctx, digest)
	if err != nil {
		return err
	}
	if err := s.Images.Delete(ctx, revision, digest); err != nil {
		return err
	}
	return s.imageFiles.Delete(ctx, digest)
}

// ImageFile copies the file of an image into a directory, unless it is there, and returns
// its name: DIR/DIGEST/NAME, where NAME is how devices ask for it.
func (s *Store) ImageFile(ctx context.Context, digest, dir string) (string, error) {
	image, _, err := s.Images.Get(ctx, digest)
	if err != nil {
		return "", err
	}
	name := filepath.Join(dir, digest, cmp.Or(fleet.NameFor(filepath.Base(image.File)), "image"))
	if _, err := os.Stat(name); err == nil {
		return name, nil
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return "", err
	}
	f, err := os.CreateTemp(filepath.Dir(name), ".image-")
	if err != nil {
		return "", err
	}
	defer os.Remove(f.Name())
	h := sha256.New()
	err = s.imageFiles.Get(ctx, digest, io.MultiWriter(f, h))
	if err = errors.Join(err, f.Close()); err != nil {
		return "", err
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != digest {
		return "", fmt.Errorf("image %s: the SHA-256 of what is stored is %s", digest, got)
	}
	//durable: a copy, which is made again if it is lost
	return name, os.Rename(f.Name(), name)
}

func backupName(device, id, kind string) string { return engine.Key(device, id, kind) }

// AddBackup stores a backup: its files, which are read back and have the digests in b, and
// then what is known of it. The kinds of data and of b.Files are the same.
func (s *Store) AddBackup(ctx context.Context, b *fleet.Backup, data map[string][]byte) error {
	for _, f := range b.Files {
		name := backupName(b.Device, b.ID, f.Kind)
		content, ok := data[f.Kind]
		if !ok {
			return fmt.Errorf("backup %s of %s: no %s", b.ID, b.Device, f.Kind)
		}
		size, digest, err := s.backupFiles.Put(ctx, name, func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil })
		if err != nil {
			return err
		}
		if got := hex.EncodeToString(digest); got != f.Digest || size != f.Size {
			return fmt.Errorf("backup %s of %s: %s was stored with %d bytes, SHA-256 %s; it must have %d, %s", b.ID, b.Device, f.Kind, size, got, f.Size, f.Digest)
		}
	}
	_, err := s.Backups.Create(ctx, b)
	if errors.Is(err, engine.ErrConflict) { // by an earlier try
		_, err = s.Backups.Change(ctx, func(old *fleet.Backup) error {
			b.Pinned = old.Pinned
			*old = *b
			return nil
		}, b.Device, b.ID)
	}
	return err
}

// BackupFile returns a file of a backup, which has the digest that b says.
func (s *Store) BackupFile(ctx context.Context, b *fleet.Backup, kind string) ([]byte, error) {
	for _, f := range b.Files {
		if f.Kind != kind {
			continue
		}
		var data bytes.Buffer
		if err := s.backupFiles.Get(ctx, backupName(b.Device, b.ID, kind), &data); err != nil {
			return nil, err
		}
		if sum := sha256.Sum256(data.Bytes()); hex.EncodeToString(sum[:]) != f.Digest {
			return nil, fmt.Errorf("backup %s of %s: the SHA-256 of %s is %x, not %s", b.ID, b.Device, kind, sum, f.Digest)
		}
		return data.Bytes(), nil
	}
	return nil, fmt.Errorf("backup %s of %s has no %s: %w", b.ID, b.Device, kind, engine.ErrNotFound)
}

// RemoveBackup removes a backup and its files.
func (s *Store) RemoveBackup(ctx context.Context, device, id string) error {
	b, revision, err := s.Backups.Get(ctx, device, id)
	if err != nil {
		return err
	}
	if err := s.Backups.Delete(ctx, revision, device, id); err != nil {
		return err
	}
	for _, f := range b.Files {
		if err := s.backupFiles.Delete(ctx, backupName(device, id, f.Kind)); err != nil {
			return err
		}
	}
	return nil
}
