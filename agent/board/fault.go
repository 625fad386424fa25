package board

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"example.com/iad/agent"
	"example.com/iad/agent/procedure"
	"example.com/iad/mib"
)

// boardFault gives an error that the software is not to blame for its cause: a
// program could not be started, or nothing be laid out for it. payload is the path
// of the software's program that was to run as user, "" if it was the board's.
// What a program did stays as it is, and so does that the software's is missing,
// or is none.
func boardFault(err error, payload string, user *User) error {
	var number syscall.Errno
	if !errors.As(err, &number) {
		return err // it ran
	}
	if payload != "" && (number == syscall.ENOENT || number == syscall.ENOEXEC || number == syscall.EACCES && !isExecutable(payload, user)) {
		return err
	}
	cause := mib.FailCauseInternalError
	if number == syscall.ENOSPC || number == syscall.EDQUOT {
		cause = mib.FailCauseStorageFull
	}
	return &procedure.Failure{Code: cause, Text: fmt.Sprintf("the device could not run a program: %v", err)}
}

// refusedData gives the verdict of a program that ran its cause: the data are to
// blame. One that did not end in time has judged nothing.
func refusedData(err error) error {
	if err == nil || mib.CauseOf(err, 0) != 0 || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return &procedure.Failure{Code: mib.FailCauseConfigParseError, Text: err.Error()}
}

// isExecutable reports whether a program has the mode for it. Those of the software
// are the agent's files.
func isExecutable(path string, user *User) bool {
	info, err := os.Stat(path)
	wanted := os.FileMode(0o100)
	if user != nil {
		wanted = 0o001
	}
	return err == nil && info.Mode()&wanted != 0
}

// Unreachable lists, a sentence each, the directories on the way to banks, Work and
// Applied that As may not pass through: programs of the software cannot be run
// or do their work then.
func (p *Platform) Unreachable() (findings []string) {
	if p.As == nil {
		return nil
	}
	checked := map[string]bool{}
	for _, dir := range []string{p.Banks[0], p.Banks[1], p.Work, filepath.Dir(p.Applied)} {
		real, err := filepath.EvalSymlinks(dir)
		if err != nil {
			continue // Root.Open has reported it
		}
		for ; !checked[real]; real = filepath.Dir(real) {
			checked[real] = true
			if info, err := os.Stat(real); err == nil && !p.As.passes(info) {
				findings = append(findings, fmt.Sprintf("programs of the software cannot run as user %d: it may not pass through %s (mode %04o)",
					p.As.UID, real, info.Mode().Perm()))
			}
		}
	}
	return findings
}

// passes reports whether the mode of a directory lets the user through.
func (u *User) passes(dir fs.FileInfo) bool {
	wanted := os.FileMode(0o001)
	if uid, gid, ok := ownerOf(dir); ok {
		switch {
		case u.UID == 0:
			return true
		case uid == u.UID:
			wanted = 0o100
		case gid == u.GID:
			wanted = 0o010
		}
	}
	return dir.Mode()&wanted != 0
}

// checkPrefix begins the names of directories for CheckProgram.
const checkPrefix = "check-"

// Tidy removes from Work what an agent that was killed left there. No other
// agent may use the directory.
func (p *Platform) Tidy() error {
	p.thaw()
	entries, err := os.ReadDir(p.Work)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), runPrefix) || strings.HasPrefix(e.Name(), checkPrefix) || strings.HasPrefix(e.Name(), agent.ConvertPrefix) {
			err = errors.Join(err, os.RemoveAll(filepath.Join(p.Work, e.Name())))
		}
	}
	return err
}
