package durable

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/spf13/afero"
)

// A Record is a small piece of state kept in two copies, BASE.a and BASE.b, at least
// one of which is always intact. The copy with the higher sequence number is in force.
// A Record is not safe for concurrent use.
type Record struct {
	fs      afero.Fs
	names   [2]string
	magic   [4]byte
	version uint16
	seq     uint64  // of the copy in force
	older   int     // index of the copy that the next Write overwrites
	named   [2]bool // whether the name of the copy is known to last
	agreed  bool
}

// Agreed reports whether both copies were intact and had the same content when the record was opened.
func (r *Record) Agreed() bool { return r.agreed }

// RemoveQuarantined removes the copies that were set aside, for whatever reason: for a record of secrets.
func (r *Record) RemoveQuarantined() error {
	for _, name := range r.names {
		for _, reason := range reasons {
			dir, prefix := filepath.Dir(name), filepath.Base(name)+"."+reason+"-"
			numbers, err := quarantineNumbers(r.fs, dir, prefix)
			if err != nil {
				return fmt.Errorf("remove what was set aside of %s: %w", name, err)
			}
			for _, n := range numbers {
				if err := RemoveAll(r.fs, filepath.Join(dir, prefix+strconv.Itoa(n))); err != nil {
					return fmt.Errorf("remove what was set aside of %s: %w", name, err)
				}
			}
		}
	}
	return nil
}

// Why a copy is set aside.
const (
	unreadable = "unreadable"
	newer      = "newer"
	corrupt    = "corrupt"
)

var reasons = []string{unreadable, newer, corrupt}

// suffixes of the two copies.
var suffixes = [2]string{".a", ".b"}

// OpenRecord reads the copies of a record. check, which may be nil, returns an error
// for content that the reader does not understand; such a copy counts as corrupt.
// payload is the content of the newest good copy. It is nil if there is none: then
// nothing was ever written, or findings say what happened to it. A copy that is
// corrupt, unreadable or of a newer version is set aside, never overwritten. findings
// has a sentence for each such copy, and one for a copy that was written and is
// missing; in both cases the copy found may be one write behind. The error is nil
// unless the directory of the record cannot be used at all.
func OpenRecord(fs afero.Fs, base string, magic [4]byte, maxVersion uint16, check func(payload []byte) error) (r *Record, payload []byte, findings []string, err error) {
	r, payload, copies := readCopies(fs, base, magic, maxVersion, check)
	for i, c := range copies {
		if c == nil || errors.Is(c, os.ErrNotExist) {
			continue
		}
		reason := unreadable
		switch {
		case errors.Is(c, ErrNewer):
			reason = newer
		case errors.Is(c, ErrCorrupt):
			reason = corrupt
		}
		// What happened to it comes first: an event has little room.
		aside, err := QuarantineAs(fs, r.names[i], reason)
		finding := fmt.Sprintf("%s is kept: %v", aside, c)
		if err != nil {
			// It will be overwritten in place by one of the next writes.
			finding = fmt.Sprintf("%v; could not be set aside: %v", c, err)
		}
		findings = append(findings, finding)
	}
	if _, err := fs.Stat(filepath.Dir(base)); err != nil {
		return nil, nil, findings, fmt.Errorf("record %s: %w", base, err)
	}
	findings = append(findings, r.missingCopy(payload, copies)...)
	if payload != nil {
		if err := r.syncNewest(); err != nil {
			findings = append(findings, fmt.Sprintf("record %s could not be synced: %v", base, err))
		}
	}
	return r, payload, findings, nil
}

// syncNewest makes the copy that was read durable: a process may have been killed
// between writing and syncing it, and what is done next relies on it.
func (r *Record) syncNewest() error {
	newest := 1 - r.older
	f, err := r.fs.Open(r.names[newest])
	if err != nil {
		return err
	}
	err = f.Sync()
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = SyncDir(r.fs, filepath.Dir(r.names[newest]))
	}
	r.named[newest] = err == nil
	return err
}

// ReadRecord reads a record as OpenRecord does, and changes nothing: it may be
// used while another process has the record open. payload is nil if there is no
// good copy.
func ReadRecord(fs afero.Fs, base string, magic [4]byte, maxVersion uint16, check func(payload []byte) error) (payload []byte, findings []string) {
	r, payload, copies := readCopies(fs, base, magic, maxVersion, check)
	for _, c := range copies {
		if c != nil && !errors.Is(c, os.ErrNotExist) {
			findings = append(findings, c.Error())
		}
	}
	return payload, append(findings, r.missingCopy(payload, copies)...)
}

// missingCopy reports a copy that does not exist though it was written: the second write
// makes it, and no later one removes it.
func (r *Record) missingCopy(payload []byte, copies [2]error) (findings []string) {
	if payload != nil && r.seq > 1 && errors.Is(copies[r.older], os.ErrNotExist) {
		findings = []string{r.names[r.older] + " is missing"}
	}
	return findings
}

// readCopies reads both copies; copies says what is wrong with each.
func readCopies(fs afero.Fs, base string, magic [4]byte, maxVersion uint16, check func([]byte) error) (r *Record, payload []byte, copies [2]error) {
	r = &Record{fs: fs, magic: magic, version: maxVersion}
	newest := -1
	var contents [2][]byte
	intact := 0
	for i, suffix := range suffixes {
		r.names[i] = base + suffix
		data, err := readBounded(fs, r.names[i])
		if err != nil {
			copies[i] = err
			continue
		}
		_, seq, content, err := DecodeFrame(magic, maxVersion, data)
		if err == nil && check != nil {
			if bad := check(content); bad != nil {
				err = fmt.Errorf("%w: %w", ErrCorrupt, bad)
			}
		}
		if err != nil {
			copies[i] = fmt.Errorf("%s: %w", r.names[i], err)
			continue
		}
		contents[i] = content
		intact++
		if newest < 0 || seq > r.seq {
			newest, r.seq, payload = i, seq, content
		}
	}
	if newest == 0 {
		r.older = 1
	}
	r.agreed = intact == len(contents) && bytes.Equal(contents[0], contents[1])
	return r, payload, copies
}

// Write makes payload (up to MaxPayload bytes) the content of the record. After
// an error the content is the old one or, seen after a restart, perhaps the new
// one; the copy that holds the old one is untouched.
func (r *Record) Write(payload []byte) error {
	name := r.names[r.older]
	if len(payload) > MaxPayload {
		return fmt.Errorf("write %s: %d bytes, %d at most", name, len(payload), MaxPayload)
	}
	frame := EncodeFrame(r.magic, r.version, nextSeq(r.seq), payload)
	err := r.overwrite(name, frame)
	if errors.Is(err, syscall.ENOSPC) && r.makeRoom() {
		err = r.overwrite(name, frame)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	// Also when the file was there already: a process that was killed may have
	// made it and not come to this.
	if !r.named[r.older] {
		if err := SyncDir(r.fs, filepath.Dir(name)); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
		r.named[r.older] = true
	}
	r.seq = nextSeq(r.seq)
	r.older = 1 - r.older
	return nil
}

// makeRoom removes torn copies that were set aside, which occupy the blocks that the
// copies had: being able to write matters more than examining them later.
func (r *Record) makeRoom() (made bool) {
	for _, name := range r.names {
		dir, prefix := filepath.Dir(name), filepath.Base(name)+".corrupt-"
		numbers, _ := quarantineNumbers(r.fs, dir, prefix)
		for _, n := range numbers {
			made = RemoveAll(r.fs, filepath.Join(dir, prefix+strconv.Itoa(n))) == nil || made
		}
	}
	return made
}

// overwrite does not truncate first: it reuses the blocks of the copy, which also works
// on a full partition.
func (r *Record) overwrite(name string, frame []byte) error {
	f, err := r.fs.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	err = whole(len(frame))(f.WriteAt(frame, 0))
	if err == nil {
		err = f.Truncate(int64(len(frame)))
	}
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}
