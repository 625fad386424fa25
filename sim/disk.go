package sim

import (
	"errors"
	"strings"

	"github.com/spf13/afero"

	"example.com/iad/agent"
	"example.com/iad/agent/board"
	"example.com/iad/internal/memdisk"
)

// Disk is the flash of a device: what a restart leaves as it is.
type Disk struct {
	Banks [2]afero.Fs
	State afero.Fs
	Data  afero.Fs
	Work  afero.Fs

	root *board.Root // of a disk made by Directory, nil for one in memory
}

// Memory returns an empty disk in memory. What is equal on such disks is stored once, and
// Clone copies them.
func Memory() Disk {
	return Disk{
		Banks: [2]afero.Fs{memdisk.New(), memdisk.New()},
		State: memdisk.New(), Data: memdisk.New(), Work: memdisk.New(),
	}
}

// Clone returns a copy of a disk that Memory made: a device that Provision made need not be
// made again for each of many like it.
func (d Disk) Clone() Disk {
	clone := func(f afero.Fs) afero.Fs { return f.(*memdisk.Disk).Clone() }
	return Disk{
		Banks: [2]afero.Fs{clone(d.Banks[0]), clone(d.Banks[1])},
		State: clone(d.State), Data: clone(d.Data), Work: clone(d.Work),
	}
}

// Directory returns a disk whose parts are directories in dir, as board.RootIn has
// them; those that are missing are made.
func Directory(dir string) (Disk, error) {
	root, err := board.RootIn(dir)
	if err != nil {
		return Disk{}, err
	}
	var c agent.Config
	if root.Open(&c); len(c.Findings) > 0 {
		return Disk{}, errors.New(strings.Join(c.Findings, "; "))
	}
	return Disk{Banks: c.Banks, State: c.State, Data: c.Data, Work: c.Work, root: &root}, nil
}
