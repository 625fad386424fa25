package command

import (
	"github.com/spf13/cobra"

	"example.com/iad/manager"
)

func newRollback(g *globals) *cobra.Command {
	o := &operationOptions{globals: g, perform: manager.Rollback}
	cmd := &cobra.Command{
		Use:     "rollback TARGET",
		Short:   "Roll back to the software in the other bank, with its configuration data",
		Example: "  iadms rollback 192.0.2.10",
	}
	o.register(cmd)
	o.registerOtherDevice(cmd)
	return cmd
}
