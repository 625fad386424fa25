package main

import (
	"cmp"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"example.com/iad/agent"
	"example.com/iad/agent/board"
	"example.com/iad/agent/settings"
	"example.com/iad/agent/snmp"
	"example.com/iad/bank"
	"example.com/iad/mib"
)

func statusCommand() *cobra.Command {
	var root, file string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status --root DIR",
		Short: "Show the banks and the last operation, whether the device runs or not",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, s, err := open(root, file)
			if err != nil {
				return err
			}
			st := agent.Peek(c)
			st.Findings = append(st.Findings, c.Findings...)
			if f := s.Finding(); f != "" {
				st.Findings = append(st.Findings, f)
			}
			if asJSON {
				return writeJSON(cmd.OutOrStdout(), s.DeviceID, &st)
			}
			return writeText(cmd.OutOrStdout(), s.DeviceID, &st)
		},
	}
	deviceFlags(cmd, &root, &file)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON document")
	return cmd
}

// floorCommand is for somebody at the device: no command from the network lowers the
// version floor.
func floorCommand() *cobra.Command {
	var root, file, version string
	cmd := &cobra.Command{
		Use:   "floor --root DIR --set VERSION",
		Short: "Set the lowest version that the device accepts; the agent must not be running",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			lock, err := lockDevice(root)
			if err != nil {
				return err
			}
			defer lock.Release()
			c, _, err := open(root, file)
			if err != nil {
				return err
			}
			if err := agent.SetFloor(c, version); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "version floor: %s\n", cmp.Or(version, "none"))
			return nil
		},
	}
	deviceFlags(cmd, &root, &file)
	cmd.Flags().StringVar(&version, "set", "", "version, empty for no floor")
	_ = cmd.MarkFlagRequired("set")
	return cmd
}

func open(root, file string) (agent.Config, *settings.Settings, error) {
	c, _, s, err := openPlatform(root, file)
	return c, s, err
}

func openPlatform(root, file string) (agent.Config, *board.Platform, *settings.Settings, error) {
	if file == "" {
		file = filepath.Join(root, settings.Name)
	}
	s, err := settings.LoadOrGood(root, file)
	if err != nil {
		return agent.Config{}, nil, nil, err
	}
	c, p, err := s.Config(root, version)
	if err != nil {
		return c, p, s, err
	}
	parts, err := s.Root(root)
	if err == nil {
		parts.Use(&c)
	}
	return c, p, s, err
}

func roles(b *bank.Info) []string {
	list := []string{}
	for _, r := range []struct {
		set  bool
		name string
	}{{b.Running, "running"}, {b.Next, "nextBoot"}, {b.Fallback, "fallback"}} {
		if r.set {
			list = append(list, r.name)
		}
	}
	return list
}

func writeText(w io.Writer, id string, st *agent.Status) error {
	started := "never started"
	if st.Restarts != 0 {
		started = fmt.Sprintf("started %d times, the last: %s", st.Restarts, st.Reason)
	}
	fmt.Fprintf(w, "Device %s, %s\n\n", id, started)
	if st.Banks.Running == 0 && st.Restarts != 0 {
		fmt.Fprint(w, "No usable software: rescue mode. Install with: iadms upgrade TARGET --image FILE\n\n")
	}
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "BANK\tVERSION\tSTATE\tROLES\tBYTES\tCONFIG\tTRIES\tNOTE")
	for i := range st.Banks.Banks {
		b := &st.Banks.Banks[i]
		note := b.Text
		fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%d\tformat %d\t%d\t%s\n",
			b.Number, cmp.Or(b.Version, "-"), b.State, cmp.Or(strings.Join(roles(b), ","), "-"), b.Size, b.ConfigFormat, b.TriesLeft, note)
	}
	t.Flush()
	if f := st.Banks.Floor; f != "" {
		fmt.Fprintf(w, "\nNo version below %s is accepted.\n", f)
	}
	if n := st.Banks.Trust; n > 0 {
		fmt.Fprintf(w, "\nSoftware is signed by the keys of trust document %d.\n", n)
	}
	if op := &st.Op; op.ID != 0 {
		fmt.Fprintf(w, "\nOperation %d: %s for %q, %s", op.ID, op.Kind, op.Params.Owner, op.State)
		if op.Text != "" {
			fmt.Fprintf(w, " in phase %s: %s", op.Phase, op.Text)
		}
		fmt.Fprintln(w)
		if remedy := op.Cause.Explain().Remedy; remedy != "" {
			fmt.Fprintf(w, "To do: %s\n", remedy)
		}
	}
	if m := &st.Managed; len(m.Users)+len(m.Targets) > 0 {
		fmt.Fprintln(w, "\nChanged by managers (to return to iad.toml: iad settings revert):")
		if len(m.Users) > 0 {
			fmt.Fprintf(w, "  keys of %s\n", strings.Join(m.Users, ", "))
		}
		for _, t := range m.Targets {
			fmt.Fprintf(w, "  notifications for %s go to %s\n", t.Settings, t.Address)
		}
	}
	for _, f := range st.Findings {
		fmt.Fprintln(w, "Damage:", f)
	}
	return nil
}

// managed is what managers have changed, without any key.
type managed struct {
	Users   []string           `json:"keys_of_users"`
	Targets []snmp.MovedTarget `json:"notification_targets"`
}

type bankJSON struct {
	Number       int        `json:"number"`
	State        string     `json:"state"`
	Roles        []string   `json:"roles"`
	Version      string     `json:"version"`
	ConfigFormat uint32     `json:"config_format"`
	Size         int64      `json:"size"`
	Capacity     int64      `json:"capacity"`
	Digest       string     `json:"manifest_sha256,omitempty"`
	Written      *time.Time `json:"written,omitempty"`
	TriesLeft    int        `json:"tries_left"`
	Generation   uint32     `json:"config_generation"`
	Cause        string     `json:"cause,omitempty"`
	Text         string     `json:"text,omitempty"`
}

// causeName is empty if nothing went wrong.
func causeName(c mib.FailCause) string {
	if c == mib.FailCauseNone || c == 0 {
		return ""
	}
	return c.String()
}

func writeJSON(w io.Writer, id string, st *agent.Status) error {
	type opJSON struct {
		ID      uint32 `json:"id"`
		Kind    string `json:"kind"`
		State   string `json:"state"`
		Phase   string `json:"phase"`
		Owner   string `json:"owner"`
		Cause   string `json:"cause,omitempty"`
		Text    string `json:"text,omitempty"`
		Remedy  string `json:"remedy,omitempty"`
		Attempt uint32 `json:"attempt"`
	}
	out := struct {
		Device   string     `json:"device"`
		Restarts uint32     `json:"restart_count"`
		Reason   string     `json:"restart_reason"`
		Floor    string     `json:"version_floor"`
		Trust    uint32     `json:"trust_serial"`
		Banks    []bankJSON `json:"banks"`
		Op       *opJSON    `json:"operation,omitempty"`
		Managed  managed    `json:"changed_by_managers"`
		Findings []string   `json:"findings"`
	}{Managed: managed{append([]string{}, st.Managed.Users...), append([]snmp.MovedTarget{}, st.Managed.Targets...)}, Device: id, Restarts: st.Restarts, Reason: st.Reason.String(), Floor: st.Banks.Floor, Trust: st.Banks.Trust, Findings: append([]string{}, st.Findings...)}
	if op := &st.Op; op.ID != 0 {
		out.Op = &opJSON{op.ID, op.Kind.String(), op.State.String(), op.Phase.String(), op.Params.Owner, causeName(op.Cause), op.Text, op.Cause.Explain().Remedy, op.Attempt}
	}
	for i := range st.Banks.Banks {
		b := &st.Banks.Banks[i]
		j := bankJSON{b.Number, b.State.String(), roles(b), b.Version, b.ConfigFormat, b.Size, b.Capacity,
			hex.EncodeToString(b.Digest), nil, b.TriesLeft, b.Generation, causeName(b.Cause), b.Text}
		if !b.Written.IsZero() {
			j.Written = &b.Written
		}
		out.Banks = append(out.Banks, j)
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(out)
}
