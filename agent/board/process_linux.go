package board

import (
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// processAttributes makes a program lead its own process group, run as user unless
// that is nil, and die with this process.
func processAttributes(user *User) (*syscall.SysProcAttr, error) {
	attributes := &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if user != nil {
		attributes.Credential = &syscall.Credential{Uid: user.UID, Gid: user.GID}
	}
	return attributes, nil
}

// group is a program and the process group that it leads.
type group struct {
	cmd   *exec.Cmd
	mu    sync.Mutex
	ended bool // the group is dead; its number may be somebody else's
}

// run starts the program and waits for its end. What is alive of the group then
// is killed before the program is reaped, as only until then the number of the
// group is certainly its own.
func (g *group) run() error {
	sealDescriptors()
	// The kernel kills the program when the thread that started it ends, not
	// when the process does: the thread must not end before.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := g.cmd.Start(); err != nil {
		return err
	}
	var info unix.Siginfo
	for {
		err := unix.Waitid(unix.P_PID, g.cmd.Process.Pid, &info, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	g.mu.Lock()
	_ = unix.Kill(-g.cmd.Process.Pid, unix.SIGKILL)
	g.ended = true
	g.mu.Unlock()
	return g.cmd.Wait()
}

// kill kills the group.
func (g *group) kill() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ended {
		return os.ErrProcessDone
	}
	return unix.Kill(-g.cmd.Process.Pid, unix.SIGKILL)
}

// sealDescriptors sees to it that descriptors which this process inherited, say
// from a supervisor, are not handed on. Those that Go opened never are.
var sealDescriptors = sync.OnceFunc(func() {
	if unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC) == nil {
		return
	}
	entries, err := os.ReadDir("/proc/self/fd") // Linux before 5.11
	if err != nil {
		return
	}
	for _, entry := range entries {
		var fd int
		if _, err := fmt.Sscan(entry.Name(), &fd); err == nil && fd > 2 {
			unix.CloseOnExec(fd)
		}
	}
})
