package board

import (
	"errors"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// ownerOf returns the owner and the group of a file.
func ownerOf(file fs.FileInfo) (uid, gid uint32, ok bool) {
	st, ok := file.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, 0, false
	}
	return st.Uid, st.Gid, true
}

// giveTree gives a directory with all that it holds to a user, as giveDir does.
func giveTree(dir string, uid, gid int) error { return giveDir(unix.AT_FDCWD, dir, uid, gid) }

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
