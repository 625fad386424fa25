package command

import (
	"github.com/spf13/cobra"

	"example.com/iad/manager"
)

func newBackup(g *globals) *cobra.Command {
	o := &operationOptions{globals: g, transfersFiles: true, perform: manager.Backup}
	cmd := &cobra.Command{
		Use:   "backup TARGET",
		Short: "Back up the configuration data of a device",
		Example: `  iadms backup 192.0.2.10
  iadms backup 192.0.2.10 --server ftp://iad@192.0.2.1/backups`,
	}
	o.register(cmd)
	o.registerOtherDevice(cmd)
	return cmd
}
