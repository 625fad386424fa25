// Package command has the commands of iadms.
//
// [Main] makes the tree of commands (root.go) and runs one. Each command has a
// file of its own, named after it, with its flags. What several commands share is in operation.go
// (backup, recover, convert, rollback, reset), ondevice.go (commands that need only access to a
// device), listener.go, fileserver.go and settings.go. What is printed during a procedure comes
// from package report.
package command

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"example.com/iad/cmd/iadms/report"
	"example.com/iad/internal/cli"
)

// globals are the flags that every command has.
type globals struct {
	config      string // configuration file
	credentials string // credentials file
	store       string // directory for backups and journals
	rootOID     string
	logFlags    cli.LogFlags
	logs        report.Log
	json        bool
}

// Main runs the command line of this process and returns the exit status.
func Main(version string) int {
	end := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // nohup
		end = append(end, syscall.SIGHUP) // decrypted files do not outlive a terminal that closes
	}
	ctx, stop := signal.NotifyContext(context.Background(), end...)
	defer stop()
	err := newRoot(version).ExecuteContext(ctx)
	switch {
	case err != nil && ctx.Err() != nil:
		fmt.Fprintln(os.Stderr, "iadms: interrupted")
	case err != nil:
		fmt.Fprintln(os.Stderr, "iadms:", err)
	}
	return exitStatus(ctx, err)
}

func newRoot(version string) *cobra.Command {
	g := new(globals)
	root := &cobra.Command{
		Use:   "iadms",
		Short: "Manage the software and configuration data of integrated access devices",
		Long: `iadms builds and signs software images and manages devices that have
IAD-UPGRADE-MIB: it backs up their configuration data, updates their software and
recovers the data, converted if the new software uses another format.

A TARGET is HOST, HOST:PORT or the name of a device in the configuration file.

Every flag may be given as an environment variable too: --log-level is
IADMS_LOG_LEVEL, and --device of serve is IADMS_SERVE_DEVICE. A flag takes precedence
over the variable. "iadms help exit-status" explains exit statuses.`,
		Example: `  iadms image keygen -o release
  iadms image build --version 2.0.0 --hardware IAD-4FXS --key release.key \
    -o fw-2.0.0.iad app
  iadms upgrade 192.0.2.10 --image fw-2.0.0.iad
  iadms status 192.0.2.10`,
		Version: version,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			_, err := g.logger()
			return err
		},
	}
	flags := root.PersistentFlags()
	flags.StringVar(&g.config, "config", defaultConfig(), "configuration `file`: devices, credentials, defaults")
	flags.StringVar(&g.credentials, "credentials", "", "credentials `file`, readable by its owner only")
	flags.StringVar(&g.store, "store", defaultStore(), "`directory` for backups and journals")
	flags.StringVar(&g.rootOID, "root-oid", "", "`OID` of IAD-UPGRADE-MIB on the device, if not the default")
	g.logFlags.Register(flags, "warn")
	flags.BoolVar(&g.json, "json", false, "print JSON, or JSON lines for continuous output")
	root.AddCommand(
		newImage(g), newUpgrade(g), newBackup(g), newRecover(g), newConfig(g), newConvert(g), newRollback(g), newReset(g),
		newAbort(g), newConfirm(g), newStatus(g), newHistory(g), newWatch(g), newServe(g), newDevices(g), newLogs(g), newFleet(g), newCredentialsTopic(), newExitStatusTopic(),
	)
	addCompletion(g, root)
	cli.Strict(root, variable)
	return root
}

// newCredentialsTopic is a help topic: cli.Strict has it print its text.
func newCredentialsTopic() *cobra.Command {
	return &cobra.Command{
		Use:   "credentials",
		Short: "How iadms authenticates to devices",
		Long: `SNMP credentials are never given on the command line, where other users of this machine
could read them. They come from a file, named by --credentials or --config, that only its
owner can read (chmod 600):

  read_community = "public"          # SNMPv2c, to read
  write_community = "private"        # SNMPv2c, to write

or for SNMPv3, which you should use on shared networks:

  [user]
  name = "operator"
  auth = "sha256"                    # md5 sha sha224 sha256 sha384 sha512
  auth_passphrase = "eight bytes or more"
  priv = "aes"                       # des aes aes192 aes256 aes192c aes256c
  priv_passphrase = "eight bytes or more"

or for one device:

  [devices.attic]
  address = "192.0.2.10"
  write_community = "private"

or from the environment: IADMS_READ_COMMUNITY and IADMS_WRITE_COMMUNITY, or IADMS_USER,
IADMS_AUTH, IADMS_AUTH_PASSPHRASE, IADMS_PRIV, IADMS_PRIV_PASSPHRASE and IADMS_CONTEXT.
For a device on this machine without configured credentials, iadms tries the communities
public and private.`,
	}
}

// variable returns the environment variable of a flag. IADMS_DEVICE is not one: an
// operator's program gets it, and may call iadms.
func variable(flag string) string {
	switch flag {
	case "device":
		return "IADMS_SERVE_DEVICE"
	case "notifications":
		if name := "IADMS_TRAP_LISTEN"; os.Getenv(name) != "" && os.Getenv("IADMS_NOTIFICATIONS") == "" {
			return name // of earlier releases
		}
	}
	return cli.Variable("IADMS_", flag)
}

func defaultConfig() string {
	dir, err := os.UserConfigDir()
	if err != nil {
		return ""
	}
	return filepath.Join(dir, "iadms", "iadms.toml")
}

// defaultStore follows the XDG base directory specification.
func defaultStore() string {
	if dir := os.Getenv("XDG_DATA_HOME"); dir != "" {
		return filepath.Join(dir, "iadms")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "iadms-store"
	}
	return filepath.Join(home, ".local", "share", "iadms")
}

// logger writes to standard error, as the flags say.
func (g *globals) logger() (*slog.Logger, error) { return g.logFlags.Logger(&g.logs) }

// exactly is cobra.ExactArgs with an error marked as wrong usage.
func exactly(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := cobra.ExactArgs(n)(cmd, args); err != nil {
			return cli.Usage(fmt.Errorf("%w\nusage: %s", err, cmd.UseLine()))
		}
		return nil
	}
}
