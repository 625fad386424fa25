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

	"example.com/iad/cmd/iadms/report"
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
					if err := e.Encode(eventReport{"event", ev.Seq, ev.Type.String(), knownTime(ev.Time), ev.OpID, report.CauseName(ev.Cause), ev.Text}); err != nil {
						return err
					}
				}
				return g.printJournal(cmd, client)
			}
			t := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(t, "EVENT\tTIME\tWHAT\tOPERATION\tCAUSE")
			for _, ev := range events {
				fmt.Fprintf(t, "%d\t%s\t%s\t%d\t%s\n", ev.Seq, timeText(ev.Time), ev.Type, ev.OpID, cmp.Or(ev.Text, report.CauseName(ev.Cause)))
			}
			if err := t.Flush(); err != nil {
				return err
			}
			return g.printJournal(cmd, client)
		},
	}
}

type eventReport struct {
	Kind  string     `json:"kind"` // event
	Seq   uint32     `json:"seq"`
	Type  string     `json:"type"`
	Time  *time.Time `json:"time,omitempty"`
	OpID  uint32     `json:"operation_id,omitempty"`
	Cause string     `json:"cause,omitempty"`
	Text  string     `json:"text,omitempty"`
}

type journalReport struct {
	Kind         string          `json:"kind"` // journal
	Device       string          `json:"device"`
	Address      string          `json:"address"`
	Started      time.Time       `json:"started"`
	Stage        string          `json:"stage"`
	Image        string          `json:"image"`
	BackupFolder string          `json:"backup_folder,omitempty"`
	Failure      *report.Failure `json:"failure,omitempty"`
}

// printJournal shows how far the last upgrade from here got.
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
	if g.json {
		j := journalReport{Kind: "journal", Device: r.Device, Address: r.Address, Started: r.Started, Stage: string(r.Stage), Image: r.Image, BackupFolder: r.Folder}
		if r.Failed != nil {
			j.Failure = report.NewFailure(r.Failed)
		}
		return json.NewEncoder(cmd.OutOrStdout()).Encode(j)
	}
	fmt.Fprintf(cmd.OutOrStdout(), "last upgrade from here: %s, started %s, stage %s, image %s, backup %s\n",
		r.Address, timeText(r.Started), r.Stage, r.Image, r.Folder)
	return nil
}
