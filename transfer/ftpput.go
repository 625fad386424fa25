package transfer

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// resumes is how often an upload whose connection broke goes on by itself.
const resumes = 3

// put stores under a temporary name and renames. A server that refuses the
// temporary name, or renaming, gets the file under its own name at once.
func (s *ftpSession) put(ctx context.Context, path string, u *upload) (int64, error) {
	end, err := s.begin(ctx)
	if err != nil {
		return 0, err
	}
	defer func() {
		end()
		s.transferred()
		if s.control != nil && s.control.Failed() != nil {
			s.disconnect()
		}
	}()
	var id [4]byte
	rand.Read(id[:])
	temporary := path + "." + hex.EncodeToString(id[:]) + ".part"

	err = s.storeResuming(ctx, temporary, u)
	if refused(err) && u.read == 0 {
		return s.putDirectly(path, u)
	}
	if err == nil {
		err = s.checkStored(temporary, u.read)
	}
	if err != nil {
		s.remove(temporary)
		return u.read, err
	}
	if err = s.replied(s.conn.Rename(temporary, path), putting); err == nil {
		return u.read, nil
	}
	s.options.Log.Debug("server does not rename", "err", hide(err, s.server.Password))
	s.remove(temporary)
	if refused(err) && u.seek(0) {
		return s.putDirectly(path, u)
	}
	return u.read, err
}

func (s *ftpSession) putDirectly(path string, u *upload) (int64, error) {
	if err := s.store(path, u, 0); err != nil {
		return u.read, err
	}
	return u.read, s.checkStored(path, u.read)
}

// store sends the source's octets from where it stands; the server appends them
// at offset.
func (s *ftpSession) store(path string, u *upload, offset int64) error {
	err := s.conn.StorFrom(path, u, uint64(offset))
	s.transferred()
	return s.replied(err, putting)
}

// storeResuming goes on where the server's copy ends when the connection breaks
// and the source can go back.
func (s *ftpSession) storeResuming(ctx context.Context, path string, u *upload) error {
	err := s.store(path, u, 0)
	wait := backoff.NewExponentialBackOff()
	for i := 0; i < resumes && err != nil && ctx.Err() == nil; i++ {
		if c := classify(err).Code; c != CauseConnectionLost && c != CauseTransferTimeout || !u.seek(0) {
			return err
		}
		s.options.Log.Info("upload broke off, going on", "err", hide(err, s.server.Password))
		if sleep(ctx, wait.NextBackOff()) != nil {
			return err
		}
		s.disconnect()
		if again := s.connect(); again != nil {
			s.disconnect()
			return again
		}
		err = s.storeRest(path, u)
	}
	return err
}

// storeRest sends what the server lacks of a file.
func (s *ftpSession) storeRest(path string, u *upload) error {
	have, err := s.size(path)
	if err != nil {
		return err
	}
	if have < 0 || u.size >= 0 && have > u.size || !u.seek(have) {
		have = 0
		u.seek(0)
	}
	err = s.store(path, u, have)
	if refused(err) && s.control.Verb() == "REST" {
		u.seek(0)
		err = s.store(path, u, 0)
	}
	return err
}

// checkStored compares the size that the server tells, if it does.
func (s *ftpSession) checkStored(path string, sent int64) error {
	n, err := s.size(path)
	if err == nil && n >= 0 && n != sent {
		err = &causeError{CauseSizeMismatch, fmt.Errorf("the server has %d octets, %d were sent", n, sent)}
	}
	return err
}

// remove is a courtesy: the upload has failed already.
func (s *ftpSession) remove(path string) {
	if s.conn == nil || s.control.Failed() != nil {
		return
	}
	if err := s.conn.Delete(path); err != nil {
		s.options.Log.Debug("temporary file left on the server", "path", path, "err", hide(err, s.server.Password))
	}
}

// refused reports a permanent refusal (5yz) by the server.
func refused(err error) bool {
	var r *replyError
	return errors.As(err, &r) && r.code >= 500
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
