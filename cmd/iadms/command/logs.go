package command

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/spf13/afero"
	"github.com/spf13/cobra"

	"example.com/iad/manager"
	"example.com/iad/manager/device"
)

func newLogs(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:     "logs TARGET",
		Short:   "Show the events that a device remembers, and the upgrade journal kept here",
		Example: "  iadms logs 192.0.2.10",
		Args:    exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, _, err := g.dial(args[0])
			if err != nil {
				return err
			}
			defer client.Close()
			events, err := client.Events(cmd.Context())
			if err != nil {
				return err
			}
			if g.json {
				e := json.NewEncoder(cmd.OutOrStdout())
				for _, ev := range events {
					if err := e.Encode(eventReport{ev.Seq, ev.Type.String(), knownTime(ev.Time), ev.OpID, causeName(ev.Cause), ev.Text}); err != nil {
						return err
					}
				}
				return nil
			}
			t := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(t, "EVENT\tTIME\tWHAT\tOPERATION\tCAUSE")
			for _, ev := range events {
				fmt.Fprintf(t, "%d\t%s\t%s\t%d\t%s\n", ev.Seq, timeText(ev.Time), ev.Type, ev.OpID, cmp.Or(ev.Text, causeName(ev.Cause)))
			}
			if err := t.Flush(); err != nil {
				return err
			}
			return g.printJournal(cmd, client)
		},
	}
}

type eventReport struct {
	Seq   uint32     `json:"seq"`
	Type  string     `json:"type"`
	Time  *time.Time `json:"time,omitempty"`
	OpID  uint32     `json:"operation,omitempty"`
	Cause string     `json:"cause,omitempty"`
	Text  string     `json:"text,omitempty"`
}

// printJournal tells how far the last upgrade from here got.
func (g *globals) printJournal(cmd *cobra.Command, client *device.Client) error {
	d, err := client.Device(cmd.Context())
	if err != nil {
		return err
	}
	dir := afero.NewBasePathFs(afero.NewOsFs(), filepath.Join(g.store, "journal"))
	r, err := manager.NewJournal(dir, d.ID).Load()
	if errors.Is(err, manager.ErrNoRecord) {
		return nil
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "iadms:", err)
		return nil
	}
	fmt.Fprintf(cmd.OutOrStdout(), "last upgrade from here: %s, begun %s, stage %s, image %s, backup %s\n",
		r.Address, timeText(r.Started), r.Stage, r.Image, r.Folder)
	return nil
}
