//go:build !unix

package peers

import "os/exec"

// OwnGroup does nothing on this system.
func OwnGroup(*exec.Cmd) {}

func killGroup(cmd *exec.Cmd) { _ = cmd.Process.Kill() }
