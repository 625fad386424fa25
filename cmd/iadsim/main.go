// Command iadsim runs virtual integrated access devices.
package main

import (
	"os"

	"github.com/spf13/cobra"

	"example.com/iad/internal/cli"
)

// version is set when the program is linked.
var version = "devel"

func main() {
	os.Exit(cli.Main(newRoot()))
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "iadsim",
		Short: "Virtual integrated access devices, many in one process",
		Long: `iadsim runs virtual IADs: the real agent with two software banks and
configuration data, each with its own SNMP port, on disks in memory or in a
directory, with faults on demand.

Every flag may be given as an environment variable too: --trap-sink is
IADSIM_TRAP_SINK. The exit status is 0 after an interrupt or a scenario that passed,
2 for a wrong command line and 1 for any other error.`,
		Version: version,
	}
	root.AddCommand(runCommand(), playCommand(), healthcheckCommand())
	root.AddCommand(controlCommands()...)
	cli.Strict(root, variable)
	return root
}

// variable returns the environment variable of a flag.
func variable(flag string) string { return cli.Variable("IADSIM_", flag) }
