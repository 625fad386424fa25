package command

import (
	"github.com/spf13/cobra"

	"context"
	"errors"

	"example.com/iad/cmd/iadms/report"
	"example.com/iad/internal/cli"
	"example.com/iad/manager"
	"example.com/iad/manager/device"
)

// Exit statuses; docs/iadms.md documents them.
const (
	exitOK          = 0
	exitError       = cli.ExitFailed // any other error
	exitUsage       = cli.ExitUsage  // the command line or the configuration is wrong
	exitNoAnswer    = 3              // the device does not answer
	exitCredentials = 4              // the device refuses the credentials
	exitRefused     = 5              // the device refuses the command; nothing was started
	exitFailed      = 6              // an operation failed or was aborted
	exitTimeLimit   = 7              // the time limit has passed
	exitInterrupted = 8              // ended by a signal; --resume continues
	exitDecision    = 9              // a person has to decide; nothing was overwritten
	exitIdentity    = 10             // the device is not the one that was expected
)

// newExitStatusTopic is a help topic, as newCredentialsTopic is.
func newExitStatusTopic() *cobra.Command {
	return &cobra.Command{
		Use:   "exit-status",
		Short: "What the exit statuses of iadms mean",
		Long: `iadms ends with one of these exit statuses:

   0  done, or there was nothing to do
   1  any other error
   2  the command line or the configuration is wrong
   3  the device does not answer
   4  the device refuses the credentials
   5  the device refuses the command; nothing was started
   6  an operation failed or was aborted
   7  the time limit has passed
   8  ended by a signal; upgrade --resume continues
   9  a person has to decide; nothing was overwritten
  10  the device is not the one that was expected

If several devices failed with different statuses, it is 6.`,
	}
}

func exitStatus(ctx context.Context, err error) int {
	var refused *device.RefusalError
	var failed *manager.Failure
	var fleet report.FleetError
	switch {
	case err == nil:
		return exitOK
	case ctx.Err() != nil:
		return exitInterrupted
	case cli.IsUsage(err):
		return exitUsage
	case errors.As(err, &fleet):
		return commonStatus(ctx, fleet.Failures)
	case errors.As(err, new(*campaignError)):
		return exitFailed
	case errors.Is(err, device.ErrIdentity):
		return exitIdentity
	case errors.Is(err, manager.ErrDecision):
		return exitDecision
	case errors.As(err, &failed) && failed.NoAnswer:
		return exitNoAnswer
	case errors.As(err, &failed) && failed.Refused:
		return exitRefused
	case errors.As(err, &failed) && failed.TimedOut:
		return exitTimeLimit
	case errors.As(err, &failed):
		return exitFailed
	case errors.As(err, &refused):
		return exitRefused
	case errors.Is(err, device.ErrCredentials):
		return exitCredentials
	case errors.Is(err, device.ErrNoAnswer):
		return exitNoAnswer
	}
	if status, ok := fleetError(err); ok {
		return status
	}
	return exitError
}

// commonStatus is the exit status that all failures have in common, else that of a failed
// operation.
func commonStatus(ctx context.Context, failed []error) int {
	status := 0
	for _, err := range failed {
		s := exitStatus(ctx, err)
		if status != 0 && s != status {
			return exitFailed
		}
		status = s
	}
	if status == 0 {
		return exitInterrupted // nothing failed, and some were not started
	}
	return status
}
