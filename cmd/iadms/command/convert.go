package command

import (
	"github.com/spf13/cobra"

	"example.com/iad/manager"
)

func newConvert(g *globals) *cobra.Command {
	o := &operationOptions{globals: g, perform: manager.Convert}
	cmd := &cobra.Command{
		Use:     "convert TARGET",
		Short:   "Have a device convert its configuration data to its software's format",
		Example: "  iadms convert 192.0.2.10",
	}
	o.register(cmd)
	o.registerOtherDevice(cmd)
	return cmd
}
