// Command iadsim runs virtual integrated access devices.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"example.com/iad/internal/cli"
)

// version is set when the program is linked.
var version = "devel"

// Exit codes.
const (
	exitFailed = 1
	exitUsage  = 2
)

func main() {
	cli.SurviveClosedPipe() // of what is printed: the devices go on
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx))
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "iadsim",
		Short: "Virtual integrated access devices, many in one process",
		Long: `iadsim runs virtual IADs: the real agent with two software banks and
configuration data, each with an SNMP port of its own, on disks in memory or in
a folder, with faults on demand.

Every flag may be given as an environment variable too: --trap-sink is
IADSIM_TRAP_SINK.`,
		Version:       version,
		SilenceErrors: true,
		SilenceUsage:  true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			return cli.FromEnvironment(cmd.Flags(), func(flag string) string { return cli.Variable("IADSIM_", flag) }, func(err error) error { return usageError{err} })
		},
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(runCommand())
	cli.Strict(root, func(err error) error { return usageError{err} })
	return root
}

func run(ctx context.Context) int {
	cmd, err := newRoot().ExecuteContextC(ctx)
	if err == nil {
		return 0
	}
	fmt.Fprintln(os.Stderr, "iadsim:", err)
	var usage usageError
	if errors.As(err, &usage) {
		fmt.Fprintf(os.Stderr, "See '%s --help'.\n", cmd.CommandPath())
		return exitUsage
	}
	return exitFailed
}

// usageError is a mistake on the command line.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }
