package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"example.com/iad/internal/snmp"
)

func healthcheckCommand() *cobra.Command {
	var address, community string
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "healthcheck",
		Short: "Check that the first device answers SNMP requests",
		Long: `healthcheck sends a request to a virtual device, the first one unless --snmp says
otherwise. The exit status is 0 if it answers in time and 1 if not. Container engines
use it.`,
		Example: `  iadsim healthcheck --snmp 127.0.0.1:16104`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			if err := snmp.Ping(ctx, address, community); err != nil {
				return fmt.Errorf("the device does not answer: %w", err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "a device answers on %s\n", address)
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&address, "snmp", "127.0.0.1:16100", "UDP address of the device")
	f.StringVar(&community, "read-community", "public", "community that may read")
	f.DurationVar(&timeout, "timeout", 4*time.Second, "maximum wait for the answer")
	return cmd
}
