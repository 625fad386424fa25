package command

import (
	"encoding/hex"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"example.com/iad/cmd/iadms/report"
	"example.com/iad/manager/device"
	"example.com/iad/mib"
)

func newStatus(g *globals) *cobra.Command {
	status := g.onDevice("status", "Show identity, banks, configuration data and operation of a device", func(cmd *cobra.Command, c *device.Client, s *settings, target string) error {
		dev, err := c.Device(cmd.Context())
		if err != nil {
			return err
		}
		g.warnOfIdentity(c, s, target)
		banks, err := c.Banks(cmd.Context())
		if err != nil {
			return err
		}
		op, err := c.Operation(cmd.Context())
		if err != nil {
			return err
		}
		if g.json {
			return report.PrintJSON(cmd.OutOrStdout(), statusJSON(dev, banks, op))
		}
		return printStatus(cmd.OutOrStdout(), dev, banks, op, g.hint("upgrade", target, "--image", "FILE"))
	})
	status.Example += "\n  iadms status 192.0.2.10 --json"
	return status
}

// printStatus prints the state of a device. install is the command that installs software
// on it.
func printStatus(w io.Writer, d *device.Device, banks [2]device.Bank, op *device.Operation, install string) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "device\t%s, %s, hardware %s\n", d.ID, d.Model, d.Hardware)
	if d.Rescue() {
		fmt.Fprintf(t, "software\tno usable software: rescue mode; install with: %s\n", install)
	} else {
		fmt.Fprintf(t, "software\t%s, configuration format %d\n", d.Version, d.ConfigFormat)
	}
	if d.Generation == 0 && d.Rescue() {
		fmt.Fprintf(t, "configuration\tnone in force\n")
	} else if d.Generation == 0 {
		fmt.Fprintf(t, "configuration\tdefaults of the software; no configuration data are in force\n")
	} else {
		fmt.Fprintf(t, "configuration\tgeneration %d, put in force %s\n", d.Generation, timeText(d.ConfigApplied))
	}
	if len(d.ConfigDigest) > 0 {
		fmt.Fprintf(t, "\tSHA-256 %s\n", hex.EncodeToString(d.ConfigDigest))
	}
	switch {
	case d.TrustSerial > 0:
		fmt.Fprintf(t, "signatures\tby the keys of trust document %d\n", d.TrustSerial)
	case d.SignatureRequired:
		fmt.Fprintf(t, "signatures\tby the public keys in the settings of the device\n")
	default:
		fmt.Fprintf(t, "signatures\tnone required\n")
	}
	fmt.Fprintf(t, "restarts\t%d, the last: %s\n", d.RestartCount, d.RestartReason)
	if d.ResetRequired {
		fmt.Fprintf(t, "\ta change takes effect only after a restart\n")
	}
	for _, b := range banks {
		fmt.Fprintf(t, "bank %d\t%s\n", b.Number, bankText(b))
	}
	fmt.Fprintf(t, "operation\t%s\n", operationText(op))
	if op.ConfirmTimeLeft > 0 {
		fmt.Fprintf(t, "trial\tthe software is rolled back in %s unless it is confirmed\n", op.ConfirmTimeLeft)
	}
	return t.Flush()
}

func bankText(b device.Bank) string {
	text := b.State.String()
	if b.Version != "" {
		text += fmt.Sprintf(", %s, configuration format %d, %s", b.Version, b.ConfigFormat, report.Bytes(uint64(b.Size)))
	}
	for _, role := range roleNames(b, "next to boot") {
		text += ", " + role
	}
	if b.TriesLeft > 0 {
		text += fmt.Sprintf(", %d tries left", b.TriesLeft)
	}
	if b.Error != mib.FailCauseNone && b.Error != 0 {
		text += "; " + b.Error.Explain().What
		if b.ErrorText != "" {
			text += " (" + b.ErrorText + ")"
		}
	}
	return text
}

// roleNames are the roles of a bank; next is what the one is called that boots next.
func roleNames(b device.Bank, next string) []string {
	names := []string{}
	for _, role := range []struct {
		has  bool
		name string
	}{{b.Running, "running"}, {b.Next, next}, {b.Fallback, "fallback"}} {
		if role.has {
			names = append(names, role.name)
		}
	}
	return names
}

func operationText(o *device.Operation) string {
	if o.ID == 0 {
		return "none yet"
	}
	text := fmt.Sprintf("%d, %s by %q: %s", o.ID, o.Kind, o.Owner, o.State)
	if !o.Final() {
		return text + ", " + strings.TrimSpace(report.Progress(o)) + fmt.Sprintf(", %s left", o.TimeLeft)
	}
	if o.State != mib.OperationStateSucceeded {
		text += ", " + o.Cause.Explain().What
	}
	if o.Text != "" {
		text += " (" + o.Text + ")"
	}
	return text + fmt.Sprintf(", after %s", o.Elapsed)
}

func timeText(t time.Time) string {
	if t.IsZero() {
		return "at an unknown time"
	}
	return t.Format("2006-01-02 15:04:05 -0700")
}

// statusReport is the JSON form of status.
type statusReport struct {
	Device            string            `json:"device"`
	Model             string            `json:"model"`
	Hardware          string            `json:"hardware"`
	Version           string            `json:"software_version"`
	Rescue            bool              `json:"rescue"`
	ConfigFormat      uint32            `json:"config_format"`
	ConfigGeneration  uint32            `json:"config_generation"`
	ConfigSHA256      string            `json:"config_sha256,omitempty"`
	ConfigApplied     *time.Time        `json:"config_applied,omitempty"`
	ResetRequired     bool              `json:"reset_required"`
	SignatureRequired bool              `json:"signature_required"`
	TrustSerial       uint32            `json:"trust_serial"`
	RestartCount      uint32            `json:"restart_count"`
	RestartReason     string            `json:"restart_reason"`
	Banks             []bankReport      `json:"banks"`
	Operation         *report.Operation `json:"operation,omitempty"`
	ConfirmTimeLeft   float64           `json:"confirm_time_left_s"`
}

type bankReport struct {
	Number       int      `json:"number"`
	State        string   `json:"state"`
	Roles        []string `json:"roles"`
	Version      string   `json:"version"`
	ConfigFormat uint32   `json:"config_format"`
	Size         uint32   `json:"size"`
	Capacity     uint32   `json:"capacity"`
	SHA256       string   `json:"manifest_sha256,omitempty"`
	TriesLeft    uint32   `json:"tries_left"`
	Cause        string   `json:"cause,omitempty"` // of what is wrong with it
	Text         string   `json:"text,omitempty"`
}

func statusJSON(d *device.Device, banks [2]device.Bank, op *device.Operation) statusReport {
	r := statusReport{
		Device: d.ID, Model: d.Model, Hardware: d.Hardware, Version: d.Version, Rescue: d.Rescue(), ConfigFormat: d.ConfigFormat,
		ConfigGeneration: d.Generation, ConfigSHA256: hex.EncodeToString(d.ConfigDigest), ConfigApplied: knownTime(d.ConfigApplied),
		ResetRequired: d.ResetRequired, SignatureRequired: d.SignatureRequired, TrustSerial: d.TrustSerial,
		RestartCount: d.RestartCount, RestartReason: d.RestartReason.String(), ConfirmTimeLeft: op.ConfirmTimeLeft.Seconds(),
	}
	for _, b := range banks {
		r.Banks = append(r.Banks, bankReport{
			Number: b.Number, State: b.State.String(), Roles: roleNames(b, "nextBoot"), Version: b.Version, ConfigFormat: b.ConfigFormat,
			Size: b.Size, Capacity: b.Capacity, SHA256: hex.EncodeToString(b.Digest), TriesLeft: b.TriesLeft,
			Cause: report.CauseName(b.Error), Text: b.ErrorText,
		})
	}
	if op.ID != 0 {
		r.Operation = report.NewOperation(op)
	}
	return r
}

func knownTime(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
