package config

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"time"

	"example.com/iad/internal/durable"
	"example.com/iad/mib"
)

// Staged is configuration data that are written but not in force. It is ended
// by Commit or by Discard.
type Staged struct {
	store       *Store
	description description
	set         Set
}

// Stage checks set and writes it as the next generation, without putting it in
// force. Kinds that set lacks are taken from the generation in force if that is
// in the same format. Data staged before and not committed are discarded.
//
// The error is an *Error: mib.FailCauseConfigParseError or what the Check of Options says,
// mib.FailCauseConfigFormatMismatch if the files differ in format or are not in that of the
// running software, mib.FailCauseFileTooLarge, mib.FailCauseStorageFull, mib.FailCauseWriteError.
func (s *Store) Stage(set Set) (*Staged, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.unreadable != nil {
		return nil, s.unreadable
	}
	set, format, err := s.complete(set)
	if err != nil {
		return nil, err
	}
	d := description{Number: s.pointer.Last + 1, Format: format, Digest: set.Digest(), bare: set.Bare()}
	for _, kind := range set.Kinds() {
		sum := sha256.Sum256(set[kind])
		d.Files = append(d.Files, fileEntry{Kind: kind.String(), Size: int64(len(set[kind])), SHA256: sum[:]})
	}
	if err := s.write(d, set); err != nil {
		return nil, failWrite(mib.FailCauseWriteError, "", err)
	}
	s.staged = &Staged{store: s, description: d, set: set}
	return s.staged, nil
}

// Check returns the error with which Stage would refuse set, nil if it would not. It
// changes nothing.
func (s *Store) Check(set Set) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, _, err := s.complete(set)
	return err
}

// complete returns set with the kinds it lacks, and its format, after all checks.
func (s *Store) complete(set Set) (Set, uint32, error) {
	format, err := set.Format()
	if err != nil {
		return nil, 0, err
	}
	if s.format != 0 && format != s.format {
		return nil, 0, fail(mib.FailCauseConfigFormatMismatch, "",
			fmt.Errorf("the files are in format %d, the running software's is %d; convert them first", format, s.format))
	}
	set = maps.Clone(set)
	if current, ok := s.generations[s.current()]; ok && current.Format == format {
		held, err := s.read(current)
		if err != nil {
			return nil, 0, fail(mib.FailCauseConfigReadError, "", fmt.Errorf("configuration data in force: %w", err))
		}
		maps.DeleteFunc(held, func(k mib.FileType, _ []byte) bool { _, given := set[k]; return given })
		maps.Copy(set, held)
	}
	for kind, data := range set {
		if int64(len(data)) > s.opt.MaxFile {
			return nil, 0, fail(mib.FailCauseFileTooLarge, kind.String(),
				fmt.Errorf("%d bytes; a configuration file has %d at most", len(data), s.opt.MaxFile))
		}
	}
	if s.opt.Check != nil {
		if err := s.opt.Check(set); err != nil {
			return nil, 0, fail(mib.CauseOf(err, mib.FailCauseConfigParseError), "", err)
		}
	}
	return set, format, nil
}

// write makes the directory of a generation with everything in it.
func (s *Store) write(d description, set Set) (err error) {
	if !s.recorded {
		// A generation without a pointer file must always mean that the
		// pointer was lost.
		if err := s.savePointer(s.pointer); err != nil {
			return err
		}
	}
	s.staged = nil
	dir := directory(d.Number)
	if err := durable.RemoveAll(s.fs, dir); err != nil { // staged before, not committed
		return err
	}
	defer func() {
		if err != nil { // it gives back its space, which may be what was missing
			_ = durable.RemoveAll(s.fs, dir)
		}
	}()
	if err := durable.MkdirAll(s.fs, dir, 0o700); err != nil {
		return err
	}
	for kind, data := range set {
		if err := durable.ReplaceFile(s.fs, filepath.Join(dir, kind.String()), data, 0o600); err != nil {
			return err
		}
	}
	payload, err := json.Marshal(d)
	if err != nil {
		return err
	}
	return durable.SaveFrame(s.fs, filepath.Join(dir, descriptionName), descriptionMagic, descriptionVersion, payload)
}

// Generation describes what is staged, with the number that it gets when it is
// put in force.
func (g *Staged) Generation() Generation { return g.description.generation() }

// Set returns the files that are staged, those taken from the generation in
// force among them. The caller must not change them.
func (g *Staged) Set() Set { return g.set }

// Commit puts the staged data in force; now, unless zero, is noted as the time.
// The error is an *Error with mib.FailCauseConfigSaveError or mib.FailCauseStorageFull: then the data
// in force before still are.
func (g *Staged) Commit(now time.Time) (Generation, error) {
	s := g.store
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.staged != g {
		return Generation{}, fail(mib.FailCauseConfigSaveError, "", fmt.Errorf("generation %d is no longer staged", g.description.Number))
	}
	p := s.moved(g.description.Number)
	p.Applied = now
	if err := s.savePointer(p); err != nil {
		// The new pointer may have reached the disk anyway. If the old one cannot be
		// written over it, the staged data must stay.
		if s.savePointer(s.pointer) != nil {
			s.pointer.Last = p.Last
			s.staged = nil
		}
		return Generation{}, err
	}
	s.staged, s.standIn = nil, nil
	s.pointer = p
	s.generations[p.Current] = g.description
	return s.inForce(), nil
}

// Discard removes the staged data. It does nothing after Commit.
func (g *Staged) Discard() error {
	s := g.store
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.staged != g {
		return nil
	}
	s.staged = nil
	if err := durable.RemoveAll(s.fs, directory(g.description.Number)); err != nil {
		return failWrite(mib.FailCauseWriteError, "", err)
	}
	return nil
}
