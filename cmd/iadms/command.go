package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"example.com/iad/manager"
	"example.com/iad/manager/device"
	"example.com/iad/mib"
)

// commandReport is what abort and confirm did, as JSON.
type commandReport struct {
	Device    string        `json:"device"`
	Unchanged bool          `json:"unchanged"` // there was nothing to be done
	Text      string        `json:"text"`
	Operation *jsonProgress `json:"operation,omitempty"` // that was stopped
	Bank      int           `json:"bank,omitempty"`      // that was confirmed
	Version   string        `json:"version,omitempty"`
}

func (r commandReport) print(w io.Writer, asJSON bool) error {
	if asJSON {
		return printJSON(w, r)
	}
	_, err := fmt.Fprintf(w, "OK: %s: %s\n", r.Device, r.Text)
	return err
}

// onDevice makes a command that acts at once on what a device does.
func (g *globals) onDevice(use, short string, do func(cmd *cobra.Command, c *device.Client, r *commandReport) error) *cobra.Command {
	return &cobra.Command{
		Use: use + " TARGET", Short: short, Example: "  iadms " + use + " 192.0.2.10", Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, settings, err := g.dial(args[0])
			if err != nil {
				return err
			}
			defer client.Close()
			dev, err := client.Device(cmd.Context())
			if err != nil {
				return err
			}
			g.warnOfIdentity(client, settings, args[0])
			r := commandReport{Device: dev.ID}
			if err := do(cmd, client, &r); err != nil {
				return err
			}
			return r.print(cmd.OutOrStdout(), g.json)
		},
	}
}

func newAbort(g *globals) *cobra.Command {
	return g.onDevice("abort", "Stop the operation that a device carries out", func(cmd *cobra.Command, c *device.Client, r *commandReport) error {
		op, err := manager.Abort(cmd.Context(), c, defaultOwner())
		switch {
		case err != nil:
			return err
		case op == nil:
			r.Unchanged, r.Text = true, "nothing to stop: no operation is going on"
			return nil
		}
		r.Operation = operationJSON(op)
		r.Text = fmt.Sprintf("operation %d (%s of %q) is stopped", op.ID, op.Kind, op.Owner)
		if op.State != mib.OperationStateAborted {
			r.Text = fmt.Sprintf("operation %d (%s of %q) had ended before it could be stopped: %s", op.ID, op.Kind, op.Owner, op.State)
		}
		return nil
	})
}

func newConfirm(g *globals) *cobra.Command {
	return g.onDevice("confirm", "Accept the software that is on trial", func(cmd *cobra.Command, c *device.Client, r *commandReport) error {
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
