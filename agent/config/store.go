package config

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/afero"

	"example.com/iad/internal/durable"
	"example.com/iad/mib"
)

// DefaultMaxFile is the maximum size of a configuration file, in bytes, if
// Options.MaxFile is 0.
const DefaultMaxFile = 1 << 20

// Options are the settings of a Store.
type Options struct {
	// Check judges configuration data before they are put in force. Its
	// error's Cause method, if it has one, gives the failure cause;
	// otherwise it is configParseError. It must not change the set. nil
	// accepts everything.
	Check func(Set) error
	// MaxFile is the maximum size of a file, in bytes; 0 means DefaultMaxFile.
	MaxFile int64
	// Now returns the time; nil means time.Now.
	Now func() time.Time
	// Log is the logger; nil discards.
	Log *slog.Logger
}

// Generation describes a generation of configuration data.
type Generation struct {
	// Number is iadUpgConfigGeneration; 0 stands for the software's
	// defaults.
	Number uint32
	// Format is the format of its files; of the defaults, that of the
	// software.
	Format uint32
	// Digest is iadUpgConfigDigest; nil for the defaults.
	Digest []byte
	// Applied is when it was put in force; zero if that is not known or it
	// is not in force.
	Applied time.Time
	// Kinds are the kinds of data it has, in the order of their numbers.
	Kinds []mib.FileType
	// Bare is true if its files hold nothing but their first lines (see
	// Set.Bare).
	Bare bool
}

// Store keeps the generations of configuration data of one device. Its methods
// may be called concurrently; reading what is in force does no input or output.
type Store struct {
	fs  afero.Fs
	opt Options

	mu          sync.Mutex
	pointer     pointer
	recorded    bool // there is a pointer file
	damaged     bool // the pointer was lost, or what it pointed to
	format      uint32
	generations map[uint32]description // the whole ones
	unread      map[uint32]bool        // those that could not be read, and may be at the next start
	standIn     *uint32                // is in force in place of an unread one, see Boot
	staged      *Staged
	unreadable  error // why the file system could not be read, see Open
}

const (
	pointerName     = "current"
	descriptionName = "generation"
	deletedSuffix   = ".deleted"
)

const generationPrefix = "gen-"

func directory(number uint32) string { return fmt.Sprintf(generationPrefix+"%08d", number) }

// generationName splits the name of the directory of a generation, also of one that was
// set aside or is being deleted, into the digits of its number, 8 to 10, and a suffix
// that begins with a dot. ok is false for any other name.
func generationName(name string) (number, suffix string, ok bool) {
	rest, ok := strings.CutPrefix(name, generationPrefix)
	number = rest
	if dot := strings.IndexByte(rest, '.'); dot >= 0 {
		number, suffix = rest[:dot], rest[dot:]
	}
	digits := strings.Trim(number, "0123456789") == ""
	return number, suffix, ok && digits && len(number) >= 8 && len(number) <= 10 && suffix != "."
}

// Open reads the store in the root of fs; an empty one has only the defaults in force.
// Damaged parts are renamed and reported in findings, a sentence each; they do not make
// Open fail. The error means that the file system cannot be read at all; the store then
// has the defaults in force and refuses to stage anything, so that data that may be
// there are not overwritten.
func Open(fs afero.Fs, opt Options) (store *Store, findings []string, err error) {
	opt.MaxFile = cmp.Or(opt.MaxFile, DefaultMaxFile)
	if opt.Now == nil {
		opt.Now = time.Now
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	s := &Store{fs: fs, opt: opt, generations: map[uint32]description{}, unread: map[uint32]bool{}}
	names, err := afero.ReadDir(fs, ".")
	if err != nil {
		s.unreadable = fail(mib.FailCauseConfigReadError, "", fmt.Errorf("directory of the configuration data: %w", err))
		return s, nil, s.unreadable
	}
	findings = s.loadPointer(names)
	for _, info := range names {
		digits, suffix, ok := generationName(info.Name())
		if !ok {
			continue
		}
		number64, err := strconv.ParseUint(digits, 10, 32)
		number := uint32(number64)
		switch {
		case err != nil || suffix != "" && suffix != deletedSuffix:
		case suffix == deletedSuffix, number > s.pointer.Last && !s.damaged:
			s.opt.Log.Info("removing configuration data that were never put in force or were given up", "directory", info.Name())
			if err := durable.RemoveAll(fs, info.Name()); err != nil {
				findings = append(findings, fmt.Sprintf("configuration data no longer needed could not be removed: %v", err))
			}
		default:
			findings = append(findings, s.loadGeneration(number)...)
		}
		if s.damaged && err == nil {
			s.pointer.Last = max(s.pointer.Last, number)
		}
	}
	if n := s.pointer.Current; n != 0 && !s.has(n) && !s.unread[n] {
		findings = append(findings, fmt.Sprintf("generation %d of the configuration data, which was in force, is lost or damaged", s.pointer.Current))
		s.damaged = true
	}
	return s, findings, nil
}

// loadPointer reads the pointer file, names being what lies beside it.
func (s *Store) loadPointer(names []os.FileInfo) (findings []string) {
	payload, err := durable.LoadFrame(s.fs, pointerName, pointerMagic, pointerVersion)
	if err == nil {
		if s.pointer, err = decodePointer(payload); err == nil {
			s.recorded = true
			return nil
		}
		err = fmt.Errorf("%w: %w", durable.ErrCorrupt, err)
	}
	if errors.Is(err, os.ErrNotExist) && !slices.ContainsFunc(names, func(i os.FileInfo) bool {
		_, _, ok := generationName(i.Name())
		return ok
	}) {
		return nil // nothing was ever written: Stage writes the pointer first
	}
	s.damaged = true
	kept := s.setAside(pointerName, err)
	if kept == "" && !errors.Is(err, os.ErrNotExist) {
		kept = s.rename(pointerName, "unreadable") // Boot will write another one
	}
	return []string{fmt.Sprintf("pointer to the configuration data in force%s: %v", kept, err)}
}

// loadGeneration checks generation number from its directory and takes it in, or
// sets it aside.
func (s *Store) loadGeneration(number uint32) (findings []string) {
	d, err := s.check(number)
	if err == nil {
		s.generations[number] = d
		return nil
	}
	kept := s.setAside(directory(number), err)
	s.unread[number] = kept == ""
	return []string{fmt.Sprintf("generation %d of the configuration data%s: %v", number, kept, err)}
}

// setAside renames what is damaged, or newer than this software, and returns
// the middle of a sentence about it. What could not be read now may be read later:
// it stays.
func (s *Store) setAside(name string, err error) string {
	reason := ""
	switch {
	case errors.Is(err, durable.ErrNewer):
		reason = "newer"
	case errors.Is(err, durable.ErrCorrupt):
		reason = "corrupt"
	default:
		return ""
	}
	return s.rename(name, reason)
}

func (s *Store) rename(name, reason string) string {
	aside, err := durable.QuarantineAs(s.fs, name, reason)
	if err != nil {
		return fmt.Sprintf(" could not be set aside (%v)", err)
	}
	return " kept as " + aside
}

// check reads generation number and compares it with its description. The error
// wraps durable.ErrCorrupt or durable.ErrNewer, or is the file system's.
func (s *Store) check(number uint32) (description, error) {
	payload, err := durable.LoadFrame(s.fs, filepath.Join(directory(number), descriptionName), descriptionMagic, descriptionVersion)
	if errors.Is(err, os.ErrNotExist) {
		err = fmt.Errorf("%w: %w", durable.ErrCorrupt, err)
	}
	if err != nil {
		return description{}, err
	}
	d, err := decodeDescription(payload)
	if err == nil && d.Number != number {
		err = fmt.Errorf("it describes generation %d", d.Number)
	}
	if err != nil {
		return description{}, fmt.Errorf("%w: %w", durable.ErrCorrupt, err)
	}
	set, err := s.read(d)
	d.bare = set.Bare()
	return d, err
}

// read returns the files of a generation after comparing them with their
// description.
func (s *Store) read(d description) (Set, error) {
	set := Set{}
	for _, entry := range d.Files {
		name := filepath.Join(directory(d.Number), entry.Kind)
		data, err := readFile(s.fs, name, entry.Size)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.EISDIR) {
			err = fmt.Errorf("%w: %w", durable.ErrCorrupt, err)
		}
		if err != nil {
			return nil, err
		}
		if sum := sha256.Sum256(data); int64(len(data)) != entry.Size || !bytes.Equal(sum[:], entry.SHA256) {
			return nil, fmt.Errorf("%s: %w: size or digest differ from the description", name, durable.ErrCorrupt)
		}
		kind, _ := ParseKind(entry.Kind)
		set[kind] = data
	}
	return set, nil
}

// readFile reads a file, limit+1 bytes of it at most: more are too many.
func readFile(fs afero.Fs, name string, limit int64) ([]byte, error) {
	f, err := fs.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, limit+1))
}

// Boot decides which generation is in force for software of the given format (1 or
// more) that last ran with generation remembered (0: none, or not known), and records
// it. It is the remembered one if that is whole and of the format; else the one in
// force so far, if it is of the format; else, if defaults were in force, the one before
// them, if it is of the format; else the defaults. If the pointer, or what it pointed
// to, was lost, the newest whole generation of the format takes its place. What was in
// force before stays on disk. An error means that the choice could not be recorded
// (mib.FailCauseConfigSaveError or mib.FailCauseStorageFull); it is in force
// nevertheless.
//
// If that generation could not be read when the store was opened, which may be
// different at the next start, another one only stands in for it: nothing is recorded.
// See StandsIn.
func (s *Store) Boot(format, remembered uint32) (Generation, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.format, s.standIn = format, nil
	chosen := uint32(0)
	unread := s.unread[remembered] || s.unread[s.pointer.Current]
	switch {
	case s.fits(remembered):
		chosen, unread = remembered, false
	case s.fits(s.pointer.Current):
		chosen = s.pointer.Current
	case s.damaged || unread:
		chosen = s.newest(func(d description) bool { return d.Format == format })
	case s.pointer.Current == 0 && s.fits(s.pointer.Before):
		chosen = s.pointer.Before // nothing newer came from an operator
	}
	if unread {
		s.opt.Log.Warn("configuration data cannot be read now; using others instead", "format", format,
			"in force", s.pointer.Current, "remembered", remembered, "stand in", chosen)
		s.standIn = &chosen
		return s.inForce(), nil
	}
	if chosen == s.pointer.Current && !s.damaged {
		return s.inForce(), nil
	}
	s.opt.Log.Info("configuration data in force changed", "format", format, "from", s.pointer.Current, "to", chosen)
	s.pointer = s.moved(chosen)
	s.damaged = false
	return s.inForce(), s.savePointer(s.pointer)
}

// StandsIn reports whether the generation in force only stands in for one that could
// not be read. References to the unreadable one must then be kept, and Prune deletes
// nothing. This ends with the next start or the next import.
func (s *Store) StandsIn() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.standIn != nil
}

// current is the number of the generation in force.
func (s *Store) current() uint32 {
	if s.standIn != nil {
		return *s.standIn
	}
	return s.pointer.Current
}

func (s *Store) has(number uint32) bool {
	_, ok := s.generations[number]
	return ok
}

// filled reports whether a generation is whole and holds settings of an operator, not
// only the first lines that a backup of defaults has.
func (s *Store) filled(number uint32) bool {
	d, ok := s.generations[number]
	return ok && !d.bare
}

func (s *Store) fits(number uint32) bool {
	d, ok := s.generations[number]
	return ok && d.Format == s.format
}

// newest returns the highest number whose description is wanted, 0 if none is.
func (s *Store) newest(want func(description) bool) (number uint32) {
	for n, d := range s.generations {
		if n > number && want(d) {
			number = n
		}
	}
	return number
}

// moved returns the pointer after number has come in force.
func (s *Store) moved(number uint32) pointer {
	p := s.pointer
	was := s.current()
	instead := !s.generations[was].bare || !s.filled(p.Before) // bare ones do not push out others
	if was != number && (s.has(was) || s.unread[was]) && instead {
		p.Before = was
	}
	p.Current, p.Last, p.Applied = number, max(p.Last, number), s.opt.Now()
	return p
}

func (s *Store) savePointer(p pointer) error {
	payload, err := json.Marshal(p)
	if err == nil {
		err = durable.SaveFrame(s.fs, pointerName, pointerMagic, pointerVersion, payload)
	}
	if err != nil {
		return failWrite(mib.FailCauseConfigSaveError, "", fmt.Errorf("configuration data in force not recorded: %w", err))
	}
	s.recorded = true
	return nil
}

// InForce returns the generation in force.
func (s *Store) InForce() Generation {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.inForce()
}

func (s *Store) inForce() Generation {
	g := Generation{Format: s.format}
	if d, ok := s.generations[s.current()]; ok {
		g = d.generation()
	}
	if g.Number == s.pointer.Current {
		g.Applied = s.pointer.Applied
	}
	return g
}

// Read returns the files of generation number, an empty set for the defaults
// (0). The error is an *Error with mib.FailCauseConfigReadError if the generation does not
// exist or is no longer as it was written.
func (s *Store) Read(number uint32) (Set, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if number == 0 {
		return Set{}, nil
	}
	d, ok := s.generations[number]
	if !ok {
		return nil, fail(mib.FailCauseConfigReadError, "", fmt.Errorf("there is no generation %d of the configuration data", number))
	}
	set, err := s.read(d)
	if err != nil {
		return nil, fail(mib.FailCauseConfigReadError, "", fmt.Errorf("generation %d of the configuration data: %w", number, err))
	}
	return set, nil
}

// Peek returns the configuration data in force, of generation 0 and empty for the
// defaults of the software. It changes nothing and may be called while a Store is open.
func Peek(fs afero.Fs) (Generation, Set, error) {
	payload, err := durable.LoadFrame(fs, pointerName, pointerMagic, pointerVersion)
	if errors.Is(err, os.ErrNotExist) {
		return Generation{}, Set{}, nil
	}
	if err != nil {
		return Generation{}, nil, err
	}
	p, err := decodePointer(payload)
	if err != nil || p.Current == 0 {
		return Generation{}, Set{}, err
	}
	s := &Store{fs: fs}
	d, err := s.check(p.Current)
	if err != nil {
		return Generation{}, nil, err
	}
	set, err := s.read(d)
	return d.generation(), set, err
}

// Newest returns the generation with the highest number whose format is wanted, a
// bare one only if there is no other; ok reports whether there is one.
func (s *Store) Newest(wanted func(format uint32) bool) (g Generation, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	number := s.newest(func(d description) bool { return wanted(d.Format) && !d.bare })
	if number == 0 {
		number = s.newest(func(d description) bool { return wanted(d.Format) })
	}
	if number == 0 {
		return Generation{}, false
	}
	return s.generations[number].generation(), true
}

// Before returns the generation that was in force before, not counting defaults,
// nor a bare one while there is another; ok reports whether there is one.
func (s *Store) Before() (g Generation, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d, ok := s.generations[s.pointer.Before]
	if !ok {
		return Generation{}, false
	}
	return d.generation(), true
}

// Prune deletes the generations that are neither in force, nor the one before,
// nor in keep: the software banks remember those. If neither the one in force nor the
// one before holds settings, the newest one that does stays too: data that came from
// an operator are not given up for those that came from defaults. The error is an
// *Error with mib.FailCauseWriteError.
func (s *Store) Prune(keep ...uint32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.standIn != nil {
		return nil
	}
	if !s.filled(s.pointer.Current) && !s.filled(s.pointer.Before) {
		keep = append(slices.Clone(keep), s.newest(func(d description) bool { return !d.bare }))
	}
	var failures []error
	for number := range s.generations {
		if number == s.pointer.Current || number == s.pointer.Before || slices.Contains(keep, number) {
			continue
		}
		s.opt.Log.Info("deleting unused configuration data", "generation", number)
		delete(s.generations, number)
		gone := directory(number) + deletedSuffix
		err := durable.Rename(s.fs, directory(number), gone)
		if err == nil {
			err = durable.RemoveAll(s.fs, gone)
		}
		failures = append(failures, err)
	}
	if err := errors.Join(failures...); err != nil {
		return fail(mib.FailCauseWriteError, "", err)
	}
	return nil
}
