package command

import (
	"github.com/spf13/cobra"

	"example.com/iad/manager"
)

func newBackup(g *globals) *cobra.Command {
	o := &operationOptions{globals: g}
	cmd := o.operation("backup TARGET", "Back up the configuration data of a device",
		"  iadms backup 192.0.2.10\n  iadms backup 192.0.2.10 --server ftp://iad@192.0.2.1/backups", true, manager.Backup)
	o.registerOtherDevice(cmd)
	return cmd
}
