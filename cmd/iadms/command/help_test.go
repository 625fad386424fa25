package command

import (
	"os"
	"os/exec"
	"testing"

	"example.com/iad/internal/iadtest"
)

// The variables that iadms sets for programs set no flag in an iadms that they call.
func TestCommandLineInCommon(t *testing.T) {
	iadtest.TestCommandLine(t, newRoot("test"), variable, []string{"IADMS_DEVICE", "IADMS_TARGET", "IADMS_SOFTWARE_VERSION"}, func(args ...string) *exec.Cmd {
		c := exec.Command(os.Args[0], args...)
		c.Env = append(os.Environ(), asCommand+"=1")
		return c
	})
}
