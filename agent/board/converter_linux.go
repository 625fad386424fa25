package board

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"example.com/iad/agent/config"
)

// Converter runs a maker's conversion program, PROGRAM FROM TO INDIR OUTDIR. The
// fields of Command are its settings, except for Args, which Convert fills in.
type Converter struct{ Command }

var _ config.Runner = Converter{}

// Convert implements config.Runner. If the program runs as another user, inDir,
// outDir and the directories that hold them belong to that user while it runs, and
// to this process's afterwards: what the program left running can then no longer
// replace the results. The directories that hold them must be open to nobody else.
func (c Converter) Convert(ctx context.Context, from, to uint32, inDir, outDir string) error {
	command := c.Command
	command.Args = []string{strconv.FormatUint(uint64(from), 10), strconv.FormatUint(uint64(to), 10), inDir, outDir}
	if c.User == nil {
		_, err := Run(ctx, command)
		return err
	}
	parents := []string{filepath.Dir(inDir)}
	if other := filepath.Dir(outDir); other != parents[0] {
		parents = append(parents, other)
	}
	for _, dir := range parents {
		if err := giveDir(unix.AT_FDCWD, dir, int(c.User.UID), int(c.User.GID)); err != nil {
			return fmt.Errorf("give %s to user %d: %w", dir, c.User.UID, err)
		}
	}
	_, err := Run(ctx, command)
	// The outer ones first, which takes away the way to the inner ones.
	for _, dir := range append(parents, inDir, outDir) {
		if e := takeDir(dir); e != nil {
			err = errors.Join(err, fmt.Errorf("take %s back: %w", dir, e))
		}
	}
	return err
}

// giveDir gives a directory with all that it holds to a user: bottom up, the
// directory itself last, so that nobody but this process can change what is being
// walked. No link is followed and nothing but directories is opened; what is neither
// a file nor a directory keeps its owner.
func giveDir(at int, name string, uid, gid int) error {
	dir, err := openDir(at, name)
	if err != nil {
		return err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	fd := int(dir.Fd())
	for _, name := range names {
		var st unix.Stat_t
		if err := unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return &os.PathError{Op: "stat", Path: name, Err: err}
		}
		switch {
		case st.Mode&unix.S_IFMT == unix.S_IFDIR:
			err = giveDir(fd, name, uid, gid)
		case st.Mode&unix.S_IFMT == unix.S_IFREG && st.Nlink == 1: // not another name of somebody's file
			err = unix.Fchownat(fd, name, uid, gid, unix.AT_SYMLINK_NOFOLLOW)
		}
		if err != nil {
			return &os.PathError{Op: "chown", Path: name, Err: err}
		}
	}
	return dir.Chown(uid, gid)
}

// takeDir makes a directory this process's own, closed to all others.
func takeDir(name string) error {
	dir, err := openDir(unix.AT_FDCWD, name)
	if errors.Is(err, unix.ENOENT) {
		return nil // the program has removed it
	}
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil // or put something else in its place, which is refused as a result
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	return errors.Join(dir.Chown(os.Geteuid(), os.Getegid()), dir.Chmod(0o700))
}

// openDir opens a directory, but not through a link in its place.
func openDir(at int, name string) (*os.File, error) {
	fd, err := unix.Openat(at, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}
