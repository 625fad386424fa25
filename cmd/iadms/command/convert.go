package command

import (
	"github.com/spf13/cobra"

	"example.com/iad/manager"
)

func newConvert(g *globals) *cobra.Command {
	o := &operationOptions{globals: g}
	cmd := o.operation("convert TARGET", "Have a device convert its configuration data to its software's format",
		"  iadms convert 192.0.2.10", false, manager.Convert)
	o.registerOtherDevice(cmd)
	return cmd
}
