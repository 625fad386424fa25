package board

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// lockName is the file in a root that is locked; it holds the process number of
// the agent.
const lockName = "lock"

// lockVariable hands a Lock over to the program that takes this one's place.
const lockVariable = "IAD_LOCK_DESCRIPTOR"

// ErrLocked says that another agent runs on the root.
var ErrLocked = errors.New("another agent runs on it")

// Lock keeps every other agent off a root until it is released or the process
// ends, however it ends.
type Lock struct{ file *os.File }

// endWait is how long an agent that was killed may take to end.
const endWait = 5 * time.Second

// LockRoot locks the root directory of an agent. The error wraps ErrLocked if
// another process has it; one that was killed is waited for. After Restart, it takes over the lock that this
// process had before.
func LockRoot(root string) (*Lock, error) {
	path := filepath.Join(root, lockName)
	file, err := inherited(path)
	if err == nil && file == nil {
		file, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600) //durable: means nothing after a restart
		if errors.Is(err, unix.EROFS) {
			// After a remount because of errors: the device starts, to report it.
			file, err = os.Open(path)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", root, err)
	}
	// Whoever may read the file may lock it, and so keep the agent from
	// starting. Where the mode cannot be changed, others have no business.
	_ = file.Chmod(0o600)
	for end := time.Now().Add(endWait); ; time.Sleep(10 * time.Millisecond) {
		err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			break
		}
		pid := holder(file)
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.EWOULDBLOCK) && ending(pid) && time.Now().Before(end) {
			continue
		}
		file.Close()
		switch {
		case !errors.Is(err, unix.EWOULDBLOCK):
			return nil, fmt.Errorf("lock %s: %w", root, err)
		case pid != 0:
			return nil, fmt.Errorf("%s: %w (process %d)", root, ErrLocked, pid)
		}
		return nil, fmt.Errorf("%s: %w", root, ErrLocked)
	}
	// Only a help for people: the lock holds without it.
	_ = file.Truncate(0)
	_, _ = file.WriteAt(fmt.Appendln(nil, os.Getpid()), 0)
	return &Lock{file}, nil
}

// holder is the process that the lock file names, 0 for none.
func holder(file *os.File) int {
	text := make([]byte, 20)
	n, _ := file.ReadAt(text, 0)
	pid, err := strconv.Atoi(strings.TrimSpace(string(text[:n])))
	if err != nil || pid < 0 {
		return 0
	}
	return pid
}

// ending reports whether a process was killed or has ended: the system takes a moment
// to close its files, and a program that it was about to start may hold them for an
// instant longer. A process that cannot be seen counts as ended.
func ending(pid int) bool {
	if pid == 0 {
		return true // it has just locked the file, or its number was never written
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return true
	}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch name {
		case "State":
			if strings.HasPrefix(value, "Z") || strings.HasPrefix(value, "X") {
				return true
			}
		case "Threads":
			// The number of threads of one that exits falls to 0.
			if value == "0" {
				return true
			}
		case "SigPnd", "ShdPnd":
			set, err := strconv.ParseUint(value, 16, 64)
			if err == nil && set&(1<<(unix.SIGKILL-1)) != 0 {
				return true
			}
		}
	}
	// A process on its way out has given its memory back.
	return !strings.Contains(string(text), "\nVmSize:")
}

// inherited returns the lock file that Restart kept open, nil if there is none.
func inherited(path string) (*os.File, error) {
	text, ok := os.LookupEnv(lockVariable)
	if !ok {
		return nil, nil
	}
	if err := os.Unsetenv(lockVariable); err != nil {
		return nil, err
	}
	fd, err := strconv.Atoi(text)
	if err != nil || fd < 3 {
		return nil, nil
	}
	var open, named unix.Stat_t
	if unix.Fstat(fd, &open) != nil || unix.Stat(path, &named) != nil || open.Dev != named.Dev || open.Ino != named.Ino {
		return nil, nil
	}
	unix.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), path), nil
}

// Release lets others have the root.
func (l *Lock) Release() error { return l.file.Close() }

// Restart replaces this process by a new one of the same program with the same
// arguments and environment, as a reset of the device would. The lock stays
// held, and conn, unless nil, stays open for InheritedSocket: no other program
// can take the address that it was opened for. Restart returns only if it fails.
func (l *Lock) Restart(conn net.PacketConn, address string) error {
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("restart: %w", err)
	}
	fd, err := inherit(l.file, true)
	if err != nil {
		return fmt.Errorf("restart: keep the lock: %w", err)
	}
	defer inherit(l.file, false)
	env := append(os.Environ(), fmt.Sprintf("%s=%d", lockVariable, fd))
	// A socket that cannot be kept is opened again.
	if c, ok := conn.(syscall.Conn); ok {
		if fd, err := inherit(c, true); err == nil {
			defer inherit(c, false)
			env = append(env, fmt.Sprintf("%s=%d %s", socketVariable, fd, address))
		}
	}
	return fmt.Errorf("restart %s: %w", program, unix.Exec(program, os.Args, env))
}
