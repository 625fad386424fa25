package command

import (
	"fmt"

	"github.com/spf13/cobra"

	"example.com/iad/cmd/iadms/report"
	"example.com/iad/manager"
	"example.com/iad/manager/device"
	"example.com/iad/mib"
)

func newAbort(g *globals) *cobra.Command {
	return g.acting("abort", "Stop the operation that a device carries out", func(cmd *cobra.Command, c *device.Client, r *commandReport) error {
		op, err := manager.Abort(cmd.Context(), c, defaultOwner())
		switch {
		case err != nil:
			return err
		case op == nil:
			r.Unchanged, r.Text = true, "nothing to stop: no operation is in progress"
			return nil
		}
		r.Operation = report.NewOperation(op)
		r.Text = fmt.Sprintf("operation %d (%s of %q) was stopped", op.ID, op.Kind, op.Owner)
		if op.State != mib.OperationStateAborted {
			r.Text = fmt.Sprintf("operation %d (%s of %q) had ended before it could be stopped: %s", op.ID, op.Kind, op.Owner, op.State)
		}
		return nil
	})
}
