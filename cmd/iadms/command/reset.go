package command

import (
	"github.com/spf13/cobra"

	"example.com/iad/manager"
)

func newReset(g *globals) *cobra.Command {
	o := &operationOptions{globals: g}
	cmd := o.operation("reset TARGET", "Restart a device", "  iadms reset 192.0.2.10", false, manager.Reset)
	cmd.Flags().BoolVar(&o.force, "force", false, "reset even if calls are in progress")
	return cmd
}
