package files

import (
	"fmt"
	"path"
	"strings"

	"github.com/spf13/afero"
)

// versionsPerFile is how many files of the maximum size a directory may have for each
// file that it is for: a device that changed its data while it sent them stores them
// twice.
const versionsPerFile = 2

// quota is how many bytes a directory for files with these names may have in total: what
// was stored, set aside or interrupted, and uploads in progress.
func (s *store) quota(final map[string]bool) int64 {
	return versionsPerFile * s.maxUpload * int64(max(1, len(final)))
}

// startUpload starts to count an upload, or returns an error if its directory is full.
func (s *store) startUpload(u *upload) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	dir := path.Dir(u.name)
	used, err := s.countLocked(dir)
	if err != nil {
		return err
	}
	if used >= u.quota {
		return quotaError(u.quota)
	}
	s.used[dir] = used
	s.uploads[u] = true
	return nil
}

// endUpload counts what an upload has left as a file, if anything.
func (s *store) endUpload(u *upload) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.uploads, u)
	for other := range s.uploads {
		if path.Dir(other.name) == path.Dir(u.name) {
			return
		}
	}
	delete(s.used, path.Dir(u.name)) // counted again by the next upload
}

// reserve reserves n bytes of a directory's quota before they are written. The bytes used
// are counted again only if they seem to exceed it: until then no more are used than are
// recorded.
func (s *store) reserve(u *upload, n int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.checkQuotaLocked(u, n); err != nil {
		return err
	}
	s.used[path.Dir(u.name)] += n
	u.reserved += n
	return nil
}

// checkQuota refuses an upload of an announced size before it is sent.
func (s *store) checkQuota(u *upload, size int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.checkQuotaLocked(u, size)
}

func (s *store) checkQuotaLocked(u *upload, n int64) error {
	dir := path.Dir(u.name)
	if s.used[dir]+n > u.quota {
		used, err := s.countLocked(dir)
		if err != nil {
			return err
		}
		if s.used[dir] = used; used+n > u.quota {
			return quotaError(u.quota)
		}
	}
	return nil
}

func quotaError(most int64) error {
	return fmt.Errorf("%w, %d bytes", errFull, most) // a device keeps little of a reply
}

// countLocked returns the bytes in a directory, uploads included.
func (s *store) countLocked(dir string) (sum int64, err error) {
	list, err := afero.ReadDir(s.files, dir)
	if err != nil {
		return 0, err
	}
	underWay := make(map[string]bool)
	for u := range s.uploads {
		if path.Dir(u.name) == dir {
			sum += u.reserved
			underWay[path.Base(u.temp)] = true
		}
	}
	for _, info := range list {
		if !underWay[info.Name()] {
			sum += info.Size()
		}
	}
	return sum, nil
}

// checkFileCount returns an error if a directory may not have one more file, not counting
// except. Uploads in progress do not count: their number is limited by connections and
// transfers, and abandoned ones must not block others.
func (s *store) checkFileCount(dir, except string) error {
	list, err := afero.ReadDir(s.files, dir)
	if err != nil {
		return err
	}
	kept := 0
	for _, info := range list {
		underWay := strings.HasPrefix(info.Name(), ".") && !strings.HasSuffix(info.Name(), partialSuffix)
		if !underWay && info.Name() != except {
			kept++
		}
	}
	if kept >= maxGrantFiles {
		return fmt.Errorf("%w, %d files", errFull, kept)
	}
	return nil
}
