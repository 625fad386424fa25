package fleet

import (
	"bytes"
	"sync"

	"github.com/spf13/afero"

	"example.com/iad/agent/board"
	"example.com/iad/agent/config"
	"example.com/iad/sim"
)

// disks are those of new devices of one kind. What the first one in memory gets, the others
// copy.
type disks struct {
	image []byte
	set   config.Set

	once sync.Once
	made sim.Disk
	err  error
}

// prepare gives a device its disk, with software and configuration data unless it was made
// by an earlier run.
func (d *disks) prepare(c *sim.Config) error {
	if c.Disk.State == nil {
		d.once.Do(func() {
			first := *c
			first.Disk = sim.Memory()
			d.made, d.err = first.Disk, d.provision(first)
		})
		if d.err != nil {
			return d.err
		}
		c.Disk = d.made.Clone()
		return nil
	}
	if fresh, err := afero.IsEmpty(c.Disk.State, "."); err == nil && !fresh {
		return nil
	}
	return d.provision(*c)
}

func (d *disks) provision(c sim.Config) error {
	return sim.New(c).Provision(bytes.NewReader(d.image), d.set)
}

// lockRoot creates the directory of the disks and locks it against other simulators.
func lockRoot(root string) (release func() error, err error) {
	if err := board.MakeDirectory(root, 0o755); err != nil {
		return nil, err
	}
	lock, err := board.LockRoot(root)
	if err != nil {
		return nil, err
	}
	return lock.Release, nil
}
