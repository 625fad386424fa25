package command

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"example.com/iad/cmd/iadms/report"
	"example.com/iad/manager/device"
)

// commandReport is the JSON of abort and confirm.
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

// onDevice makes a command that needs nothing but access to one device.
func (g *globals) onDevice(use, short string, do func(cmd *cobra.Command, c *device.Client, s *settings, target string) error) *cobra.Command {
	return &cobra.Command{
		Use: use + " TARGET", Short: short, Example: "  iadms " + use + " 192.0.2.10", Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, settings, err := g.dial(args[0])
			if err != nil {
				return err
			}
			defer client.Close()
			return do(cmd, client, settings, args[0])
		},
	}
}

// acting makes a command that has an immediate effect on a device, such as abort.
func (g *globals) acting(use, short string, do func(cmd *cobra.Command, c *device.Client, r *commandReport) error) *cobra.Command {
	return g.onDevice(use, short, func(cmd *cobra.Command, c *device.Client, s *settings, target string) error {
		dev, err := c.Device(cmd.Context())
		if err != nil {
			return err
		}
		g.warnOfIdentity(c, s, target)
		r := commandReport{Device: dev.ID}
		if err := do(cmd, c, &r); err != nil {
			return err
		}
		return r.print(cmd.OutOrStdout(), g.json)
	})
}

// printRows prints a table with a heading, or a JSON object for each row.
func printRows[R any](w io.Writer, asJSON bool, heading string, rows []R, cells func(R) []any, object func(R) any) error {
	if asJSON {
		e := json.NewEncoder(w)
		for _, row := range rows {
			if err := e.Encode(object(row)); err != nil {
				return err
			}
		}
		return nil
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, strings.ReplaceAll(heading, " ", "\t"))
	for _, row := range rows {
		list := cells(row)
		fmt.Fprintf(t, strings.Repeat("%v\t", len(list)-1)+"%v\n", list...)
	}
	return t.Flush()
}
