package files

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/spf13/afero"

	"example.com/iad/internal/durable"
)

// uploadName checks that name is a file directly in the directory of a grant, and
// returns which names there are final. Without a log-in only these may be written,
// because no TFTP client uploads under a temporary name. Files that were set aside cannot
// be changed.
func (a access) uploadName(name string) (clean string, final map[string]bool, err error) {
	clean, err = cleanName(name)
	if err != nil {
		return "", nil, err
	}
	dir, base := path.Dir(clean), path.Base(clean)
	if !a.granted(func(g *grant) bool {
		final = g.final
		return g.directory != "" && g.directory == dir
	}) {
		return "", nil, fmt.Errorf("%w: %s", errNoUpload, path.Dir("/"+clean))
	}
	if a.grant == nil && !final[base] || final[nameBeforeSetAside(base)] {
		return "", nil, fmt.Errorf("%w: %.64q", errFileName, base)
	}
	return clean, final, nil
}

// nameBeforeSetAside is the name that a file had before setAside renamed it, "" if it did
// not.
func nameBeforeSetAside(base string) string {
	i := strings.LastIndexByte(base, '~')
	if i < 0 || strings.Trim(base[i+1:], "0123456789") != "" {
		return ""
	}
	return base[:i]
}

// create starts an upload. Nothing is visible under the name until it is complete.
func (a access) create(ctx context.Context, name string) (*upload, error) {
	clean, final, err := a.uploadName(name)
	if err != nil {
		return nil, err
	}
	dir := path.Dir(clean)
	if err := a.store.checkFileCount(dir, ""); err != nil {
		return nil, err
	}
	a.store.mu.Lock()
	a.store.serial++
	temp := path.Join(dir, fmt.Sprintf(".%s.%d", path.Base(clean), a.store.serial))
	a.store.mu.Unlock()
	u := &upload{access: a, store: a.store, ctx: ctx, temp: temp, name: clean, quota: a.store.quota(final)}
	if err := a.store.startUpload(u); err != nil {
		return nil, err
	}
	if u.file, err = a.store.files.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600); err != nil {
		a.store.endUpload(u)
		return nil, err
	}
	return u, nil
}

const partialSuffix = ".partial"

// partialName is the name for what arrived of an interrupted upload. Names from the
// network never begin with a dot.
func partialName(name string) string {
	return path.Join(path.Dir(name), "."+path.Base(name)+partialSuffix)
}

// resume continues, at offset, an upload that was interrupted or only seemed complete; a
// negative offset means its end. The earlier bytes are copied, so that the file under the
// name stays whole.
func (a access) resume(ctx context.Context, name string, offset int64) (*upload, error) {
	clean, final, err := a.uploadName(name)
	if err != nil {
		return nil, err
	}
	earlier, extends := partialName(clean), false
	info, err := a.store.files.Stat(earlier)
	if errors.Is(err, fs.ErrNotExist) {
		earlier, extends = clean, !final[path.Base(clean)]
		info, err = a.store.files.Stat(earlier)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist) && offset <= 0:
		return a.create(ctx, name)
	case err != nil:
		return nil, err
	case offset > info.Size():
		return nil, fmt.Errorf("%w: only %d bytes are here", errOffset, info.Size())
	case offset < 0:
		offset = info.Size()
	}
	u, err := a.create(ctx, name)
	if err != nil {
		return nil, err
	}
	if err := u.copyStart(earlier, offset); err != nil {
		u.abandon(err)
		return nil, err
	}
	u.extends = extends
	return u, nil
}

// copyStart copies the first n bytes of a file.
func (u *upload) copyStart(name string, n int64) error {
	f, err := u.store.files.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := u.store.reserve(u, n); err != nil {
		return err
	}
	u.size, err = io.CopyN(u.file, f, n)
	return err
}

// remove deletes a file without a final name, such as the temporary file of a client that
// renames it at the end.
func (a access) remove(name string) error {
	clean, final, err := a.uploadName(name)
	if err != nil {
		return err
	}
	if final[path.Base(clean)] {
		return &fs.PathError{Op: "remove", Path: name, Err: fs.ErrPermission}
	}
	a.store.mu.Lock()
	defer a.store.mu.Unlock()
	if err := a.checkOpen(clean); err != nil {
		return err
	}
	if partial := partialName(clean); a.store.exists(partial) {
		if err := durable.Remove(a.store.files, partial); err != nil || !a.store.exists(clean) {
			return err
		}
	}
	return durable.Remove(a.store.files, clean)
}

func (s *store) exists(name string) bool {
	_, err := s.files.Stat(name)
	return err == nil
}

// rename gives a file without a final name its final one.
func (a access) rename(from, to string) error {
	cleanFrom, final, err := a.uploadName(from)
	if err != nil {
		return err
	}
	cleanTo, _, err := a.uploadName(to)
	if err != nil {
		return err
	}
	if final[path.Base(cleanFrom)] {
		return &fs.PathError{Op: "rename", Path: from, Err: fs.ErrPermission}
	}
	return a.giveName(cleanFrom, cleanTo)
}

// giveName gives the complete file temp its name. A file that already has the name stays
// if its contents are the same, and otherwise is set aside. Nothing is added to a
// directory that was sealed since the upload started.
func (a access) giveName(temp, name string) error {
	s := a.store
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := a.checkOpen(name); err != nil {
		return err
	}
	_, err := s.files.Stat(name)
	taken := err == nil
	if taken {
		same, err := sameContents(s.files, temp, name)
		if err != nil {
			return err
		}
		if same {
			return durable.Remove(s.files, temp)
		}
	}
	if err := s.checkFileCount(path.Dir(name), path.Base(temp)); err != nil {
		return err
	}
	if taken {
		if err := s.setAside(name); err != nil {
			return err
		}
	}
	return durable.Rename(s.files, temp, name)
}

// checkOpen returns an error for a name in a directory that no longer accepts uploads.
// The store is locked, so a directory cannot be sealed between this check and the rename.
func (a access) checkOpen(name string) error {
	open := func(g *grant) bool { return g.directory != "" && g.directory == path.Dir(name) }
	if a.grantedLocked(open) {
		return nil
	}
	return fmt.Errorf("%w: %s", errNoUpload, path.Dir("/"+name))
}

// extend replaces the file that an upload started from.
func (a access) extend(temp, name string) error {
	a.store.mu.Lock()
	defer a.store.mu.Unlock()
	if err := a.checkOpen(name); err != nil {
		return err
	}
	return durable.Rename(a.store.files, temp, name)
}

func (s *store) setAside(name string) error {
	for n := 1; n <= maxGrantFiles; n++ {
		aside := fmt.Sprintf("%s~%d", name, n)
		if _, err := s.files.Stat(aside); errors.Is(err, fs.ErrNotExist) {
			return durable.Rename(s.files, name, aside)
		}
	}
	return &fs.PathError{Op: "rename", Path: name, Err: fs.ErrExist}
}

// upload is an upload in progress.
type upload struct {
	access access
	store  *store
	ctx    context.Context
	file   afero.File
	temp   string
	name   string
	size   int64
	gone   bool // abandoned

	quota    int64 // of its directory
	reserved int64 // of that sum, under the store's lock

	extends bool // begins with all of the file that has the name

	limits    limits
	limited   bool // limits are known
	overtaken bool // another upload of the file has completed since, under the store's lock
}

// throttle waits until n bytes may be written.
func (u *upload) throttle(n int) error {
	if !u.limited {
		u.limits, u.limited = u.access.limits(u.name), true
	}
	return u.limits.throttle(u.ctx, n)
}

func (u *upload) Write(p []byte) (int, error) {
	if u.size+int64(len(p)) > u.store.maxUpload {
		err := fmt.Errorf("%w: more than %d bytes", errTooLarge, u.store.maxUpload)
		u.abandon(err) // before the client hears of it
		return 0, err
	}
	if err := u.store.reserve(u, int64(len(p))); err != nil {
		u.abandon(err)
		return 0, err
	}
	if err := u.throttle(len(p)); err != nil {
		return 0, err
	}
	n, err := u.file.Write(p)
	u.size += int64(n)
	return n, err
}

// commit makes the file visible, durably.
func (u *upload) commit() error {
	defer u.store.endUpload(u)
	err := u.file.Sync()
	if cerr := u.file.Close(); err == nil {
		err = cerr
	}
	switch {
	case err == nil && u.extends:
		err = u.access.extend(u.temp, u.name)
	case err == nil:
		err = u.access.giveName(u.temp, u.name)
	}
	if err != nil {
		return errors.Join(err, u.store.files.Remove(u.temp))
	}
	u.store.overtake(u)
	if partial := partialName(u.name); u.store.exists(partial) {
		if err := durable.Remove(u.store.files, partial); err != nil {
			u.store.log.Warn("incomplete upload could not be removed", "file", partial, "err", err)
		}
	}
	u.store.log.Info("file received", "file", u.name, "bytes", u.size)
	return nil
}

// overtake marks uploads that were still in progress when another one of their file completed.
func (s *store) overtake(by *upload) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for u := range s.uploads {
		u.overtaken = u.overtaken || u != by && u.name == by.name
	}
}

// abandon deletes what has arrived.
func (u *upload) abandon(why error) {
	if u.gone {
		return
	}
	u.gone = true
	defer u.store.endUpload(u)
	u.store.log.Warn("upload abandoned", "file", u.name, "bytes", u.size, "err", why)
	if err := errors.Join(u.file.Close(), u.store.files.Remove(u.temp)); err != nil {
		u.store.log.Warn("temporary file could not be removed", "file", u.temp, "err", err)
	}
}

// breakOff keeps what has arrived for an upload that resumes there, unless the file is already complete, or its directory was
// sealed: then the part would hide the file from the client.
func (u *upload) breakOff(why error) {
	if u.gone || u.size == 0 {
		u.abandon(why)
		return
	}
	u.gone = true
	defer u.store.endUpload(u)
	u.store.log.Warn("upload interrupted", "file", u.name, "bytes", u.size, "err", why)
	err := u.file.Sync()
	if cerr := u.file.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = u.keepPart()
	}
	if err != nil {
		u.store.log.Warn("incomplete upload could not be kept", "file", u.name, "err", errors.Join(err, u.store.files.Remove(u.temp)))
	}
}

func (u *upload) keepPart() error {
	u.store.mu.Lock()
	defer u.store.mu.Unlock()
	// A session that was closed may be resumed.
	if g := u.access.grant; u.overtaken || g != nil && g.directory != path.Dir(u.name) {
		return u.store.files.Remove(u.temp)
	}
	return durable.Rename(u.store.files, u.temp, partialName(u.name))
}
