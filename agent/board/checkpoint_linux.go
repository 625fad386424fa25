package board

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"example.com/iad/agent"
)

// From <linux/fs.h>; the same on every processor.
const (
	fiFreeze = 0xC0045877
	fiThaw   = 0xC0045878
)

// Checkpoint makes the file system of bank n complete without its journal: what is synced
// may be in the journal only, which a boot loader does not read. A bank that shares its
// file system with something else is left alone, because freezing it stops all writers for
// a moment.
func (p *Platform) Checkpoint(n int) error {
	bank, ok := fileSystem(p.Banks[n-1])
	if system, found := fileSystem("/"); !ok || !found || bank == system || p.OnBank(n) != (agent.Parts{}) {
		return nil
	}
	dir, err := os.Open(p.Banks[n-1])
	if err != nil {
		return err
	}
	defer dir.Close()
	err = freeze(dir, fiFreeze)
	if terr := freeze(dir, fiThaw); err == nil {
		err = terr
	}
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOTTY) {
		return nil // it has no journal of that kind
	}
	if err != nil {
		return fmt.Errorf("checkpoint of the file system of bank %d: %w", n, err)
	}
	return nil
}

// thaw ends a freeze that the agent before this one was killed in.
func (p *Platform) thaw() {
	for _, path := range p.Banks {
		if dir, err := os.Open(path); err == nil {
			_ = freeze(dir, fiThaw)
			dir.Close()
		}
	}
}

func freeze(dir *os.File, request uintptr) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, dir.Fd(), request, 0); errno != 0 {
		return errno
	}
	return nil
}
