package main

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"example.com/iad/agent"
	"example.com/iad/agent/settings"
)

func settingsCommand() *cobra.Command {
	var reference bool
	cmd := &cobra.Command{
		Use:   "settings",
		Short: "List all settings, manage their backup copy, and return to them",
		Example: `  iad settings --reference
  iad settings accept --root /var/lib/iad
  iad settings revert --root /var/lib/iad`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !reference {
				return cmd.Help()
			}
			text, err := settings.Reference()
			if err == nil {
				_, err = cmd.OutOrStdout().Write(text)
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&reference, "reference", false, "print an iad.toml with every setting, its meaning, default and an example")
	cmd.AddCommand(settingsAcceptCommand(), settingsRevertCommand())
	return cmd
}

// settingsRevertCommand is for somebody at the device to whom the keys of a manager are of no use.
func settingsRevertCommand() *cobra.Command {
	var root, file string
	cmd := &cobra.Command{
		Use:   "revert --root DIR",
		Short: "Discard what managers have changed of users and targets; the agent must not be running",
		Long: `revert returns the device to its settings: the passphrases in ROOT/iad.toml are
those of the SNMPv3 users again, and notifications go to the addresses there,
whatever managers have set since. To return a single user or target, change its
passphrase or address in ROOT/iad.toml instead.`,
		Example: "  iad settings revert --root /var/lib/iad",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			lock, err := lockDevice(root)
			if err != nil {
				return err
			}
			defer lock.Release()
			c, _, err := open(root, file)
			if err != nil {
				return err
			}
			changed, err := agent.DiscardManaged(c)
			if err != nil {
				return err
			}
			w := cmd.OutOrStdout()
			if len(changed.Users)+len(changed.Targets) == 0 {
				fmt.Fprintln(w, "nothing was changed by managers")
			}
			if len(changed.Users) > 0 {
				fmt.Fprintln(w, "keys as in the settings:", strings.Join(changed.Users, ", "))
			}
			for _, t := range changed.Targets {
				fmt.Fprintf(w, "notifications go to %s again, not to %s\n", t.Settings, t.Address)
			}
			return nil
		},
	}
	deviceFlags(cmd, &root, &file)
	return cmd
}

func settingsAcceptCommand() *cobra.Command {
	var root, file string
	cmd := &cobra.Command{
		Use:   "accept --root DIR",
		Short: "Accept the present settings, even if they have fewer entries than the copy",
		Long: `accept copies ROOT/iad.toml to ROOT/iad.toml.good, the settings of the last good
start, even if it has fewer settings. Without accept, a file that a power failure
may have cut off never replaces the copy. A file whose last line is "# end" is
complete and does not need accept.

Banks, state and configuration data are accepted where they are now, even if they
used to be on a mount or behind a symbolic link.

The agent uses the settings from its next start.`,
		Example: "  iad settings accept --root /var/lib/iad",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			file := cmp.Or(file, filepath.Join(root, settings.Name))
			s, err := settings.Load(file)
			if err != nil {
				if _, bad := os.Stat(filepath.Join(root, settings.GoodName)); bad != nil {
					err = makeFirst(err)
				}
				return err
			}
			lost, err := s.Accept(root, file, version)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s accepted\n", file)
			if lost != "" {
				fmt.Fprintln(cmd.OutOrStdout(), "no longer set:", lost)
			}
			return nil
		},
	}
	deviceFlags(cmd, &root, &file)
	return cmd
}
