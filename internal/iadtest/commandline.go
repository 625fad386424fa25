package iadtest

import (
	"os/exec"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"example.com/iad/internal/cli"
)

// EveryCommand calls f for a command and all below it.
func EveryCommand(cmd *cobra.Command, f func(*cobra.Command)) {
	f(cmd)
	for _, sub := range cmd.Commands() {
		EveryCommand(sub, f)
	}
}

// TestCommandLine tests what the command lines of all programs have in common. variable
// returns the environment variable of a flag, reserved are variables that no flag may
// have, and program is the program with arguments.
func TestCommandLine(t *testing.T, root *cobra.Command, variable func(flag string) string, reserved []string, program func(args ...string) *exec.Cmd) {
	t.Helper()
	EveryCommand(root, func(cmd *cobra.Command) {
		helpFits(t, cmd)
		everyFlagHasAVariable(t, cmd, variable, reserved)
		unknownArgumentIsRefused(t, cmd, program)
	})
}

// helpFits: help fits a terminal of 80 columns.
func helpFits(t *testing.T, cmd *cobra.Command) {
	t.Helper()
	if cmd.HasParent() && cmd.Parent().Name() == "completion" {
		return // cobra's text
	}
	var out strings.Builder
	cmd.SetOut(&out)
	if err := cmd.Help(); err != nil || out.Len() == 0 {
		t.Errorf("%s: %v, %d bytes of help", cmd.CommandPath(), err, out.Len())
	}
	for line := range strings.Lines(out.String()) {
		if line = strings.TrimSuffix(line, "\n"); utf8.RuneCountInString(line) > 80 && !strings.Contains(line, "(default \"") {
			t.Errorf("%s: %d columns: %s", cmd.CommandPath(), utf8.RuneCountInString(line), line)
		}
	}
}

func everyFlagHasAVariable(t *testing.T, cmd *cobra.Command, variable func(flag string) string, reserved []string) {
	t.Helper()
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		name := variable(f.Name)
		if name == "" {
			t.Errorf("%s --%s has no environment variable", cmd.CommandPath(), f.Name)
		}
		for _, r := range reserved {
			if name == r {
				t.Errorf("%s --%s: %s has another meaning", cmd.CommandPath(), f.Name, name)
			}
		}
	})
}

// unknownArgumentIsRefused: every command says what arguments it takes, and one that it
// does not know is a mistake on the command line.
func unknownArgumentIsRefused(t *testing.T, cmd *cobra.Command, program func(args ...string) *exec.Cmd) {
	t.Helper()
	if cmd.Name() != "help" && cmd.ValidateArgs([]string{"nonsense"}) == nil {
		if cmd.Args == nil {
			t.Errorf("%s takes any arguments", cmd.CommandPath())
		}
		return
	}
	args := append(strings.Fields(cmd.CommandPath())[1:], "nonsense")
	c := program(args...)
	out, _ := c.CombinedOutput()
	if got := c.ProcessState.ExitCode(); got != cli.ExitUsage || cmd.HasSubCommands() && !strings.Contains(string(out), `unknown command "nonsense"`) {
		t.Errorf("%q: exit status %d, want %d\n%s", args, got, cli.ExitUsage, out)
	}
}
