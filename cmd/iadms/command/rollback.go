package command

import (
	"github.com/spf13/cobra"

	"example.com/iad/manager"
)

func newRollback(g *globals) *cobra.Command {
	o := &operationOptions{globals: g}
	cmd := o.operation("rollback TARGET", "Roll back to the software in the other bank, with its configuration data",
		"  iadms rollback 192.0.2.10", false, manager.Rollback)
	o.registerOtherDevice(cmd)
	return cmd
}
