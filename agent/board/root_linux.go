package board

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/afero"

	"example.com/iad/agent"
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

// Open makes the folders that are missing and puts them into cfg.
func (r Root) Open(cfg *agent.Config) error {
	for _, dir := range []string{r.Banks[0], r.Banks[1], r.Data, r.Work} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("root of the device: %w", err)
		}
	}
	// The state holds the passwords of file servers.
	if err := os.MkdirAll(r.State, 0o700); err != nil {
		return fmt.Errorf("root of the device: %w", err)
	}
	r.Use(cfg)
	return nil
}

// Use puts the folders into cfg without making any.
func (r Root) Use(cfg *agent.Config) {
	cfg.Banks = [2]afero.Fs{Folder(r.Banks[0]), Folder(r.Banks[1])}
	cfg.State, cfg.Data, cfg.Work = Folder(r.State), Folder(r.Data), Folder(r.Work)
}

// Folder is the file system below a folder.
func Folder(dir string) afero.Fs { return afero.NewBasePathFs(afero.NewOsFs(), dir) }
