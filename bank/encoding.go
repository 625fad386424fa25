package bank

import (
	"errors"
	"fmt"
	"hash"
	"io"

	"example.com/iad/bank/image"
	"example.com/iad/bank/image/frame"
	"example.com/iad/mib"
)

// A payloadSource is the encoding from which a payload is made.
type payloadSource struct {
	encoding *image.Encoding
	base     baseReader // nil without a base
}

// baseReader reads a file or the partition of the running software.
type baseReader interface {
	io.ReaderAt
	io.Closer
}

func (s *payloadSource) close() {
	if s.base != nil {
		_ = s.base.Close()
		s.base = nil
	}
}

// choose returns the encoding of payload i to use: the first one whose base, if it needs one,
// is what the running software has now. Causes: preconditionMissing if there is none.
func (w *writer) choose(i int) (*payloadSource, error) {
	if s := w.sources[i]; s != nil {
		return s, nil
	}
	p := &w.fetch.Head.Manifest.Payloads[i]
	encodings := p.Encodings
	why := ""
	for j := range encodings {
		s := &payloadSource{encoding: &encodings[j]}
		if b := s.encoding.Base; b != nil {
			var err error
			if s.base, err = w.openBase(b); err != nil {
				why = err.Error()
				continue
			}
			w.note(fmt.Sprintf("payload %s: fetching %s, the difference from the running %s", p.Name, s.encoding.File, w.base.Manifest.Version))
		} else if why != "" {
			w.note(fmt.Sprintf("payload %s: fetching %s, not a difference: %s", p.Name, s.encoding.File, why))
		}
		w.sources[i] = s
		return s, nil
	}
	return nil, refuse(mib.FailCausePreconditionMissing, "the image has payload %s only as the difference from other software: %s; use an image with all of it", p.Name, why)
}

// chooseAll chooses for all payloads that have encodings and are not in the bank, so that
// what cannot be installed is refused before the bank is erased. Of a payload that can only
// be made from a base, it reads what the bank holds: if that is damaged, it counts as missing.
func (w *writer) chooseAll(keep map[string]bool) error {
	for i := range w.fetch.Head.Manifest.Payloads {
		p := &w.fetch.Head.Manifest.Payloads[i]
		if len(p.Encodings) == 0 {
			continue
		}
		if info, err := w.fs.Stat(p.Name); err == nil && keep[p.Name] && info.Size() == p.Size {
			if withoutBase(p) != nil {
				continue
			}
			w.fetch.Close() // the server might lose its patience meanwhile
			if w.check(*p) == nil {
				continue
			}
		}
		if _, err := w.choose(i); err != nil {
			return err
		}
	}
	return nil
}

// openBase opens the file of the running software that is a base. It reads all of it first:
// the file may have been changed since it was installed.
func (w *writer) openBase(b *image.Base) (baseReader, error) {
	if w.base == nil {
		return nil, errors.New("no software runs that could be the base")
	}
	m := w.base.Manifest
	for _, p := range m.Payloads {
		if p.SHA256 != b.SHA256 || p.Size != b.Size {
			continue
		}
		w.fetch.Close() // the server might lose its patience meanwhile
		if err := w.running.check(p); err != nil {
			return nil, fmt.Errorf("%s of the running %s is not what was installed: %w", p.Name, m.Version, err)
		}
		if p.Target == image.TargetPartition {
			return w.running.part.Open()
		}
		return w.running.fs.Open(p.Name)
	}
	return nil, fmt.Errorf("the running %s has no file with SHA-256 %.16s…", m.Version, b.SHA256)
}

// giveUpDelta changes to an encoding of payload i without a base, after an error that this may
// avoid. It reports whether it did.
func (w *writer) giveUpDelta(i int, err error) bool {
	s := w.sources[i]
	if s == nil || s.base == nil || !spoilsDelta(err) {
		return false
	}
	p := &w.fetch.Head.Manifest.Payloads[i]
	e := withoutBase(p)
	if e == nil {
		return false
	}
	w.note(fmt.Sprintf("payload %s: fetching %s, because the difference %s failed: %v", p.Name, e.File, s.encoding.File, err))
	s.close()
	s.encoding = e
	return true
}

// chooseAgain has the encoding of payload i chosen once more, by what the base is now.
func (w *writer) chooseAgain(i int) {
	if s := w.sources[i]; s != nil {
		s.close()
		delete(w.sources, i)
	}
}

// withoutBase returns the first encoding of a payload that needs no base, nil if there is none.
func withoutBase(p *image.Payload) *image.Encoding {
	for j := range p.Encodings {
		if e := &p.Encodings[j]; e.Base == nil {
			return e
		}
	}
	return nil
}

// spoilsDelta reports whether an error may come from a difference or its base, not from the
// network or the bank.
func spoilsDelta(err error) bool {
	var base *frame.BaseError
	switch mib.CauseOf(err, 0) {
	case mib.FailCauseDigestMismatch, mib.FailCauseSizeMismatch, mib.FailCauseBadFormat, mib.FailCauseFileNotFound:
		return true
	}
	return errors.As(err, &base)
}

// receiveEncoded fetches the rest of payload i in frames.
func (w *writer) receiveEncoded(i int, g sized, sum hash.Hash) error {
	s, err := w.choose(i)
	if err != nil {
		return err
	}
	p, e := &w.fetch.Head.Manifest.Payloads[i], s.encoding
	if w.decoder == nil || len(w.encoded) != int(frame.MaxEncoded(e.Frame)) {
		w.decoder, w.encoded = frame.NewDecoder(e.Frame), make([]byte, frame.MaxEncoded(e.Frame))
	}
	x, err := w.fetch.ReadIndex(i, e)
	if err != nil {
		return fetchError(p, err)
	}
	if w.sum != nil {
		w.sum.Write(x.Raw())
	}
	for k := x.Find(g.Size()); k < x.Count(); k++ {
		encoded, err := w.fetch.ReadFrame(i, e, x, k, w.encoded)
		if err != nil {
			return fetchError(p, err)
		}
		if w.sum != nil {
			w.sum.Write(encoded)
		}
		if encoded, err = w.opener.Open(e, k, encoded); err != nil {
			return err
		}
		content, err := image.Decode(w.decoder, e, x, k, encoded, s.base)
		if err != nil {
			return err
		}
		// Of the first frame some may be stored already.
		for fresh := content[g.Size()-x.Start(k):]; len(fresh) > 0; {
			piece := fresh[:min(len(fresh), bufferSize)]
			if _, err := g.Write(piece); err != nil {
				return storeError(err, "the bank could not be written")
			}
			w.count(piece, sum)
			fresh = fresh[len(piece):]
		}
	}
	return w.fetch.EndPayload(i)
}

// fetchError completes the error of a Source.
func fetchError(p *image.Payload, err error) error {
	if refusal(err) != 0 {
		return err
	}
	return fmt.Errorf("fetch payload %s: %w", p.Name, err)
}
