package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"example.com/iad/internal/snmp"
)

func healthcheckCommand() *cobra.Command {
	var root, file, address string
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "healthcheck --root DIR",
		Short: "Check that the running device answers SNMP requests",
		Long: `healthcheck sends a request to the embedded SNMP engine of the device, with the
read community if the settings have no SNMPv3 user. The exit status is 0 if it
answers in time and 1 if not. Container engines and supervisors use it.

A device in rescue mode answers too: it needs an upgrade, not a restart.`,
		Example: `  iad healthcheck --root /var/lib/iad && echo healthy`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, s, err := open(root, file)
			if err != nil {
				return makeFirst(err)
			}
			address := cmp.Or(address, s.SNMP.Listen)
			if address == "" || address == "none" {
				return errors.New("the device has no SNMP engine of its own: snmp.listen in iad.toml is empty; check snmpd, its master agent, instead")
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			community := ""
			if len(s.SNMP.Users) == 0 {
				community = cmp.Or(s.SNMP.ReadCommunity, s.SNMP.WriteCommunity)
			}
			if err := snmp.Ping(ctx, address, community); err != nil {
				return fmt.Errorf("the device does not answer: %w", err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s answers on %s\n", s.DeviceID, address)
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&root, "root", "", "root directory of the device")
	f.StringVar(&file, "config", "", "settings (default: ROOT/iad.toml)")
	f.StringVar(&address, "snmp", "", "UDP address of the SNMP engine (default: the settings')")
	f.DurationVar(&timeout, "timeout", 4*time.Second, "maximum wait for the answer")
	_ = cmd.MarkFlagRequired("root")
	return cmd
}
