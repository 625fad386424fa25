package command

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/afero"
	"github.com/spf13/cobra"

	"example.com/iad/cmd/iadms/report"
	"example.com/iad/manager"
	"example.com/iad/manager/device"
)

func newLogs(g *globals) *cobra.Command {
	return g.onDevice("logs", "Show the events that a device remembers, and the upgrade journal kept here", func(cmd *cobra.Command, c *device.Client, _ *settings, _ string) error {
		events, err := c.Events(cmd.Context())
		if err != nil {
			return err
		}
		err = printRows(cmd.OutOrStdout(), g.json, "EVENT TIME WHAT OPERATION CAUSE", events,
			func(e device.EventEntry) []any {
				return []any{e.Seq, timeText(e.Time), e.Type, e.OpID, cmp.Or(e.Text, report.CauseName(e.Cause))}
			}, func(e device.EventEntry) any {
				return eventReport{"event", e.Seq, e.Type.String(), knownTime(e.Time), e.OpID, report.CauseName(e.Cause), e.Text}
			})
		if err != nil {
			return err
		}
		return g.printJournal(cmd, c)
	})
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
	Kind            string          `json:"kind"` // journal
	Device          string          `json:"device"`
	Address         string          `json:"address"`
	Started         time.Time       `json:"started"`
	Stage           string          `json:"stage"`
	Image           string          `json:"image"`
	BackupDirectory string          `json:"backup_directory,omitempty"`
	Failure         *report.Failure `json:"failure,omitempty"`
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
		j := journalReport{Kind: "journal", Device: r.Device, Address: r.Address, Started: r.Started, Stage: string(r.Stage), Image: r.Image, BackupDirectory: r.Directory}
		if r.Failed != nil {
			j.Failure = report.NewFailure(r.Failed)
		}
		return json.NewEncoder(cmd.OutOrStdout()).Encode(j)
	}
	fmt.Fprintf(cmd.OutOrStdout(), "last upgrade from here: %s, started %s, stage %s, image %s, backup %s\n",
		r.Address, timeText(r.Started), r.Stage, r.Image, r.Directory)
	return nil
}
