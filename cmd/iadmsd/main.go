// Command iadmsd is the fleet service: campaigns of upgrades and backups for many devices,
// on one machine or several.
package main

import (
	"os"

	"github.com/spf13/cobra"

	"example.com/iad/internal/cli"
)

// version is set when the program is linked.
var version = "devel"

func main() { os.Exit(cli.Main(newRoot())) }

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "iadmsd",
		Short: "Campaigns of upgrades and backups for many devices",
		Long: `iadmsd is the fleet service: it upgrades and backs up many devices in campaigns,
on one machine with nothing else installed, or on three machines and any number
of workers.

Every flag may be given as an environment variable too: --data is IADMSD_DATA.
The exit status is 0 after an interrupt, 2 for a wrong command line and 1 for any
other error.`,
		Version: version,
	}
	root.AddCommand(runCommand(), healthcheckCommand(), keygenCommand(), auditCommand())
	cli.Strict(root, variable)
	return root
}

// variable returns the environment variable of a flag.
func variable(flag string) string { return cli.Variable("IADMSD_", flag) }
