package board

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/afero"

	"example.com/iad/internal/durable"
	"example.com/iad/mib"
)

// placesName is the file in the directory of a device that keeps on which mounts and
// behind which links its parts were seen. It lies beside the settings, not in the
// state, which may be on such a mount itself.
const placesName = "places"

var placesMagic = [4]byte{'I', 'A', 'D', 'P'}

const placesVersion = 1

// An AbsentError says that a part of a device is not where it was: a partition is not
// mounted or a link is gone. Nothing is read or written there.
type AbsentError struct {
	Path string // the directory
	Why  string
}

func (e *AbsentError) Error() string { return e.Path + " " + e.Why }

// Cause is bankUnavailable.
func (e *AbsentError) Cause() mib.FailCause { return mib.FailCauseBankUnavailable }

// place is what a part of a device was seen as.
type place struct {
	Path string `json:"path"`
	// Mount is the mount that it lies on, "" for the one of the device's directory.
	Mount string `json:"mount,omitempty"`
	// Link says that Path is a symbolic link.
	Link bool `json:"link,omitempty"`
}

// part is a directory of a device whose content lasts.
type part struct {
	name, dir string
	bank      bool
}

func (r Root) parts() []part {
	return []part{
		{"bank1", r.Banks[0], true}, {"bank2", r.Banks[1], true},
		{"state", r.State, false}, {"config", r.Data, false},
	}
}

// elsewhere reports whether the settings name another place for the part.
func (r Root) elsewhere(p part) bool { return p.dir != filepath.Join(r.dir, p.name) }

// relative is a path as the file has it: within the device's directory it is relative to
// that, which may be moved.
func (r Root) relative(path string) string {
	if rel, err := filepath.Rel(r.dir, path); err == nil && filepath.IsLocal(rel) {
		return rel
	}
	return path
}

func (r Root) readPlaces() (map[string]place, error) {
	known := map[string]place{}
	data, err := durable.LoadFrame(Directory(r.dir), placesName, placesMagic, placesVersion)
	if err == nil {
		err = json.Unmarshal(data, &known)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return map[string]place{}, fmt.Errorf("%s is damaged, so a missing partition would not be noticed: %w", filepath.Join(r.dir, placesName), err)
	}
	return known, nil
}

// KeepPlaces records the mounts and links that the parts lie on, so that each later
// start expects them. It is called after a good start; accept is true if somebody at
// the device says that what is there now is right, also where something is missing.
func (r Root) KeepPlaces(accept bool) error {
	known, err := r.readPlaces()
	if err != nil {
		if _, err := durable.Quarantine(Directory(r.dir), placesName); err != nil {
			return err
		}
	}
	mounts, now := mountPoints(), map[string]place{}
	for _, p := range r.parts() {
		seen := r.look(p, mounts)
		if r.absence(p, known[p.name], seen) != "" && !accept {
			seen = known[p.name]
		}
		if seen.Path != "" {
			now[p.name] = seen
		}
	}
	was, werr := json.Marshal(known)
	data, err := json.Marshal(now)
	if err = errors.Join(err, werr); err != nil || string(was) == string(data) {
		return err
	}
	return durable.SaveFrame(Directory(r.dir), placesName, placesMagic, placesVersion, data)
}

// look says what a part is now.
func (r Root) look(p part, mounts []string) place {
	now := place{Path: r.relative(p.dir)}
	if info, err := os.Lstat(p.dir); err == nil {
		now.Link = info.Mode()&os.ModeSymlink != 0
	}
	if on := mountOf(p.dir, mounts); on != "/" && on != mountOf(r.dir, mounts) {
		now.Mount = r.relative(on)
	}
	return now
}

// absence says why a part is not the one that it was, "" if it is, or if nothing is
// recorded about it.
func (r Root) absence(p part, was, now place) string {
	info, err := os.Stat(p.dir)
	linked, lerr := os.Lstat(p.dir)
	switch {
	case err != nil && lerr == nil && linked.Mode()&os.ModeSymlink != 0, err == nil && !info.IsDir() && linked != nil && linked.Mode()&os.ModeSymlink != 0:
		to, _ := os.Readlink(p.dir)
		return fmt.Sprintf("leads to %s, which is not a directory or not mounted; nothing is read or written there", to)
	case err == nil && info.Mode()&(os.ModeDevice|os.ModeNamedPipe|os.ModeSocket) != 0:
		return "is a device and not a directory; mount it, and name the mount"
	case err == nil && !info.IsDir() && p.bank && r.elsewhere(p):
		return "is not a directory"
	case err != nil && p.bank && r.elsewhere(p):
		return "does not exist; mount or make it, then restart"
	case was.Path != now.Path:
		return ""
	case was.Link && !now.Link:
		return "was a symbolic link and no longer is; if that is intended, run 'iad settings accept'"
	case was.Mount != "" && was.Mount != now.Mount && !strings.HasPrefix(now.Mount, was.Mount+"/"):
		return fmt.Sprintf("is not mounted: it was on the mount %s; mount it and restart, or accept it as it is with 'iad settings accept'", was.Mount)
	}
	return ""
}

// absent returns the parts that are not where they were, by name.
func (r Root) absent() (gone map[string]*AbsentError, damage error) {
	known, damage := r.readPlaces()
	mounts := mountPoints()
	gone = map[string]*AbsentError{}
	for _, p := range r.parts() {
		was := known[p.name]
		if mounts == nil {
			was.Mount = "" // it cannot be compared
		}
		if why := r.absence(p, was, r.look(p, mounts)); why != "" {
			gone[p.name] = &AbsentError{p.dir, why}
		}
	}
	return gone, damage
}

// mountPoints lists where something is mounted; nil if that is unknown.
func mountPoints() (list []string) {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(data)) {
		if fields := strings.Fields(line); len(fields) > 4 {
			list = append(list, unescape(fields[4]))
		}
	}
	return list
}

// unescape replaces \ooo, as the kernel writes blanks in names.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+4 <= len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// mountOf is the mount that path lies on or, if it does not exist, would lie on.
func mountOf(path string, mounts []string) (on string) {
	real, err := filepath.EvalSymlinks(path)
	for dir, rest := path, ""; err != nil && dir != filepath.Dir(dir); {
		dir, rest = filepath.Dir(dir), filepath.Join(filepath.Base(dir), rest)
		if real, err = filepath.EvalSymlinks(dir); err == nil {
			real = filepath.Join(real, rest)
		}
	}
	for _, m := range mounts {
		if len(m) >= len(on) && (real == m || m == "/" || strings.HasPrefix(real, m+"/")) {
			on = m
		}
	}
	return on
}

// placeFs is the file system of a part, as long as that is there.
type placeFs struct {
	afero.Fs
	dir string
	// gone says why the part was not there from the start, nil if it was.
	gone *AbsentError
	// device is the number of the device that it was on at the start, 0 for unknown.
	device uint64
}

// at returns the file system of a directory. gone is why it must not be used.
func at(dir string, gone *AbsentError) afero.Fs {
	return &placeFs{Directory(dir), dir, gone, deviceOf(dir)}
}

func (f *placeFs) check() error {
	if f.gone != nil {
		return f.gone
	}
	if f.device != 0 && deviceOf(f.dir) != f.device {
		return &AbsentError{f.dir, "is no longer the mount that it was at the start"}
	}
	return nil
}

// The methods of afero.Fs, each refused while the part is not there.

func (f *placeFs) Create(name string) (afero.File, error) {
	if err := f.check(); err != nil {
		return nil, err
	}
	return f.Fs.Create(name) //durable: internal/durable calls this
}

func (f *placeFs) Mkdir(name string, perm os.FileMode) error {
	if err := f.check(); err != nil {
		return err
	}
	return f.Fs.Mkdir(name, perm)
}

func (f *placeFs) MkdirAll(path string, perm os.FileMode) error {
	if err := f.check(); err != nil {
		return err
	}
	return f.Fs.MkdirAll(path, perm)
}

func (f *placeFs) Open(name string) (afero.File, error) {
	if err := f.check(); err != nil {
		return nil, err
	}
	return f.Fs.Open(name)
}

func (f *placeFs) OpenFile(name string, flag int, perm os.FileMode) (afero.File, error) {
	if err := f.check(); err != nil {
		return nil, err
	}
	return f.Fs.OpenFile(name, flag, perm) //durable: internal/durable calls this
}

func (f *placeFs) Remove(name string) error {
	if err := f.check(); err != nil {
		return err
	}
	return f.Fs.Remove(name)
}

func (f *placeFs) RemoveAll(path string) error {
	if err := f.check(); err != nil {
		return err
	}
	return f.Fs.RemoveAll(path)
}

func (f *placeFs) Rename(from, to string) error {
	if err := f.check(); err != nil {
		return err
	}
	return f.Fs.Rename(from, to) //durable: internal/durable calls this
}

func (f *placeFs) Stat(name string) (os.FileInfo, error) {
	if err := f.check(); err != nil {
		return nil, err
	}
	return f.Fs.Stat(name)
}

func (f *placeFs) Chmod(name string, mode os.FileMode) error {
	if err := f.check(); err != nil {
		return err
	}
	return f.Fs.Chmod(name, mode)
}
