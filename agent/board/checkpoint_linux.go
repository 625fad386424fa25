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
	if p.shares(n) || !journals(p.Banks[n-1]) {
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
	switch {
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOTTY):
		return nil // it has no journal of that kind
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("checkpoint of the file system of bank %d: %w; %s", n, err, checkpointRemedy)
	case err != nil:
		return fmt.Errorf("checkpoint of the file system of bank %d: %w", n, err)
	}
	return nil
}

// shares reports whether bank n shares its file system with something else, as far as that
// is known.
func (p *Platform) shares(n int) bool {
	bank, ok := fileSystem(p.Banks[n-1])
	system, found := fileSystem("/")
	return !ok || !found || bank == system || p.OnBank(n) != (agent.Parts{})
}

const checkpointRemedy = "run the agent with CAP_SYS_ADMIN"

// journals reports whether a directory is on a file system whose journal a boot loader does not read. UBIFS has one that
// U-Boot reads.
func journals(dir string) bool {
	var system unix.Statfs_t
	if unix.Statfs(dir, &system) != nil {
		return false
	}
	switch uint32(system.Type) {
	case unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.F2FS_SUPER_MAGIC:
		return true
	}
	return false
}

// NoCheckpoint returns a finding for each bank that Checkpoint may not freeze although that
// is needed.
func (p *Platform) NoCheckpoint() (findings []string) {
	for i, path := range p.Banks {
		if p.shares(i+1) || !journals(path) {
			continue
		}
		dir, err := os.Open(path)
		if err != nil {
			continue // found elsewhere
		}
		// The privilege is checked before anything else; it is not frozen.
		if errors.Is(freeze(dir, fiThaw), unix.EPERM) {
			findings = append(findings, fmt.Sprintf("the boot loader may not find new software in bank %d: the journal of %s cannot be written back; %s", i+1, path, checkpointRemedy))
		}
		dir.Close()
	}
	return findings
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
