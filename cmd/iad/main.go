// Command iad is the upgrade agent of an integrated access device.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"

	"example.com/iad/internal/cli"
)

// version is set when the program is linked.
var version = "devel"

// Exit codes.
const (
	exitFailed = 1
	exitUsage  = 2
)

// memoryLimit keeps the agent small on boards with 32 MB; GOMEMLIMIT wins.
const memoryLimit = 12 << 20

func main() {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryLimit)
	}
	cli.SurviveClosedPipe() // of the log: the device goes on
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx))
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "iad",
		Short: "The upgrade agent of an integrated access device",
		Long: `iad keeps the software of a device in two banks and its configuration data in
generations, and upgrades both on command by SNMP (IAD-UPGRADE-MIB) so that a
loss of power at any instant leaves complete software and complete data.

A device lives in a root folder: "iad init" makes one, "iad run" brings it up,
"iad status" looks at it. Manage it with iadms or with any SNMP tools.

Every flag but --bank may be given as an environment variable too: --trap-sink
is IAD_TRAP_SINK, and --config is IAD_SETTINGS (or IAD_CONFIG, but not in a
self-test). A flag wins over the variable, and that over the file ROOT/iad.toml.

A self-test is given IAD_BANK (the directory of its software), IAD_VERSION and
IAD_CONFIG (the directory of the configuration data in force, or none).`,
		Example: `  iad init --root /var/lib/iad --image fw-1.0.0.iad --trust maker.pub \
           --hardware IAD-4FXS --device-id IAD-0001 \
           --read-community public --write-community private
  iad run  --root /var/lib/iad --snmp 127.0.0.1:1161`,
		Version:       version,
		SilenceErrors: true,
		SilenceUsage:  true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			return cli.FromEnvironment(cmd.Flags(), variable, func(err error) error { return usageError{err} })
		},
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(initCommand(), runCommand(), statusCommand(), floorCommand(), settingsCommand(), selftestCommand())
	cli.Strict(root, func(err error) error { return usageError{err} })
	return root
}

func run(ctx context.Context) int {
	cmd, err := newRoot().ExecuteContextC(ctx)
	if err == nil {
		return 0
	}
	fmt.Fprintln(os.Stderr, "iad:", err)
	var usage usageError
	if errors.As(err, &usage) {
		fmt.Fprintf(os.Stderr, "See '%s --help'.\n", cmd.CommandPath())
		return exitUsage
	}
	return exitFailed
}

// usageError is a mistake on the command line.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// variable returns the environment variable that sets a flag, empty if there is none.
// IAD_BANK, IAD_VERSION and IAD_CONFIG are what a self-test is given (see
// board.Platform.SelfTest), so they set no flag in a command that it runs.
func variable(flag string) string {
	switch flag {
	case "bank":
		return ""
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
