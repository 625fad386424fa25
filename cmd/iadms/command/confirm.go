package command

import (
	"fmt"

	"github.com/spf13/cobra"

	"example.com/iad/manager"
	"example.com/iad/manager/device"
)

func newConfirm(g *globals) *cobra.Command {
	return g.acting("confirm", "Accept the software that is on trial", func(cmd *cobra.Command, c *device.Client, r *commandReport) error {
		bank, err := manager.Confirm(cmd.Context(), c, defaultOwner())
		switch {
		case err != nil:
			return err
		case bank == nil:
			r.Unchanged, r.Text = true, "nothing to accept: no software is on trial"
			return nil
		}
		r.Bank, r.Version = bank.Number, bank.Version
		r.Text = fmt.Sprintf("%s in bank %d is accepted", bank.Version, bank.Number)
		return nil
	})
}
