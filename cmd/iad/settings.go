package main

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"example.com/iad/agent/settings"
)

func settingsCommand() *cobra.Command {
	var reference bool
	cmd := &cobra.Command{
		Use:   "settings",
		Short: "List all settings, and manage the copy of the settings that the device falls back on",
		Example: `  iad settings --reference
  iad settings accept --root /var/lib/iad`,
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
	cmd.AddCommand(settingsAcceptCommand())
	return cmd
}

func settingsAcceptCommand() *cobra.Command {
	var root, file string
	cmd := &cobra.Command{
		Use:   "accept --root DIR",
		Short: "Accept the settings as they are now, although they have less than before",
		Long: `accept makes ROOT/iad.toml the settings that count: they replace the copy of the
last good start, ROOT/iad.toml.good, although they have less than it. Without it,
a file that may have been cut off by a loss of power never replaces the copy. A
file whose last line is "# end" is complete and needs no consent.

Banks, state and configuration data are accepted where they are now, also those
that were on a mount or behind a link before and are not any longer.

The agent uses the settings from its next start on.`,
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
			fmt.Fprintf(cmd.OutOrStdout(), "%s is accepted\n", file)
			if lost != "" {
				fmt.Fprintln(cmd.OutOrStdout(), "no longer set:", lost)
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&root, "root", "", "folder of the device")
	f.StringVar(&file, "config", "", "settings (default: ROOT/iad.toml)")
	_ = cmd.MarkFlagRequired("root")
	return cmd
}
