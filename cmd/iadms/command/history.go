package command

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"example.com/iad/cmd/iadms/report"
	"example.com/iad/manager"
	"example.com/iad/manager/device"
	"example.com/iad/mib"
)

func newHistory(g *globals) *cobra.Command {
	return g.onDevice("history", "Show the operations that a device remembers, oldest first", func(cmd *cobra.Command, c *device.Client, _ *settings, _ string) error {
		history, err := c.History(cmd.Context())
		if err != nil {
			return err
		}
		return printRows(cmd.OutOrStdout(), g.json, "NUMBER STARTED OPERATION BY RESULT TOOK VERSIONS", history,
			func(h device.HistoryEntry) []any {
				return []any{h.OpID, timeText(h.Started), h.Kind, h.Owner, historyResult(h), h.Elapsed, versionsText(h)}
			}, func(h device.HistoryEntry) any { return historyJSON(h) })
	})
}

func historyResult(h device.HistoryEntry) string {
	text := h.State.String()
	if h.State != mib.OperationStateSucceeded {
		text += fmt.Sprintf(" (%s): %s", h.Phase, h.Cause.Explain().What)
	}
	if h.Text != "" {
		text += " (" + h.Text + ")"
	}
	return text
}

func versionsText(h device.HistoryEntry) string {
	if h.NewVersion == "" {
		return h.OldVersion
	}
	return manager.SoftwareText(h.OldVersion) + " -> " + h.NewVersion
}

type historyReport struct {
	OpID       uint32     `json:"id"`
	ReqID      uint32     `json:"req_id"`
	Owner      string     `json:"owner"`
	Kind       string     `json:"kind"`
	State      string     `json:"state"`
	Phase      string     `json:"phase"`
	Cause      string     `json:"cause,omitempty"`
	Text       string     `json:"text,omitempty"`
	Attempts   uint32     `json:"attempts"`
	Started    *time.Time `json:"started,omitempty"`
	Ended      *time.Time `json:"ended,omitempty"`
	Elapsed    float64    `json:"elapsed_s"`
	Bytes      uint32     `json:"bytes"`
	Bank       uint32     `json:"bank,omitempty"`
	OldVersion string     `json:"old_version"`
	NewVersion string     `json:"new_version,omitempty"`
}

func historyJSON(h device.HistoryEntry) historyReport {
	return historyReport{
		OpID: h.OpID, ReqID: h.ReqID, Owner: h.Owner, Kind: h.Kind.String(), State: h.State.String(), Phase: h.Phase.String(),
		Cause: report.CauseName(h.Cause), Text: h.Text, Attempts: h.Attempts, Started: knownTime(h.Started), Ended: knownTime(h.Ended),
		Elapsed: h.Elapsed.Seconds(), Bytes: h.Bytes, Bank: h.Bank, OldVersion: h.OldVersion, NewVersion: h.NewVersion,
	}
}
