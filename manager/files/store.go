package files

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/afero"
	"golang.org/x/time/rate"
)

// Errors of the store, which the two servers translate.
var (
	errFileName = errors.New("file name not allowed")
	errTooLarge = errors.New("file larger than the server accepts")
	errFull     = errors.New("directory full")
	errNoUpload = errors.New("uploads are not open for this directory")
	errOffset   = errors.New("the upload cannot be resumed there")
)

// maxGrantFiles is how many files one device may put in one directory.
const maxGrantFiles = 64

// store is the tree of files behind both servers. Devices see published images,
// read-only, and the directories granted to them. Files that were received completely are
// never overwritten or deleted.
type store struct {
	files     afero.Fs
	maxUpload int64
	limiter   *rate.Limiter
	log       *slog.Logger

	mu     sync.Mutex
	images map[string]imageSource
	grants map[string]*grant // by user name
	serial int
	// uploads are those in progress. used is at least the number of bytes in a directory,
	// uploads included.
	uploads map[*upload]bool
	used    map[string]int64
}

// imageSource opens a published file.
type imageSource struct {
	size     int64
	modified time.Time
	open     func() (afero.File, error)
	limit    *Limit // nil: none
}

// grant lets one device write to directory, and read from there and from offered. It does
// not permit the other backups of the device's ID, which anybody can claim to have.
type grant struct {
	user, password     string
	anonymous          bool // by TFTP, and by nothing else
	secure             bool // over TLS only
	closed             bool // nothing is allowed any more; connections may still be there
	directory, offered string
	final              map[string]bool // names that stay once they are there
	limit              *Limit          // nil: none
}

// reads reports whether the grant lets name be read.
func (g *grant) reads(name string) bool {
	return below(name, g.directory) || below(name, g.offered)
}

// access is what one session may do: what its grant permits or, with TFTP, which knows no
// users, what any grant permits.
type access struct {
	store *store
	grant *grant
}

// cleanName turns a file name from the network into a slash-separated path relative to
// the store. It refuses names that could leave a directory or confuse a log: "..",
// invisible characters, backslashes, hidden names, invalid UTF-8.
func cleanName(name string) (string, error) {
	bad := func(r rune) bool { return !unicode.IsPrint(r) || r == '\\' }
	if len(name) > 512 || !utf8.ValidString(name) || strings.ContainsFunc(name, bad) {
		return "", fmt.Errorf("%w: %.64q", errFileName, name)
	}
	for _, part := range strings.Split(name, "/") {
		if strings.HasPrefix(part, ".") && part != "." {
			return "", fmt.Errorf("%w: %.64q", errFileName, name)
		}
	}
	return strings.TrimPrefix(path.Clean("/"+name), "/"), nil
}

// below reports whether name is in directory or is directory itself.
func below(name, directory string) bool {
	return directory != "" && (name == directory || strings.HasPrefix(name, directory+"/"))
}

// granted reports whether a grant of the session permits something.
func (a access) granted(allows func(*grant) bool) bool {
	a.store.mu.Lock()
	defer a.store.mu.Unlock()
	return a.grantedLocked(allows)
}

func (a access) grantedLocked(allows func(*grant) bool) bool {
	if a.grant != nil {
		return !a.grant.closed && allows(a.grant)
	}
	for _, g := range a.store.grants {
		if g.anonymous && allows(g) {
			return true
		}
	}
	return false
}

// limits returns those of a file that is read or written.
func (a access) limits(name string) limits {
	var all limits
	if a.store.limiter != nil {
		all = append(all, a.store.limiter)
	}
	clean, err := cleanName(name)
	if err != nil {
		return all
	}
	a.store.mu.Lock()
	defer a.store.mu.Unlock()
	image, published := a.store.images[clean]
	limit := image.limit
	if !published {
		for _, g := range a.store.grants {
			if g.reads(clean) {
				limit = g.limit
			}
		}
	}
	if limit != nil {
		all = append(all, limit.limiter)
	}
	return all
}

// readable reports whether the session may read name.
func (a access) readable(name string) bool {
	return a.granted(func(g *grant) bool { return g.reads(name) })
}

// open returns a file for reading and its size.
func (a access) open(name string) (afero.File, int64, error) {
	clean, err := cleanName(name)
	if err != nil {
		return nil, 0, err
	}
	a.store.mu.Lock()
	image, ok := a.store.images[clean]
	ok = ok && (a.grant == nil || !a.grant.closed)
	a.store.mu.Unlock()
	if ok {
		f, err := image.open()
		return f, image.size, err
	}
	if !a.readable(clean) {
		return nil, 0, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	info, err := a.store.files.Stat(clean)
	if err != nil {
		return nil, 0, err
	}
	if !info.Mode().IsRegular() {
		return nil, 0, &fs.PathError{Op: "open", Path: name, Err: errors.New("not a regular file")}
	}
	f, err := a.store.files.Open(clean)
	return f, info.Size(), err
}

// stat describes a file or a directory that readDir lists.
func (a access) stat(name string) (fs.FileInfo, error) {
	clean, err := cleanName(name)
	if err != nil {
		return nil, err
	}
	if clean == "" {
		return virtualInfo{name: "/", dir: true}, nil
	}
	if a.readable(clean) {
		if partial, err := a.store.files.Stat(partialName(clean)); err == nil {
			return virtualInfo{name: path.Base(clean), size: partial.Size(), modified: partial.ModTime()}, nil
		}
		return a.store.files.Stat(clean)
	}
	directory, base := path.Split(clean)
	if info, ok := a.virtual(strings.TrimSuffix(directory, "/"))[base]; ok {
		return info, nil
	}
	return nil, &fs.PathError{Op: "stat", Path: name, Err: fs.ErrNotExist}
}

// readDir lists what the session may read in a directory, and the directories that lead
// there.
func (a access) readDir(name string) ([]os.FileInfo, error) {
	clean, err := cleanName(name)
	if err != nil {
		return nil, err
	}
	found := a.virtual(clean)
	if a.readable(clean) {
		list, err := afero.ReadDir(a.store.files, clean)
		if err != nil {
			return nil, err
		}
		for _, info := range list {
			if !strings.HasPrefix(info.Name(), ".") {
				found[info.Name()] = info
			}
		}
	}
	return slices.SortedFunc(maps.Values(found), func(x, y os.FileInfo) int { return strings.Compare(x.Name(), y.Name()) }), nil
}

func sameContents(files afero.Fs, a, b string) (bool, error) {
	_, da, err := digestFile(files, a)
	if err != nil {
		return false, err
	}
	_, db, err := digestFile(files, b)
	return bytes.Equal(da, db), err
}

// digestFile returns the size and the SHA-256 digest of a file.
func digestFile(files afero.Fs, name string) (int64, []byte, error) {
	f, err := files.Open(name)
	if err != nil {
		return 0, nil, err
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, f)
	if err != nil {
		return 0, nil, fmt.Errorf("%s: %w", name, err)
	}
	return n, h.Sum(nil), nil
}

// plainError omits paths of this machine, because the device gets the text.
func plainError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrNotExist):
		return errors.New("file not found")
	case errors.Is(err, fs.ErrPermission):
		return errors.New("access denied")
	case errors.Is(err, errFileName), errors.Is(err, errNoUpload), errors.Is(err, errTooLarge), errors.Is(err, errFull), errors.Is(err, errOffset):
		return err
	}
	return errors.New("server error")
}
