package command

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/spf13/cobra"

	"example.com/iad/cmd/iadms/report"
	"example.com/iad/manager"
	"example.com/iad/manager/trap"
	"example.com/iad/mib"
)

func newWatch(g *globals) *cobra.Command {
	var address string
	cmd := &cobra.Command{
		Use:   "watch TARGET",
		Short: "Show what a device reports, until interrupted",
		Long: `Show the notifications of a device as they arrive, until interrupted. The device must be
configured to send them to this machine.`,
		Example: "  iadms watch 192.0.2.10 --notifications :1162",
		Args:    exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			log, err := g.logger()
			if err != nil {
				return err
			}
			client, settings, err := g.dial(args[0])
			if err != nil {
				return err
			}
			defer client.Close()
			device, err := client.Device(cmd.Context())
			if err != nil {
				return err
			}
			l, err := trap.Listen(listenerConfig(cmp.Or(address, settings.Notifications, ":162"), settings, client.Root(), g.store, log))
			if err != nil {
				return err
			}
			defer l.Close()
			return printNotifications(cmd.Context(), cmd.OutOrStdout(), l.Subscribe(trap.Filter{DeviceID: device.ID}, 256), g.json)
		},
	}
	cmd.Flags().StringVar(&address, "notifications", "", "receive notifications on `HOST:PORT` (default: :162)")
	return cmd
}

// printNotifications prints notifications until ctx ends, which is not an error.
func printNotifications(ctx context.Context, w io.Writer, s *trap.Subscription, asJSON bool) error {
	for {
		n, err := s.Next(ctx)
		if errors.Is(err, context.Canceled) || errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		if asJSON {
			err = json.NewEncoder(w).Encode(notificationJSON(n))
		} else {
			_, err = fmt.Fprintln(w, notificationText(n))
		}
		if err != nil {
			return err
		}
	}
}

func notificationText(n *trap.Notification) string {
	text := fmt.Sprintf("%s %s %s #%d ", n.Received.Format(time.TimeOnly), n.DeviceID, n.Kind.Name, n.Seq)
	switch n.Kind {
	case mib.NotifyOpAccepted:
		text += fmt.Sprintf("operation %d, %s by %q, %s at most", n.Op.ID, n.Op.Kind, n.Op.Owner, n.Op.TimeLeft)
	case mib.NotifyOpProgress:
		text += fmt.Sprintf("operation %d, %s: %s", n.Op.ID, n.Op.Kind, report.Progress(&n.Op))
	case mib.NotifyOpCompleted:
		text += fmt.Sprintf("operation %d, %s: succeeded after %s", n.Op.ID, n.Op.Kind, n.Op.Elapsed)
	case mib.NotifyOpFailed:
		text += fmt.Sprintf("operation %d, %s: %s while %s: %s", n.Op.ID, n.Op.Kind, n.Op.State, n.Op.Phase, n.Op.Cause.Explain().What)
		if n.Op.Text != "" {
			text += " (" + n.Op.Text + ")"
		}
	case mib.NotifyBankSwitched:
		text += fmt.Sprintf("bank %d: %s", n.Bank.Number, bankText(n.Bank))
	case mib.NotifyRolledBack:
		text += fmt.Sprintf("gave up %s in bank %d: %s; %s runs", n.Bank.Version, n.Bank.Number, n.Bank.Error.Explain().What, manager.SoftwareText(n.Version))
	case mib.NotifyRestarting:
		text += "restarts"
	case mib.NotifyRestarted:
		text += fmt.Sprintf("has restarted (%s, number %d), %s, configuration format %d", n.RestartReason, n.RestartCount, manager.RunsText(n.Version), n.ConfigFormat)
	}
	if n.Missed > 0 {
		text += fmt.Sprintf(" [%d before it were lost]", n.Missed)
	}
	return text
}

// notificationReport is the JSON form of a notification.
type notificationReport struct {
	Time      time.Time         `json:"time"`
	Kind      string            `json:"kind"`
	Device    string            `json:"device"`
	From      string            `json:"from"`
	Seq       uint32            `json:"seq"`
	Missed    uint32            `json:"missed,omitempty"`
	Inform    bool              `json:"inform"`
	Operation *report.Operation `json:"operation,omitempty"`
	Bank      int               `json:"bank,omitempty"`
	Cause     string            `json:"cause,omitempty"` // of what is wrong with the bank
	Text      string            `json:"text,omitempty"`
	Version   string            `json:"version,omitempty"`
}

func notificationJSON(n *trap.Notification) notificationReport {
	r := notificationReport{
		Time: n.Received, Kind: n.Kind.Name, Device: n.DeviceID, From: n.From.String(), Seq: n.Seq, Missed: n.Missed,
		Inform: n.Inform,
		Bank:   n.Bank.Number, Cause: report.CauseName(n.Bank.Error), Text: n.Bank.ErrorText, Version: cmp.Or(n.Version, n.Bank.Version),
	}
	if n.Op.ID != 0 {
		r.Operation = report.NewOperation(&n.Op)
	}
	return r
}
