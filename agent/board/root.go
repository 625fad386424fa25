package board

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/afero"

	"example.com/iad/agent"
	"example.com/iad/internal/durable"
)

// Root is where the parts of a device lie in the file system of the board.
type Root struct {
	// Banks are the directories of the software banks, on a board the mounts of
	// two partitions.
	Banks [2]string
	State string // boot record, journal, settings, identity
	Data  string // configuration data
	Work  string // temporary files
	// Applied is a copy of the configuration files in force.
	Applied string

	dir string // the directory of the device
}

// RootIn returns the parts of a device that lies in one directory.
func RootIn(dir string) (Root, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return Root{}, err
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	return Root{
		Banks: [2]string{in("bank1"), in("bank2")},
		State: in("state"), Data: in("config"), Work: in("work"), Applied: in("applied"),
		dir: dir,
	}, nil
}

// Open makes the directories that are missing and puts them into cfg. A file that stands
// in the place of a directory is renamed to a name that says so. A part that is not on
// the mount or behind the link where it was seen before (see KeepPlaces) is not made,
// and neither is a bank for which the settings name a place of its own: what belongs
// there may be mounted at the next start. cfg.Findings reports all that, and directories
// that cannot be made: the device comes up all the same, as far as one bank is whole,
// and keeps nothing in them.
func (r Root) Open(cfg *agent.Config) {
	var findings []string
	gone, _ := r.absent()
	kept := map[string]bool{}
	for _, p := range r.parts() {
		kept[p.dir] = gone[p.name] != nil
	}
	for dir, perm := range map[string]os.FileMode{
		r.Banks[0]: 0o755, r.Banks[1]: 0o755, r.Data: 0o755, r.Work: 0o755,
		r.State: 0o700, // passwords of file servers
	} {
		if info, err := os.Stat(dir); kept[dir] || err == nil && info.IsDir() {
			continue
		}
		if info, err := os.Lstat(dir); err == nil {
			if !info.Mode().IsRegular() {
				to, _ := os.Readlink(dir)
				findings = append(findings, fmt.Sprintf("%s leads to %s, which is not a directory or not mounted; nothing is read or written there", dir, to))
				continue
			}
			aside, err := durable.Quarantine(afero.NewOsFs(), dir)
			if err != nil {
				findings = append(findings, fmt.Sprintf("%s is not a directory and could not be moved away: %v", dir, err))
				continue
			}
			findings = append(findings, fmt.Sprintf("%s was not a directory; it was renamed to %s", dir, filepath.Base(aside)))
		}
		if err := MakeDirectory(dir, perm); err != nil {
			findings = append(findings, err.Error())
		}
	}
	slices.Sort(findings)
	cfg.Findings = append(cfg.Findings, findings...)
	r.Use(cfg)
}

// Use puts the directories into cfg without making any. cfg.Findings reports the parts that
// are not where they were. Banks whose partitions have changed places are used where they
// are.
func (r Root) Use(cfg *agent.Config) {
	gone, damage := r.absent()
	r.onePlace(gone)
	if damage != nil {
		cfg.Findings = append(cfg.Findings, damage.Error())
	}
	for _, p := range r.parts() {
		if e := gone[p.name]; e != nil {
			cfg.Findings = append(cfg.Findings, e.Error())
		}
	}
	cfg.Banks = [2]afero.Fs{at(r.Banks[0], gone["bank1"]), at(r.Banks[1], gone["bank2"])}
	cfg.State, cfg.Data, cfg.Work = at(r.State, gone["state"]), at(r.Data, gone["config"]), Directory(r.Work)
	if p, ok := cfg.Platform.(*Platform); ok {
		p.absent = [2]*AbsentError{gone["bank1"], gone["bank2"]}
	}
	r.uncross(cfg)
}

// Directory is the file system below a directory.
func Directory(dir string) afero.Fs { return afero.NewBasePathFs(afero.NewOsFs(), dir) }

// MakeDirectory makes a directory, and those above it that are missing, so that they
// last. It gets the mode perm whatever the umask.
func MakeDirectory(dir string, perm os.FileMode) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	base := dir
	for {
		if _, err := os.Stat(base); err == nil || base == filepath.Dir(base) {
			break
		}
		base = filepath.Dir(base)
	}
	if base == dir {
		return nil
	}
	// From the first that is there: those above it may be closed to this
	// process.
	rel, err := filepath.Rel(base, dir)
	if err != nil {
		return err
	}
	if err := durable.MkdirAll(Directory(base), rel, perm); err != nil {
		return err
	}
	return os.Chmod(dir, perm)
}
