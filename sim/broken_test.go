package sim

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/spf13/afero"

	"example.com/iad/agent/procedure"
	"example.com/iad/internal/crashfs"
	"example.com/iad/mib"
)

// spoilt is a file system that does not do all that is asked of it: without sync of files or
// directories, or with the second copy of a record in the place of the first.
type spoilt struct {
	afero.Fs
	files, directories bool
	oneCopy            string // record whose copies are one file, emptied before it is written
}

func (s spoilt) OpenFile(name string, flag int, perm os.FileMode) (afero.File, error) {
	if s.oneCopy != "" && strings.HasPrefix(name, s.oneCopy+".") {
		name = s.oneCopy + ".a"
		if flag&os.O_CREATE != 0 {
			flag |= os.O_TRUNC
		}
	}
	f, err := s.Fs.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && (info.IsDir() && s.directories || !info.IsDir() && s.files) {
		return unsynced{f}, nil
	}
	return f, err
}

func (s spoilt) Open(name string) (afero.File, error) { return s.OpenFile(name, os.O_RDONLY, 0) }

func (s spoilt) Create(name string) (afero.File, error) {
	return s.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o666)
}

// badBase is a bank whose files differ when they are read in pieces, as the base of a
// difference is, from when they are read from the beginning to the end.
type badBase struct{ afero.Fs }

func (b badBase) Open(name string) (afero.File, error) {
	f, err := b.Fs.Open(name)
	if err != nil {
		return nil, err
	}
	return badPieces{f}, nil
}

type badPieces struct{ afero.File }

func (f badPieces) ReadAt(p []byte, offset int64) (int, error) {
	n, err := f.File.ReadAt(p, offset)
	for i := range p[:n] {
		p[i] ^= 1
	}
	return n, err
}

type unsynced struct{ afero.File }

func (unsynced) Sync() error { return nil }

// TestBrokenWriters shows that the sweep of the whole device finds what it is there to
// find.
func TestBrokenWriters(t *testing.T) {
	recovery := []command{{kind: mib.OperationKindRecoverConfig, format: 1, who: "new", version: "1.0.0", data: "new"}}
	update := []command{
		{kind: mib.OperationKindDownloadSoftware, options: procedure.ThenActivate | procedure.ThenReset, file: "2.0.0", version: "2.0.0"},
	}
	difference := []command{
		{kind: mib.OperationKindDownloadSoftware, options: procedure.ThenActivate | procedure.ThenReset, file: "1.4.0", version: "1.4.0", data: "old"},
	}
	for _, broken := range []struct {
		name   string
		part   string
		spoilt spoilt
		script []command
	}{
		{"state records without sync", "state", spoilt{files: true}, recovery},
		{"journal in place", "state", spoilt{oneCopy: "journal"}, recovery},
		{"configuration data without sync of files", "data", spoilt{files: true}, recovery},
		{"configuration data without sync of directories", "data", spoilt{directories: true}, recovery},
		{"software without sync of files", "bank2", spoilt{files: true}, update},
		{"software without sync of directories", "bank2", spoilt{directories: true}, update},
		{"software from a difference without sync of files", "bank2", spoilt{files: true}, difference},
	} {
		t.Run(broken.name, func(t *testing.T) {
			t.Parallel() // most of the time somebody waits for a device that is stuck
			spoil := func(part string, fs afero.Fs) afero.Fs {
				if part != broken.part {
					return fs
				}
				s := broken.spoilt
				s.Fs = fs
				return s
			}
			result, err := crashfs.Sweep[world]{
				Start: crashStart(t),
				Life:  func(m *crashfs.Machine, w *world) error { return spoiltLife(broken.script, m, w, spoil) },
				// One is enough to be caught; a device that is stuck takes its time.
				Enough: 1,
			}.Run()
			if err != nil {
				t.Fatal(err)
			}
			fmt.Printf("%-45s %s\n", "broken: "+broken.name+":", result)
			if result.Bad == 0 {
				t.Error("the sweep did not notice")
			}
		})
	}
}
