package transfer

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v5"

	"example.com/iad/mib"
)

// resumes is how often an upload whose connection broke goes on by itself.
const resumes = 3

// renaming records whether a server lets a file be stored under a temporary name
// and renamed.
type renaming uint8

const (
	renamingUnknown renaming = iota
	renamingWorks
	renamingRefused
)

// ftpPut is an upload in progress. It is done in steps, so that what is done already
// need not be done again when a connection breaks.
type ftpPut struct {
	s         *ftpSession
	u         *upload
	path      string
	temporary string // "" to store under path at once
	begun     bool   // some of it may be on the server
	stored    bool   // all of it is on the server
	renamed   bool   // the server was asked to rename it
}

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
		if s.control != nil && s.control.failure() != nil {
			s.disconnect()
		}
	}()
	p := &ftpPut{s: s, u: u, path: path}
	if s.renaming != renamingRefused {
		var id [4]byte
		rand.Read(id[:])
		p.temporary = path + "." + hex.EncodeToString(id[:]) + ".part"
		if err = p.askForRenaming(); err != nil {
			return 0, err
		}
	}
	err = p.run(ctx)
	if p.temporary == "" || err == nil {
		return u.read, err
	}
	s.remove(p.temporary)
	if s.conn == nil || !refused(err) || p.begun && !p.stored || u.read > 0 && !u.seek(0) {
		return u.read, err
	}
	p = &ftpPut{s: s, u: u, path: path}
	if err = p.run(ctx); err == nil {
		s.renaming = renamingRefused // the next file need not be sent twice
	}
	return u.read, err
}

// askForRenaming finds out, once for each server and before the first file is sent,
// whether the server permits renaming at all: some permit neither that nor removing,
// and the file would stay there under its temporary name. The server is asked to
// rename a file that does not exist; what it says about the file does not matter.
func (p *ftpPut) askForRenaming() error {
	s := p.s
	if s.renaming != renamingUnknown {
		return nil
	}
	err := s.replied(s.conn.Rename(p.temporary, p.path), putting)
	var r *replyError
	switch {
	case err == nil:
	case !errors.As(err, &r) || r.code == 421:
		return err
	case r.code == 500 || r.code == 502 || r.code >= 550 && r.cause() == mib.FailCauseAccessDenied && r.says(wordsDenied):
		s.options.Log.Debug("server does not rename", "err", hide(err, s.server.Password))
		s.renaming, p.temporary = renamingRefused, ""
		return nil
	}
	s.renaming = renamingWorks // as far as it can be known
	return nil
}

// run goes on after a broken connection from the step that was not finished.
func (p *ftpPut) run(ctx context.Context) error {
	err := p.step()
	wait := backoff.NewExponentialBackOff()
	for i := 0; i < resumes && broken(err) && ctx.Err() == nil; i++ {
		if classify(err).Code == mib.FailCauseTransferTimeout {
			i = resumes // silence takes a whole time-out: once more is enough
		}
		p.s.options.Log.Info("connection broke during an upload, going on", "err", hide(err, p.s.server.Password))
		if sleep(ctx, wait.NextBackOff()) != nil {
			return err
		}
		p.s.disconnect()
		if again := p.s.connect(); again != nil {
			p.s.disconnect()
			return again
		}
		next := p.step()
		if refused(next) && !p.stored {
			return err // the server does not let the rest be sent: what broke off counts
		}
		err = next
	}
	return err
}

// broken reports a connection that broke or was given up by the server, also by 421
// (RFC 959 section 4.2.2), but not a source that failed.
func broken(err error) bool {
	var source *sourceError
	if err == nil || errors.As(err, &source) {
		return false
	}
	var r *replyError
	c := classify(err).Code
	return c == mib.FailCauseConnectionLost || c == mib.FailCauseTransferTimeout || errors.As(err, &r) && r.code == 421
}

// step does what is left to do.
func (p *ftpPut) step() error {
	name := p.temporary
	if name == "" {
		name = p.path
	}
	if !p.stored {
		var err error
		if p.begun {
			err = p.s.storeRest(name, p.u)
		} else {
			p.begun = true
			if err = p.s.store(name, p.u, 0); refused(err) && p.u.read == 0 {
				p.begun = false
			}
		}
		if err != nil {
			return err
		}
		p.stored = true
	}
	if p.temporary == "" {
		return p.s.checkStored(name, p.u.read)
	}
	asked := p.renamed
	if !asked {
		if err := p.s.checkStored(name, p.u.read); err != nil {
			return err
		}
	}
	err := p.s.conn.Rename(p.temporary, p.path)
	p.renamed = p.renamed || p.s.control.lastVerb() == "RNTO"
	if err = p.s.replied(err, putting); asked && refused(err) {
		// The server did it before the connection broke if the file is there now.
		if n, lost := p.s.size(p.path); lost == nil && n == p.u.read {
			return nil
		}
	}
	return err
}

// store sends the source's bytes from where it stands; the server appends them
// at offset.
func (s *ftpSession) store(path string, u *upload, offset int64) error {
	err := s.conn.StorFrom(path, u, uint64(offset))
	s.transferred()
	return s.replied(err, putting)
}

// storeRest sends what the server lacks of a file: nothing, if only the reply to the
// last of it was lost.
func (s *ftpSession) storeRest(path string, u *upload) error {
	have, err := s.size(path)
	switch {
	case err != nil:
		return err
	case have >= 0 && have == u.size && u.read == u.size:
		return nil
	case have < 0 || u.size >= 0 && have > u.size:
		have = 0
	}
	if !u.seek(have) {
		return &causeError{mib.FailCauseConnectionLost, errors.New("the upload broke off, and the source cannot be read again")}
	}
	err = s.store(path, u, have)
	if refused(err) && s.control.lastVerb() == "REST" && u.seek(0) {
		err = s.store(path, u, 0)
	}
	return err
}

// checkStored compares the size that the server reports, if it does.
func (s *ftpSession) checkStored(path string, sent int64) error {
	n, err := s.size(path)
	if err == nil && n >= 0 && n != sent {
		err = &causeError{mib.FailCauseSizeMismatch, fmt.Errorf("the server has %d bytes, %d were sent", n, sent)}
	}
	return err
}

// remove is a courtesy: the upload has failed already.
func (s *ftpSession) remove(path string) {
	if s.conn == nil || s.control.failure() != nil {
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
