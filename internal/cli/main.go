package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// Exit statuses that all programs have.
const (
	ExitFailed = 1
	ExitUsage  = 2 // a mistake on the command line
	// ExitUnread is what a shell reports of a program that SIGPIPE ended: nobody reads its
	// output any more, as after "| head".
	ExitUnread = 128 + 13
)

// usageError is a mistake on the command line, or in what it names.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// Usage marks err as a mistake on the command line.
func Usage(err error) error { return usageError{err} }

// IsUsage reports whether err wraps a mistake on the command line.
func IsUsage(err error) bool {
	var usage usageError
	return errors.As(err, &usage)
}

// Main executes the command line of this process, until it is interrupted or done, and
// returns the exit status. What it prints need not be read to the end.
func Main(root *cobra.Command) int {
	SurviveClosedPipe()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	cmd, err := root.ExecuteContextC(ctx)
	switch {
	case err == nil:
		return 0
	case IsUsage(err):
		fmt.Fprintf(os.Stderr, "%s: %v\nSee '%s --help'.\n", root.Name(), err, cmd.CommandPath())
		return ExitUsage
	case IsUnread(err):
		return ExitUnread
	}
	fmt.Fprintf(os.Stderr, "%s: %v\n", root.Name(), err)
	return ExitFailed
}
