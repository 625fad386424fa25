// Command iad is the upgrade agent of an integrated access device.
package main

import (
	"os"
	"runtime/debug"

	"github.com/spf13/cobra"

	"example.com/iad/internal/cli"
)

// version is set when the program is linked.
var version = "devel"

// memoryLimit keeps the agent small on boards with 32 MB, at a peak of less than 14 MB: 1 MB is in use, and garbage is collected
// more often. GOMEMLIMIT takes precedence.
const memoryLimit = 9 << 20

func main() {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryLimit)
	}
	os.Exit(cli.Main(newRoot()))
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "iad",
		Short: "The upgrade agent of an integrated access device",
		Long: `iad keeps the software of a device in two banks and its configuration data in
generations, and upgrades both by SNMP commands (IAD-UPGRADE-MIB), so that a power
failure at any instant leaves complete software and complete data.

A device has a root directory: "iad init" creates it, "iad run" starts the device,
"iad status" shows its state. Manage it with iadms or with any SNMP tools.

Every flag may be given as an environment variable too: --trap-sink is
IAD_TRAP_SINK, --config is IAD_SETTINGS (or IAD_CONFIG, but not in a self-test),
and --bank is IAD_SELFTEST_BANK. A flag takes precedence over the
variable, and the variable over ROOT/iad.toml.

The exit status is 0 after success, 2 for a wrong command line and 1 for any other
error.

A self-test runs with IAD_BANK (the directory of its software), IAD_VERSION and
IAD_CONFIG (the directory of the configuration data in force, or none) in its environment.`,
		Example: `  iad init --root /var/lib/iad --image fw-1.0.0.iad --trust maker.pub \
           --hardware IAD-4FXS --device-id IAD-0001 \
           --read-community public --write-community private
  iad run  --root /var/lib/iad --snmp 127.0.0.1:1161`,
		Version: version,
	}
	root.AddCommand(initCommand(), runCommand(), statusCommand(), floorCommand(), settingsCommand(), loaderCommand(), selftestCommand(), healthcheckCommand())
	cli.Strict(root, variable)
	return root
}

// deviceFlags adds the flags that name a device and its settings.
func deviceFlags(cmd *cobra.Command, root, settings *string) {
	cmd.Flags().StringVar(root, "root", "", "root directory of the device")
	cmd.Flags().StringVar(settings, "config", "", "settings (default: ROOT/iad.toml)")
	_ = cmd.MarkFlagRequired("root")
}

// variable returns the environment variable that sets a flag, empty if there is none.
// IAD_BANK, IAD_VERSION and IAD_CONFIG are set for a self-test (see
// board.Platform.SelfTest), so they set no flag in a command that it runs.
func variable(flag string) string {
	switch flag {
	case "bank":
		return "IAD_SELFTEST_BANK"
	case "config":
		if _, ok := os.LookupEnv("IAD_SETTINGS"); ok {
			return "IAD_SETTINGS"
		}
		// The name of earlier versions.
		if _, inSelfTest := os.LookupEnv("IAD_BANK"); inSelfTest {
			return ""
		}
	}
	return cli.Variable("IAD_", flag)
}
