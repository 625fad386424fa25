// Command iadlab judges devices that implement IAD-UPGRADE-MIB.
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

func main() { os.Exit(run()) }

// exitVerdict is the exit status for a device that failed, or of a comparison that found
// something worse.
const exitVerdict = 3

// verdictError is a bad verdict.
type verdictError string

func (e verdictError) Error() string { return string(e) }

// run executes the command line and returns the exit status.
func run() int {
	cli.SurviveClosedPipe()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := newRoot()
	cmd, err := root.ExecuteContextC(ctx)
	var verdict verdictError
	switch {
	case err == nil:
		return 0
	case cli.IsUsage(err):
		fmt.Fprintf(os.Stderr, "iadlab: %v\nSee '%s --help'.\n", err, cmd.CommandPath())
		return cli.ExitUsage
	case cli.IsUnread(err):
		return cli.ExitUnread
	}
	fmt.Fprintf(os.Stderr, "iadlab: %v\n", err)
	if errors.As(err, &verdict) {
		return exitVerdict
	}
	return cli.ExitFailed
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "iadlab",
		Short: "Judge devices that implement IAD-UPGRADE-MIB",
		Long: `iadlab judges any device that implements IAD-UPGRADE-MIB, from outside: over
SNMP, with the notifications that the device sends, and with file servers of its
own that can be slow or hostile.

Every flag may be given as an environment variable too: --listen is
IADLAB_LISTEN. The exit status is 0 if everything passed, 2 for a wrong command
line, 3 if the device failed a test, and 1 for any other error.`,
		Version: version,
	}
	root.AddCommand(testCommand(), powercutCommand(), diffCommand(), listCommand())
	cli.Strict(root, variable)
	return root
}

// variable returns the environment variable of a flag.
func variable(flag string) string { return cli.Variable("IADLAB_", flag) }
