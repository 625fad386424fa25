//go:build !linux

package board

import (
	"errors"
	"os/exec"
	"syscall"
)

func processAttributes(user *User) (*syscall.SysProcAttr, error) {
	if user != nil {
		return nil, errors.ErrUnsupported
	}
	return nil, nil
}

// group is a program; what it starts may outlive it.
type group struct{ cmd *exec.Cmd }

func (g *group) run() error { return g.cmd.Run() }

func (g *group) kill() error { return g.cmd.Process.Kill() }
