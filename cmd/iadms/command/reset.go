package command

import (
	"github.com/spf13/cobra"

	"example.com/iad/manager"
)

func newReset(g *globals) *cobra.Command {
	o := &operationOptions{globals: g, perform: manager.Reset}
	cmd := &cobra.Command{Use: "reset TARGET", Short: "Restart a device", Example: "  iadms reset 192.0.2.10"}
	o.register(cmd)
	cmd.Flags().BoolVar(&o.force, "force", false, "reset even if calls are in progress")
	return cmd
}
