package board

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// DefaultLimit is how long a Command may take whose Limit is 0.
const DefaultLimit = time.Minute

// settle is how long the end of the output is waited for once the program has
// ended: only a process that left the group can hold it open.
const settle = 2 * time.Second

// runPrefix begins the names of temporary directories of programs.
const runPrefix = "iad-run-"

// environment is what every program gets; Command.Env comes after it.
var environment = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}

// User is whom a program runs as, by number. Supplementary groups are dropped.
type User struct{ UID, GID uint32 }

// Command is a program to run once.
type Command struct {
	// Path is the program's absolute path; no shell is involved.
	Path string
	Args []string
	// Env are further variables, NAME=VALUE. The program sees nothing of this
	// process's environment but only PATH, LC_ALL, HOME and TMPDIR, which
	// these may override.
	Env []string
	// Dir is the working directory; empty stands for the program's temporary
	// directory, which is also HOME and TMPDIR, is its own and is removed
	// afterwards. Where none can be made, on a full or read-only partition,
	// the program runs in / and without TMPDIR.
	Dir string
	// Temp is where the temporary directory is made; empty stands for the
	// system's directory for such things.
	Temp string
	// Limit is how long the program may take; 0 stands for DefaultLimit.
	Limit time.Duration
	// User is whom it runs as; nil stands for whom this process runs as.
	User *User
}

// ErrTimeout says that a program did not end within its limit. It is a
// context.DeadlineExceeded.
var ErrTimeout error = timeoutError{}

type timeoutError struct{}

func (timeoutError) Error() string        { return "not finished within its time limit" }
func (timeoutError) Is(target error) bool { return target == context.DeadlineExceeded }

// ExitError says that a program ended, and not well.
type ExitError struct {
	Path string
	// Status is the exit status, or -1 if a signal ended the program.
	Status int
	// State is the exit status or signal in words.
	State string
	// Said is the last line of its output, if there was any.
	Said string
}

func (e *ExitError) Error() string {
	if e.Said == "" {
		return fmt.Sprintf("%s: %s", e.Path, e.State)
	}
	return fmt.Sprintf("%s: %s: %s", e.Path, e.State, e.Said)
}

// Run runs a program and returns the last MaxOutput bytes of its output, which
// is what it wrote to standard output and standard error. Standard input is
// empty, no other descriptors are inherited. The program leads a process group
// of its own, of which nothing is alive when Run returns; a process that leaves
// the group on purpose is not found. Should this process be killed, the kernel
// kills the program, though not what that has started.
//
// The error is an *ExitError, or wraps ErrTimeout if Limit passed, the context's
// error if it ended first, or otherwise the system's for a program that could not
// be started: fs.ErrNotExist if there is none.
func Run(ctx context.Context, c Command) (output []byte, err error) {
	if !filepath.IsAbs(c.Path) {
		return nil, fmt.Errorf("%s: the path of a program must be absolute", c.Path)
	}
	attributes, err := processAttributes(c.User)
	if err != nil {
		return nil, fmt.Errorf("%s: run as user %d: %w", c.Path, c.User.UID, err)
	}
	home, env := "/", environment[:len(environment):len(environment)]
	if temp, err := os.MkdirTemp(c.Temp, runPrefix); err == nil {
		defer os.RemoveAll(temp)
		if c.User != nil {
			if err := os.Lchown(temp, int(c.User.UID), int(c.User.GID)); err != nil {
				return nil, fmt.Errorf("%s: run as user %d: %w", c.Path, c.User.UID, err)
			}
		}
		home, env = temp, append(env, "TMPDIR="+temp)
	}
	env = append(append(env, "HOME="+home), c.Env...)
	ctx, cancel := context.WithTimeoutCause(ctx, cmp.Or(c.Limit, DefaultLimit), ErrTimeout)
	defer cancel()

	var out tail
	program := &group{}
	for try := 1; ; try++ {
		program.cmd = exec.CommandContext(ctx, c.Path, c.Args...)
		program.cmd.Env = env
		program.cmd.Dir = cmp.Or(c.Dir, home)
		program.cmd.Stdout, program.cmd.Stderr = &out, &out
		program.cmd.SysProcAttr = attributes
		program.cmd.Cancel = program.kill
		program.cmd.WaitDelay = settle
		err = program.run()
		// A program that was written a moment ago may still be open in a
		// child that another goroutine is about to start.
		if !errors.Is(err, syscall.ETXTBSY) || try == 50 || ctx.Err() != nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	return out.bytes(), describe(ctx, c.Path, err, out.lastLine())
}

// describe turns what os/exec says into the errors that Run promises.
func describe(ctx context.Context, path string, err error, said string) error {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil && said != "":
		return fmt.Errorf("%s: %w; last line of output: %s", path, context.Cause(ctx), said)
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w", path, context.Cause(ctx))
	case errors.Is(err, exec.ErrWaitDelay):
		return nil // ended well, leaving somebody behind who holds its output open
	case errors.As(err, &exit):
		return &ExitError{Path: path, Status: exit.ExitCode(), State: exit.String(), Said: said}
	}
	var pathError *os.PathError
	if errors.As(err, &pathError) {
		err = pathError.Err
	}
	if text := whyNotStarted(path, err); text != "" {
		return &startError{path, text, err}
	}
	return fmt.Errorf("%s: %w", path, err)
}
