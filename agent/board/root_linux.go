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
	// Banks are the folders of the software banks, on a board the mounts of
	// two partitions.
	Banks [2]string
	State string // boot record, journal, settings, identity
	Data  string // configuration data
	Work  string // temporary files
	// Applied is a copy of the configuration files in force.
	Applied string
}

// RootIn returns the parts of a device that lies in one folder.
func RootIn(dir string) (Root, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return Root{}, err
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	return Root{
		Banks: [2]string{in("bank1"), in("bank2")},
		State: in("state"), Data: in("config"), Work: in("work"), Applied: in("applied"),
	}, nil
}

// Open makes the folders that are missing and puts them into cfg. What stands in
// the place of a folder is set aside under a telling name. cfg.Findings tells of
// that, and of folders that cannot be made: the device comes up all the same, as
// far as one bank is whole.
func (r Root) Open(cfg *agent.Config) {
	var findings []string
	host := afero.NewOsFs()
	for dir, perm := range map[string]os.FileMode{
		r.Banks[0]: 0o755, r.Banks[1]: 0o755, r.Data: 0o755, r.Work: 0o755,
		r.State: 0o700, // passwords of file servers
	} {
		if info, err := os.Stat(dir); err == nil && info.IsDir() {
			continue
		}
		if _, err := os.Lstat(dir); err == nil {
			aside, err := durable.SetAside(host, dir)
			if err != nil {
				findings = append(findings, fmt.Sprintf("%s is no folder and cannot be set aside: %v", dir, err))
				continue
			}
			findings = append(findings, fmt.Sprintf("%s was no folder; it is %s now", dir, filepath.Base(aside)))
		}
		if err := os.MkdirAll(dir, perm); err != nil {
			findings = append(findings, err.Error())
		}
	}
	slices.Sort(findings)
	cfg.Findings = append(cfg.Findings, findings...)
	r.Use(cfg)
}

// Use puts the folders into cfg without making any.
func (r Root) Use(cfg *agent.Config) {
	cfg.Banks = [2]afero.Fs{Folder(r.Banks[0]), Folder(r.Banks[1])}
	cfg.State, cfg.Data, cfg.Work = Folder(r.State), Folder(r.Data), Folder(r.Work)
}

// Folder is the file system below a folder.
func Folder(dir string) afero.Fs { return afero.NewBasePathFs(afero.NewOsFs(), dir) }
