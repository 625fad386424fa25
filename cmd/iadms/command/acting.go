package command

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"example.com/iad/cmd/iadms/report"
	"example.com/iad/manager/device"
)

// commandReport is what abort and confirm did, as JSON.
type commandReport struct {
	Device    string            `json:"device"`
	Unchanged bool              `json:"unchanged"` // there was nothing to be done
	Text      string            `json:"text"`
	Operation *report.Operation `json:"operation,omitempty"` // that was stopped
	Bank      int               `json:"bank,omitempty"`      // that was confirmed
	Version   string            `json:"version,omitempty"`
}

func (r commandReport) print(w io.Writer, asJSON bool) error {
	if asJSON {
		return report.PrintJSON(w, r)
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
