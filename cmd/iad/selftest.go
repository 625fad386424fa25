package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"example.com/iad/agent"
	"example.com/iad/internal/cli"
)

func selftestCommand() *cobra.Command {
	var root, file string
	var n int
	cmd := &cobra.Command{
		Use:   "selftest --root DIR --bank N",
		Short: "Run the self-test of the software in a bank and show its output",
		Long: `selftest runs the self-test of the software in a bank as the device would, as the
same user and with the same variables and time limit, and shows its output. The exit
status is 0 if it passes. The device may be running; nothing about it changes.

The output of the last self-test that the device ran is in the file selftest.log in
its state directory.`,
		Example: "  iad selftest --root /var/lib/iad --bank 2",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if n != 1 && n != 2 {
				return cli.Usage(fmt.Errorf("--bank %d: use 1 or 2", n))
			}
			c, platform, s, err := openPlatform(root, file)
			if err != nil {
				return err
			}
			if s.BadKeys() != nil {
				return s.BadKeys()
			}
			test, err := agent.SelfTestOf(c, n)
			if err != nil {
				return fmt.Errorf("bank %d: %w", n, err)
			}
			output, ran, err := platform.RunSelfTest(cmd.Context(), test)
			_, _ = cmd.OutOrStdout().Write(output)
			switch {
			case err != nil:
				return fmt.Errorf("bank %d, version %s: the self-test fails: %w", n, test.Version, err)
			case !ran:
				fmt.Fprintf(cmd.OutOrStdout(), "bank %d, version %s: neither the software nor the device has a self-test\n", n, test.Version)
			default:
				fmt.Fprintf(cmd.OutOrStdout(), "bank %d, version %s: the self-test passes\n", n, test.Version)
			}
			return nil
		},
	}
	deviceFlags(cmd, &root, &file)
	cmd.Flags().IntVar(&n, "bank", 0, "bank, 1 or 2")
	_ = cmd.MarkFlagRequired("bank")
	return cmd
}
